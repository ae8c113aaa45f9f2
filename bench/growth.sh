#!/bin/bash
#
# Measure how costs grow with the number of sessions, and what a day of traffic
# does to the size of the table.
#
#   bench/growth.sh [--quick] [--write]
#
# The smallest number of sessions and each larger one take turns, in a database
# each on one private server, with a cache that holds what is read, and with one
# of a tenth of the tables.  Each row is printed when its step is done.  A step
# that fails, or takes longer than STEP_MINUTES, is a row that says so, and makes
# the run fail; the other steps go on.  --quick takes small tables and a day of a
# minute; --write puts the figures into docs/benchmarks.md and two pictures
# beside it.
#
# From the environment:
#   SIZES           numbers of sessions, the smallest first  10000 100000 1000000 10000000;
#                   empty for the day alone
#   SHARED_BUFFERS  the cache that holds what is read        half of the memory
#   READ            sessions that are read from it, at most  300000
#   ROUNDS          turns of each comparison                 10; 4 without the cache
#   EXPIRED         expired sessions of each cleanup         50000
#   DAY_MINUTES     minutes that the day lasts               24; 0 for none
#   DAY_SESSIONS    sessions of the day                      100000
#   STEP_MINUTES    minutes that a step may take             60
#
# The largest number needs 5 GB for each million of sessions in TMPDIR, or else in /tmp.

set -euo pipefail

# shellcheck source=bench/steps.sh
. "$(dirname "$0")/steps.sh"

quick=no
write=no
for argument in "$@"; do
  case $argument in
    --quick) quick=yes ;;
    --write) write=yes ;;
    *) die "unknown argument $argument; see the head of $0" ;;
  esac
done
slices=24
if [ $quick = yes ]; then
  : "${SIZES=2000 20000}" "${ROUNDS:=2}" "${EXPIRED:=5000}" "${DAY_MINUTES:=1}" "${DAY_SESSIONS:=5000}"
  : "${SHARED_BUFFERS:=512MB}"
  slices=12
