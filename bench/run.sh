#!/bin/bash
#
# Measure the extension against what a careful developer would write without
# it: both sides in turn, in one run, on one private server.
#
#   bench/run.sh [--quick] [--write] [step ...]
#
# --quick takes smaller tables and fewer calls; --write puts the figures into
# docs/benchmarks.md and docs/bench.svg.  Each row is printed when its step is
# done.  A step that fails, or takes longer than STEP_MINUTES, is a row that
# says so, and makes the run fail; the other steps go on.  Without steps all are
# taken:
#
#   get        session_get against a bare look-up by primary key
#   profile    where the server's time goes in these; needs perf
#   count      session_active_count and _estimate against a bare count(*)
#   create     session_create against bare insertions of the same two rows
#   new_device session_create against itself without the search for new devices
#   refresh    session_refresh against a bare update and its event
#   rotate     the same with a new token
#   update     session_update against a bare update and its event
#   invalidate session_invalidate, and _all with many sessions of a user, against the same
#   bytes      WAL that these calls write, against the same
#   pgcrypto   session_get against the same API in SQL with pgcrypto
#   wal        what reads write
#   clients    reads by eight clients, with and without touches
#   connections  reads by 32 connections against bare look-ups by as many
#   pgbouncer  the same through pgbouncer, in transaction mode
#   cleanup    session_cleanup against bare DELETEs in batches
#   sweep      reads while a worker sweeps the same table
#
# From the environment:
#   SESSIONS        live sessions in the tables           500000
#   ROUNDS          rounds of each comparison             10
#   LIVE            live sessions of the larger cleanup   1000000
#   EXPIRED         expired sessions of each cleanup      100000
#   SWEPT           sessions that expire under readers    1000000
#   SWEEPS          rounds of that                        3
#   OF_ONE          sessions of one user who signs out    100000
#   SHARED_BUFFERS  everything fits                       4GB
#   STEP_MINUTES    minutes that a step may take          15

set -euo pipefail

# shellcheck source=bench/steps.sh
. "$(dirname "$0")/steps.sh"

# in this order, as some use up sessions that others want
all_steps=(get profile count create new_device refresh rotate update invalidate bytes pgcrypto wal clients connections pgbouncer cleanup sweep device)

quick=no
write=no
chosen=
for argument in "$@"; do
  case $argument in
    --quick) quick=yes ;;
    --write) write=yes ;;
    *)
      [[ " ${all_steps[*]} " == *" $argument "* ]] || die "unknown argument $argument; see the head of $0"
      chosen+=" $argument "
      ;;
  esac
done
steps=()
for step in "${all_steps[@]}"; do
  [[ -n $chosen && $chosen != *" $step "* ]] || steps+=("$step")
done
if [ $quick = yes ]; then
  : "${SESSIONS:=50000}" "${ROUNDS:=3}" "${LIVE:=100000}" "${EXPIRED:=10000}" "${SWEPT:=100000}" "${OF_ONE:=10000}"
else
  : "${SESSIONS:=500000}" "${ROUNDS:=10}" "${LIVE:=1000000}" "${EXPIRED:=100000}" "${SWEPT:=1000000}" "${OF_ONE:=100000}"
fi
: "${SHARED_BUFFERS:=4GB}" "${STEP_MINUTES:=15}" "${SWEEPS:=3}"

# of calls that write
write_rounds=$((ROUNDS < 5 ? ROUNDS : 5))

# What a worker holds in memory, and what is refreshed again and again.
busy=$((SESSIONS < 10000 ? SESSIONS : 10000))

# The mean time of a script's last statement, in microseconds
pgbench_latency() {
  as_owner env PGOPTIONS="$options" "$bindir/pgbench" -h "$work/main" -U postgres \
    -n -M prepared -r -f "$work/tree/bench/pgbench/$1.sql" "${@:2}" "$database" 2>&1 |
    awk '/^ +[0-9.]+ / { ms = $1 } END { if (!ms) exit 1; print ms * 1000 }'
}

# LABEL SIDE SCRIPT OPTION ...
pgbench_round() {
  printf '%s\t%s\t%s\t%s\n' "$1" "$round" "$2" "$(pgbench_latency "${@:3}")" >>"$work/results/rounds"
}

updates() {
  sleep 2
  sql -c "SELECT $1 FROM pg_stat_user_tables WHERE relname = '$2'"
}

prepare() {
  [[ " ${steps[*]} " != *" pgbouncer "* ]] || PACKAGES=no "$root/scripts/setup.sh" --tests
  build
  touch "$work/results"/{blocks,drains,rounds,facts}

  # Everything fits into memory and no checkpoint comes in between.  The
  # worker's sweep would take away what session_cleanup is to find.
  server=main
  start_server $server \
    "shared_preload_libraries = 'session_manager'" \
    "session_manager.touch_interval = '1d'" \
    "session_manager.flush_interval = '1h'" \
    "session_manager.sweep_interval = '1d'" \
    "shared_buffers = '$SHARED_BUFFERS'" \
    "max_wal_size = '32GB'" \
    "checkpoint_timeout = '1h'" \
    "wal_buffers = '64MB'" \
    "wal_init_zero = off" \
    "jit = off" \
    "bench.key = 'correct horse battery staple, 32'"
  database=postgres
  options=
}

