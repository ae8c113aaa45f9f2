# shellcheck shell=bash
#
# Sourced by the measurements that run steps against private servers.
#
# They set: server, the name of the one that runs; database; options, for the
# connections of the driver; STEP_MINUTES; failed, the number of steps that did;
# and after_failure(), which clears away what such a step has left behind.

# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"

say() {
  printf '%s  %s\n' "$(date +%H:%M:%S)" "$*" >&2
}

# Build the extension and the driver, and make the directories of a run.
build() {
  say "building"
  "$root/scripts/setup.sh"
  command -v python3 >/dev/null || die "python3 not found, which makes the report"
  start_work
  copy_tree tree
  stage_tree tree
  gcc -O2 -Wall -I"$("$pg_config" --includedir)" -o "$work/driver" "$root/bench/driver.c" \
    -L"$("$pg_config" --libdir)" -lpq
  as_owner mkdir "$work/run" "$work/results"
  # shellcheck disable=SC2034 # of the scripts that source this one
  statements=$work/tree/bench/statements
}

# shellcheck disable=SC2154 # variables of the scripts that source this one
sql() {
  as_owner "$bindir/psql" -XAtq -v ON_ERROR_STOP=1 -h "$work/$server" -U postgres \
    -d "$database" "$@"
}

# driver MODE OPTION ...: results are appended to the file of the mode.  "host"
# may name another server than that one.
# shellcheck disable=SC2154
driver() {
  local mode=$1

  shift
  as_owner env PGHOST="${host:-$work/$server}" PGUSER=postgres PGDATABASE="$database" \
    PGOPTIONS="$options" "$work/driver" "$@" >>"$work/results/$mode"
}

fact() {
  printf '%s\t%s\n' "$1" "$2" >>"$work/results/facts"
}

configure() {
  sql -c "ALTER SYSTEM SET $1 = '$2'" -c "SELECT pg_reload_conf()" >/dev/null
  sleep 1
}

# NAME COMMAND ...: run a step in a process group of its own, with a limit of its
# time.  Leaves its status in step_status; not to be called in a condition, where
# set -e has no effect.
run_step() {
  local step=$1 pid watch reason

  shift
  step_status=0
  set -m
  (
    set +m
    "$@"
  ) 2> >(tee "$work/step.err" >&2) &
  pid=$!
  (
    sleep $((STEP_MINUTES * 60))
    printf 'it took more than %s minutes\n' "$STEP_MINUTES" >"$work/step.late"
    kill -TERM -- -$pid
  ) 2>/dev/null &
  watch=$!
  set +m
  wait $pid || step_status=$?
  kill -TERM -- -$watch 2>/dev/null || true
  wait $watch 2>/dev/null || true
  [ $step_status -ne 0 ] || return 0
  reason=$({ cat "$work/step.late" 2>/dev/null || grep 'ERROR: ' "$work/step.err" ||
    grep -v '^[0-9:]* ' "$work/step.err" || true; } | tail -n 1 | tr '\t' ' ')
  rm -f "$work/step.late"
  fact "failed_$step" "${reason:-status $step_status}"
  failed=$((failed + 1))
  after_failure
}