fi
: "${SIZES=10000 100000 1000000 10000000}" "${READ:=300000}" "${ROUNDS:=10}" "${EXPIRED:=50000}"
: "${DAY_MINUTES:=24}" "${DAY_SESSIONS:=100000}" "${STEP_MINUTES:=60}"
: "${SHARED_BUFFERS:=$(awk '/^MemTotal:/ { print int($2 / 2048) }' /proc/meminfo)MB}"
read -ra sizes <<<"$SIZES"
[ ${#sizes[@]} -ne 1 ] || die "SIZES must be two numbers or more, or empty"
base=${sizes[0]-}
calls=$([ $quick = yes ] && echo 20 || echo 200)
uncached_rounds=$((ROUNDS < 4 ? ROUNDS : 4))

# Every so many sessions of a table of $1 are read with a cache that holds them.
every() {
  printf '%s\n' $((($1 + READ - 1) / READ))
}

# BUFFERS FULL_PAGE_WRITES
restart_main() {
  as_owner "$bindir/pg_ctl" -D "$work/main/data" -l "$work/main/log" -m fast -s -w \
    -o "-c shared_buffers=$1 -c full_page_writes=$2" restart
}

# CACHE SIZE: start the server with that cache, and fill it.  The number of images of
# whole pages would depend on the last checkpoint; the bare tables have them too.
restart() {
  local buffers=$SHARED_BUFFERS

  database=size_$2
  [ "$1" = cached ] ||
    # a tenth of both tables, but no less than a server can work with
    buffers=$(sql -c "SELECT greatest((pg_total_relation_size('user_sessions') +
	pg_total_relation_size('bench.session')) / 10 / 1024, 2048) || 'kB'")
  restart_main "$buffers" off
  if [ "$1" = cached ]; then
    sql -c "CALL bench.warm($(every "$2"))"
  else
    sql -c "CALL bench.occupy()"
  fi
}

# PROCEDURE SIZE CHUNK: call it for all sessions, on two connections.
on_two_connections() {
  local half=$((($2 + 1) / 2)) jobs=() from job

  for from in 1 $((half + 1)); do
    chunks "$1" "$from" $((from == 1 ? half : $2)) "$3" &
    jobs+=($!)
  done
  for job in "${jobs[@]}"; do
    wait "$job"
  done
  printf '\n' >&2
}

chunks() {
  local from

  for ((from = $2; from <= $3; from += $4)); do
    sql -c "SET synchronous_commit = off" \
      -c "CALL $1($from, $((from + $4 - 1 < $3 ? from + $4 - 1 : $3)))"
    [ "$2" -gt 1 ] || printf '\r%3d %%' $((from + $4 > $3 ? 100 : (from + $4) * 100 / $3)) >&2
  done
}

step_fill() {
  local n=$1 start

  database=postgres
  restart_main "$SHARED_BUFFERS" on
  sql -c "CREATE DATABASE size_$n"
  database=size_$n
  # (a cleanup makes the partitions of session_events)
  sql -c "SET client_min_messages = warning" -c "CREATE EXTENSION session_manager CASCADE" \
    -c "SELECT FROM session_key_generate(), session_cleanup()" >/dev/null
  sql -f "$work/tree/bench/peers.sql" -f "$work/tree/bench/growth.sql" -f "$work/tree/bench/cleanup.sql"
  start=$EPOCHREALTIME
  on_two_connections bench.login "$n" 50000
  printf 'fill\t%s\t%s\n' "$n" "$(awk "BEGIN { print $n / ($EPOCHREALTIME - $start) }")" >>"$work/results/counts"

  say "copying them into the bare tables"
  sql -c "ANALYZE"
  on_two_connections bench.copy_sessions "$n" 50000
  sql -c "SET synchronous_commit = off" -c "INSERT INTO bench.event SELECT * FROM session_events" \
    -c "CALL bench.compare($((n / 1000)))" -c "VACUUM (ANALYZE)" -c "CHECKPOINT"
  sql -F "$(printf '\t')" -c "SELECT 'bytes', $n, (pg_table_size(t) + pg_indexes_size(t)) / $n::float8,
	pg_table_size(t) / $n::float8
	FROM unnest('{user_sessions, bench.session}'::regclass[]) t" >>"$work/results/counts"
  sql -c "COPY (SELECT digest FROM bench.token ORDER BY i) TO '$work/run/$n.uncached.digests'" \
    -c "COPY (SELECT session_id FROM bench.token ORDER BY i) TO '$work/run/$n.uncached.ids'" \
    -c "COPY (SELECT digest FROM bench.token WHERE i % $(every "$n") = 0) TO '$work/run/$n.cached.digests'" \
    -c "COPY (SELECT session_id FROM bench.token WHERE i % $(every "$n") = 0) TO '$work/run/$n.cached.ids'"
}

# STEP CACHE SIZE: a round of measure_STEP with few sessions, then with that many, and so on.
in_turns() {
  local round size rounds=$ROUNDS

  if [ "$2" = cached ]; then
    restart cached "$3"
    database=size_$base
    sql -c "CALL bench.warm(1)"
  else
    rounds=$uncached_rounds
  fi
  for ((round = 0; round < rounds; round++)); do
    for size in "$base" "$3"; do
      [ "$2" = cached ] || restart uncached "$size"
      database=size_$size
      "measure_$1" "$2" "$size" "$1:$2:$3:$size"
    done
    printf '\r%3d %%' $(((round + 1) * 100 / rounds)) >&2
  done
  printf '\n' >&2
}

measure_get() {
  driver blocks -l "$3" -i "$round" -r 1 -b 50 -n "$calls" \
    session_get "$statements/get.sql" "$work/run/$2.$1.digests" \
    bare "$statements/get_bare.sql" "$work/run/$2.$1.ids"
}

# Users log in again whose sessions the cache holds.
measure_create() {
  logins "$@" "$3" on
  logins "$@" "${3/create/create_off}" off
}

# CACHE SIZE _ LABEL NEW_DEVICE_EVENTS
logins() {
  local logins=$((2 * 20 * calls / 4)) now step=1

  [ "$1" != cached ] || step=$(every "$2")
  now=$(sql -c "SELECT extract(epoch FROM clock_timestamp())")
  sql -c "CREATE TEMP TABLE login AS
	SELECT k, $step * (1 + floor(random() * ($2 / $step)))::bigint AS i FROM generate_series(1, $logins) k" \
    -c "COPY (SELECT bench.user_id(i), bench.data(i), '192.0.2.1', bench.user_agent(), bench.auth(i)
	FROM login ORDER BY k) TO '$work/run/logins.created'" \
    -c "COPY (SELECT bench.uuid7(($now * 1000)::bigint + k, k), bench.user_id(i), '192.0.2.1',
	bench.user_agent(), bench.data(i), bench.auth(i), decode(md5(k::text) || md5((k + 1)::text), 'hex')
	FROM login ORDER BY k) TO '$work/run/logins.bare'"
  options="-c synchronous_commit=off -c session_manager.new_device_events=$5" \
    driver blocks -l "$4" -s -i "$round" -r 1 -b 20 -n $((calls / 4)) \
    session_create "$statements/create.sql" "$work/run/logins.created" \
    bare "$statements/create_pipeline.sql" "$work/run/logins.bare"
  sql -c "SET synchronous_commit = off" -c "CALL bench.forget_since(to_timestamp($now))" \
    -c "VACUUM user_sessions" -c "VACUUM bench.session"
}

measure_cleanup() {
  local table side file

  for side in session_cleanup bare; do
    table=bench.session file=delete_event
    [ $side = bare ] || table=public.user_sessions file=cleanup
    # (all dead entries are removed from the indexes, however few they are among many)
    sql -c "SET synchronous_commit = off" -c "CALL bench.fill('$table', 1, $EXPIRED, true)" \
      -c "VACUUM (INDEX_CLEANUP on) $table"
    options="-c synchronous_commit=off" driver drains -D -l "$3" -i "$round" $side "$statements/$file.sql"
  done
}

step_remove() {
  database=postgres
  sql -c "DROP DATABASE IF EXISTS size_$1"
  rm -f "$work/run/$1."*
}

# Hours and seconds of the simulated day in seconds of this one.
day_setting() {
  awk "BEGIN { s = $1 * $DAY_MINUTES / 1440; print (s < $2 ? $2 : int(s + 0.5)) }"
}

# HOUR: a line of the day's results
day_line() {
  sql -F "$(printf '\t')" -c "SELECT '$1', (SELECT count(*) FROM user_sessions),
	(SELECT count(*) FROM user_sessions WHERE revoked_at IS NOT NULL),
	pg_table_size('user_sessions'), pg_indexes_size('user_sessions'), n_tup_upd, n_tup_hot_upd,
	(SELECT sessions_requeued FROM session_stats WHERE database_name = current_database())
	FROM pg_stat_user_tables WHERE relid = 'user_sessions'::regclass" >>"$work/results/day"
}

step_day() {
  local seconds=$((DAY_MINUTES * 60 / slices)) slice hour rate done=0 log

  [ $seconds -gt 0 ] || die "a day of $DAY_MINUTES minutes is too short"
  server=day database=day options=
  start_server day \
    "shared_preload_libraries = 'session_manager'" \
    "shared_buffers = '1GB'" \
    "max_wal_size = '8GB'" \
    "jit = off" \
    "checkpoint_timeout = '$(day_setting 300 30)s'" \
    "autovacuum_naptime = '$(day_setting 60 1)s'" \
    "autovacuum_vacuum_cost_limit = $(awk "BEGIN { l = int(200 * 1440 / $DAY_MINUTES); print (l > 10000 ? 10000 : l) }")" \
    "session_manager.ttl = '$(day_setting 86400 1)s'" \
    "session_manager.max_lifetime = '$(day_setting 604800 1)s'" \
    "session_manager.touch_interval = '$(day_setting 60 1)s'" \
    "session_manager.rotation_grace = '$(day_setting 30 1)s'" \
    "session_manager.flush_interval = '$(day_setting 10 1)s'" \
    "session_manager.sweep_interval = '$(day_setting 60 1)s'"
  sql -d postgres -c "CREATE DATABASE day"
  sql -c "SET client_min_messages = warning" -c "CREATE EXTENSION session_manager CASCADE" \
    -c "SELECT FROM session_key_generate(), session_cleanup()" >/dev/null
  sql -f "$work/tree/bench/peers.sql" -f "$work/tree/bench/day.sql"
  sql -c "SET synchronous_commit = off" \
    -c "CALL bench.log_in_day_before($DAY_SESSIONS, interval '$((DAY_MINUTES * 60)) s')" -c "ANALYZE"
  day_line 0
  for ((slice = 0; slice < slices; slice++)); do
    hour=$(awk "BEGIN { print 24 * ($slice + 1) / $slices }")
    # each login brings 20 reads, 4 refreshes, half of them with a new token, an update,
    # and every fifth a logout
    rate=$(sql -c "SELECT 26.2 * $DAY_SESSIONS / $seconds *
	(bench.before($hour) - bench.before($hour - 24.0 / $slices))")
    log=$work/run/pgbench
    as_owner "$bindir/pgbench" -h "$work/day" -U postgres -n -M prepared -c 8 -j 2 -T $seconds -R "$rate" \
      -D users=$((DAY_SESSIONS / 2)) -D active=$((DAY_SESSIONS / 3)) \
      -f "$work/tree/bench/day/login.sql@10" -f "$work/tree/bench/day/read.sql@200" \
      -f "$work/tree/bench/day/refresh.sql@20" -f "$work/tree/bench/day/rotate.sql@20" \
      -f "$work/tree/bench/day/update.sql@10" -f "$work/tree/bench/day/logout.sql@2" \
      day >"$log" 2>&1 || { tail -n 3 "$log" >&2; die "pgbench failed"; }
    done=$((done + $(sed -n 's/^number of transactions actually processed: \([0-9]*\).*/\1/p' "$log")))
    day_line "$hour"
    printf '\r%3d %%' $(((slice + 1) * 100 / slices)) >&2
  done
  printf '\n' >&2
  sql -F "$(printf '\t')" -c "SELECT 'day_size', pg_table_size(t), pg_indexes_size(t)
	FROM CAST('user_sessions' AS regclass) t" \
    -c "CALL bench.copy_afresh()" -c "VACUUM bench.fresh" \
    -c "SELECT 'day_fresh', pg_table_size(t), pg_indexes_size(t), (SELECT count(*) FROM bench.fresh)
	FROM CAST('bench.fresh' AS regclass) t" >>"$work/results/counts"
  sql -F "$(printf '\t')" -c "SELECT i.indexrelid::regclass, pg_relation_size(i.indexrelid),
	pg_relation_size(f.indexrelid)
	FROM pg_index i JOIN pg_index f ON f.indrelid = 'bench.fresh'::regclass AND i.indkey::text = f.indkey::text
	WHERE i.indrelid = 'user_sessions'::regclass AND i.indpred IS NULL" >>"$work/results/indexes"
  printf 'day_calls\t%s\t%s\n' $done $((DAY_SESSIONS * 262 / 10)) >>"$work/results/counts"
  stop_server day
}

# What it has left running, or stopped.
after_failure() {
  restart_main "$SHARED_BUFFERS" on
}

# Steps as lines of a weight, about the seconds that it takes, a name and a command.
plan() {
  local n cache step

  [ -z "$base" ] || printf '%s\tfill %s\tstep_fill %s\n' $((3 + base / 8000)) "$base" "$base"
  for n in "${sizes[@]:1}"; do
    printf '%s\tfill %s\tstep_fill %s\n' $((3 + n / 8000)) "$n" "$n"
    for cache in cached uncached; do
      for step in get create cleanup; do
        printf '%s\t%s %s %s\tin_turns %s %s %s\n' $((ROUNDS * 4 + n / 60000)) $step $cache "$n" $step $cache "$n"
      done
    done
    printf '%s\tremove %s\tstep_remove %s\n' 2 "$n" "$n"
  done
  [ "$DAY_MINUTES" -eq 0 ] ||
    printf '%s\tday\tstep_day\n' $((DAY_MINUTES * 60 + 10))
}

# Can a step be taken although some tables, those of $lost, could not be filled?
possible() {
  case $1 in
    day | remove*) ;;
    *) [[ " $lost " != *" $base "* && " $lost " != *" ${1##* } "* ]] ;;
  esac
}