# The extension with its partitions, which a worker makes, and the peer's tables
create_tables() {
  local waits

  sql -c "SET client_min_messages = warning" \
    -c "CREATE EXTENSION session_manager CASCADE" -c "SELECT session_key_generate()" >/dev/null
  for ((waits = 0; waits < 100; waits++)); do
    [ "$(sql -c "SELECT count(*) > 2 FROM pg_inherits WHERE inhparent = 'session_events'::regclass")" = f ] ||
      break
    sleep 0.2
  done
  sql -f "$work/tree/bench/peers.sql"
}

load() {
  local from

  say "logging in $SESSIONS users"
  create_tables
  for ((from = 1; from <= SESSIONS; from += 50000)); do
    sql -c "SET synchronous_commit = off" \
      -c "CALL bench.login($from, least($from + 49999, $SESSIONS))"
    printf '\r%3d %%' $(((from + 49999 > SESSIONS ? SESSIONS : from + 49999) * 100 / SESSIONS)) >&2
  done
  printf '\n' >&2
  sql -c "ANALYZE" -c "CALL bench.copy_sessions(1, $SESSIONS)" -c "CALL bench.compare(50)" \
    -c "VACUUM (ANALYZE)" -c "CHECKPOINT"
  sql -c "COPY (SELECT digest FROM bench.token ORDER BY i) TO '$work/run/digests'" \
    -c "COPY (SELECT session_id FROM bench.token ORDER BY i) TO '$work/run/ids'" \
    -c "COPY (SELECT digest FROM bench.token WHERE i <= $busy ORDER BY i) TO '$work/run/busy_digests'" \
    -c "COPY (SELECT session_id, user_id FROM bench.token JOIN bench.session USING (session_id)
		WHERE i <= $busy ORDER BY i) TO '$work/run/busy_ids'" \
    -c "COPY (SELECT session_id FROM bench.token WHERE i <= $busy ORDER BY i) TO '$work/run/busy_session_ids'"
  fact user_sessions "$(sql -c "SELECT pg_size_pretty(pg_total_relation_size('user_sessions'))")"
  fact bare "$(sql -c "SELECT pg_size_pretty(pg_total_relation_size('bench.session'))")"
}

step_get() {
  local side

  say "session_get and session_get_json against a bare look-up"
  driver blocks -l get -r "$ROUNDS" -b 50 -n 200 \
    session_get "$statements/get.sql" "$work/run/digests" \
    session_get_json "$statements/get_json.sql" "$work/run/digests" \
    bare "$statements/get_bare.sql" "$work/run/ids"
  driver blocks -l get_pipelined -r "$ROUNDS" -b 50 -n 200 -p 50 \
    session_get "$statements/get.sql" "$work/run/digests" \
    session_get_json "$statements/get_json.sql" "$work/run/digests" \
    bare "$statements/get_bare.sql" "$work/run/ids"
  options="-c session_manager.touch_interval=0" \
    driver blocks -l get_touching -r "$ROUNDS" -b 50 -n 200 \
    session_get "$statements/get.sql" "$work/run/busy_digests" \
    session_get_json "$statements/get_json.sql" "$work/run/busy_digests" \
    bare "$statements/get_bare.sql" "$work/run/busy_ids"
  for ((round = 0; round < ROUNDS; round++)); do
    for side in get get_json get_bare; do
      pgbench_round pgbench_get $side $side -D rows="$SESSIONS" -t 5000
    done
  done
}

# As many sessions that are bound to a device as others, made in turn, which wait
# for nothing but their proofs any more.
step_device() {
  local n=2000
  # RFC 7517, appendix A.1
  local key='{"kty": "EC", "crv": "P-256", "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}'

  say "session_get of sessions that are bound to a device"
  sql -c "SET session_manager.device_proof_lifetime = '1d'" \
    -c "CREATE TABLE bench.bound AS
		SELECT i, session_token_digest(s.session_token) AS unbound,
			session_token_digest(b.session_token || '.' || b.proof) AS bound
		FROM generate_series(1, $n) AS i,
			session_create('unbound ' || i, bench.data(i)) AS s,
			session_create('bound ' || i, bench.data(i)) AS t,
			session_bind_device(t.session_token, '$key', session_device_challenge(t.session_token)) AS b" \
    -c "COPY (SELECT bound FROM bench.bound ORDER BY i) TO '$work/run/bound'" \
    -c "COPY (SELECT unbound FROM bench.bound ORDER BY i) TO '$work/run/unbound'" \
    -c "SELECT pg_sleep(1)" >/dev/null
  options="-c session_manager.device_proof_lifetime=1" \
    driver blocks -l device -r "$ROUNDS" -b 50 -n 200 \
    bound "$statements/get_json.sql" "$work/run/bound" \
    unbound "$statements/get_json.sql" "$work/run/unbound" \
    bound_rows "$statements/get.sql" "$work/run/bound" \
    unbound_rows "$statements/get.sql" "$work/run/unbound"
}

