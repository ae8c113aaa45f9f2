# shellcheck shell=bash
#
# Sourced by the scripts that run tests: counting them, running parts of them
# aside, and the suites that need a server.  REGRESS and ISOLATION come from make.
#
# Tests and lint are counted apart: a test says what the software does, lint
# says what its sources look like.  Both fail the run.

# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

passed=0
failed=0
lint_passed=0
lint_failed=0
# The part of the tests that is running; its files are named for it.
part=main

# With the seconds since the start.
heading() {
  printf '\n== %s (%s s)\n' "$*" $SECONDS
}

fail() {
  printf 'FAILED %s\n' "$1"
  printf '%s\n' "$1" >>"$work/$part.failures"
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
  if "$@" >"$work/$part.output" 2>&1; then
    printf 'ok     %s\n' "$name"
    passed=$((passed + 1))
  else
    fail "$name"
    failed=$((failed + 1))
    cat "$work/$part.output"
  fi
}

# The same for a check of the sources.
lint() {
  local name=$1

  shift
  if "$@" >"$work/$part.output" 2>&1; then
    printf 'ok     %s\n' "$name"
    lint_passed=$((lint_passed + 1))
  else
    fail "$name"
    lint_failed=$((lint_failed + 1))
    cat "$work/$part.output"
  fi
}

# Add up the lines of the log of a SUITE that match the two patterns.  A status
# other than zero without a failure, or no test at all, is a failure too.
count() {
  local suite=$1 log=$2 ok=$3 not_ok=$4 status=$5
  local good bad lint_good lint_bad

  good=$(grep -cE "$ok" "$log" || true)
  bad=$(failures "$suite" "$log" "$not_ok")
  lint_good=$(grep -c '^lint ok ' "$log" || true)
  lint_bad=$(failures "$suite" "$log" '^lint not ok ')
  passed=$((passed + good))
  failed=$((failed + bad))
  lint_passed=$((lint_passed + lint_good))
  lint_failed=$((lint_failed + lint_bad))
  if [ $((bad + lint_bad)) -eq 0 ] && { [ "$status" -ne 0 ] || [ $((good + lint_good)) -eq 0 ]; }; then
    fail "$suite: ended with status $status after $good tests"
    failed=$((failed + 1))
  fi
}

# Note the lines of the log of a SUITE that match a pattern, and say how many.
failures() {
  { grep -E "$3" "$2" || true; } | sed "s|^|$1: |" | tee -a "$work/$part.failures" | wc -l
}

# Run a function as a part NAME of the tests beside the others.  What it prints
# and counts appears when it is joined.  A process group of its own, so that
# its end reaches what it has started.
start_part() {
  set -m
  run_part "$@" >"$work/$1.part" 2>&1 </dev/null &
  set +m
  printf '%s\n' $! >"$work/$1.pid"
}

run_part() {
  part=$1 passed=0 failed=0 lint_passed=0 lint_failed=0
  shift
  "$@"
  printf '%s %s %s %s %s\n' $passed $failed $lint_passed $lint_failed $SECONDS >"$work/$part.counts"
}

join_part() {
  local name=$1 counts seconds

  wait "$(cat "$work/$name.pid")" || true
  cat "$work/$name.part"
  if read -r -a counts <"$work/$name.counts"; then
    passed=$((passed + counts[0]))
    failed=$((failed + counts[1]))
    lint_passed=$((lint_passed + counts[2]))
    lint_failed=$((lint_failed + counts[3]))
    seconds=${counts[4]}
    printf '(%s: done after %s s)\n' "$name" "$seconds"
  else
    fail "$name: ended early"
    failed=$((failed + 1))
  fi
  if [ -e "$work/$name.failures" ]; then
    cat "$work/$name.failures" >>"$work/$part.failures"
  fi
}

# Run a script that prints lines "ok ...", "not ok ...", "lint ok ..." and
# "lint not ok ..."; show those that failed, and what it says of itself.
script() {
  local name=$1 status=0 start=$SECONDS before=$((failed + lint_failed))

  shift
  "$@" >"$work/$name.out" 2>&1 || status=$?
  grep -E '^(# |(lint )?not ok |deps: |setup: |size: )' "$work/$name.out" || true
  count "$name" "$work/$name.out" '^ok ' '^not ok ' $status
  printf '%s: %s ok, %s s\n' "$name" "$(grep -cE '^(lint )?ok ' "$work/$name.out" || true)" $((SECONDS - start))
  [ $((failed + lint_failed)) -eq "$before" ] || keep "$name"
}

# The tests of those whose work the session engine takes over.
peers() {
  heading "tests of Django and others, with the session engine"
  script check-peers.sh env BINDIR="$bindir" "$root/scripts/check-peers.sh" "$@"
}

# Tests of the Django package through session_manager_router.
router_tests() {
  heading "Django package, its database a router in front of four servers"
  if [ -e "$("$pg_config" --pkglibdir)/plproxy.so" ]; then
    script router env BINDIR="$bindir" "$root/scripts/check-django.sh" --router "$@"
  else
    printf 'left out: PL/Proxy is not installed for this PostgreSQL\n'
  fi
}

# The sources of each release, by its tag, as $work/releases/TAG.
released_trees() {
  local tag tags

  tags=$(git -c safe.directory='*' -C "$root" tag --list 'v[0-9]*' 2>/dev/null) || return 0
  for tag in $tags; do
    as_owner mkdir -p "$work/releases/$tag"
    git -c safe.directory='*' -C "$root" archive "$tag" | as_owner tar -xf - -C "$work/releases/$tag"
  done
}

