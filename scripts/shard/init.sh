# shellcheck shell=bash disable=SC2154  # shard.sh sets what is not set here
#
# Sourced by shard.sh: makes servers the shards of one installation.  What is
# so already stays as it is, so that it can be run again at any time.

run_init() {
  local arguments=("$@") names=() i failures=0
  local -A share=()

  for ((i = 1; i <= $#; i++)); do
    names+=("shard $i")
    connect "shard $i" "${arguments[i - 1]}"
  done
  for i in "${names[@]}"; do
    prepare_extension "$i"
  done
  give_installation "${names[@]}"

  for i in "${names[@]:1}"; do
    same_settings "${names[0]}" "$i" || failures=1
  done
  for i in "${names[@]}"; do
    keys_are_there "$i" || failures=1
  done
  [ $failures -eq 0 ] || die "no share has been set: put that right, and run init again"

  choose_shares "${names[@]}"
  for i in "${names[@]}"; do
    holds_only "$i" "${share[$i]}" || failures=1
  done
  [ $failures -eq 0 ] || die "no share has been set: give sessions away with split instead"
  for i in "${names[@]}"; do
    number_events "$i" "${share[$i]}"
    must "$i" "SHOW session_manager.shard"
    if [ -z "$answer" ] || [ "$(normal_share "$answer")" != "${share[$i]}" ]; then
      configure "$i" session_manager.shard "${share[$i]}"
    fi
    say "$i holds ${share[$i]}: $(shown "${conninfo[$i]}")"
  done
  say 'grant the functions on every shard: SELECT session_grant(...)'
}

# The extension, in a database in which it may be missing.
prepare_extension() {
  must "$1" "SELECT pg_is_in_recovery()"
  [ "$answer" = f ] || die "the $1 is a standby"
  # into the schema that it would be made in by hand
  must "$1" "RESET search_path"
  must "$1" "CREATE EXTENSION IF NOT EXISTS session_manager CASCADE"
  find_extension "$1"
  check_server "$1"
}

# Give every server the installation and the keys of the first one, which
# makes them if there are none.  It must be before they are used: an
# installation that has sealed anything cannot change.
give_installation() {
  local first=$1 name installation keys

  must "$first" "SELECT count(*) FROM @ext@.session_installation"
  if [ "$answer" = 0 ]; then
    if ! ask "$first" "SELECT @ext@.session_key_add(1)"; then
      must "$first" "SELECT @ext@.session_key_generate()"
      say "the $first has made key $answer: copy its key file to the other servers"
    fi
  fi
  must "$first" "SELECT row_to_json(i) FROM @ext@.session_installation AS i"
  installation=$answer
  must "$first" "SELECT json_agg(k ORDER BY key_id) FROM @ext@.session_keys AS k"
  keys=${answer//$'\n'/}

  for name in "${@:2}"; do
    must "$name" "SELECT row_to_json(i) FROM @ext@.session_installation AS i"
    if [ -z "$answer" ]; then
      # one transaction: workers begin when they see the row
      must "$name" "DO \$\$ BEGIN
        INSERT INTO @ext@.session_keys SELECT * FROM json_populate_recordset(NULL::@ext@.session_keys, $(literal "$keys"));
        INSERT INTO @ext@.session_installation SELECT * FROM json_populate_record(NULL::@ext@.session_installation, $(literal "$installation"));
        END \$\$"
      say "the $name has the installation of the $first"
    elif [ "$answer" != "$installation" ]; then
      must "$name" "SELECT count(*) FROM @ext@.user_sessions"
      die "the $name has an installation of its own, with $answer sessions: if it is not needed, DROP EXTENSION session_manager there, and run init again"
    fi
    same_keys "$first" "$name"
  done
}

# The states of keys change on each server by itself, by session_key_activate
# and the like; they must be the same again.
same_keys() {
  local keys="SELECT string_agg(key_id || ' ' || state || ' ' || coalesce(encode(check_value, 'hex'), '-'), ',' ORDER BY key_id) FROM @ext@.session_keys"
  local expected

  must "$1" "$keys"
  expected=$answer
  must "$2" "$keys"
  [ "$answer" = "$expected" ] ||
    die "the keys of the $2 are not in the states of those of the $1: call session_key_add, session_key_activate and so on there as well"
}

# Complain of keys that a server's key file does not have.
keys_are_there() {
  local ids

  must "$1" "SELECT string_agg(key_id::text, ', ') FROM @ext@.session_keys() WHERE NOT available AND state NOT IN ('retired', 'revoked')"
  if [ -n "$answer" ]; then
    ids=$answer
    must "$1" "SELECT value FROM @ext@.session_info() WHERE key = 'key_file'"
    warn "the $1 lacks the keys $ids, copy the key file to it; now: $answer"
    return 1
  fi
}

# What each server is to hold: equal parts, unless all are told something else
# already and together hold every bucket once.  (A run that was interrupted has
# told some of them.)
choose_shares() {
  local name i=0 equal='' untold='' other=''
  local -a all=()

  for name in "$@"; do
    i=$((i + 1))
    must "$name" "SHOW session_manager.shard"
    share[$name]=$(normal_share "${answer:-none}") || exit
    [ -n "$answer" ] || untold=$name
    # what a client finds by floor(bucket * shards / 65536)
    if [ $((256 % $#)) -eq 0 ]; then
      equal=$(normal_share "$i/$#")
      if [ -z "$answer" ]; then
        share[$name]=$equal
      fi
    fi
    [ "${share[$name]}" = "$equal" ] || other=$name
    [ "${share[$name]}" = none ] || all+=("${share[$name]}")
  done
  if [ -n "$untold" ] && [ -n "$other" ]; then
    [ $((256 % $#)) -eq 0 ] ||
      die "$# shards cannot have equal parts of the buckets that begin at multiples of 256: take a power of two, or set session_manager.shard on each of them yourself"
    die "the $untold has no share, but the $other has one that is not one of $# equal parts: set session_manager.shard on all of them, or on none"
  fi
  all=("$(IFS=,; printf '%s' "${all[*]}")")
  all=("$(normal_share "${all[0]}")") || exit
  [ "${all[0]}" = 0-65535 ] || die "together the shards hold the buckets ${all[0]}, not 0-65535"
}

# Complain of sessions that a server could not serve.
holds_only() {
  must "$1" "SELECT count(*) FROM @ext@.user_sessions WHERE NOT $(in_share 'get_byte(uuid_send(session_id), 14)' "$2")"
  if [ "$answer" != 0 ]; then
    warn "the $1 has $answer sessions outside of $2"
    return 1
  fi
}
