# shellcheck shell=bash disable=SC2154,SC2034  # shard.sh sets what is not set here, and reads what is not read
#
# Sourced by shard.sh: gives a part of a shard's buckets to a standby of it,
# which is promoted.
#
# Where a split stands is what the servers say: each step looks whether it has
# been done.  Beside that there is a row on the source, which the target has as
# well because it is a standby: what is given, and what has to be put back.  It
# says "opening" from before the target may hold anything, so until then the
# split can be undone even if nobody knows what became of the target.
#
# No session is lost and none revived, because nothing of the given part is
# written on the source when the target has replayed all of it, and the target
# holds nothing before it is told so, after its promotion.

run_split() {
  local given='' kept='' held='' state='' databases=''

  connect source "$1"
  connect target "$2"
  find_extension source
  check_server source
  take_lock
  must target "SELECT pg_is_in_recovery()"
  [ "$answer" = t ] || [ "$answer" = f ] || die "the target does not answer"
  find_extension target

  must source "SELECT pg_is_in_recovery()"
  [ "$answer" = f ] || die "the source is a standby"
  read_plan
  if [ -n "$state" ]; then
    check_plan
  elif already_done; then
    say "nothing to do: the target holds $given already"
    return
  else
    make_plan
  fi
  if [ "$dry_run" = yes ]; then
    describe
    return
  fi

  must target "SELECT pg_is_in_recovery()"
  if [ "$answer" = t ]; then
    cut_over
  fi
  target_takes_over
  step switch "clients are told that the target holds $given"
  switch_map "$1" "$2"
  target_maintains
  clean source "$given" no
  clean target "$kept" yes
  step finish "the plan is removed"
  finish
  say "done: the source holds $kept, the target $given"
}

# One split of a server at a time, for as long as this connection lives.
take_lock() {
  must source "SELECT pg_try_advisory_lock(hashtext('session_shard_split'))"
  [ "$answer" = t ] || die "another run of this script works on the source"
}

# What the source says of a split that has begun.
read_plan() {
  state=
  must source "SELECT to_regclass('@ext@.session_shard_split') IS NOT NULL"
  [ "$answer" = t ] || return 0
  must source "SELECT state, given, kept, held, coalesce(databases, '-') FROM @ext@.session_shard_split"
  IFS='|' read -r state given kept held databases <<<"$answer"
}

# That a split has begun, and that it is this one.
check_plan() {
  say "going on with the split that has begun: the target is to hold $given"
  [ -z "$give" ] || [ "$(normal_share "$give")" = "$given" ] ||
    die "a split that gives $given has begun: finish it first, or undo it with --undo"
  same_system
  must target "SELECT to_regclass('@ext@.session_shard_split') IS NOT NULL, pg_is_in_recovery()"
  case $answer in
    'f|f')
      # the last step has begun
      target_holds "$given" || die "the target is no standby of the source, nor has it been promoted in this split" ;;
  esac
}

# Has this split been made before, and finished?
already_done() {
  must target "SELECT pg_is_in_recovery()"
  [ "$answer" = f ] || return 1
  same_system
  must target "SELECT to_regclass('@ext@.session_shard_split') IS NOT NULL, current_setting('session_manager.shard')"
  [ "${answer%%|*}" = f ] || die "the target has been promoted in a split that has been undone: make it a standby again, with pg_basebackup"
  given=$(normal_share "${answer#*|}")
  must source "SHOW session_manager.shard"
  kept=$(normal_share "$answer")
  if [ "$given" = none ] || [ -n "$(common_bytes "$given" "$kept")" ] ||
    { [ -n "$give" ] && [ "$(normal_share "$give")" != "$given" ]; }; then
    die "the target is no standby: make one of the source with pg_basebackup -R"
  fi
}

# The target was made of the source.
same_system() {
  local system

  must source "SELECT system_identifier FROM pg_control_system()"
  system=$answer
  must target "SELECT system_identifier FROM pg_control_system()"
  [ "$answer" = "$system" ] || die "the target has not been made from the source, by pg_basebackup"
}

# Check everything that could go wrong later, and choose what to give.
make_plan() {
  must source "SHOW session_manager.shard"
  held=$(normal_share "$answer") || exit
  [ "$held" != none ] || die "the source holds no buckets"
  if [ -n "$give" ]; then
    given=$(normal_share "$give") || exit
  else
    given=$(upper_half "$held")
  fi
  [ "$given" != none ] || die "there is nothing to give: the source holds $held"
  kept=$(share_without "$held" "$given") || die "the source does not hold all of $given, but $held"
  [ "$kept" != none ] || die "the source would hold nothing any more: to replace a server, promote its standby without a split"

  same_system
  check_server target
  same_settings source target || die "the target must have the same settings"
  keys_are_there target || die "put the key file in place first"
  check_standby
  check_transactions
}

