#!/bin/bash
#
# Test the Django client: ruff, mypy, and its tests on the newest Django that
# runs on this Python and on 4.2, against private PostgreSQL and Redis servers.
# The newest gets every test, the browser's included; 4.2 those that depend on
# Django most.  4.2 uses psycopg2, the others psycopg 3.
#
#   scripts/check-django.sh [--long | --lint | --router [pytest argument ...] | pytest argument ...]
#
# The newest runs some of the tests on four servers as well, which share the
# sessions (SHARDS); --long runs more of them.
#
# --long tests on Django 5.2 too, which seldom fails where its two neighbours
# pass, and runs on 4.2 and 5.2 every test that depends on Django; --lint runs
# ruff and mypy alone.  With arguments for pytest the tests run on the newest
# Django alone, without ruff and mypy.  --router does the same, by default with
# the tests of the service, the API and what is like them, where the database has
# session_manager_router in front of four servers; tests/router.txt names those
# that cannot pass there, and they must fail.
#
#	DJANGO		the versions to test on (newest 4.2; with --long 5.2 too)
#	SHARDS		with arguments for pytest: how many servers share the sessions;
#			tests/sharded needs 4, and has them
#	PYTHON		interpreter for the virtual environments (/usr/bin/python3)
#	BINDIR		programs of a staged PostgreSQL that has the extension
#
# Prints a line "ok ..." or "not ok ..." for each test, once however many
# versions of Django it runs on, and a line "lint ok ..." or "lint not ok ..." for ruff and mypy;
# make check counts them.  Virtual environments are kept in build/django.

set -euo pipefail

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/router.sh
. "$(dirname "$0")/router.sh"

# Arguments for pytest.
arguments=()
scope=
case ${1-} in
  --long | --lint) scope=$1 ;;
  --router)
    scope=$1
    shift
    arguments=("$@")
    # what is about routers, and what neither looks into tables nor is about transactions
    [ $# -gt 0 ] || arguments=(tests/routed tests/test_services.py tests/test_api.py tests/test_authentication.py tests/test_middleware.py
      tests/test_engine.py tests/test_bearer.py tests/test_csrf.py tests/test_users.py tests/test_login_authentication.py)
    ;;
  *) arguments=("$@") ;;
esac

versions="newest 4.2"
[ "$scope" != --long ] || versions+=" 5.2"
versions=${DJANGO:-$versions}
[ ${#arguments[@]} -eq 0 ] && [ "$scope" != --lint ] || versions=newest
shards=${SHARDS-}
if [ -z "$shards" ]; then
  case ${arguments[*]-tests/sharded} in
    *tests/sharded*) shards=4 ;;
    *) shards=0 ;;
  esac
fi
# shellcheck disable=SC2086
"$root/scripts/deps.sh" build $versions
home=$(getent passwd "$(id -u)" | cut -d: -f6)
start_work

client=$work/tree/clients/django

# Tests start Redis themselves; what a test that was killed left goes here.
# shellcheck disable=SC2317,SC2329 # called by the trap
stop_redis() {
  local pidfile pid

  for pidfile in "$work"/redis-*/pid; do
    pid=$(cat "$pidfile" 2>/dev/null) || continue
    kill "$pid" 2>/dev/null || true
  done
}
# end_work looks at the status that the script ends with.
trap 'status=$?; set +e; stop_redis; (exit $status); end_work' EXIT

# Put the package as it is now into the virtual environment NAME, from a copy,
# as a build leaves files.  Sets venv.
install_client() {
  venv=$root/build/django/$1
  cp -R "$client" "$work/package-$1"
  HOME=$home "$venv/bin/pip" install -q --disable-pip-version-check --no-index --no-deps --no-build-isolation \
    --force-reinstall "$work/package-$1"
}

