#!/bin/bash
#
# Run every test, each suite against private servers of its own, and end with
# the line "N passed, N failed".  Called by make, which names the tests.
#
# --quick runs what a change is most likely to break, within two minutes: the
# build, the unit tests, the regression tests once, and the isolation tests.
#
# --long adds half an hour of mixed load and of faults of the cache, the benchmarks, Django 5.2 and
# more tests on 4.2, more of Django's and django-allauth's own tests, runs everything against
# a build with AddressSanitizer and UndefinedBehaviorSanitizer as well, fuzzes for longer, and
# does what the quick start of the React package says on every version of Next.js and React.
#
#	TEST		some tests or suites in place of all, see check-one.sh
#	PACKAGES	no: leave out the packages for Django and React, and the example (yes)

set -euo pipefail

# shellcheck source=scripts/suites.sh
. "$(dirname "$0")/suites.sh"
# shellcheck source=scripts/lint.sh
. "$(dirname "$0")/lint.sh"

scope=${1-}

[ -n "${UNIT-}" ] || die "run make check, which names the tests"
[ -z "${TEST-}" ] || exec "$root/scripts/check-one.sh"

case $scope in
  --quick) "$root/scripts/deps.sh" build ;;
  --long) "$root/scripts/deps.sh" --long ;;
  *) "$root/scripts/deps.sh" ;;
esac
start_work
rm -rf "$root/build/check"

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

check_quick() {
  build_extension
  copy_tree isolation
  start_part isolation isolation_tests isolation preloaded "${preloaded[@]}"
  unit_tests
  heading "regression tests, library preloaded"
  regression_tests tree preloaded "${preloaded[@]}"
  heading "isolation tests, library preloaded"
  join_part isolation
  finish
}

# Both want the same ports, so that they follow each other.
react_and_example() {
  heading "React package, and the example"
  script check-react.sh env BINDIR="$bindir" "$root/scripts/check-react.sh" "$@"
  heading "example application"
  script check-example.sh env BINDIR="$bindir" CONNECT_TIMEOUT=20 LOGIN_RATE=1000/min "$root/scripts/check-example.sh"
}

django_package() {
  heading "Django package"
  script check-django.sh env BINDIR="$bindir" "$root/scripts/check-django.sh" "$@"
  # shellcheck disable=SC2119 # all of those that can pass
  [ "$scope" != --long ] || router_tests
}

# The two follow what needs no server, which is done long before the Django package's own tests.
sources_walk_and_peers() {
  sources_and_protocol
  [ "${PACKAGES-yes}" = yes ] || return 0
  heading "quick start for Django, as it is written; it installs the package into a temporary directory"
  script walk-django.sh env BINDIR="$bindir" "$root/scripts/walk-django.sh"
  peers "$@"
}

# What needs no server.
sources_and_protocol() {
  local seconds=5

  [ "$scope" != --long ] || seconds=300
  heading "lint"
  lint_sources
  copy_tree clang
  lint_clang clang

  unit_tests
  check "fuzzing, $seconds s for each target" build_tree tree fuzz FUZZ_TIME=$seconds

  protocol_tests

  heading "other builds and key files"
  check "without hiredis" refuses_redis
  [ "$(id -u)" -ne 0 ] || check "a key file of root's" takes_roots_key_file
}

long_suites() {
  local file django=

  [ "${PACKAGES-yes}" != yes ] || django=$root/build/django/newest/bin/python

  heading "mixed load for ${SM_SOAK_SECONDS:-1800} s"
  tap_test tree test/t/long/soak.pl
  grep '^# ' "$work/soak.out" || true

  heading "benchmarks, in their short form"
  # (those of Django need what its tests install)
  [ "${PACKAGES-yes}" != yes ] ||
    check "every benchmark runs" env QUICK=1 STEP=all PG_CONFIG="$pg_config" "$root/bench/all.sh"
  check "growth is measured" env QUICK=1 STEP=growth PG_CONFIG="$pg_config" "$root/bench/all.sh"

  # (the load comes from a package of PyPI)
  [ "${PACKAGES-yes}" != yes ] ||
    check "four shards, against their forecast" env PG_CONFIG="$pg_config" "$root/bench/fleet.sh"

  heading "each alert, and its fault"
  tap_test tree test/t/long/watching.pl
  grep '^# ' "$work/watching.out" || true

  heading "an outage of Redis for a minute"
  SM_LONG=10 tap_test tree test/t/031_cache_outage.pl

  heading "shards, moved by logical replication, and split while they are killed at each step, and at random"
  tap_test tree test/t/long/shard_logical.pl
  tap_test tree test/t/long/shard_crash.pl
  SM_DJANGO_PYTHON=$django tap_test tree test/t/long/shard.pl
  grep '^# .* longest_wait' "$work/shard.out" || true

  heading "cache, each fault for ${SM_HISTORY_SECONDS:-60} s"
  for file in strict async; do
    tap_test tree "test/t/long/cache_$file.pl"
    grep '^# .* reads' "$work/cache_$file.out" || true
  done

  heading "build with sanitizers"
  copy_tree sanitized
  stage_sanitized sanitized
  server_suites sanitized
  test_alone sanitized
  check "no report of a sanitizer" no_reports
}

if [ "$scope" = --quick ]; then
  check_quick
  exit
fi

# The packages' tests wait for servers and browsers half of the time, and so do
# the TAP tests: they run beside each other, and beside what compiles.
build_extension
options=()
[ "$scope" != --long ] || options=(--long)
if [ "${PACKAGES-yes}" = yes ]; then
  start_part django django_package "${options[@]}"
  start_part react react_and_example "${options[@]}"
fi
start_part sources sources_walk_and_peers "${options[@]}"
server_suites tree
join_part sources
if [ "${PACKAGES-yes}" = yes ]; then
  join_part django
  join_part react
fi
test_alone tree
[ "$scope" != --long ] || long_suites
finish