# Of each side, what perf has seen in ten seconds.
step_profile() {
  local side pid parameters loop

  command -v perf >/dev/null || die "perf not found (Debian: linux-perf)"
  say "where the time of a look-up goes"
  touch "$work/results/parts"
  for side in get_bare get get_json; do
    parameters=$work/run/digests
    [ $side != get_bare ] || parameters=$work/run/ids
    driver discarded -r 100 -b 100 -n 200 -p 50 $side "$statements/$side.sql" "$parameters" 2>/dev/null &
    loop=$!
    sleep 1
    pid=$(sql -c "SELECT pid FROM pg_stat_activity WHERE query ~ 'session_get|bench.session' AND pid <> pg_backend_pid()")
    perf record --quiet --call-graph dwarf,8192 --freq 300 --output "$work/perf" --pid "$pid" -- sleep 10 >/dev/null
    sql -c "SELECT pg_terminate_backend($pid)" >/dev/null
    wait $loop || true
    perf script --input "$work/perf" --fields ip,sym 2>/dev/null |
      python3 "$root/bench/parts.py" $side >>"$work/results/parts"
  done
}

# LABEL SIDE STATEMENT: the time that the server takes for it, in microseconds
time_of() {
  printf '%s\t%s\t%s\t%s\n' "$1" "$round" "$2" "$(PGOPTIONS=$options sql -c "EXPLAIN (ANALYZE, TIMING off, FORMAT json) $3" |
    awk '/"Execution Time"/ { print $3 * 1000 }')" >>"$work/results/rounds"
}

step_count() {
  local of_tenant=200
  local bare="SELECT count(*) FROM bench.session
	WHERE revoked_at IS NULL AND expires_at > now() AND absolute_expires_at > now()"

  say "counting sessions"
  sql -c "SELECT count(session_id) FROM generate_series(1, $of_tenant) i, session_create('of tenant ' || i, tenant_id => 'bench')" \
    -c "VACUUM (ANALYZE)" >/dev/null
  for ((round = 0; round < ROUNDS; round++)); do
    time_of count count "SELECT session_active_count()"
    time_of count bare "$bare"
    options="-c max_parallel_workers_per_gather=0" time_of count bare_alone "$bare"
    time_of count estimate "SELECT session_active_estimate()"
    time_of count tenant "SELECT session_active_count('bench')"
  done
  fact estimated "$(sql -c "SELECT round(100 * abs(session_active_estimate() / session_active_count()::numeric - 1), 2)")"
  sql -c "DELETE FROM user_sessions WHERE tenant_id = 'bench'"
}

step_create() {
  local commit side calls k=0
  local rounds=$((ROUNDS < 5 ? ROUNDS : 5))
  local blocks=20

  say "session_create against the same two rows"
  sql -v rows=$(((rounds + 1) * 20 * 60 + 10 * ROUNDS * 1000)) <<'SQL'
INSERT INTO bench.login
SELECT k, bench.user_id(k), '192.0.2.1', bench.user_agent(), bench.data(k), bench.auth(k),
	bench.uuid7((extract(epoch FROM now()) * 1000)::bigint + k / 10, k),
	decode(md5(k::text) || md5((k + 1)::text), 'hex')
FROM generate_series(1, :rows) k;
VACUUM ANALYZE bench.login;
SQL
  for commit in on off; do
    calls=$([ $commit = on ] && echo 10 || echo 50)
    for side in user_id,data,ip,user_agent,auth session_id,user_id,ip,user_agent,data,auth,verifier; do
      sql -c "COPY (SELECT $side FROM bench.login WHERE k > $k ORDER BY k
		LIMIT $(((rounds + 1) * blocks * calls))) TO '$work/run/logins.${side%%,*}'"
    done
    # the two peers may not insert the same ids
    sql -c "COPY (SELECT overlay(session_id::text PLACING 'f' FROM 20)::uuid,
		user_id, ip, user_agent, data, auth, verifier FROM bench.login WHERE k > $k ORDER BY k
		LIMIT $(((rounds + 1) * blocks * calls))) TO '$work/run/logins.other_id'"
    options="-c synchronous_commit=$commit" \
      driver blocks -l "create_$commit" -s -r $rounds -b $blocks -n "$calls" \
      session_create "$statements/create.sql" "$work/run/logins.user_id" \
      bare_cte "$statements/create_cte.sql" "$work/run/logins.session_id" \
      bare_pipeline "$statements/create_pipeline.sql" "$work/run/logins.other_id"
    k=$((k + (rounds + 1) * blocks * calls))
  done
  for ((round = 0; round < ROUNDS; round++)); do
    for side in create create_bare; do
      options="-c synchronous_commit=off" pgbench_round pgbench_create $side $side -D k=$k -t 1000
    done
    k=$((k + 1000))
  done
}