run_plan() {
  local weights=() names=() commands=() weight name command i all=0 past=0 start=$SECONDS left lost=

  while IFS=$'\t' read -r weight name command; do
    weights+=("$weight") names+=("$name") commands+=("$command")
    all=$((all + weight))
  done < <(plan)
  for ((i = 0; i < ${#names[@]}; i++)); do
    name=${names[i]}
    if possible "$name"; then
      left="about $((past == 0 ? all / 60 + 1 : (SECONDS - start) * (all - past) / past / 60 + 1)) min left"
      say "step $((i + 1)) of ${#names[@]}, $name, $left"
      # shellcheck disable=SC2086 # a command and its arguments
      run_step "$name" ${commands[i]}
      [ $step_status -eq 0 ] || [[ $name != fill* ]] || lost+=" ${name#fill }"
    fi
    past=$((past + weights[i]))
    python3 "$root/bench/growth.py" "$work/results" --new
  done
}

build
for size in "${sizes[@]}"; do
  [ "$(df --output=avail "$work" | tail -n 1)" -gt $((size * 5 + 1000000)) ] ||
    die "$size sessions need $((size / 200000 + 1)) GB in $work"
done
touch "$work/results"/{blocks,drains,counts,facts,day,indexes}
# No worker takes away what session_cleanup is to find.
server=main
start_server main \
  "shared_preload_libraries = 'session_manager'" \
  "session_manager.databases = 'none'" \
  "session_manager.touch_interval = '1d'" \
  "max_wal_size = '8GB'" \
  "checkpoint_timeout = '1h'" \
  "wal_buffers = '64MB'" \
  "jit = off"
database=postgres
options=
fact base "${base:-0}"
fact read "$READ"
fact expired "$EXPIRED"
fact shared_buffers "$SHARED_BUFFERS"
fact day_minutes "$DAY_MINUTES"
fact day_sessions "$DAY_SESSIONS"
fact version "$(sql -c "SHOW server_version")"
fact extension "$(sql -c "SELECT default_version FROM pg_available_extensions WHERE name = 'session_manager'")"
fact settings "$(sql -c "SELECT string_agg(name || ' ' || current_setting(name), ', ' ORDER BY name)
	FROM pg_settings WHERE name IN ('fsync', 'jit', 'autovacuum', 'max_wal_size')")"
failed=0
run_plan
stop_server main

folder=()
[ $write = no ] || folder=("$root/docs")
python3 "$root/bench/growth.py" "$work/results" "${folder[@]}"
[ $failed -eq 0 ]
