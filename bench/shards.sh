#!/bin/bash
#
# Measure what it costs the Django package to route calls to shards: routed to
# 1, 2 and 4 servers against direct access to one, in one interleaved run.
#
#	bench/shards.sh [--quick] [--write]
#
# Prints tables; numbers in brackets are the ratio to direct access.  --write puts
# them into docs/benchmarks.md.
#
# From the environment:
#   CALLS        calls of each kind on each side     4000
#   SECONDS_EACH of a run with 8 clients             5

set -euo pipefail

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../scripts/lib.sh"
# shellcheck source=bench/environment.sh
. "$(dirname "$0")/environment.sh"

write=()
for argument in "$@"; do
  case $argument in
    --write) write=(--write "$root/docs/benchmarks.md") ;;
    --quick) : "${CALLS:=500}" "${SECONDS_EACH:=1}" ;;
    *) die "unknown argument $argument; see the head of $0" ;;
  esac
done
: "${CALLS:=4000}" "${SECONDS_EACH:=5}"

"$root/scripts/setup.sh" --tests
start_work

printf 'building ...\n' >&2
copy_tree tree
stage_tree tree
make_venv django-bench "$root/bench/django/requirements.txt"
directories=()
for n in 1 2 3 4; do
  start_server "s$n" "shared_preload_libraries = 'session_manager'" "shared_buffers = 16MB"
  as_owner "$bindir/psql" -XAtq -v ON_ERROR_STOP=1 -h "$work/s$n" -U postgres \
    -c "CREATE EXTENSION session_manager CASCADE" -c "SELECT session_key_generate()" >/dev/null
  directories+=("$work/s$n")
done
CALLS=$CALLS SECONDS_EACH=$SECONDS_EACH "$venv/bin/python" "$root/bench/shards/measure.py" "${write[@]}" "${directories[@]}"