# NAME N LOGINS: so many logins to come of users on either side, each of whom
# has logged in N times from the same client.  With a hundred logins each, the
# users are fewer and log in more often.
familiar_users() {
  local name=$1 n=$2 logins=$3 side

  for side in on off; do
    sql <<SQL
SET synchronous_commit = off;
CREATE TEMP TABLE login AS
SELECT format('$name/$side/%s', i % ($logins / ($n / 10 + 1))) AS user_id, i FROM generate_series(1, $logins) i;
DO \$\$
BEGIN
	FOR k IN 1 .. $n LOOP
		PERFORM session_create(user_id, bench.data(k), ip => '192.0.2.1', user_agent => bench.user_agent(),
			auth => bench.auth(k)) FROM (SELECT DISTINCT user_id FROM login) u;
		COMMIT;
	END LOOP;
END
\$\$;
COPY (SELECT user_id, bench.data(i), '192.0.2.1', bench.user_agent(), bench.auth(i) FROM login ORDER BY i)
	TO '$work/run/$name.$side';
SQL
  done
}

# Users who still have sessions are found among them, others among events.  The
# less a call costs, the more of it is the search: all but two without waiting
# for the disk.
step_new_device() {
  local name blocks=20 calls=10
  local names=(off_sessions_0 {off_sessions,off_events}_{1,10,100} {on_sessions,on_events}_10)

  say "session_create with and without the search for new devices"
  for name in "${names[@]}"; do
    familiar_users "$name" "${name##*_}" $(((ROUNDS + 1) * blocks * calls))
  done
  sql -c "DELETE FROM user_sessions WHERE user_id ~ '^o(n|ff)_events_'" -c "VACUUM (ANALYZE)" -c "CHECKPOINT"
  for name in "${names[@]}"; do
    options="-c synchronous_commit=${name%%_*}" \
      driver blocks -l "new_device_$name" -s -r "$ROUNDS" -b $blocks -n $calls \
      on "$statements/new_device_on.sql" "$work/run/$name.on" \
      off "$statements/new_device_off.sql" "$work/run/$name.off"
  done
}

step_refresh() {
  local side table count=() rounds=$((ROUNDS < 5 ? ROUNDS : 5))

  say "session_refresh against a bare update and its event"
  for table in user_sessions session; do
    count+=("$(updates "n_tup_upd || ' ' || n_tup_hot_upd" $table)")
  done
  options="-c synchronous_commit=on" driver blocks -l refresh_on -r $rounds -b 20 -n 10 \
    session_refresh "$statements/refresh.sql" "$work/run/busy_digests" \
    bare_cte "$statements/refresh_cte.sql" "$work/run/busy_ids" \
    bare_pipeline "$statements/refresh_pipeline.sql" "$work/run/busy_ids"
  options="-c synchronous_commit=off" driver blocks -l refresh_off -r "$ROUNDS" -b 20 -n 100 \
    session_refresh "$statements/refresh.sql" "$work/run/busy_digests" \
    bare_cte "$statements/refresh_cte.sql" "$work/run/busy_ids" \
    bare_pipeline "$statements/refresh_pipeline.sql" "$work/run/busy_ids"
  for table in user_sessions session; do
    count+=("$(updates "n_tup_upd || ' ' || n_tup_hot_upd" $table)")
  done
  # shellcheck disable=SC2086 # two numbers each
  set -- ${count[0]} ${count[2]} ${count[1]} ${count[3]}
  fact refreshed "$(($3 - $1))"
  fact refreshed_hot "$(($4 - $2))"
  fact bare_updated "$(($7 - $5))"
  fact bare_updated_hot "$(($8 - $6))"
  # every call of the driver must have been one update
  [ $(($3 - $1)) -eq $(((rounds + 1) * 20 * 10 + (ROUNDS + 1) * 20 * 100)) ] ||
    die "$(($3 - $1)) updates by session_refresh are not what was asked for"
  for ((round = 0; round < ROUNDS; round++)); do
    for side in refresh refresh_bare; do
      options="-c synchronous_commit=off" \
        pgbench_round pgbench_refresh $side $side -D rows=$busy -t 1000
    done
  done
}

