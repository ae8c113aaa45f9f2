#!/bin/bash
#
# Run every test, each suite against private servers of its own, and end with
# the line "N passed, N failed".  Called by make, which names the tests.
#
# --long adds half an hour of mixed load and of faults of the cache, runs everything against a build with
# AddressSanitizer and UndefinedBehaviorSanitizer as well, and fuzzes for longer.
#
#	PACKAGES	no: leave out the packages for Django and React, and the example (yes)

set -euo pipefail

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

long=no
[ "${1-}" != --long ] || long=yes

[ -n "${UNIT-}" ] || die "run make check, which names the tests"

"$root/scripts/setup.sh" --tests
start_work

rm -rf "$root/build/check"
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

# Add up the lines of a log that match the two patterns.  A status other than
# zero without a failure, or no test at all, is a failure too.
count() {
  local log=$1 ok=$2 not_ok=$3 status=$4
  local good bad

  good=$(grep -cE "$ok" "$log" || true)
  bad=$(grep -cE "$not_ok" "$log" || true)
  passed=$((passed + good))
  failed=$((failed + bad))
  if [ "$bad" -eq 0 ] && { [ "$status" -ne 0 ] || [ "$good" -eq 0 ]; }; then
    verdict FAILED "ended with status $status after $good tests"
  fi
}

