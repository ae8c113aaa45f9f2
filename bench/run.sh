#!/bin/bash
#
# Measure the extension against what a careful developer would write without
# it: both sides on one private server, in turn, in one run.
#
#   bench/run.sh [--quick] [--write]
#
# --quick takes smaller tables and fewer calls; --write puts the figures into
# docs/benchmarks.md and docs/bench.svg.  From the environment:
#   SESSIONS    live sessions in the tables          (500000; quick 50000)
#   ROUNDS      rounds of 10 blocks of 200 calls     (10; quick 3)
#   SWEEP_LIVE  live sessions of the larger cleanup  (1000000; quick 100000)
#   SWEEP       expired sessions of each cleanup     (100000; quick 20000)
#   SWEPT       expired sessions that a worker sweeps while clients read
#                                                    (1000000; quick 100000)

set -euo pipefail

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../scripts/lib.sh"

quick=no
write=no
for option in "$@"; do
  case $option in
    --quick) quick=yes ;;
    --write) write=yes ;;
    *) die "unknown option $option; see the head of $0" ;;
  esac
done
if [ $quick = yes ]; then
  : "${SESSIONS:=50000}" "${ROUNDS:=3}" "${SWEEP_LIVE:=100000}" "${SWEEP:=20000}" "${SWEPT:=100000}"
else
  : "${SESSIONS:=500000}" "${ROUNDS:=10}" "${SWEEP_LIVE:=1000000}" "${SWEEP:=100000}" "${SWEPT:=1000000}"
fi
calls=$((10000 < SESSIONS ? 10000 : SESSIONS))

"$root/scripts/setup.sh"
start_work
copy_tree tree
stage_tree tree
gcc -O2 -Wall -o "$work/driver" "$root/bench/driver.c" \
  -I"$("$pg_config" --includedir)" -lpq
as_owner mkdir "$work/run"
as_owner cp -R "$work/tree/bench/statements" "$work/run/"
: >"$work/figures"

say() {
  printf '%s  %s\n' "$(date +%H:%M:%S)" "$*" >&2
}

# Two databases: the preloaded server's, and one without.
start_server main \
  "shared_preload_libraries = 'session_manager'" \
  "session_manager.flush_interval = 1h" \
  "session_manager.sweep_interval = 1h" \
  "shared_buffers = 1GB" \
  "max_wal_size = 16GB" \
  "checkpoint_timeout = 1h" \
  "jit = off" \
  "autovacuum_naptime = 10s"

sql() {
  as_owner "$bindir/psql" -XAtq -v ON_ERROR_STOP=1 -h "$work/main" -U postgres \
    -d postgres "$@"
}

# One side after the other in blocks; the driver prints a line for each block.
drive() {
  local label=$1

  shift
  (cd "$work/run" && as_owner env PGHOST="$work/main" PGUSER=postgres \
    PGDATABASE=postgres PGOPTIONS="${options-}" "$work/driver" -l "$label" "$@") \
    >>"$work/figures"
}

figure() {
  printf 'value\t%s\t%s\n' "$1" "$2" >>"$work/figures"
}

say "loading $SESSIONS sessions of 400 bytes"
sql -c "CREATE EXTENSION session_manager CASCADE" \
  -c "SELECT session_key_generate()" -c "SELECT session_cleanup()" >/dev/null 2>&1
sql -f "$work/tree/bench/peers.sql" >/dev/null
for ((from = 1; from <= SESSIONS; from += 50000)); do
  # a login takes a lock for its user, so not too many of them at once
  sql <<SQL >/dev/null
DO \$\$
BEGIN
	FOR start IN $from .. least($from + 49999, $SESSIONS) BY 1000 LOOP
		INSERT INTO bench.token
		SELECT i, c.session_id, session_token_digest(c.session_token)
		FROM generate_series(start, start + 999) i,
			LATERAL session_create(bench.user_id(i), bench.data(i), ip => '192.0.2.1',
				user_agent => 'Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0',
				auth => bench.auth(i)) c;
		COMMIT;
	END LOOP;
