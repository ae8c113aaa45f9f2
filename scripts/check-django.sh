#!/bin/bash
#
# Test the Django client: ruff, mypy, and its tests on Django 4.2, 5.2 and the
# newest that runs on this Python, against private PostgreSQL and Redis servers.
# The newest gets every test, the browser's included; the others leave out what
# does not depend on Django.  4.2 uses psycopg2, the others psycopg 3.
#
#   scripts/check-django.sh [pytest argument ...]
#
#	PYTHON		interpreter for the virtual environments (python3)
#	BINDIR		programs of a staged PostgreSQL that has the extension
#
# A line "ok ..." or "not ok ..." for each test is printed; make check counts
# them.  Virtual environments are kept in build/django.

set -euo pipefail

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

"$root/scripts/setup.sh" --tests
start_work

# Not a Python of some version manager's: the one whose venv setup.sh installs.
python=${PYTHON:-/usr/bin/python3}
home=$(getent passwd "$(id -u)" | cut -d: -f6)
client=$work/tree/clients/django

# Tests start Redis themselves; what a test that was killed left goes here.
stop_redis() {
  local pidfile pid

  for pidfile in "$work"/redis-*/pid; do
    pid=$(cat "$pidfile" 2>/dev/null) || continue
    kill "$pid" 2>/dev/null || true
  done
}
# end_work looks at the status that the script ends with.
trap 'status=$?; set +e; stop_redis; (exit $status); end_work' EXIT

# The virtual environment NAME with a Django requirement and a database driver,
# the client installed from the copy of the tree.  Sets venv.
make_venv() {
  local name=$1 django=$2 driver=$3 stamp

  venv=$root/build/django/$name
  stamp=$("$python" -V; echo "$django" "$driver"; cat "$client/pyproject.toml" "$client/requirements-test.txt")
  if [ "$(cat "$venv/stamp" 2>/dev/null)" != "$stamp" ]; then
    rm -rf "$venv"
    mkdir -p "$root/build/django"
    "$python" -m venv "$venv"
    HOME=$home "$venv/bin/pip" install -q --disable-pip-version-check \
      "${client}[$driver,openapi]" "$django" -r "$client/requirements-test.txt"
    printf '%s\n' "$stamp" >"$venv/stamp"
  fi
  # The package itself anew each time, from a copy: a build leaves files.
  rm -rf "$work/package-$name"
  cp -R "$client" "$work/package-$name"
  HOME=$home "$venv/bin/pip" install -q --disable-pip-version-check --no-deps \
    --force-reinstall "$work/package-$name"
}

