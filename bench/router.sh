#!/bin/bash
#
# Measure what session_manager_router costs: calls through it, to four servers on
# this machine, directly and through pgbouncer, against the same calls of the
# servers that have the sessions.
#
#	bench/router.sh [--quick] [--write]
#
# Prints a table; --write puts it into docs/benchmarks.md.  The sides take turns
# in blocks.  CPU is that of server processes: "front" of those that the client is
# connected to, "behind" of the shards' and pgbouncer's behind a router.
#
# From the environment:
#   ROUNDS   blocks of each side     50
#   CALLS    calls in each block     100
#   USERS    users with a session    1000

set -euo pipefail

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../scripts/lib.sh"
# shellcheck source=scripts/router.sh
. "$(dirname "$0")/../scripts/router.sh"

page=()
for argument in "$@"; do
  case $argument in
    --quick) : "${ROUNDS:=5}" "${CALLS:=50}" ;;
    --write) page=("$root/docs/benchmarks.md") ;;
    *) die "unknown argument $argument; see the head of $0" ;;
  esac
done
: "${ROUNDS:=50}" "${CALLS:=100}" "${USERS:=1000}"

"$root/scripts/setup.sh" --tests
[ -e "$("${PG_CONFIG:-pg_config}" --pkglibdir)/plproxy.so" ] || die "PL/Proxy is not installed for this PostgreSQL"
command -v pgbouncer >/dev/null || die "pgbouncer not found"
start_work

printf 'building ...\n' >&2
copy_tree tree
stage_tree tree
gcc -O2 -Wall -Wextra -I"$("$pg_config" --includedir)" -o "$work/router_driver" "$root/bench/router_driver.c" \
  -L"$("$pg_config" --libdir)" -lpq

# no sweep and no wait for a disk comes in between
start_shards shard 4 "shared_buffers = 64MB" "synchronous_commit = off" "session_manager.sweep_interval = '1d'" \
  "session_manager.flush_interval = '1h'"
start_server router "shared_buffers = 16MB" "shared_preload_libraries = 'session_manager'"
as_owner mkdir -m 700 "$work/pgbouncer"
{
  printf '[databases]\n'
  for i in 1 2 3 4; do
    printf 'sessions%s = host=%s dbname=sessions\n' $i "$work/shard$i"
  done
  printf '%s\n' '[pgbouncer]' "unix_socket_dir = $work/pgbouncer" 'listen_addr =' 'listen_port = 5432' 'auth_type = trust' \
    "auth_file = $work/pgbouncer/users" 'pool_mode = transaction' 'default_pool_size = 1' \
    "pidfile = $work/pgbouncer/pid" "logfile = $work/pgbouncer/log"
} | as_owner tee "$work/pgbouncer/ini" >/dev/null
printf '"pooled" ""\n' | as_owner tee "$work/pgbouncer/users" >/dev/null
as_owner pgbouncer -q -d "$work/pgbouncer/ini" || die "pgbouncer did not start"
for ((waits = 0; waits < 100; waits++)); do
  [ ! -s "$work/pgbouncer/pid" ] || break
  sleep 0.1
done
# shellcheck disable=SC2064 # this one; end_work looks at the status that the script ends with
trap "status=\$?; kill $(cat "$work/pgbouncer/pid"); set +e; (exit \$status); end_work" EXIT

direct=
for i in 1 2 3 4; do
  run_sql shard$i sessions >/dev/null <<<"CREATE ROLE pooled LOGIN; SELECT session_grant('pooled', 'admin');"
  direct+=",host=$work/shard$i user=postgres dbname=sessions"
done
for database in routed pooled; do
  run_sql router postgres <<<"CREATE DATABASE $database;"
done
make_router router routed "host=$work/shard"{1,2,3,4}" dbname=sessions"
make_router router pooled "host=$work/pgbouncer dbname=sessions"{1,2,3,4}
run_sql router pooled <<<"ALTER USER MAPPING FOR PUBLIC SERVER session_shards OPTIONS (SET user 'pooled');"

run_sql router routed >"$work/digests" <<END
COPY (SELECT session_token_digest(session_token), session_bucket(u) >> 14
	FROM (SELECT 'user ' || i FROM generate_series(1, $USERS) i) AS t (u), session_create(u)) TO stdout;
END
run_sql router routed >"$work/users" <<END
COPY (SELECT u, session_bucket(u) >> 14 FROM (SELECT 'new ' || i FROM generate_series(1, $USERS) i) AS t (u)) TO stdout;
END
[ "$(id -u)" -ne 0 ] || chown postgres: "$work/digests" "$work/users" "$work/router_driver"

for call in get create refresh; do
  printf 'measuring %s ...\n' $call >&2
  arguments=digests
  [ $call != create ] || arguments=users
  as_owner "$work/router_driver" $call "$work/$arguments" "$ROUNDS" "$CALLS" \
    direct - "${direct#,}" \
    router router "host=$work/router user=postgres dbname=routed" \
    pgbouncer "pooled+$(cat "$work/pgbouncer/pid")" "host=$work/router user=postgres dbname=pooled" >>"$work/results"
done

python3 "$root/bench/router_table.py" "$work/results" "${page[@]}"