END
\$\$;
SQL
  printf '\r%3d %%' $(((from + 49999 > SESSIONS ? SESSIONS : from + 49999) * 100 / SESSIONS)) >&2
done
printf '\n' >&2
sql -c "INSERT INTO bench.session
	SELECT s.session_id, s.created_at, s.authenticated_at, s.last_seen_at, s.expires_at,
		s.absolute_expires_at, s.sweep_at, s.ttl, s.version, s.key_id, s.verifier_key_id,
		s.user_id, s.verifier, bench.data(t.i), bench.auth(t.i), s.tenant_id, s.ip, s.user_agent
	FROM bench.token t JOIN user_sessions s USING (session_id)" \
  -c "VACUUM ANALYZE" -c "CHECKPOINT"
sql -c "COPY (SELECT digest FROM bench.token ORDER BY random() LIMIT $calls) TO '$work/run/tokens'" \
  -c "COPY (SELECT session_id FROM bench.token ORDER BY random() LIMIT $calls) TO '$work/run/ids'" \
  -c "COPY (SELECT 'new' || i, bench.data(i) FROM generate_series(1, $calls) i) TO '$work/run/logins'"

cd "$work/run"
say "session_get against a bare look-up"
drive get -r "$ROUNDS" -b 10 -n 200 \
  session_get statements/get.sql tokens bare statements/get_bare.sql ids
for round in 1 2 3; do
  for side in get get_bare; do
    # pgbench finds the token or the id with one look-up, on both sides alike
    ms=$(as_owner "$bindir/pgbench" -h "$work/main" -U postgres -n -M prepared \
      -D rows="$SESSIONS" -t $((ROUNDS * 1000)) -f "statements/pgbench_$side.sql" postgres 2>/dev/null |
      sed -n 's/^latency average = \(.*\) ms/\1/p')
    printf 'round\tpgbench_%s\t%s\t%s\n' "$side" "$round" "$ms" >>"$work/figures"
  done
done

say "session_create against the same two rows"
for commit in on off; do
  options="-c synchronous_commit=$commit" drive "create_$commit" -s -r 3 -b 10 -n 100 \
    session_create statements/create.sql logins \
    bare_cte statements/create_cte.sql logins \
    bare_pipeline statements/create_pipeline.sql logins
done

say "session_refresh against an update and its event"
before=$(sql -c "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'user_sessions'")
options="-c synchronous_commit=off" drive refresh -r "$ROUNDS" -b 10 -n 100 \
  session_refresh statements/refresh.sql tokens bare statements/refresh_bare.sql ids
sleep 2
after=$(sql -c "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'user_sessions'")
figure hot_percent "$(awk -v b="$before" -v a="$after" 'BEGIN {
	split(b, x, "|"); split(a, y, "|"); printf "%.2f", 100 * (y[2] - x[2]) / (y[1] - x[1]) }')"

say "the same API in SQL with pgcrypto"
rows=2000
sql -c "ALTER DATABASE postgres SET bench.key = 'a passphrase for the benchmark'"
for variant in default fast; do
  # s2k-mode 0 leaves out the stretching of the passphrase: its best case
  pgp=''
  [ $variant = default ] || pgp='s2k-mode=0, compress-algo=0, cipher-algo=aes256'
  sql -v variant=$variant -v options="$pgp" -v rows=$rows -f "$work/tree/bench/pgcrypto.sql" >/dev/null
done
sql -c "COPY (SELECT 'token' || i FROM generate_series(1, $rows) i ORDER BY random()) TO '$work/run/pgcrypto'"
drive pgcrypto -r 3 -b 5 -n 40 \
  session_get statements/get.sql tokens \
  pgcrypto_default statements/pgcrypto_default.sql pgcrypto \
  pgcrypto_fast statements/pgcrypto_fast.sql pgcrypto

