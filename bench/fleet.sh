#!/bin/bash
#
# Measure what each operation costs a server, forecast by these costs what a
# fleet of four needs for a given load, run that fleet, and compare.
#
#	bench/fleet.sh [--quick] [--write]
#
# Prints the costs and a table.  Fails if a figure of the fleet is further from
# its forecast than TOLERANCE.  --quick measures for a shorter time and only
# prints the differences; --write puts the costs into bench/fleet/costs.json,
# with which bench/fleet/forecast.py forecasts other fleets.
#
# From the environment:
#   SESSIONS        sessions of the measured server           20000
#   PHASE_SECONDS   how long each operation is measured       15
#   RATE            operations a second then                  300
#   FLEET_SECONDS   how long the fleet works                  60
#   TOLERANCE       as a share of the forecast                0.25

set -euo pipefail

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../scripts/lib.sh"

quick=no
write=no
for argument in "$@"; do
  case $argument in
    --quick) quick=yes ;;
    --write) write=yes ;;
    *) die "unknown argument $argument; see the head of $0" ;;
  esac
done
if [ $quick = yes ]; then
  : "${SESSIONS:=4000}" "${PHASE_SECONDS:=3}" "${FLEET_SECONDS:=12}" "${TOLERANCE:=none}"
fi
: "${SESSIONS:=20000}" "${PHASE_SECONDS:=15}" "${RATE:=300}" "${FLEET_SECONDS:=60}" "${TOLERANCE:=0.25}"
export SESSIONS PHASE_SECONDS RATE FLEET_SECONDS TOLERANCE

# shellcheck source=bench/environment.sh
. "$root/bench/environment.sh"

# start NAME LINE ...: a server with the extension, listed in $work/NAME.line
start() {
  start_server "$@" \
    "shared_preload_libraries = 'session_manager'" \
    "shared_buffers = '64MB'" \
    "max_connections = 60" \
    "max_worker_processes = 16" \
    "checkpoint_timeout = '1h'" \
    "max_wal_size = '8GB'" \
    "jit = off"
  printf '%s\t%s\n' "$work/$1" "$work/$1/data" >"$work/$1.line"
}

sql() {
  as_owner "$bindir/psql" -XAtq -v ON_ERROR_STOP=1 -h "$work/$1" -U postgres -d postgres "${@:2}"
}

# python PROGRAM ARGUMENT ...: one of bench/fleet/
python() {
  as_owner env PATH="$bindir:$PATH" PYTHONDONTWRITEBYTECODE=1 "$venv/bin/python" "$work/tree/bench/fleet/$1" "${@:2}"
}

"$root/scripts/setup.sh" --tests
start_work
trap finish EXIT
printf 'building ...\n' >&2
copy_tree tree
stage_tree tree
make_venv fleet /dev/null
start_redis redis --unixsocketperm 777

# --- the costs, on one server
start one \
  "session_manager.sweep_interval = '1d'" \
  "session_manager.redis_socket = '$work/redis/s'"
sql one -c "SET client_min_messages = warning" -c "CREATE EXTENSION session_manager CASCADE" \
  -c "SELECT session_key_generate()" >/dev/null
printf '%s\n' '#!/bin/sh' \
  "psql -XAtq -h '$work/one' -U postgres -d postgres -c \"ALTER SYSTEM SET \$1 = '\$2'\" -c 'SELECT pg_reload_conf()' >/dev/null" \
  'sleep 1' >"$work/configure"
chmod 755 "$work/configure"
as_owner mkdir -m 700 "$work/standby"
printf '%s\n' '#!/bin/sh' 'set -e' \
  "pg_basebackup -D '$work/standby/data' -h '$work/one' -U postgres -R -c fast --no-sync" \
  "echo \"unix_socket_directories = '$work/standby'\" >>'$work/standby/data/postgresql.conf'" \
  "pg_ctl -D '$work/standby/data' -l '$work/standby/log' -s -w start >/dev/null" >"$work/start_standby"
chmod 755 "$work/start_standby"
facts=$(python3 - "$(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores" \
  "PostgreSQL $(sql one -c 'SHOW server_version')" \
  "$(sql one -c "SELECT extversion FROM pg_extension WHERE extname = 'session_manager'")" <<'PYTHON'
import json, sys
print(json.dumps(dict(zip(("machine", "version", "extension"), sys.argv[1:]))))
PYTHON
)
as_owner mkdir "$work/results"
python measure.py "$work/one.line" "$work/results/state" "$work/configure" "$work/redis/s" \
  "$work/start_standby" "$work/standby/data" "$facts" | as_owner tee "$work/results/costs.json"
stop_server standby
stop_server one

# --- four shards with the same keys under one installation
for shard in 1 2 3 4; do
  start "shard$shard" \
    "session_manager.shard = '$shard/4'" \
    "session_manager.touch_interval = '10s'" \
    "session_manager.flush_interval = '1s'" \
    "session_manager.sweep_interval = '1s'"
  cat "$work/shard$shard.line" >>"$work/fleet.lines"
  sql "shard$shard" -c "SET client_min_messages = warning" -c "CREATE EXTENSION session_manager CASCADE"
  if [ "$shard" = 1 ]; then
    sql shard1 -c "SELECT session_key_generate()" >/dev/null
  else
    as_owner install -m 600 "$work/shard1/keys" "$work/shard$shard/keys"
    for table in session_installation session_keys; do
      sql shard1 -c "COPY $table TO STDOUT" | sql "shard$shard" -c "COPY $table FROM STDIN"
    done
  fi
done
python compare.py "$work/fleet.lines" "$work/results/state" "$work/results/costs.json"
for shard in 1 2 3 4; do
  stop_server "shard$shard"
done
[ $write = no ] || cp "$work/results/costs.json" "$root/bench/fleet/costs.json"
