# shellcheck shell=bash disable=SC2154  # shard.sh sets what is not set here
#
# Sourced by shard.sh: shows a fleet, and what is wrong with it.

run_status() {
  local arguments=("$@") names=() i byte text wrong=0 first=
  local -a bytes all=() twice
  local -A of_primary=() of_standby=()

  printf '%-10s %-8s %-28s %-12s %-11s %s\n' '' role buckets sessions 'event ids' server
  for ((i = 1; i <= $#; i++)); do
    names+=("shard $i")
    connect "shard $i" "${arguments[i - 1]}"
    find_extension "shard $i"
    check_server "shard $i"
    show_server "shard $i"
  done

  for i in "${names[@]}"; do
    must "$i" "SELECT pg_is_in_recovery(), current_setting('session_manager.shard')"
    text=${answer#*|}
    # a standby has to hold what its primary does
    if [ "${answer%%|*}" = t ]; then
      of_standby[$i]=$(normal_share "$text")
    else
      of_primary[$(normal_share "$text")]=$i
      parse_share bytes "$text"
      twice=()
      for byte in "${!bytes[@]}"; do
        [ -z "${all[byte]-}" ] || twice[byte]=1
        all[byte]=1
      done
      if [ ${#twice[@]} -gt 0 ]; then
        warn "the $i and others hold the buckets $(format_share twice)"
        wrong=1
      fi
    fi
    [ -n "$first" ] || first=$i
    installation_of "$first"
    text=$answer
    installation_of "$i"
    [ "$answer" = "$text" ] || { warn "the $i has another installation, or other keys, than the $first"; wrong=1; }
    same_settings "$first" "$i" || wrong=1
    keys_are_there "$i" || wrong=1
    must "$i" "SELECT to_regclass('@ext@.session_shard_split') IS NOT NULL"
    [ "$answer" = f ] || { warn "a split of the $i is not finished: run it again"; wrong=1; }
  done
  for i in "${!of_standby[@]}"; do
    [ -n "${of_primary[${of_standby[$i]}]-}" ] ||
      { warn "the $i is a standby with session_manager.shard for ${of_standby[$i]}, which is the share of no primary here"; wrong=1; }
  done
  text=$(format_share all)
  [ "$text" = 0-65535 ] || { warn "nobody holds the buckets $(share_without 0-65535 "$text")"; wrong=1; }
  return $wrong
}

show_server() {
  must "$1" "SELECT CASE WHEN pg_is_in_recovery() THEN 'standby' ELSE 'primary' END,
    current_setting('session_manager.shard'), greatest(reltuples, 0)::bigint,
    (SELECT last_value >> 45 FROM @ext@.session_events_event_id_seq)
    FROM pg_class WHERE oid = '@ext@.user_sessions'::regclass"
  local role buckets sessions range

  IFS='|' read -r role buckets sessions range <<<"$answer"
  printf '%-10s %-8s %-28s about %-6s %-11s %s\n' "$1" "$role" "$(normal_share "$buckets")" "$sessions" "$range * 2^45" "$(shown "${conninfo[$1]}")"
}

installation_of() {
  must "$1" "SELECT installation_id, (SELECT string_agg(key_id || state, ',' ORDER BY key_id) FROM @ext@.session_keys) FROM @ext@.session_installation"
}