# without the round trip: a statement that makes 500 calls
sql -c "CREATE TABLE bench.few AS SELECT 'token' || i AS token, t.digest FROM generate_series(1, 500) i JOIN bench.token t USING (i)"
drive inside -r 3 -b 5 -n 1 session_get statements/inside_get.sql pgcrypto \
  pgcrypto_default statements/inside_pgcrypto_default.sql pgcrypto \
  pgcrypto_fast statements/inside_pgcrypto_fast.sql pgcrypto

say "reads without writes"
wal=$(sql -v dir="$work/run" <<SQL
CREATE TEMP TABLE sample AS SELECT digest FROM bench.token LIMIT $calls;
SELECT count(*) FROM sample, session_get(sample.digest) \gset
SELECT pg_current_wal_insert_lsn() AS a \gset
BEGIN READ ONLY;
SELECT count(g.session_id) FROM sample, session_get(sample.digest) g \gset
COMMIT;
SELECT pg_current_wal_insert_lsn() - :'a'::pg_lsn;
SQL
)
figure wal_read_only "$wal"
sql -c "ALTER SYSTEM SET session_manager.touch_interval = 0" -c "SELECT pg_reload_conf()" >/dev/null
sleep 1
flushed=$(sql -c "SELECT touches_flushed FROM session_stats WHERE database_name = 'postgres'")
wal=$(sql <<SQL
CREATE TEMP TABLE sample AS SELECT digest FROM bench.token LIMIT $calls;
SELECT count(*) FROM sample, session_get(sample.digest) \gset
SELECT pg_current_wal_insert_lsn() AS a \gset
SELECT count(g.session_id) FROM generate_series(1, 10) i, sample, LATERAL session_get(sample.digest, touch => i > 0) g \gset
SELECT pg_current_wal_insert_lsn() - :'a'::pg_lsn;
SQL
)
figure wal_touching "$wal"
updates=$(sql -c "SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'user_sessions'")
sql -c "ALTER SYSTEM SET session_manager.flush_interval = 1" -c "SELECT pg_reload_conf()" >/dev/null
for ((i = 0; i < 60; i++)); do
  [ "$(sql -c "SELECT touches_pending FROM session_stats WHERE database_name = 'postgres'")" -gt 0 ] || break
  sleep 0.5
done
sleep 2
figure flush_updates "$(($(sql -c "SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'user_sessions'") - updates))"
figure touches_flushed "$(($(sql -c "SELECT touches_flushed FROM session_stats WHERE database_name = 'postgres'") - flushed))"
sql -c "ALTER SYSTEM SET session_manager.flush_interval = '10s'" -c "SELECT pg_reload_conf()" >/dev/null
for round in 1 2 3; do
  for touches in on off; do
    interval=60
    [ $touches = on ] || interval=1000000000
    tps=$(PGOPTIONS="-c session_manager.touch_interval=$interval" as_owner env \
      PGOPTIONS="-c session_manager.touch_interval=$interval" "$bindir/pgbench" \
      -h "$work/main" -U postgres -n -M prepared -D rows="$SESSIONS" -c 8 -j 2 -T 6 \
      -f statements/pgbench_get.sql postgres 2>/dev/null | sed -n 's/^tps = \([0-9.]*\).*/\1/p')
    printf 'round\tclients_%s\t%s\t%s\n' "$touches" "$round" "$tps" >>"$work/figures"
  done
done