# A server NAME, with settings of its own, whose template1 has the extension and what migrate grants, so
# that test databases made from it have both.  Without a key: the first key
# makes an installation, and each test database is one of its own.
start_database() {
  local name=$1

  shift
  mkdir -m 777 "$work/redis-$name"
  # Fifty clients, the backends that their last requests have left behind, and the tests.
  start_server "$name" "fsync = off" \
    "max_connections = 300" \
    "shared_preload_libraries = 'session_manager'" \
    "session_manager.redis_mode = strict" \
    "session_manager.redis_socket = '$work/redis-$name/s'" \
    "session_manager.flush_interval = 1s" \
    "session_manager.sweep_interval = 2s" "$@"
  {
    printf 'CREATE ROLE webapp LOGIN CREATEDB;\nCREATE EXTENSION session_manager CASCADE;\n'
    (cd "$client" && DJANGO_SETTINGS_MODULE=tests.settings "$venv/bin/python" -c \
      "import django; django.setup()
from session_manager.management.grants import grant_statements
print(';\n'.join(grant_statements('webapp')), end=';\n')")
  } | "$bindir/psql" -X -q -o /dev/null -v ON_ERROR_STOP=1 -h "$work/$name" -U postgres -d template1 2>"$work/$name.sql" ||
    { cat "$work/$name.sql" >&2; die "cannot prepare the database"; }
}

# A server NAME whose template1 has the router in the place of the extension, and
# four servers that have the sessions.
start_router() {
  local name=$1 i connections=() hosts=()

  start_shards "$name-shard" 4 "fsync = off" "shared_buffers = 16MB" "max_connections = 300" \
    "session_manager.flush_interval = 1s" "session_manager.sweep_interval = 2s"
  for i in 1 2 3 4; do
    hosts+=("$work/$name-shard$i")
    connections+=("host=$work/$name-shard$i dbname=sessions")
  done
  export SM_TEST_ROUTED="${hosts[*]}"
  mkdir -m 777 "$work/redis-$name"
  start_server "$name" "fsync = off" "max_connections = 300" "shared_preload_libraries = 'session_manager'"
  make_router "$name" template1 "${connections[@]}"
  run_sql "$name" template1 >/dev/null <<<"CREATE ROLE webapp LOGIN CREATEDB; SELECT session_grant('webapp', 'app');"
}

# The servers that share the sessions, and one that has none: newest-shards.
start_sharded() {
  local n

  start_database newest-shards
  for ((n = 1; n <= shards; n++)); do
    start_database "s$n" "shared_buffers = 16MB" "session_manager.shard = '$n/$shards'"
  done
}

# Where they are, for tests/settings.py.
shard_directories() {
  local n

  for ((n = 1; n <= shards; n++)); do
    printf '%s ' "$work/s$n"
  done
}

# pg_ctl with arguments, as whoever may run it, for tests to start and stop servers.
pg_ctl_command() {
  local command=("$bindir/pg_ctl" -s -w -m fast "$@")

  command=("${as_server_owner[@]}" "${command[@]}")
  printf '%q ' "${command[@]}"
}

# What runs a command as the user who owns the servers.
as_server_owner=()
[ "$(id -u)" -ne 0 ] || as_server_owner=(setpriv --reuid=postgres --regid=postgres --init-groups --)

# Run the tests on the server NAME, in the environment of that name; "newest-2"
# and so on are further servers for the newest, "newest-shards" one with SHARDS.
run_tests() {
  local name=$1 status=0 version=${1%-*} label=${1%-*} directories=

  shift
  if [ "$name" = newest-shards ]; then
    label=$name
    directories=$(shard_directories)
  fi
  (cd "$client" && env HOME="$work" SM_TEST_NO_SKIP=1 SM_TEST_PGHOST="$work/$name" SM_TEST_PGPORT=5432 \
    SM_TEST_REDIS_SOCKET="$work/redis-$name/s" SM_TEST_SHARDS="$directories" \
    SM_TEST_PG_CTL="$(pg_ctl_command)" \
    SM_TEST_PG_STOP="$(pg_ctl_command -D "$work/$name/data" -l "$work/$name/log" stop)" \
    SM_TEST_PG_START="$(pg_ctl_command -D "$work/$name/data" -l "$work/$name/log" start)" \
    SM_TEST_PG_BINDIR="$bindir" SM_TEST_PG_ROOM="$work" SM_TEST_PG_OWNER="${as_server_owner[*]}" \
    "$root/build/django/$version/bin/python" -m pytest -v --color=no -p no:cacheprovider "$@") \
    >"$work/$name.out" 2>&1 || status=$?
  sed -nE "s/^(tests\/.*) PASSED( .*)?$/ok $version \1/p; s/^(tests\/.*) (FAILED|ERROR)( .*)?$/not ok $label \1/p" \
    "$work/$name.out" >"$work/$name.lines"
  if [ $status -ne 0 ] || grep -q ' SKIPPED' "$work/$name.out"; then
    printf 'not ok %s ended with status %s\n' "$name" $status >>"$work/$name.lines"
    sed -n '/= \(FAILURES\|ERRORS\) =/,$p; / SKIPPED/p' "$work/$name.out" >>"$work/$name.lines"
  fi
}

# One line for each test in the files of run_tests: "ok TEST" where it passed on
# every version, "not ok TEST (VERSIONS)" where it did not; then the others.
merge() {
  awk '
    match($0, /^(not )?ok [^ ]+ tests\//) {
      bad = sub(/^not /, "")
      version = $2
      sub(/^ok [^ ]+ /, "")
      if (!($0 in seen)) { seen[$0] = 1; order[++n] = $0 }
      if (bad) failed[$0] = failed[$0] (failed[$0] ? ", " : "") version
      next
    }
    { rest = rest $0 "\n" }
    END {
      for (i = 1; i <= n; i++) {
        test = order[i]
        if (test in failed) printf "not ok %s (%s)\n", test, failed[test]
        else printf "ok %s\n", test
      }
      printf "%s", rest
    }' "$@"
}

one() {
  local what=$1

  shift
  if "$@" >"$work/one.out" 2>&1; then
    printf 'lint ok %s\n' "$what"
  else
    printf 'lint not ok %s\n' "$what"
    cat "$work/one.out"
    status=1
  fi
}

lint_client() {
  local venv=$root/build/django/newest

  cd "$client"
  one "ruff check" "$venv/bin/ruff" check --no-cache .
  one "ruff format" "$venv/bin/ruff" format --no-cache --check .
  one "ruff check of the example" "$venv/bin/ruff" check --no-cache --config pyproject.toml \
    --config 'lint.isort.known-first-party=["billing", "config"]' ../../examples
  one "ruff format of the example" "$venv/bin/ruff" format --no-cache --config pyproject.toml --check ../../examples
  # RUF001: its tables have dashes.
  one "ruff check of the measurements" "$venv/bin/ruff" check --no-cache --config pyproject.toml \
    --config 'lint.isort.known-first-party=["bars", "load", "model", "plot", "report", "sides", "tables"]' --extend-ignore RUF001 \
    ../../bench/django ../../bench/fleet ../../bench/shards ../../bench/stores ../../bench/{growth,plot,parts,router_table}.py
  one "ruff format of the measurements" "$venv/bin/ruff" format --no-cache --config pyproject.toml --check \
    ../../bench/django ../../bench/fleet ../../bench/shards ../../bench/stores ../../bench/{growth,plot,parts,router_table}.py
  # S: as of the package's own tests.
  one "ruff check of the histories" "$venv/bin/ruff" check --no-cache --config pyproject.toml --extend-ignore S ../../test/history
  one "ruff format of the histories" "$venv/bin/ruff" format --no-cache --config pyproject.toml --check ../../test/history
  one "mypy" env PYTHONPATH=. "$venv/bin/mypy" --cache-dir "$work/mypy"
}

# What an older Django is tested with: what depends on Django most, and with
# --long what depends on it at all, without a browser.
older=(tests/test_services.py tests/test_transactions.py tests/test_authentication.py tests/test_middleware.py
  tests/test_engine.py tests/test_models.py tests/test_checks.py)
[ "$scope" != --long ] || older+=(tests/test_admin.py tests/test_asgi.py tests/test_adopter.py tests/test_suites.py
  tests/test_cookie_decision.py tests/test_api.py tests/test_throttling.py
  tests/test_cache_control.py tests/test_apart.py tests/test_users.py tests/test_user_changes.py tests/test_lazy_users.py
  tests/test_identity.py tests/test_commands.py tests/test_importing.py tests/test_csrf.py tests/test_refusals.py
  tests/test_login_authentication.py tests/test_engine_requests.py tests/test_statuses.py tests/test_clients.py
  tests/test_in_memory.py tests/test_round_trips.py tests/test_cached_requests.py tests/test_schemathesis.py
  tests/test_standby.py)

# What takes long and seldom fails.
but_long=()
[ "$scope" = --long ] || but_long=(-m "not long")

# On several servers: what is about them, and what shows that all else is as on one.
sharded=(tests/sharded/test_routing.py)
[ "$scope" != --long ] || sharded=(tests/sharded tests/test_services.py tests/test_api.py tests/test_middleware.py
  tests/test_engine.py tests/test_bearer.py tests/test_switching.py tests/test_refusals.py tests/test_statuses.py)

# On the newest version the tests are dealt out to so many servers, to run beside each other.
parts=4

# The files of the tests that are the share of the part SHARE: the larger ones take longer.
share() {
  (cd "$client" && ls -S tests/test_*.py) | awk -v share="$1" -v parts=$parts 'NR % parts == share % parts'
}

# The tests on a server and its version of Django.
run_version() {
  local files

  case $1 in
    newest-shards)
      [ ${#arguments[@]} -eq 0 ] || sharded=("${arguments[@]}")
      run_tests "$1" "${sharded[@]}"
      ;;
    newest*)
      if [ ${#arguments[@]} -gt 0 ]; then
        run_tests "$1" "${arguments[@]}"
      else
        mapfile -t files < <(share "${1#newest-}")
        run_tests "$1" "${files[@]}" "${but_long[@]}"
      fi
      ;;
    *) run_tests "$1" "${older[@]}" -m "not browser" ;;
  esac
}

status=0
copy_tree tree
if [ "$scope" = --lint ]; then
  lint_client
  exit $status
fi
if [ -n "${BINDIR-}" ]; then
  bindir=$BINDIR
else
  stage_tree tree
fi

names=()
newest=
for name in $versions; do
  install_client "$name"
  version=$("$venv/bin/python" -c 'import django; print(django.get_version())')
  # the newest that this Python runs may be one of the others
  [ "$name" != "${newest%.*}" ] || continue
  [ "$name" != newest ] || newest=$version
  printf '# %s: Django %s, %s\n' "$name" "$version" "$("$venv/bin/python" -V)"
  if [ "$name" = newest ] && [ "$shards" -gt 0 ]; then
    names+=(newest-shards)
    start_sharded
    [ ${#arguments[@]} -eq 0 ] || continue
  fi
  if [ "$name" = newest ] && [ ${#arguments[@]} -eq 0 ]; then
    servers=$(seq -f 'newest-%.0f' $parts)
  else
    servers=$name
  fi
  for server in $servers; do
    names+=("$server")
    if [ "$scope" = --router ]; then
      start_router "$server"
    else
      start_database "$server"
    fi
  done
done
[ ${#arguments[@]} -gt 0 ] || [ -z "$newest" ] || lint_client
# As many at a time as there are processors.  Each waits for its own servers half of
# the time, but with more of them every one takes longer, and so do all together.
for name in "${names[@]}"; do
  while [ "$(jobs -pr | wc -l)" -ge "$(nproc)" ]; do
    wait -n || true
  done
  run_version "$name" &
done
wait

for name in "${names[@]}"; do
  cat "$work/$name.lines"
done >"$work/lines"
merge "$work/lines"
for name in "${names[@]}"; do
  printf '# Django %s: %s\n' "$name" "$(tail -n 1 "$work/$name.out")"
done
grep -q '^not ok' "$work/lines" && status=1
exit $status
