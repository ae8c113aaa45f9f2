#!/bin/bash
#
# Run the test suites of those whose work the session engine for Django takes over, with SESSION_ENGINE set to it: of Django
# what it tests of sessions and messages.  They come from the source packages, of the versions that the Django package is
# tested with; nothing of them is changed.
#
#   scripts/check-peers.sh [--long] [VERSION] [LABEL ...]
#
# VERSION is one of check-django.sh's (newest).  --long adds Django's tests of its users and of its admin without a browser,
# and those of the list of sessions of django-allauth, and tests on all versions if none is named.  LABELs are what to run
# instead: those of Django's runtests.py, as sessions_tests or auth_tests.test_views, or usersessions for django-allauth's.
#
#	PYTHON		interpreter for the virtual environments (/usr/bin/python3)
#	BINDIR		programs of a staged PostgreSQL that has the extension
#	SM_PEERS_ENGINE	another session engine, to see whether a test fails with Django's own as well
#
# Prints a line "ok ..." or "not ok ..." for each test on each version, which make check counts.  Tests that cannot apply are
# in clients/django/tests/peers/cannot_apply.txt.

set -euo pipefail

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

versions=newest
labels=(sessions_tests messages_tests)
if [ "${1-}" = --long ]; then
  versions="newest 5.2 4.2"
  labels+=(auth_tests admin_views usersessions)
  shift
fi
case ${1-} in
  newest | [0-9]*)
    versions=$1
    shift
    ;;
esac
[ $# -eq 0 ] || labels=("$@")

# What is run of Django, and whether allauth's tests are.
django=()
allauth=no
for label in "${labels[@]}"; do
  if [ "$label" = usersessions ]; then
    allauth=yes
  else
    django+=("$label")
  fi
done

parts=(build)
for name in $versions; do
  parts+=("peers-$name")
  [ $allauth = no ] || parts+=("allauth-$name")
done
"$root/scripts/deps.sh" "${parts[@]}"
start_work

copy_tree tree
if [ -n "${BINDIR-}" ]; then
  bindir=$BINDIR
else
  stage_tree tree
fi
client=$work/tree/clients/django
export PYTHONPATH=$client/src:$client/tests/peers PYTHONDONTWRITEBYTECODE=1 SM_TEST_PGHOST=$work/server
# Django's runtests.py wants one
export TMPDIR=$work/tmp
mkdir "$TMPDIR"

# Where the tests of PACKAGE are that the virtual environment has.
tests_of() {
  local version

  version=$("$root/build/$1/bin/python" -c "import importlib.metadata as m; print(m.version('$2'))")
  printf '%s' "$root/build/peers/$2-$version"
}

# The server, with the template for test databases that docs/django.md has adopters make.
start_database() {
  start_server server "fsync = off" "shared_preload_libraries = 'session_manager'"
  as_owner chmod 755 "$work/server"
  "$bindir/psql" -X -q -h "$work/server" -U postgres -d postgres -c "CREATE ROLE webapp LOGIN CREATEDB"
  env PYTHONPATH="$PYTHONPATH:$(tests_of "django/$1" Django)/tests" DJANGO_SETTINGS_MODULE=django_settings \
    "$root/build/django/$1/bin/python" -m django setup_session_manager --template |
    "$bindir/psql" -X -q -o /dev/null -h "$work/server" -U postgres -d postgres >"$work/template" 2>&1 ||
    { cat "$work/template" >&2; die "cannot prepare the template"; }
}

# Leave only the lines that make check reads, if nothing is wrong.
run() {
  local name=$1 status=0

  shift
  "$@" >"$work/out" 2>&1 || status=$?
  sed -i -E 's/^(tests\/.*) PASSED( .*)?$/ok \1/; s/^(tests\/.*) (FAILED|ERROR)( .*)?$/not ok \1/' "$work/out"
  if [ $status -eq 0 ]; then
    grep -E '^(# |ok )' "$work/out"
  else
    cat "$work/out"
    grep -q '^not ok ' "$work/out" || printf 'not ok %s ended with status %s\n' "$name" $status
    failed=1
  fi
}

run_django() {
  run "Django's tests on $1" "$root/build/django/$1/bin/python" "$client/tests/peers/django_suite.py" \
    "$(tests_of "django/$1" Django)/tests" "${django[@]}"
}

run_allauth() {
  local folder

  folder=$(tests_of "allauth/$1" django-allauth)
  run "allauth's tests on $1" env -C "$folder" "$root/build/allauth/$1/bin/python" -m pytest -v -rs --color=no \
    -p no:cacheprovider --ds=allauth_settings tests/apps/usersessions tests/apps/headless/usersessions
}

failed=0
newest=
for name in $versions; do
  # the newest that this Python runs may be one of the others
  [ "$name" != "${newest%.*}" ] || continue
  [ "$name" != newest ] || newest=$("$root/build/django/newest/bin/python" -c "import django; print(django.get_version())")
  [ -e "$work/server" ] || start_database "$name"
  [ ${#django[@]} -eq 0 ] || run_django "$name"
  [ $allauth = no ] || run_allauth "$name"
done
exit $failed
