#!/bin/bash
#
# Run every test, each suite against private servers of its own, and end with
# the line "N passed, N failed".  Called by make, which names the tests.
#
# --long adds half an hour of mixed load and of faults of the cache, runs everything against a build with
# AddressSanitizer and UndefinedBehaviorSanitizer as well, fuzzes for longer, and tries the React package's quick start on
# every version of Next.js and React.
#
#	PACKAGES	no: leave out the packages for Django and React, and the example (yes)

set -euo pipefail

# shellcheck source=scripts/suites.sh
. "$(dirname "$0")/suites.sh"

long=no
[ "${1-}" != --long ] || long=yes

[ -n "${UNIT-}" ] || die "run make check, which names the tests"

"$root/scripts/setup.sh" --tests
start_work

rm -rf "$root/build/check"
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

# A key file that belongs to root, as a mounted secret may, is taken where the
# server may read it and nobody else, as ssl_key_file is.
takes_roots_key_file() {
  local dir=$work/roots-key mode expected answer status=0

  start_server roots-key "session_manager.key_file = '$work/roots-keys'"
  printf '1:%s\n' "$(od -An -v -tx1 -N32 /dev/urandom | tr -d ' \n')" >"$work/roots-keys"
  chown root:postgres "$work/roots-keys"
  roots_sql() {
    as_owner "$bindir/psql" -XAtq -h "$dir" -U postgres -d postgres -c "$1" 2>&1
  }
  roots_sql "SET client_min_messages = warning; CREATE EXTENSION session_manager CASCADE"
  chmod 0640 "$work/roots-keys"
  roots_sql "SELECT session_key_add(1)"
  for mode in 0640:t 0440:t 0400:f 0644:f 0660:f 0641:f; do
    expected=${mode#*:}
    chmod "${mode%:*}" "$work/roots-keys"
    answer=$(roots_sql "SELECT session_token LIKE 'sm1_%' FROM session_create('ann')" | grep -E '^(t|ERROR:)')
    printf '%s: %s\n' "${mode%:*}" "$answer"
    [[ $answer == "$expected" || ($expected == f && $answer == ERROR:*) ]] || status=1
  done
  stop_server roots-key
  return $status
}

heading "build, $("$pg_config" --version)"
copy_tree tree
if ! stage_tree tree COPT=-Werror; then
  printf '0 passed, 1 failed\n'
  exit 1
fi
verdict ok "$(gcc --version | head -n 1)"
copy_tree clang
check "$(clang --version | head -n 1)" build_tree clang CC=clang COPT=-Werror
check "without hiredis" refuses_redis
[ "$(id -u)" -ne 0 ] || check "a key file of root's" takes_roots_key_file

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
count "unit tests" "$work/output" '^ok ' '^not ok ' $status
seconds=5
[ $long = no ] || seconds=300
check "fuzzing, $seconds s for each target" build_tree tree fuzz FUZZ_TIME=$seconds

heading "cache protocol"
check "reader of the cache, gcc" build_tree tree reader
check "reader of the cache, clang" build_tree clang reader CC=clang
status=0
build_tree tree protocol >"$work/output" 2>&1 || status=$?
cat "$work/output"
count "cache protocol" "$work/output" '^ok ' '^not ok ' $status

server_suites tree

if [ "${PACKAGES-yes}" = yes ]; then
  heading "packages for Django and React, side by side"
  react_options=()
  [ $long = no ] || react_options=(--long)
  run_aside django env BINDIR="$bindir" "$root/scripts/check-django.sh" &
  run_aside react env BINDIR="$bindir" "$root/scripts/check-react.sh" "${react_options[@]}" &
  wait
  for package in django react; do
    read -r status seconds <"$work/$package.status"
    heading "check-$package.sh, $seconds s"
    grep -E '^(# |not ok |size: )' "$work/$package.out" || true
    before=$failed
    count "check-$package.sh" "$work/$package.out" '^ok ' '^not ok ' "$status"
    [ "$failed" -eq "$before" ] || keep $package
  done

  heading "example application"
  status=0
  BINDIR=$bindir LOGIN_RATE=1000/min "$root/scripts/check-example.sh" >"$work/output" 2>&1 || status=$?
  grep -vE '^ok ' "$work/output" || true
  count check-example.sh "$work/output" '^ok ' '^not ok ' $status

  heading "quick start for Django, as it is written"
  status=0
  BINDIR=$bindir "$root/scripts/walk-django.sh" >"$work/output" 2>&1 || status=$?
  cat "$work/output"
  count walk-django.sh "$work/output" '^ok ' '^not ok ' $status
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

finish