# A server NAME whose template1 has the extension and what migrate grants, so
# that test databases made from it have both.  Without a key: the first key
# makes an installation, and each test database is one of its own.
start_database() {
  local name=$1

  mkdir -m 777 "$work/redis-$name"
  start_server "$name" "fsync = off" \
    "shared_preload_libraries = 'session_manager'" \
    "session_manager.redis_mode = strict" \
    "session_manager.redis_socket = '$work/redis-$name/s'" \
    "session_manager.flush_interval = 1s" \
    "session_manager.sweep_interval = 2s"
  {
    printf 'CREATE ROLE webapp LOGIN CREATEDB;\nCREATE EXTENSION session_manager CASCADE;\n'
    (cd "$client" && DJANGO_SETTINGS_MODULE=tests.settings "$venv/bin/python" -c \
      "import django; django.setup()
from session_manager.management.grants import grant_statements
print(';\n'.join(grant_statements('webapp')), end=';\n')")
  } | "$bindir/psql" -X -q -o /dev/null -v ON_ERROR_STOP=1 -h "$work/$name" -U postgres -d template1 2>"$work/$name.sql" ||
    { cat "$work/$name.sql" >&2; die "cannot prepare the database"; }
}

owner_command() {
  local command=("$bindir/pg_ctl" -D "$work/$1/data" -l "$work/$1/log" -s -w "$2" -m fast)

  [ "$2" = stop ] || unset 'command[-1]' 'command[-1]'
  [ "$(id -u)" -ne 0 ] ||
    command=(setpriv --reuid=postgres --regid=postgres --init-groups -- "${command[@]}")
  printf '%q ' "${command[@]}"
}

# Run the tests on the environment and server NAME; a line for each.
run_tests() {
  local name=$1 status=0

  shift
  (cd "$client" && env HOME="$work" SM_TEST_NO_SKIP=1 SM_TEST_PGHOST="$work/$name" SM_TEST_PGPORT=5432 \
    SM_TEST_REDIS_SOCKET="$work/redis-$name/s" \
    SM_TEST_PG_STOP="$(owner_command "$name" stop)" \
    SM_TEST_PG_START="$(owner_command "$name" start)" \
    "$root/build/django/$name/bin/python" -m pytest -v --color=no -p no:cacheprovider "$@") \
    >"$work/$name.out" 2>&1 || status=$?
  sed -nE "s/^(tests\/.*) PASSED( .*)?$/ok $name \1/p; s/^(tests\/.*) (FAILED|ERROR)( .*)?$/not ok $name \1/p" \
    "$work/$name.out"
  if [ $status -ne 0 ] || grep -q ' SKIPPED' "$work/$name.out"; then
    printf 'not ok %s ended with status %s\n' "$name" $status
    sed -n '/= \(FAILURES\|ERRORS\) =/,$p; / SKIPPED/p' "$work/$name.out"
  fi
}

one() {
  local what=$1

  shift
  if "$@" >"$work/one.out" 2>&1; then
    printf 'ok %s\n' "$what"
  else
    printf 'not ok %s\n' "$what"
    cat "$work/one.out"
  fi
}

copy_tree tree
if [ -n "${BINDIR-}" ]; then
  bindir=$BINDIR
else
  stage_tree tree
fi

make_venv newest Django "psycopg"
newest=$("$venv/bin/python" -c 'import django; print(django.get_version())')
start_database newest
printf '# newest: Django %s, %s\n' "$newest" "$("$venv/bin/python" -V)"
cd "$client"
one "ruff check" "$venv/bin/ruff" check --no-cache .
one "ruff format" "$venv/bin/ruff" format --no-cache --check .
one "ruff check of the example" "$venv/bin/ruff" check --no-cache --config pyproject.toml \
  --config 'lint.isort.known-first-party=["billing", "config"]' ../../examples
one "ruff format of the example" "$venv/bin/ruff" format --no-cache --config pyproject.toml --check ../../examples
# RUF001: its tables have dashes.
one "ruff check of the measurements" "$venv/bin/ruff" check --no-cache --config pyproject.toml \
  --config 'lint.isort.known-first-party=["report", "sides"]' --extend-ignore RUF001 ../../bench/django
one "ruff format of the measurements" "$venv/bin/ruff" format --no-cache --config pyproject.toml --check \
  ../../bench/django
one "mypy" env PYTHONPATH=. "$venv/bin/mypy" --cache-dir "$work/mypy"

others=(4.2)
case $newest in
  5.2.*) ;;
  *) others+=(5.2) ;;
esac
core=(tests/test_services.py tests/test_outcomes.py tests/test_changes.py tests/test_api.py tests/test_authentication.py
  tests/test_middleware.py tests/test_throttling.py tests/test_caching.py
  tests/test_models.py tests/test_apart.py tests/test_users.py tests/test_identity.py
  tests/test_commands.py tests/test_importing.py tests/test_checks.py
  tests/test_admin.py tests/test_csrf.py -m "not browser")
core+=(tests/test_refusals.py tests/test_login_authentication.py tests/test_asgi.py tests/test_schemathesis.py tests/test_statuses.py
  tests/test_adopter.py tests/test_suites.py)
if [ $# -eq 0 ]; then
  for version in "${others[@]}"; do
    driver=psycopg
    [ "$version" != 4.2 ] || driver=psycopg2
    make_venv "$version" "Django~=$version.0" $driver
    start_database "$version"
  done
  # Side by side: each waits for its own servers most of the time.
  run_tests newest >"$work/newest.lines" &
  for version in "${others[@]}"; do
    run_tests "$version" "${core[@]}" >"$work/$version.lines"
  done
  wait
  cat "$work/newest.lines"
  for version in "${others[@]}"; do
    cat "$work/$version.lines"
  done >"$work/lines"
  cat "$work/lines"
  cat "$work/newest.lines" >>"$work/lines"
else
  run_tests newest "$@" | tee "$work/lines"
fi
for name in newest "${others[@]}"; do
  [ ! -e "$work/$name.out" ] || printf '# Django %s: %s\n' "$name" "$(tail -n 1 "$work/$name.out")"
done
! grep -q '^not ok' "$work/lines"