step_update() {
  local commit

  say "session_update against a bare update and its event"
  for commit in on off; do
    options="-c synchronous_commit=$commit" \
      driver blocks -l "update_$commit" -r "$write_rounds" -b 20 -n "$(calls_of $commit)" \
      session_update "$statements/update.sql" "$work/run/busy_digests" \
      bare_cte "$statements/update_cte.sql" "$work/run/busy_ids" \
      bare_pipeline "$statements/update_pipeline.sql" "$work/run/busy_ids"
  done
}

# Calls in a block.
calls_of() {
  if [ "$1" = on ]; then echo 10; else echo 50; fi
}

# NAME N: the next sessions that no other step may want alive, into NAME.digests
# and NAME.ids.  Steps are processes of their own.
fresh_sessions() {
  local used

  used=$(cat "$work/results/used" 2>/dev/null || echo "$busy")
  [ $((used + $2)) -le "$SESSIONS" ] || die "SESSIONS is too small"
  printf '%s\n' $((used + $2)) >"$work/results/used"
  sql -c "COPY (SELECT digest FROM bench.token WHERE i > $used ORDER BY i LIMIT $2) TO '$work/run/$1.digests'" \
    -c "COPY (SELECT session_id, user_id, decode(md5(i::text) || md5((i + 1)::text), 'hex')
		FROM bench.token JOIN bench.session USING (session_id)
		WHERE i > $used ORDER BY i LIMIT $2) TO '$work/run/$1.ids'"
}

# CALL COMMIT ...: what can be done to a session once, against both forms of the
# peer, with each synchronous_commit.  The calls go through the sessions in the
# order of their logins.
once() {
  local commit calls n

  for commit in "${@:2}"; do
    calls=$(calls_of "$commit")
    n=$(((write_rounds + 1) * 20 * calls))
    fresh_sessions a $n
    # the two peers may not change the same rows
    fresh_sessions b $n
    options="-c synchronous_commit=$commit" \
      driver blocks -l "$1_$commit" -s -r "$write_rounds" -b 20 -n "$calls" \
      "session_$1" "$statements/$1.sql" "$work/run/a.digests" \
      bare_cte "$statements/$1_cte.sql" "$work/run/a.ids" \
      bare_pipeline "$statements/$1_pipeline.sql" "$work/run/b.ids"
  done
}

step_rotate() {
  say "session_refresh with a new token against a bare update and its event"
  once rotate on off
}

step_invalidate() {
  say "session_invalidate against a bare update and its event"
  # it flushes whatever synchronous_commit says
  once invalidate on

  say "session_invalidate_all of $OF_ONE sessions"
  for ((round = 0; round < (ROUNDS < 3 ? ROUNDS : 3); round++)); do
    sql -c "SET synchronous_commit = off" -c "SET session_manager.max_sessions_per_user = 0" \
      -c "DELETE FROM bench.session WHERE user_id = 'everywhere'" \
      -c "DELETE FROM user_sessions WHERE user_id = 'everywhere'" \
      -c "DO \$\$ BEGIN PERFORM session_create('everywhere', bench.data(i), ip => '192.0.2.1',
        user_agent => bench.user_agent(), auth => bench.auth(i)) FROM generate_series(1, $OF_ONE) AS i; END \$\$" \
      -c "INSERT INTO bench.session (session_id, created_at, authenticated_at, last_seen_at, expires_at,
          absolute_expires_at, sweep_at, ttl, version, key_id, verifier_key_id,
          user_id, verifier, data, auth, tenant_id, ip, user_agent)
        SELECT s.session_id, s.created_at, s.authenticated_at, s.last_seen_at, s.expires_at,
          s.absolute_expires_at, s.sweep_at, s.ttl, s.version, s.key_id, s.verifier_key_id,
          s.user_id, s.verifier, bench.data(row_number() OVER ()), bench.auth(1), s.tenant_id, s.ip, s.user_agent
        FROM user_sessions s WHERE user_id = 'everywhere'" \
      -c "VACUUM (ANALYZE) user_sessions" -c "VACUUM (ANALYZE) bench.session" -c "CHECKPOINT"
    for side in invalidate_all invalidate_all_bare; do
      options="-c synchronous_commit=off" \
        driver drains -D -l invalidate_all -i "$round" $side "$statements/$side.sql"
    done
  done
}

# CALL SIDE STATEMENTS PARAMETERS OPTION ...: the WAL of each of 1,000 calls
wal_of_side() {
  local before

  before=$(sql -c "SELECT pg_current_wal_insert_lsn()")
  driver discarded "${@:5}" -r 1 -b 20 -n 25 "$2" "$3" "$4"
  printf 'bytes_%s\t0\t%s\t%s\n' "$1" "$2" \
    "$(sql -c "SELECT (pg_current_wal_insert_lsn() - '$before'::pg_lsn) / 1000")" >>"$work/results/rounds"
}