# That the target follows the source, and nobody waits for it.
check_standby() {
  local name

  # (one that has just been started may take a moment)
  wait_for_target 10 "SELECT EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming')" ||
    die "the target does not receive the source's WAL: see its log"
  must target "SELECT pg_is_wal_replay_paused() OR current_setting('recovery_min_apply_delay') <> '0'"
  [ "$answer" = f ] || die "the target pauses or delays replay"
  must target "SELECT current_setting('synchronous_standby_names') <> '' AND NOT EXISTS (SELECT FROM pg_stat_replication)"
  [ "$answer" = f ] || die "once promoted, the target would wait for standbys that it does not have: set synchronous_standby_names to '' there"
  # as the walreceiver names itself
  must target "SELECT coalesce(substring(conninfo FROM 'application_name=(\\S+)'), nullif(current_setting('cluster_name'), ''), 'walreceiver') FROM pg_stat_wal_receiver"
  name=$answer
  must source "SELECT count(*) FROM pg_stat_replication WHERE application_name = $(literal "$name") AND sync_state IN ('sync', 'quorum')"
  [ "$answer" = 0 ] || die "the source waits for the target when it commits: take $name out of synchronous_standby_names first"
}

# That nothing is open which would hold the cut-over up.
check_transactions() {
  must source "SELECT string_agg(format('process %s (%s) since %s', pid, usename, date_trunc('second', xact_start)), ', ') FROM pg_stat_activity
    WHERE datname = current_database() AND xact_start < clock_timestamp() - interval '$wait_seconds s' AND backend_type = 'client backend'"
  [ -z "$answer" ] || die "transactions are open for more than $wait_seconds s: end them first:" "$answer"
  must source "SELECT string_agg(gid, ', ') FROM pg_prepared_xacts WHERE database = current_database()"
  [ -z "$answer" ] || die "transactions are prepared: end them first:" "$answer"
}