say "cleanup of $SWEEP expired sessions"
# Sessions whose time has come, made by moving their deadlines in the table.
expire() {
  sql -c "UPDATE $1 SET expires_at = now() - interval '1 minute', sweep_at = now() - interval '1 minute'
	WHERE session_id IN (SELECT session_id FROM $1 WHERE sweep_at > now() ORDER BY random() LIMIT $SWEEP)" \
    -c "VACUUM $1" -c CHECKPOINT
}
timed() {
  local label=$1 round=$2 before after

  shift 2
  before=$(date +%s%N)
  sql "$@" >/dev/null 2>&1
  after=$(date +%s%N)
  printf 'round\t%s\t%s\t%s\n' "$label" "$round" $(((after - before) / 1000)) >>"$work/figures"
}
sql -c "TRUNCATE user_sessions, bench.session"
load() {
  local have want=$1 from

  have=$(sql -c "SELECT count(*) FROM user_sessions")
  for ((from = have + 1; from <= want; from += 20000)); do
    sql <<SQL >/dev/null
DO \$\$
BEGIN
	FOR start IN $from .. least($from + 19999, $want) BY 1000 LOOP
		PERFORM session_create(bench.user_id(i), bench.data(i)) FROM generate_series(start, least(start + 999, $want)) i;
		COMMIT;
	END LOOP;
END
\$\$;
SQL
    printf '\r%3d %%' $((from * 100 / want)) >&2
  done
  printf '\n' >&2
}
for live in $((SWEEP_LIVE / 10)) "$SWEEP_LIVE"; do
  for round in 1 2 3; do
    load $((live + SWEEP))
    expire user_sessions
    timed "cleanup_$live" "$round" -c "SELECT session_cleanup()"
  done
done
sql -c "INSERT INTO bench.session
	SELECT session_id, created_at, authenticated_at, last_seen_at, expires_at, absolute_expires_at,
		sweep_at, ttl, version, key_id, verifier_key_id, user_id, verifier, bench.data(1), NULL, tenant_id
	FROM user_sessions" -c "VACUUM ANALYZE bench.session"
for round in 1 2 3; do
  for how in delete delete_event; do
    [ "$(sql -c "SELECT count(*) FROM bench.session WHERE sweep_at > now()")" -gt "$SWEEP" ] || break
    expire bench.session
    timed "$how" "$round" -f "statements/$how.sql"
  done
done

say "reads while a worker sweeps $SWEPT expired sessions"
load $((SWEPT + 1000))
sql -c "CREATE TABLE bench.live AS
	SELECT row_number() OVER () AS i, session_token_digest(session_token) AS digest
	FROM generate_series(1, 1000) AS i, LATERAL session_create('live' || i, bench.data(i))" \
  -c "UPDATE user_sessions SET expires_at = now() - interval '1 minute', sweep_at = now() - interval '1 minute'
	WHERE session_id IN (SELECT session_id FROM user_sessions WHERE user_id NOT LIKE 'live%' LIMIT $SWEPT)" \
  -c "VACUUM ANALYZE user_sessions" -c CHECKPOINT
# The 99th percentile of the reads of four clients, in microseconds.
reads() {
  as_owner rm -f "$work"/run/reads.*
  (cd "$work/run" && as_owner "$bindir/pgbench" -h "$work/main" -U postgres -n -M prepared \
    -c 4 -j 1 -T "$2" -l --log-prefix=reads -f statements/pgbench_live.sql postgres >/dev/null 2>&1)
  cat "$work"/run/reads.* | awk '{ print $3 }' | sort -n |
    awk '{ a[NR] = $1 } END { print a[int(NR * 0.99)] }' |
    while read -r us; do printf 'round\t%s\t%s\t%s\n' "$1" 1 "$us" >>"$work/figures"; done
}
reads p99_alone 10
before=$(sql -c "SELECT sessions_swept FROM session_stats WHERE database_name = 'postgres'")
sql -c "ALTER SYSTEM SET session_manager.sweep_interval = 1" -c "SELECT pg_reload_conf()" >/dev/null
reads p99_sweeping 10
figure swept_meanwhile "$(($(sql -c "SELECT sessions_swept FROM session_stats WHERE database_name = 'postgres'") - before))"

docs=
[ $write = no ] || docs=$root/docs
version=$(sql -c "SELECT split_part(version(), ' on ', 1)")
stop_server main
python3 "$root/bench/report.py" "$work/figures" "$version" "$SESSIONS" "$SWEEP" "$SWEEP_LIVE" \
  ${docs:+"$docs"}