# Build the extension as $work/tree and set it up for servers.
build_extension() {
  heading "build, $("$pg_config" --version)"
  copy_tree tree
  released_trees
  if ! stage_tree tree COPT=-Werror; then
    printf '0 passed, 1 failed\n'
    exit 1
  fi
  printf 'built by %s\n' "$(gcc --version | head -n 1)"
}

unit_tests() {
  local status=0

  heading "unit tests"
  build_tree tree unit >"$work/unit.out" 2>&1 || status=$?
  cat "$work/unit.out"
  count "unit tests" "$work/unit.out" '^ok ' '^not ok ' $status
  check "the forecast of a fleet" python3 -B "$root/bench/fleet/test_forecast.py"
}

protocol_tests() {
  local status=0

  heading "cache protocol"
  check "reader of the cache, clang" build_tree tree -B reader CC=clang
  check "reader of the cache, gcc" build_tree tree -B reader
  build_tree tree protocol >"$work/protocol.out" 2>&1 || status=$?
  cat "$work/protocol.out"
  count "cache protocol" "$work/protocol.out" '^ok ' '^not ok ' $status
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
    tee "$work/$part.output" | grep --line-buffered -E '^(test |ok |not ok |Bail)' ||
    status=${PIPESTATUS[0]}
  count "$suite" "$work/$part.output" '^ok |\.\.\. +ok' '^not ok |\.\.\. +FAILED' "$status"
  if [ "$status" -ne 0 ]; then
    cat "$tree/regression.diffs" 2>/dev/null || cat "$work/$part.output"
    rm -f "$tree/regression.diffs"
    grep -E 'PANIC|FATAL|TRAP|terminated by' "$server/log" || true
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
    PG_CONFIG="$pg_config" RELEASES="$work/releases" \
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

# How many TAP tests run at a time: half of the time they wait for something.
tap_jobs=${TAP_JOBS:-3}

# Reported in order.  The status file is the last thing that a test leaves, so
# that there is nothing to wait for after it.
tap_tests() {
  local tree=$1 started=0 reported=0 running file i

  shift
  local files=("$@")
  while [ $reported -lt ${#files[@]} ]; do
    running=0
    for ((i = reported; i < started; i++)); do
      [ -e "$work/$(tap_name "${files[i]}").status" ] || running=$((running + 1))
    done
    file=${files[reported]}
    if [ $started -lt ${#files[@]} ] && [ $running -lt "$tap_jobs" ]; then
      run_aside "$(tap_name "${files[started]}")" prove_in "$tree" "${files[started]}" &
      started=$((started + 1))
    elif [ -e "$work/$(tap_name "$file").status" ]; then
      report_tap "$tree" "$file"
      reported=$((reported + 1))
    else
      sleep 0.2
    fi
  done
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

# The regression tests on the build TREE, with the function of the tests that
# calls session_get_json in place of session_get.  Three are about session_get
# itself: who may call it, what its row type may be, and that it is dropped.
regression_tests_by_json() {
  local name tests=

  for name in ${REGRESS-}; do
    case $name in
      malformed | privileges | drop) ;;
      *) tests+=" $name" ;;
    esac
  done
  REGRESS=$tests regression_tests "$1" json "search_path = 'as_json, \"\$user\", public'"
}

# The isolation tests on the build TREE, on a server NAME with further lines for
# its configuration.
isolation_tests() {
  local tree=$1 name=$1-isolation-$2

  shift 2
  start_server "$name" "fsync = off" "$@"
  # shellcheck disable=SC2086
  regress isolation/pg_isolation_regress "$tree" "$name" \
    --dbname=isolation_regression ${ISOLATION-}
  stop_server "$name"
}

both_isolation_tests() {
  heading "isolation tests, library not preloaded"
  isolation_tests "$1" plain
  heading "isolation tests, library preloaded"
  isolation_tests "$1" preloaded "${preloaded[@]}"
}

# The test that test_alone runs.
alone=test/t/049_cache_busy.pl

# Every suite that needs a server but that, on the build TREE.
server_suites() {
  local tree=$1 files

  # pg_regress writes into the tree that it runs in
  copy_tree "$tree-isolation"
  start_part "isolation-$tree" both_isolation_tests "$tree-isolation"

  heading "regression tests, library not preloaded"
  regression_tests "$tree" plain

  heading "regression tests, library preloaded"
  regression_tests "$tree" preloaded "${preloaded[@]}"

  heading "regression tests, session_get by session_get_json"
  regression_tests_by_json "$tree"

  heading "TAP tests"
  mapfile -t files < <(cd "$work/$tree" && printf '%s\n' test/t/*.pl | grep -vxF "$alone")
  tap_tests "$tree" "${files[@]}"

  join_part "isolation-$tree"
}

# The one that keeps every processor busy itself, once nothing else runs.
test_alone() {
  heading "a busy machine"
  tap_test "$1" "$alone"
}

# What failed once more, lint and tests, and the status to exit with.
finish() {
  if [ -s "$work/$part.failures" ]; then
    heading "what failed"
    cat "$work/$part.failures"
  fi
  if [ $((lint_passed + lint_failed)) -gt 0 ]; then
    printf '\nlint: %s in order, %s to be fixed' $lint_passed $lint_failed
  fi
  printf '\n%s passed, %s failed\n' $passed $failed
  [ $((failed + lint_failed)) -eq 0 ]
}
