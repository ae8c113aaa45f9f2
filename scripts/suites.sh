# shellcheck shell=bash
#
# Sourced by check.sh and check-assert.sh: counting tests, and the suites that
# need a server.  REGRESS and ISOLATION come from make.

# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

passed=0
failed=0

heading() {
  printf '\n== %s\n' "$*"
}

verdict() {
  printf '%-6s %s\n' "$1" "$2"
  if [ "$1" = ok ]; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    printf '%s\n' "$2" >>"$work/failures"
  fi
}

# Keep the whole output of a suite that failed.
keep() {
  local log=$root/build/check/$1.log

  mkdir -p "$root/build/check" && cp "$work/$1.out" "$log" &&
    printf 'The whole output is in %s.\n' "${log#"$root/"}"
}

# A test that is one command; its output is shown when it fails.
check() {
  local name=$1

  shift
  if "$@" >"$work/output" 2>&1; then
    verdict ok "$name"
  else
    verdict FAILED "$name"
    cat "$work/output"
  fi
}

# Add up the lines of the log of a SUITE that match the two patterns.  A status
# other than zero without a failure, or no test at all, is a failure too.
count() {
  local suite=$1 log=$2 ok=$3 not_ok=$4 status=$5
  local good bad

  good=$(grep -cE "$ok" "$log" || true)
  bad=$({ grep -E "$not_ok" "$log" || true; } | sed "s|^|$suite: |" | tee -a "$work/failures" | wc -l)
  passed=$((passed + good))
  failed=$((failed + bad))
  if [ "$bad" -eq 0 ] && { [ "$status" -ne 0 ] || [ "$good" -eq 0 ]; }; then
    verdict FAILED "$suite: ended with status $status after $good tests"
  fi
}

# The directory of PostgreSQL's own test programs.
test_programs() {
  printf '%s/../test' "$(dirname "$("$pg_config" --pgxs)")"
}

# Run pg_regress or pg_isolation_regress.  They print "... ok" after the name
# of a test before PostgreSQL 16, and "ok" before it since.
regress() {
  local tree=$work/$2 server=$work/$3 suite="${1##*/} $3" status=0 program

  program=$(test_programs)/$1
  shift 3
  (cd "$tree" && as_owner "$program" --bindir="$bindir" --inputdir=test \
    --outputdir=. --host="$server" --user=postgres "$@") 2>&1 |
    tee "$work/output" | grep --line-buffered -E '^(test |ok |not ok |Bail)' ||
    status=${PIPESTATUS[0]}
  count "$suite" "$work/output" '^ok |\.\.\. +ok' '^not ok |\.\.\. +FAILED' "$status"
  if [ "$status" -ne 0 ]; then
    cat "$tree/regression.diffs" 2>/dev/null || cat "$work/output"
    rm -f "$tree/regression.diffs"
    grep -E 'PANIC|FATAL|terminated by' "$server/log" || true
  fi
}

# Run a command; leave its output in $work/NAME.out, and its status and how many
# seconds it took in $work/NAME.status.
run_aside() {
  local name=$1 status=0 start=$SECONDS

  shift
  "$@" >"$work/$name.out" 2>&1 || status=$?
  printf '%s %s\n' $status $((SECONDS - start)) >"$work/$name.status.new"
  mv "$work/$name.status.new" "$work/$name.status"
}

tap_name() {
  basename "$1" .pl
}

prove_in() {
  local tree=$work/$1 file=$2

  as_owner mkdir -p "$tree/tmp_check"
  # PostgreSQL 15 and before look at TESTDIR, later ones at the other two.
  cd "$tree" && as_owner env PATH="$bindir:$PATH" TESTDIR="$tree" \
    TESTDATADIR="$tree/tmp_check" TESTLOGDIR="$tree/tmp_check/log" \
    PG_REGRESS="$(test_programs)/regress/pg_regress" PGPORT=65432 TMPDIR="$work" \
    PG_CONFIG="$pg_config" \
    prove --verbose --merge -I "$(test_programs)/perl" -I test/t "$file"
}

report_tap() {
  local tree=$1 file=$2 name log status seconds before=$failed

  name=$(tap_name "$file")
  log=$work/$tree/tmp_check/log/regress_log_$name
  read -r status seconds <"$work/$name.status"
  rm "$work/$name.status"
  count "$file" "$work/$name.out" '^ok ' '^not ok [^#]*$' "$status"
  if [ "$failed" -gt "$before" ]; then
    printf 'FAILED %s\n' "$file"
    awk '/^not ok/ { n = 10 } n-- > 0' "$work/$name.out"
    tail -n 6 "$work/$name.out"
    # What a test died of stands in its own log alone.
    if [ -e "$log" ]; then
      printf 'The log of %s ends with:\n' "$file"
      tail -n 15 "$log"
      cat "$log" >>"$work/$name.out"
    fi
    keep "$name"
  else
    printf 'ok     %s: %s tests, %s s\n' "$file" \
      "$(grep -c '^ok ' "$work/$name.out")" "$seconds"
  fi
}

tap_test() {
  (run_aside "$(tap_name "$2")" prove_in "$1" "$2")
  report_tap "$1" "$2"
}

# Two at a time, as mostly they wait for something; reported in order.
tap_tests() {
  local tree=$1 started=0 reported=0 file

  shift
  local files=("$@")
  while [ $reported -lt ${#files[@]} ]; do
    file=${files[reported]}
    if [ $started -lt ${#files[@]} ] && [ "$(jobs -rp | wc -l)" -lt 2 ]; then
      run_aside "$(tap_name "${files[started]}")" prove_in "$tree" "${files[started]}" &
      started=$((started + 1))
    elif [ -e "$work/$(tap_name "$file").status" ]; then
      report_tap "$tree" "$file"
      reported=$((reported + 1))
    else
      sleep 0.2
    fi
  done
  wait
}

# One pass of the workers, and no more: the tests look at what functions do.
preloaded=("shared_preload_libraries = 'session_manager'"
  "session_manager.sweep_interval = 1h")

# The regression tests on the build TREE, on a server NAME with further lines
# for its configuration.
regression_tests() {
  local tree=$1 name=$1-$2

  shift 2
  start_server "$name" "fsync = off" "$@"
  # shellcheck disable=SC2086
  regress regress/pg_regress "$tree" "$name" \
    --dbname=contrib_regression ${REGRESS-}
  stop_server "$name"
}

# Every suite that needs a server, on the build TREE.
server_suites() {
  local tree=$1 preload files

  heading "regression tests, library not preloaded"
  regression_tests "$tree" plain

  heading "regression tests, library preloaded"
  regression_tests "$tree" preloaded "${preloaded[@]}"

  for preload in "" session_manager; do
    heading "isolation tests, library $([ -n "$preload" ] || printf "not ")preloaded"
    start_server "$tree-isolation$preload" "fsync = off" \
      "shared_preload_libraries = '$preload'" \
      "session_manager.sweep_interval = 1h"
    # shellcheck disable=SC2086
    regress isolation/pg_isolation_regress "$tree" "$tree-isolation$preload" \
      --dbname=isolation_regression ${ISOLATION-}
    stop_server "$tree-isolation$preload"
  done

  heading "TAP tests"
  mapfile -t files < <(cd "$work/$tree" && printf '%s\n' test/t/*.pl)
  tap_tests "$tree" "${files[@]}"
}

# What failed once more, the last line, and the status to exit with.
finish() {
  if [ -s "$work/failures" ]; then
    heading "what failed"
    cat "$work/failures"
  fi
  printf '\n%s passed, %s failed\n' $passed $failed
  [ $failed -eq 0 ]
}