# Without images of whole pages, whose number depends on the last checkpoint.
step_bytes() {
  local call

  say "WAL of the calls"
  configure full_page_writes off
  configure autovacuum off
  fresh_sessions a 1000
  for call in refresh update rotate invalidate; do
    wal_of_side $call session "$statements/$call.sql" "$work/run/a.digests" -s
    wal_of_side $call bare "$statements/${call}_cte.sql" "$work/run/a.ids" -s
    [ $call != rotate ] || fresh_sessions a 1000
  done
  configure autovacuum on
  configure full_page_writes on
}

step_pgcrypto() {
  local variant pgp

  say "session_get against the same API in SQL with pgcrypto"
  for variant in default fast; do
    # its best case: no compression, and the key used without stretching,
    # which is sound only for a random one
    pgp=''
    [ $variant = default ] || pgp='s2k-mode=0, compress-algo=0, cipher-algo=aes128'
    sql -v variant=$variant -v options="$pgp" -v rows=$busy \
      -f "$work/tree/bench/pgcrypto.sql"
  done
  sql -c "COPY (SELECT 'token' || i FROM generate_series(1, $busy) i) TO '$work/run/pgcrypto_tokens'"
  driver blocks -l pgcrypto -r "$((ROUNDS < 5 ? ROUNDS : 5))" -b 20 -n 50 \
    session_get "$statements/get.sql" "$work/run/busy_digests" \
    pgcrypto_default "$statements/get_pgcrypto_default.sql" "$work/run/pgcrypto_tokens" \
    pgcrypto_fast "$statements/get_pgcrypto_fast.sql" "$work/run/pgcrypto_tokens" \
    bare "$statements/get_bare.sql" "$work/run/busy_ids"
  # a hundred calls in one statement: the functions, without the protocol
  sql -c "COPY (SELECT array_agg(digest) FROM bench.token WHERE i <= $busy / 100 * 100 GROUP BY i % ($busy / 100))
	TO '$work/run/token_arrays'" \
    -c "COPY (SELECT array_agg('token' || i) FROM generate_series(1, $busy / 100 * 100) i GROUP BY i % ($busy / 100))
	TO '$work/run/pgcrypto_arrays'"
  driver blocks -l inside -r "$ROUNDS" -b 20 -n 5 \
    session_get "$statements/inside_get.sql" "$work/run/token_arrays" \
    pgcrypto_default "$statements/inside_pgcrypto_default.sql" "$work/run/pgcrypto_arrays" \
    pgcrypto_fast "$statements/inside_pgcrypto_fast.sql" "$work/run/pgcrypto_arrays"
}

# Bytes of WAL while the driver makes 100,000 calls, its warming up included
wal_of() {
  local before

  before=$(sql -c "SELECT pg_current_wal_insert_lsn()")
  driver discarded -r 9 -b 10 -n 1000 session_get "$statements/get.sql" "$work/run/busy_digests"
  fact "$1" "$(sql -c "SELECT pg_current_wal_insert_lsn() - '$before'::pg_lsn")"
}

touches() {
  sql -c "SELECT touches_$1 FROM session_stats WHERE database_name = current_database()"
}

# Let the worker write down what it holds.
flush() {
  local waits

  configure session_manager.flush_interval 1s
  for ((waits = 0; waits < 120; waits++)); do
    [ "$(touches pending)" -gt 0 ] || break
    sleep 0.5
  done
  configure session_manager.flush_interval 1h
  [ "$(touches pending)" -eq 0 ] || die "the worker has not flushed"
}

step_wal() {
  local before flushed

  say "what reads write"
  flush
  configure autovacuum off
  # What earlier updates left is theirs: the next reader would clear it away.
  # Then wait until the background writer has noted that nothing runs.
  sql -c "VACUUM" -c "CHECKPOINT"
  sleep 16
  options="-c default_transaction_read_only=on -c session_manager.touch_interval=0" \
    wal_of wal_read_only
  options="-c session_manager.touch_interval=0" wal_of wal_touching

  before=$(updates n_tup_upd user_sessions)
  flushed=$(touches flushed)
  flush
  flushed=$(($(touches flushed) - flushed))
  # 100,000 calls reach nearly every one of them
  [ "$flushed" -gt $((busy * 9 / 10)) ] || die "only $flushed uses were noted"
  fact flush_updates "$(($(updates n_tup_upd user_sessions) - before))"
  configure autovacuum on
}

step_clients() {
  local touches tps

  say "reads by eight clients"
  configure session_manager.flush_interval 5s
  for ((round = 0; round < (ROUNDS < 5 ? ROUNDS : 5); round++)); do
    for touches in 1s 1d; do
      tps=$(as_owner env PGOPTIONS="-c session_manager.touch_interval=$touches" \
        "$bindir/pgbench" -h "$work/main" -U postgres -n -M prepared -D rows=$busy \
        -c 8 -j 2 -T 10 -f "$work/tree/bench/pgbench/get.sql" "$database" 2>&1 |
        sed -n 's/^tps = \([0-9.]*\).*/\1/p')
      printf 'clients\t%s\t%s\t%s\n' "$round" "touches_$touches" "$tps" >>"$work/results/rounds"
    done
  done
  configure session_manager.flush_interval 1h
}

