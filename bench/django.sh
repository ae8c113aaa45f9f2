#!/bin/bash
#
# Measure an authenticated request to Django and DRF: sessions of this
# extension, its cache on and off, against django.contrib.sessions (db,
# cached_db, cache) and django-rest-knox, on one server, in one run.
#
#	bench/django.sh [--quick] [--write]
#
# Prints tables; --write puts them into docs/benchmarks.md, and a picture into
# docs/bench-django.svg.
#
# From the environment:
#   USERS        users, each signed in on every side             2000
#   GENERATIONS  times that the sides' processes are started     3
#   ROUNDS       rounds of each generation                       100
#   BLOCK        requests in a block                             20

set -euo pipefail

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../scripts/lib.sh"
# shellcheck source=bench/environment.sh
. "$(dirname "$0")/environment.sh"

write=no
for argument in "$@"; do
  case $argument in
    --quick) : "${USERS:=200}" "${GENERATIONS:=1}" "${ROUNDS:=10}" ;;
    --write) write=yes ;;
    *) die "unknown argument $argument; see the head of $0" ;;
  esac
done
: "${USERS:=2000}" "${GENERATIONS:=3}" "${ROUNDS:=100}" "${BLOCK:=20}"

# side NAME ARGUMENT ...: side.py of a side
side() {
  BENCH_SIDE=$1 "$venv/bin/python" "$root/bench/django/side.py" "${@:2}"
}

manage() {
  BENCH_SIDE=uncached "$venv/bin/python" -m django "$@"
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
make_venv django-bench "$root/bench/django/requirements.txt"
start_redis redis
start_server main \
  "shared_preload_libraries = 'session_manager'" \
  "session_manager.redis_mode = strict" \
  "session_manager.redis_socket = '$work/redis/s'" \
  "session_manager.sweep_interval = '1d'" \
  "shared_buffers = '256MB'" \
  "max_wal_size = '4GB'" \
  "jit = off"

export PYTHONPATH=$root/bench/django PYTHONDONTWRITEBYTECODE=1 DJANGO_SETTINGS_MODULE=settings
export BENCH_PGHOST=$work/main BENCH_REDIS=$work/redis/s
BENCH_CACHE_KEY=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export BENCH_CACHE_KEY

printf 'signing in ...\n' >&2
sql -d postgres -c "CREATE ROLE web LOGIN" -c "CREATE DATABASE app OWNER web"
{ manage setup_session_manager --print --role web | sql -d app; } >/dev/null 2>"$work/setup.log" ||
  { cat "$work/setup.log" >&2; die "cannot prepare the database"; }
manage migrate -v 0
side uncached users "$USERS"
mkdir "$work/sessions"
for name in $("$venv/bin/python" -c 'from sides import SIDES; print(*SIDES)'); do
  side "$name" sessions "$work/sessions/$name.json"
done
sql -d app -c "VACUUM ANALYZE" -c CHECKPOINT

printf 'measuring ...\n' >&2
"$venv/bin/python" "$root/bench/django/compare.py" "$work/sessions" "$GENERATIONS" "$ROUNDS" "$BLOCK" \
  >"$work/results"
folder=()
[ $write = no ] || folder=("$root/docs")
"$venv/bin/python" "$root/bench/django/tables.py" "$work/results" "${folder[@]}"