# A test that make does not name would never run.
all_named() {
  local file name

  for file in "$root/test/$1"/*; do
    name=$(basename "$file")
    case " $2 " in
      *" ${name%.*} "*) ;;
      *)
        [ -d "$file" ] || { printf 'not named: %s\n' "test/$1/$name"; return 1; } ;;
    esac
  done
}

# Run pg_regress or pg_isolation_regress.  They print "... ok" after the name
# of a test before PostgreSQL 16, and "ok" before it since.
regress() {
  local program=$suites/$1 tree=$work/$2 server=$work/$3 status=0

  shift 3
  (cd "$tree" && as_owner "$program" --bindir="$bindir" --inputdir=test \
    --outputdir=. --host="$server" --user=postgres "$@") 2>&1 |
    tee "$work/output" | grep --line-buffered -E '^(test |ok |not ok |Bail)' ||
    status=${PIPESTATUS[0]}
  count "$work/output" '^ok |\.\.\. +ok' '^not ok |\.\.\. +FAILED' "$status"
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
    PG_REGRESS="$suites/regress/pg_regress" PGPORT=65432 TMPDIR="$work" \
    PG_CONFIG="$pg_config" \
    prove --verbose --merge -I "$suites/perl" -I test/t "$file"
}

report_tap() {
  local file=$1 name status seconds before=$failed

  name=$(tap_name "$file")
  read -r status seconds <"$work/$name.status"
  rm "$work/$name.status"
  count "$work/$name.out" '^ok ' '^not ok [^#]*$' "$status"
  if [ "$failed" -gt "$before" ]; then
    printf 'FAILED %s\n' "$file"
    awk '/^not ok/ { n = 10 } n-- > 0' "$work/$name.out"
    tail -n 6 "$work/$name.out"
    keep "$name"
  else
    printf 'ok     %s: %s tests, %s s\n' "$file" \
      "$(grep -c '^ok ' "$work/$name.out")" "$seconds"
  fi
}

tap_test() {
  (run_aside "$(tap_name "$2")" prove_in "$1" "$2")
  report_tap "$2"
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
      report_tap "$file"
      reported=$((reported + 1))
    else
      sleep 0.2
    fi
  done
  wait
}

# Every suite that needs a server, on the build TREE.
server_suites() {
  local tree=$1 preload files

  heading "regression tests, library not preloaded"
  start_server "$tree-plain" "fsync = off"
  # shellcheck disable=SC2086
  regress regress/pg_regress "$tree" "$tree-plain" \
    --dbname=contrib_regression ${REGRESS-}
  stop_server "$tree-plain"

  heading "regression tests, library preloaded"
  # one pass of the workers, and no more: the tests look at what functions do
  start_server "$tree-preloaded" "fsync = off" \
    "shared_preload_libraries = 'session_manager'" \
    "session_manager.sweep_interval = 1h"
  # shellcheck disable=SC2086
  regress regress/pg_regress "$tree" "$tree-preloaded" \
    --dbname=contrib_regression ${REGRESS-}
  stop_server "$tree-preloaded"

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

# Build TREE with sanitizers.  The server is not built with them, so that
# AddressSanitizer has to be loaded before it, by a wrapper in its place.  With
# some C libraries (Debian 12's) it then hangs, and has to be left out.
stage_sanitized() {
  local flags="-O1 -fno-sanitize-recover=all" asan options

  asan=$(gcc -print-file-name=libasan.so)
  options="detect_leaks=0:log_path=$work/sanitizer"
  if ! LD_PRELOAD=$asan ASAN_OPTIONS=$options \
    timeout 10 "$bindir/postgres" -V >/dev/null 2>&1; then
    printf 'AddressSanitizer does not run here: UndefinedBehaviorSanitizer only\n'
    stage_tree "$1" COPT="$flags -fsanitize=undefined"
    return
  fi
  stage_tree "$1" COPT="$flags -fsanitize=address,undefined"
  mv "$bindir/postgres" "$bindir/postgres-bare"
  cat >"$bindir/postgres" <<END
#!/bin/bash
export LD_PRELOAD=$asan ASAN_OPTIONS=$options UBSAN_OPTIONS=$options
exec -a "\$0" $bindir/postgres-bare "\$@"
END
  chmod 755 "$bindir/postgres"
}

no_reports() {
  ! cat "$work"/sanitizer.* 2>/dev/null
}

# Built without hiredis, the extension says so to whoever asks for a cache.
refuses_redis() {
  local with=$bindir status=0

  copy_tree without-redis
  if stage_tree without-redis USE_REDIS=0 COPT=-Werror; then
    start_server no-redis "shared_preload_libraries = 'session_manager'"
    # psql fails, as it must, and so would a pipeline
    as_owner "$bindir/psql" -XAtq -h "$work/no-redis" -U postgres -d postgres \
      -c "ALTER SYSTEM SET session_manager.redis_mode = 'strict'" >"$work/refusal" 2>&1 &&
      status=1
    grep 'DETAIL:  session_manager was built without hiredis.' "$work/refusal" || status=1
    stop_server no-redis
  else
    status=1
  fi
  bindir=$with
  return $status
}

heading "build, $("$pg_config" --version)"
suites=$(dirname "$("$pg_config" --pgxs)")/../test
copy_tree tree
if ! stage_tree tree COPT=-Werror; then
  printf '0 passed, 1 failed\n'
  exit 1
fi
verdict ok "$(gcc --version | head -n 1)"
copy_tree clang
check "$(clang --version | head -n 1)" build_tree clang CC=clang COPT=-Werror
check "without hiredis" refuses_redis

heading "tests without a server"
check "Makefile names every regression test" all_named sql "${REGRESS-}"
check "Makefile names every isolation test" all_named specs "${ISOLATION-}"
check "Makefile names every unit test" all_named unit "$UNIT"
check "Makefile names every fuzz target" all_named fuzz "$FUZZ"
check "documentation against the code" "$root/scripts/check-docs.sh"
for file in "$root"/scripts/*.sh "$root"/bench/*.sh "$root"/test/*/*.sh "$root"/.ci/run; do
  [ ! -e "$file" ] || check "shellcheck ${file#"$root/"}" shellcheck -x -P "$root" "$file"
done
status=0
build_tree tree unit >"$work/output" 2>&1 || status=$?
cat "$work/output"
count "$work/output" '^ok ' '^not ok ' $status
seconds=5
[ $long = no ] || seconds=300
check "fuzzing, $seconds s for each target" build_tree tree fuzz FUZZ_TIME=$seconds

heading "cache protocol"
check "reader of the cache, gcc" build_tree tree reader
check "reader of the cache, clang" build_tree clang reader CC=clang
status=0
build_tree tree protocol >"$work/output" 2>&1 || status=$?
cat "$work/output"
count "$work/output" '^ok ' '^not ok ' $status

server_suites tree

if [ "${PACKAGES-yes}" = yes ]; then
  heading "packages for Django and React, side by side"
  for package in django react; do
    run_aside $package env BINDIR="$bindir" "$root/scripts/check-$package.sh" &
  done
  wait
  for package in django react; do
    read -r status seconds <"$work/$package.status"
    heading "check-$package.sh, $seconds s"
    grep -E '^(# |not ok |size: )' "$work/$package.out" || true
    before=$failed
    count "$work/$package.out" '^ok ' '^not ok ' "$status"
    [ "$failed" -eq "$before" ] || keep $package
  done

  heading "example application"
  status=0
  BINDIR=$bindir LOGIN_RATE=1000/min "$root/scripts/example.sh" \
    python3 "$root/examples/backend/check.py" >"$work/output" 2>&1 || status=$?
  grep -vE '^ok ' "$work/output" || true
  count "$work/output" '^ok ' '^not ok ' $status
fi

if [ $long = yes ]; then
  heading "mixed load for ${SM_SOAK_SECONDS:-1800} s"
  tap_test tree test/t/long/soak.pl
  grep '^# ' "$work/soak.out" || true

  heading "an outage of Redis for a minute"
  SM_LONG=10 tap_test tree test/t/031_cache_outage.pl

  heading "cache, each fault for ${SM_HISTORY_SECONDS:-60} s"
  for file in strict async; do
    tap_test tree "test/t/long/cache_$file.pl"
    grep '^# .* reads' "$work/cache_$file.out" || true
  done

  heading "build with sanitizers"
  copy_tree sanitized
  stage_sanitized sanitized
  server_suites sanitized
  check "no report of a sanitizer" no_reports
fi

printf '\n%s passed, %s failed\n' $passed $failed
[ $failed -eq 0 ]