# LABEL OPTION ...: reads by 32 connections, each in every round for some time
many_connections() {
  driver rounds -l "$1" "${@:2}" -r $((2 * ROUNDS)) -c 32 -t $((ROUNDS < 10 ? 100 : 250)) \
    session_get "$statements/get.sql" "$work/run/busy_digests" \
    session_get_json "$statements/get_json.sql" "$work/run/busy_digests" \
    bare "$statements/get_bare.sql" "$work/run/busy_session_ids"
}

step_connections() {
  say "reads by 32 connections"
  many_connections connections
}

# 32 connections share 8 of the server's.
step_pgbouncer() {
  local version host waits prepared=()

  command -v pgbouncer >/dev/null || die "pgbouncer not found"
  version=$(pgbouncer --version | sed -n 's/^PgBouncer //p')
  host=$work/pgbouncer
  as_owner mkdir -m 700 "$host"
  printf '%s\n' '[databases]' "$database = host=$work/main user=postgres" '[pgbouncer]' \
    "unix_socket_dir = $host" 'listen_addr =' 'listen_port = 5432' 'auth_type = any' \
    'pool_mode = transaction' 'default_pool_size = 8' 'max_client_conn = 100' \
    "pidfile = $host/pid" "logfile = $host/log" | as_owner tee "$host/ini" >/dev/null
  if printf '1.21\n%s\n' "$version" | sort -C -V; then
    printf 'max_prepared_statements = 100\n' >>"$host/ini"
  else
    prepared=(-u)
  fi
  fact pgbouncer "$version, $([ ${#prepared[@]} -eq 0 ] && echo prepared || echo not prepared)"
  say "the same through pgbouncer $version"
  as_owner pgbouncer -q -d "$host/ini" 2>&1 || die "pgbouncer did not start"
  for ((waits = 0; waits < 100; waits++)); do
    [ ! -s "$host/pid" ] || break
    sleep 0.1
  done
  # shellcheck disable=SC2064 # this one, wherever the step ends
  trap "kill $(cat "$host/pid")" EXIT
  many_connections pgbouncer "${prepared[@]}"
}

# Fill the database with so many live sessions on both sides.
cleanup_database() {
  database=postgres
  sql -c "CREATE DATABASE $1"
  database=$1
  create_tables
  sql -f "$work/tree/bench/cleanup.sql"
  for table in public.user_sessions bench.session; do
    sql -c "SET synchronous_commit = off" \
      -c "CALL bench.fill('$table', 1, $EXPIRED, true)" \
      -c "CALL bench.fill('$table', $((EXPIRED + 1)), $((EXPIRED + $2)), false)" \
      -c "DELETE FROM $table WHERE sweep_at <= now()" \
      -c "VACUUM (ANALYZE) $table"
  done
}

step_cleanup() {
  local side table
  local rounds=$((ROUNDS < 5 ? ROUNDS : 5))

  say "filling two databases for the cleanup"
  cleanup_database few $((LIVE / 10))
  cleanup_database many "$LIVE"
  say "session_cleanup against DELETE in batches"
  for ((round = 0; round < rounds; round++)); do
    for side in cleanup delete delete_event; do
      table=bench.session
      [ $side != cleanup ] || table=public.user_sessions
      for database in few many; do
        sql -c "SET synchronous_commit = off" \
          -c "CALL bench.fill('$table', 1, $EXPIRED, true)" -c "VACUUM $table"
        options="-c synchronous_commit=off" \
          driver drains -D -l "cleanup_$database" -i "$round" $side "$statements/$side.sql"
      done
    done
  done
  database=postgres
}

# Reads by four clients at a steady rate for some seconds, logged one by one
reads() {
  as_owner "$bindir/pgbench" -h "$work/main" -U postgres -n -M prepared \
    -D rows="$SESSIONS" -c 4 -j 1 -R 1000 -T "$1" -l --log-prefix="$work/run/log" \
    -f "$work/tree/bench/pgbench/get.sql" "$database" >/dev/null 2>&1
}

# The same until there is a file: pgbench writes its log when it ends.
reads_until() {
  while [ ! -e "$1" ]; do
    reads 5
  done
}

# LABEL FROM TO: the 99th percentile of those in that time, in microseconds.
# With -R, it counts from the moment when a call was due.
read_latency() {
  local p99

  p99=$(cat "$work/run/log".* | awk -v from="$2" -v to="$3" '
    $5 + $6 / 1e6 >= from && $5 + $6 / 1e6 <= to { print $3 }' | sort -n |
    awk '{ t[NR] = $1 } END { if (NR < 500) exit 1; print t[int(NR * 0.99)] }') ||
    die "too few reads"
  printf 'sweep\t%s\t%s\t%s\n' "$round" "$1" "$p99" >>"$work/results/rounds"
}

