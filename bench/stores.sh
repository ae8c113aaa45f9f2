#!/bin/bash
#
# Measure this extension against other stores of sessions, each at its best:
# Redis alone from C, connect-pg-simple and better-auth on Node,
# django.contrib.sessions (db, cached_db, cache), django-user-sessions and
# django-rest-knox on Django; get, create, refresh, revoke all and a mixed day,
# on 1, 8 and 32 connections.
#
#	bench/stores.sh [--quick] [--write]
#
# Prints each row when it is there, then tables; --write puts them into
# docs/benchmarks.md.  A side that fails or does not answer is a row that says
# so, and makes the run fail; the others go on.
#
# From the environment:
#   SESSIONS      sessions on every side                       3200
#   ROUNDS        rounds of each comparison                    12
#   MILLISECONDS  of a block                                   150
#   MINUTES       after which nothing more is begun            20
#   CONNECTIONS   numbers of them                              1 8 32

set -euo pipefail

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../scripts/lib.sh"
# shellcheck source=bench/environment.sh
. "$(dirname "$0")/environment.sh"

write=no
for argument in "$@"; do
  case $argument in
    --quick) : "${SESSIONS:=640}" "${ROUNDS:=3}" "${MILLISECONDS:=30}" "${MINUTES:=5}" "${CONNECTIONS:=1 32}" ;;
    --write) write=yes ;;
    *) die "unknown argument $argument; see the head of $0" ;;
  esac
done
: "${SESSIONS:=3200}" "${ROUNDS:=12}" "${MILLISECONDS:=150}" "${MINUTES:=20}" "${CONNECTIONS:=1 8 32}"

# What package-lock.json names, kept beside a copy of the program, as Node looks
# for packages beside what imports them.
make_modules() {
  local home

  modules=$root/build/stores-node
  home=$(getent passwd "$(id -u)" | cut -d: -f6)
  mkdir -p "$modules"
  if ! cmp -s "$root/bench/stores/package-lock.json" "$modules/installed"; then
    cp "$root/bench/stores"/{package.json,package-lock.json,.npmrc} "$modules/"
    (cd "$modules" && HOME=$home npm ci --loglevel=error --no-audit --no-fund >&2) ||
      die "npm ci failed"
    cp "$modules/package-lock.json" "$modules/installed"
  fi
  cp "$root/bench/stores/node.mjs" "$modules/"
}

sql() {
  as_owner "$bindir/psql" -XAtq -v ON_ERROR_STOP=1 -h "$work/main" -U postgres "$@"
}

"$root/scripts/setup.sh" --tests
start_work
trap finish EXIT

printf 'building ...\n' >&2
copy_tree tree
stage_tree tree
make_venv stores-django "$root/bench/stores/requirements.txt"
make_modules
gcc -O2 -Wall -Wextra -I"$("$pg_config" --includedir)" -o "$work/native" "$root/bench/stores/native.c" \
  -L"$("$pg_config" --libdir)" -lpq -lhiredis -lsodium -lpthread
start_redis everysec --appendonly yes --appendfsync everysec --auto-aof-rewrite-percentage 0
start_redis always --appendonly yes --appendfsync always --auto-aof-rewrite-percentage 0
# Connections are kept: those of every side, on each of up to 32.
start_server main \
  "shared_preload_libraries = 'session_manager'" \
  "session_manager.sweep_interval = '1d'" \
  "max_connections = 500" \
  "shared_buffers = '512MB'" \
  "max_wal_size = '16GB'" \
  "checkpoint_timeout = '1h'" \
  "autovacuum = off" \
  "jit = off"

export PYTHONPATH=$root/bench/stores PYTHONDONTWRITEBYTECODE=1 DJANGO_SETTINGS_MODULE=settings
export BENCH_PGHOST=$work/main BENCH_REDIS=$work/everysec/s BENCH_REDIS_ALWAYS=$work/always/s
export BENCH_NODE_MODULES=$modules/node_modules
BENCH_PROGRAMS=$(printf '{"native": ["%s"], "node": ["node", "%s"], "django": ["%s", "%s"]}' \
  "$work/native" "$modules/node.mjs" "$venv/bin/python" "$root/bench/stores/side.py")
export BENCH_PROGRAMS

printf 'preparing ...\n' >&2
sql -d postgres -c "CREATE ROLE web LOGIN" -c "CREATE DATABASE app OWNER web"
{ "$venv/bin/python" -m django setup_session_manager --print --role web | sql -d app; } >/dev/null 2>"$work/setup.log" ||
  { cat "$work/setup.log" >&2; die "cannot prepare the database"; }
"$venv/bin/python" -m django migrate -v 0
"$venv/bin/python" "$root/bench/stores/side.py" users

printf 'measuring ...\n' >&2
status=0
# shellcheck disable=SC2086 # several numbers
"$venv/bin/python" "$root/bench/stores/compare.py" "$work/results" "$SESSIONS" "$ROUNDS" "$MILLISECONDS" "$MINUTES" \
  $CONNECTIONS &
# (not in the foreground, where a signal to this script would have to wait)
wait $! || status=$?
[ -s "$work/results" ] || exit "$status"
folder=()
[ $write = no ] || folder=("$root/docs")
"$venv/bin/python" "$root/bench/stores/tables.py" "$work/results" "${folder[@]}"
exit "$status"
