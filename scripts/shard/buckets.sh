# shellcheck shell=bash disable=SC2034  # shares are arrays that functions fill by name
#
# Sourced by shard.sh: shares of the buckets.  A share is an array of the 256
# high bytes of buckets that it has: servers that are filled from each other are
# told apart by byte 14 of a session's id.

# Parse the value of session_manager.shard into the array that is named.
parse_share() {
  local -n parsed_share=$1
  local text=$2 list element first last byte

  parsed_share=()
  case $text in
    none) return ;;
    '') text=1/1 ;;
  esac
  IFS=, read -r -a list <<<"$text"
  for element in "${list[@]}"; do
    element=${element// /}
    if [[ $element =~ ^([0-9]{1,5})/([0-9]{1,5})$ ]] && [ $((10#${BASH_REMATCH[2]})) -gt 0 ]; then
      # the buckets for which floor(bucket * parts / 65536) + 1 is the part
      first=$((((10#${BASH_REMATCH[1]} - 1) * 65536 + 10#${BASH_REMATCH[2]} - 1) / 10#${BASH_REMATCH[2]}))
      last=$(((10#${BASH_REMATCH[1]} * 65536 + 10#${BASH_REMATCH[2]} - 1) / 10#${BASH_REMATCH[2]} - 1))
    elif [[ $element =~ ^([0-9]{1,5})-([0-9]{1,5})$ ]]; then
      first=$((10#${BASH_REMATCH[1]}))
      last=$((10#${BASH_REMATCH[2]}))
    else
      die "\"$element\" is not a share: write part/parts, such as 1/4, or first-last bucket, such as 0-16383, or a list of these"
    fi
    if [ "$first" -lt 0 ] || [ "$first" -gt "$last" ] || [ "$last" -gt 65535 ]; then
      die "\"$element\" is not a share of the buckets 0 to 65535"
    fi
    if [ $((first % 256)) -ne 0 ] || [ $((last % 256)) -ne 255 ]; then
      die "\"$element\" is the buckets $first to $last: shares must begin at a multiple of 256 and end before one"
    fi
    for ((byte = first / 256; byte <= last / 256; byte++)); do
      [ -z "${parsed_share[byte]-}" ] || die "bucket $((byte * 256)) is twice in \"$text\""
      parsed_share[byte]=1
    done
  done
}

# Print a share as a list of first-last bucket, or "none".
format_share() {
  local -n formatted_share=$1
  local byte first='' text=''

  for ((byte = 0; byte <= 256; byte++)); do
    if [ -n "${formatted_share[byte]-}" ]; then
      first=${first:-$byte}
    elif [ -n "$first" ]; then
      text+=,$((first * 256))-$((byte * 256 - 1))
      first=''
    fi
  done
  text=${text#,}
  printf '%s\n' "${text:-none}"
}

# A value of session_manager.shard in the form that format_share prints.
normal_share() {
  local -a normal

  parse_share normal "$1"
  format_share normal
}

# The upper half of a share.
upper_half() {
  local -a all upper=()
  local byte taken=0

  parse_share all "$1"
  for byte in "${!all[@]}"; do
    taken=$((taken + 1))
    [ "$taken" -le $((${#all[@]} / 2)) ] || upper[byte]=1
  done
  format_share upper
}

# What remains of a share without another; fails unless the whole has it all.
share_without() {
  local -a minuend subtrahend
  local byte

  parse_share minuend "$1"
  parse_share subtrahend "$2"
  for byte in "${!subtrahend[@]}"; do
    [ -n "${minuend[byte]-}" ] || return 1
    unset "minuend[$byte]"
  done
  format_share minuend
}

# An SQL condition that an expression, the high byte of a bucket, is in a share.
in_share() {
  local expression=$1 text=$2 sql='' range list

  if [ "$text" = none ]; then
    printf 'false\n'
    return
  fi
  IFS=, read -r -a list <<<"$text"
  for range in "${list[@]}"; do
    sql+=" OR $expression BETWEEN $((${range%-*} / 256)) AND $((${range#*-} / 256))"
  done
  printf '(%s)\n' "${sql# OR }"
}