swept() {
  sql -c "SELECT sessions_swept FROM session_stats WHERE database_name = current_database()"
}

step_sweep() {
  local from began ended rate readers
  # Longer than the sweep has to take, so that the rate of a slower one is known.
  local limit=$((3 * SWEPT / 10000 + 5))

  say "reads while the worker sweeps $SWEPT sessions"
  sql -f "$work/tree/bench/cleanup.sql"
  for ((round = 0; round < SWEEPS; round++)); do
    sql -c "SET synchronous_commit = off" \
      -c "CALL bench.fill('public.user_sessions', 1, $SWEPT, true)" \
      -c "VACUUM (ANALYZE) user_sessions" -c "CHECKPOINT"
    rm -f "$work/run/log".* "$work/run/swept"
    reads 10
    read_latency quiet 0 1e12

    from=$(swept)
    rm -f "$work/run/log".*
    reads_until "$work/run/swept" &
    readers=$!
    sleep 1
    sql -c "ALTER SYSTEM SET session_manager.sweep_interval = '1s'"
    # by one connection: to open another again and again would take more from
    # the readers than the sweep does
    read -r began ended rate <<<"$(sql -F ' ' -c "SELECT pg_reload_conf()" -c "SET client_min_messages = error" \
      -c "CREATE TEMP TABLE swept (began timestamptz, ended timestamptz, n bigint)" -c "DO \$\$
      DECLARE
        began timestamptz;
        n bigint := 0;
      BEGIN
        WHILE n < $SWEPT AND clock_timestamp() < coalesce(began, clock_timestamp()) + interval '$limit s' LOOP
          PERFORM pg_sleep(0.1), pg_stat_clear_snapshot();
          n := (SELECT sessions_swept FROM session_stats WHERE database_name = current_database()) - $from;
          began := CASE WHEN n > 0 THEN coalesce(began, clock_timestamp() - interval '0.1 s') END;
        END LOOP;
        INSERT INTO swept VALUES (began, clock_timestamp(), n);
      END \$\$" -c "SELECT extract(epoch FROM began), extract(epoch FROM ended),
        n / extract(epoch FROM ended - began) FROM swept" | tail -n 1)"
    touch "$work/run/swept"
    wait $readers
    read_latency sweeping "$began" "$ended"
    printf 'swept\t%s\tper_second\t%s\n' "$round" "$rate" >>"$work/results/rounds"
    configure session_manager.sweep_interval 1d
    [ "$(($(swept) - from))" -ge "$SWEPT" ] || sql -c "CALL session_cleanup()" >/dev/null
  done
}

# How long the steps take beside each other, for the time that is left.
declare -A weight=([get]=8 [device]=4 [profile]=3 [count]=2 [create]=6 [new_device]=4 [refresh]=5 [rotate]=3 [update]=3 [invalidate]=6 [bytes]=2 [pgcrypto]=5 [wal]=3 [clients]=10 [connections]=2 [pgbouncer]=2 [cleanup]=16 [sweep]=20)

# What a step has left running, and what it has changed for its own measurement.
after_failure() {
  sql -d postgres -c "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
	WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()" \
    -c "ALTER SYSTEM RESET ALL" -c "SELECT pg_reload_conf()" >/dev/null
}

run_steps() {
  local step done_weight=0 all=0 start=$SECONDS left i=0

  for step in "${steps[@]}"; do
    all=$((all + weight[$step]))
  done
  for step in "${steps[@]}"; do
    i=$((i + 1))
    left=
    [ $done_weight -eq 0 ] ||
      left=", about $(((SECONDS - start) * (all - done_weight) / done_weight / 60 + 1)) min left"
    say "step $i of ${#steps[@]}, $step$left"
    run_step "$step" "step_$step"
    done_weight=$((done_weight + weight[$step]))
    python3 "$root/bench/report.py" "$work/results" --new
  done
}

prepare
fact sessions "$SESSIONS"
fact busy "$busy"
fact live "$LIVE"
fact expired "$EXPIRED"
fact swept "$SWEPT"
fact of_one "$OF_ONE"
fact version "$(sql -c "SHOW server_version")"
fact settings "$(sql -c "SELECT string_agg(name || ' ' || current_setting(name), ', ' ORDER BY name)
	FROM pg_settings WHERE name IN ('shared_buffers', 'fsync', 'jit', 'autovacuum', 'full_page_writes',
		'wal_buffers', 'max_wal_size', 'session_manager.touch_interval')")"
load
fact extension "$(sql -c "SELECT extversion FROM pg_extension WHERE extname = 'session_manager'")"
failed=0
run_steps
stop_server main

folder=()
[ $write = no ] || folder=("$root/docs")
python3 "$root/bench/report.py" "$work/results" "${folder[@]}"
[ $failed -eq 0 ]