# What would be done.
describe() {
  must source "SELECT count(*), count(*) FILTER (WHERE $(in_share 'get_byte(uuid_send(session_id), 14)' "$given")) FROM @ext@.user_sessions"
  cat <<EOT
the source holds $held, with ${answer%|*} sessions; the target is to hold $given, with ${answer#*|} of them
These are the steps. From narrow to switch, users of $given wait:
  plan      record the split on the source, in table ${schema[source]}.session_shard_split
  prepare   the target's session_manager.shard = 'none', and no workers there
  narrow    the source's session_manager.shard = '$kept'
  drain     wait at most $wait_seconds s for what is under way on the source; else the source takes $given back
  replay    wait at most $wait_seconds s until the target has all of it; else the same
  promote   the target
  open      number the target's events apart; its session_manager.shard = '$given'
  switch    ${on_switch:-nothing: the map of the clients has to be changed by hand}; then the target's workers begin
  clean     delete sessions and events of $given on the source, of $kept on the target
  finish    remove the plan
EOT
}

# From the plan to the promotion.  Failing before it takes everything back.
cut_over() {
  if [ -z "$state" ]; then
    step plan "the target is to hold $given, the source keeps $kept"
    record_plan
  fi
  wait_for_target 60 "SELECT EXISTS (SELECT FROM pg_class WHERE relname = 'session_shard_split' AND relnamespace = $(literal "${schema[source]}")::regnamespace)" ||
    die "the target has not received the plan for 60 s: is it a standby of the source?"
  must target "SELECT count(*) FROM @ext@.session_shard_split WHERE given = $(literal "$given")"
  [ "$answer" = 1 ] || die "the target has the plan of another split"

  step prepare "the target is to hold nothing when it is promoted"
  configure target session_manager.databases template0
  configure target session_manager.shard none

  undo_at_failure=yes
  step narrow "the source holds $kept from now on; users of $given wait"
  configure source session_manager.shard "$kept"
  number_events source "$kept"
  step drain "what is under way on the source ends"
  if ! drain source "$kept"; then
    blockers source
    die "what is under way on the source has not come to an end:" "$failure"
  fi
  step replay "the target replays the rest"
  wait_for_target "$wait_seconds" "SELECT pg_last_wal_replay_lsn() >= '$end_of_wal'" ||
    die "the target has not replayed the source's last changes within $wait_seconds s"
  undo_at_failure=no

  step promote "the target becomes a primary"
  must target "SELECT pg_promote(true, 60)"
  [ "$answer" = t ] || die "the target has not been promoted within 60 s: see its log, and run this again"
}

record_plan() {
  # what a split that has been undone has left there is nothing to put back
  must target "SELECT setting FROM pg_file_settings WHERE name = 'session_manager.databases' AND sourcefile ~ 'postgresql\\.auto\\.conf$' ORDER BY seqno DESC LIMIT 1"
  must source "BEGIN; CREATE TABLE @ext@.session_shard_split AS SELECT 'begun'::text AS state, $(literal "$given")::text AS given, $(literal "$kept")::text AS kept,
    $(literal "$held")::text AS held, nullif(nullif($(literal "$answer"), ''), 'template0')::text AS databases, now() AS begun_at;
    REVOKE ALL ON @ext@.session_shard_split FROM PUBLIC; COMMIT"
  must source "COMMENT ON TABLE @ext@.session_shard_split IS 'the split of this shard that scripts/shard.sh has begun and not finished'"
  read_plan
}

# Ask the target until it says yes.
wait_for_target() {
  local tries

  for ((tries = 0; tries < $1 * 50; tries++)); do
    must target "$2"
    [ "$answer" != t ] || return 0
    sleep 0.02
  done
  return 1
}

# After the promotion: the target's events, and its share.
target_takes_over() {
  find_extension target
  ! target_holds "$given" || return 0
  step open "the target holds $given from now on"
  must source "UPDATE @ext@.session_shard_split SET state = 'opening'"
  number_events target "$given"
  configure target session_manager.shard "$given"
}

# The target's workers begin.
target_maintains() {
  must target "SHOW session_manager.databases"
  [ "$answer" = template0 ] || return 0
  if [ "$databases" = - ]; then
    configure target session_manager.databases
  else
    configure target session_manager.databases "$databases"
  fi
}

target_holds() {
  must target "SHOW session_manager.shard"
  [ "$(normal_share "$answer")" = "$1" ]
}

switch_map() {
  if [ -z "$on_switch" ]; then
    say "change the map of the clients now: the buckets $given are on $(shown "$2")"
    return
  fi
  bash -c "$on_switch \"\$@\"" on-switch "$given" "$1" "$2" ||
    die "the command of --on-switch has failed: users of $given wait until it succeeds; run this again"
}

# Take a split back whose target has not been told to hold anything.
run_undo() {
  local given='' kept='' held='' state='' databases=''

  connect source "$1"
  find_extension source
  take_lock
  read_plan
  [ -n "$state" ] || die "no split of the source has begun"
  [ "$state" = begun ] || die "the target holds $given already: run split again to finish it"
  undo
}

# The source holds again what it held; the target cannot have taken any of it.
# The target is left as it is: a promotion that has been asked for may still
# come, and must find that it holds nothing.
undo() {
  step undo "the source holds $held again"
  configure source session_manager.shard "$held"
  must source "DROP TABLE @ext@.session_shard_split"
  [ "$databases" = - ] || databases="'$databases'"
  say "the target still has session_manager.shard = 'none' and session_manager.databases = 'template0' (before: ${databases/#-/unset}): run split again, or put both back if it is to stay a standby"
}

finish() {
  local slot

  must source "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
  [ "$answer" = 0 ] || say "the source has $answer other standbys: ALTER SYSTEM SET session_manager.shard = '$kept' on each of them"

  must target "SHOW primary_slot_name"
  slot=$answer
  must target "DROP TABLE IF EXISTS @ext@.session_shard_split"
  must source "DROP TABLE IF EXISTS @ext@.session_shard_split"
  [ -n "$slot" ] || return 0
  must source "SELECT count(*) FROM pg_replication_slots WHERE slot_name = $(literal "$slot") AND NOT active"
  [ "$answer" = 0 ] || say "drop the target's replication slot on the source, which keeps WAL: SELECT pg_drop_replication_slot($(literal "$slot"))"
}

# The bytes that two shares have in common.
common_bytes() {
  local -a a b
  local byte

  parse_share a "$1"
  parse_share b "$2"
  for byte in "${!a[@]}"; do
    [ -z "${b[byte]-}" ] || printf '%s ' "$byte"
  done
}
