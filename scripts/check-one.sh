#!/bin/bash
#
# Run some tests or suites, and end with the line "N passed, N failed":
#
#	make check TEST=get			a regression test
#	make check TEST=limit_race		an isolation test
#	make check TEST=test/t/021_sweep.pl	a TAP test
#	make check TEST=clients/django/tests/test_api.py
#	make check TEST=clients/react/test/store.test.ts
#	make check TEST=examples/frontend/e2e/account.spec.ts
#	make check TEST=unit			a suite: one of those below
#	make check TEST="get touch unit"	several
#
# A test of pytest's may have its "::name", and any may be named by its path.

set -euo pipefail

# shellcheck source=scripts/suites.sh
. "$(dirname "$0")/suites.sh"
# shellcheck source=scripts/lint.sh
. "$(dirname "$0")/lint.sh"

suites="lint unit fuzz protocol regress isolation tap django sharded router peers react example walk"

# The suites that were named, and the tests of the others, a line each.
declare -A tests whole

one_of() {
  local word=$1

  shift
  [[ " $* " == *" $word "* ]]
}

name_test() {
  tests[$1]=${tests[$1]-}$2$'\n'
}

# Find what a WORD of TEST names; status 1 if it names nothing.
choose() {
  local path=${1#./} file name

  file=${path%%::*}
  name=$(basename "$file")
  name=${name%.*}
  if one_of "$path" "$suites"; then
    whole[$path]=yes
  elif one_of "$name" "${REGRESS-}" && [[ $path == "$name" || $path == test/sql/* ]]; then
    name_test regress "$name"
  elif one_of "$name" "${ISOLATION-}" && [[ $path == "$name" || $path == test/specs/* ]]; then
    name_test isolation "$name"
  elif [ -e "$root/test/t/$name.pl" ] && [[ $path == "$name" || $path == test/t/* ]]; then
    name_test tap "test/t/$name.pl"
  elif [ ! -f "$root/$file" ]; then
    return 1
  else
    case $path in
      test/t/long/*.pl) name_test tap "$path" ;;
      test/unit/*.c) whole[unit]=yes ;;
      test/fuzz/*.c) whole[fuzz]=yes ;;
      clients/django/tests/sharded/test_*) name_test sharded "${path#clients/django/}" ;;
      clients/django/tests/test_*) name_test django "${path#clients/django/}" ;;
      clients/react/test/*.test.ts*) name_test react "${path#clients/react/}" ;;
      examples/frontend/e2e/*.spec.ts) name_test react "${path#examples/frontend/}" ;;
      *) return 1 ;;
    esac
  fi
}

there_is() {
  printf '%s\n' "$*" | fold -s -w 100 | sed '2,$s/^/  /'
}

# The names in a folder that match a pattern.
names_in() {
  find "$root/$1" -maxdepth 1 -name "$2" -printf '%f\n' | sort | tr '\n' ' '
}

for word in ${TEST-}; do
  choose "$word" && continue
  {
    printf 'There is no test or suite "%s".\n\n' "$word"
    there_is "suites: $suites"
    there_is "regression tests: ${REGRESS-}"
    there_is "isolation tests: ${ISOLATION-}"
    there_is "test/t/: $(names_in test/t '*.pl')"
    there_is "test/t/long/: $(names_in test/t/long '*.pl')"
    there_is "clients/django/tests/: $(names_in clients/django/tests 'test_*.py')"
    there_is "clients/django/tests/sharded/: $(names_in clients/django/tests/sharded 'test_*.py')"
    there_is "clients/react/test/: $(names_in clients/react/test '*.test.ts*')"
    there_is "clients/react/test/next/: $(names_in clients/react/test/next '*.test.ts')"
    there_is "examples/frontend/e2e/: $(names_in examples/frontend/e2e '*.spec.ts')"
  } >&2
  exit 2
done

need() {
  "$root/scripts/deps.sh" "$@"
}

# The extension, built and set up for servers once.
staged() {
  need build "$@"
  [ -n "${bindir-}" ] || build_extension
}

run_lint() {
  need server newest react
  heading "lint"
  lint_sources
  copy_tree clang
  lint_clang clang
  script check-django.sh "$root/scripts/check-django.sh" --lint
  script check-react.sh "$root/scripts/check-react.sh" --lint
}

run_unit() {
  staged
  unit_tests
}

run_fuzz() {
  staged server
  check "fuzzing, ${FUZZ_TIME:-60} s for each target" build_tree tree fuzz
}

run_protocol() {
  staged server
  protocol_tests
}

run_regress() {
  staged
  if [ $# -eq 0 ]; then
    regression_tests tree plain
    regression_tests_by_json tree
  else
    # The first two prepare what the others use.
    REGRESS=$(printf '%s\n' install keys "$@" | awk '!seen[$0]++' | tr '\n' ' ')
  fi
  regression_tests tree preloaded "${preloaded[@]}"
}

run_isolation() {
  staged
  if [ $# -eq 0 ]; then
    isolation_tests tree plain
  else
    ISOLATION=$*
  fi
  isolation_tests tree preloaded "${preloaded[@]}"
}

run_tap() {
  local files=("$@") file

  [ $# -gt 0 ] || mapfile -t files < <(cd "$root" && printf '%s\n' test/t/*.pl)
  staged server
  tap_tests tree "${files[@]}"
  # what they have measured, for those who have asked for them
  for file in "$@"; do
    keep "$(tap_name "$file")"
  done
}

run_django() {
  staged newest
  script check-django.sh env BINDIR="$bindir" "$root/scripts/check-django.sh" "$@"
}

# The Django package's tests of sessions on several servers.
run_sharded() {
  [ $# -gt 0 ] || set -- tests/sharded
  run_django "$@"
}

run_router() {
  staged server newest
  router_tests "$@"
}

run_peers() {
  staged peers-newest
  peers "$@"
}

run_react() {
  staged react
  script check-react.sh env BINDIR="$bindir" "$root/scripts/check-react.sh" "$@"
}

run_example() {
  staged react
  script check-example.sh env BINDIR="$bindir" CONNECT_TIMEOUT=20 LOGIN_RATE=1000/min "$root/scripts/check-example.sh"
}

run_walk() {
  staged newest
  script walk-django.sh env BINDIR="$bindir" "$root/scripts/walk-django.sh"
}

bindir=
start_work
for suite in $suites; do
  if [ -n "${whole[$suite]-}" ]; then
    "run_$suite"
  elif [ -n "${tests[$suite]-}" ]; then
    mapfile -t names < <(printf '%s' "${tests[$suite]}")
    "run_$suite" "${names[@]}"
  fi
done
finish
