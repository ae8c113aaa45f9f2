#!/bin/bash
#
# scripts/check-release.sh finds each thing that is broken, in a copy of what it
# looks at: a version 1.0 that has been released, and a version 1.1 after it that
# is ready.  Prints a line for each that it does not find.

set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
status=0

repo=$work/repo
cd "$root"
mkdir "$repo"
cp --parents -R CHANGELOG.md META.json Makefile README.md ./*.control sql scripts/check{-release.sh,_meta.py} \
  docs/react.md docs/reference.md docs/router.md clients/django/pyproject.toml \
  clients/react/package{,-lock}.json "$repo"
cd "$repo"

in_repo() {
  git -c user.name=test -c user.email=test@example.com -c commit.gpgsign=false -c tag.gpgsign=false "$@"
}

commit() {
  in_repo add --all
  in_repo commit --quiet --allow-empty --message "$1"
}

# The Makefile names each script.
install_all() {
  printf 'DATA = \\\n' >"$work/data"
  printf '\t%s \\\n' sql/* >>"$work/data"
  printf '\n' >>"$work/data"
  sed -i -e "/^DATA = /,/^\$/{/^\$/r $work/data" -e 'd}' Makefile
}

# Version 1.0, whatever the tree's is: alone, and released.
version=$(sed -n "s/^default_version = '\(.*\)'/\1/p" session_manager.control)
three=$version
[[ $version == *.*.* ]] || three=$version.0
for name in session_manager session_manager_router; do
  mv "sql/$name--$version.sql" "$work/$name"
  rm -f sql/"$name"--*.sql
  mv "$work/$name" "sql/$name--1.0.sql"
done
sed -i "s/$version/1.0/" ./*.control
sed -i "s/$three/1.0.0/" META.json docs/react.md clients/django/pyproject.toml
sed -i "1,10s/$three/1.0.0/" clients/react/package{,-lock}.json
sed -i "s/--$version\.sql/--1.0.sql/" META.json
install_all
printf '# Changes\n\n## [1.0] – 2026-01-02\n\n- First version.\n' >CHANGELOG.md
sed -i '/\*\*Status\*\*/d' README.md
sed -i 's|"maintainer": ".*"|"maintainer": "The maintainers <maintainers@example.com>"|
  s|"release_status": ".*"|"release_status": "stable"|
  s|^   "name": .*|&\n   "resources": {"repository": {"url": "https://example.com/sm.git", "type": "git"}, "bugtracker": {"web": "https://example.com/bugs"}},|' \
  META.json
printf '/build/\n' >.gitignore
in_repo init --quiet .
commit "Version 1.0"

find_nothing() {
  if ! scripts/check-release.sh "$@" >"$work/out" 2>&1; then
    printf 'something is found in a version that is ready:\n'
    cat "$work/out"
    status=1
  fi
}

find_nothing
find_nothing --release
in_repo tag v1.0

# Version 1.1: a column, and how one comes to it.
for name in session_manager session_manager_router; do
  cp "sql/$name--1.0.sql" "sql/$name--1.1.sql"
  printf '%s\n' "\\echo Use \"ALTER EXTENSION $name UPDATE\" to load this file. \\quit" '' '-- first of all' \
    "CREATE FUNCTION session_require_library(text) RETURNS void AS 'MODULE_PATHNAME', 'sm_require_library' LANGUAGE C;" \
    "SELECT session_require_library('1.1');" 'DROP FUNCTION session_require_library(text);' \
    >"sql/$name--1.0--1.1.sql"
done
install_all
sed -i "s/'1\.0'/'1.1'/" ./*.control
sed -i 's/--1\.0\.sql/--1.1.sql/; /meta-spec/,$!s/1\.0\.0/1.1.0/' META.json
sed -i 's/1\.0\.0\.tgz/1.1.0.tgz/' docs/react.md
sed -i 's/^version = "1\.0\.0"/version = "1.1.0"/' clients/django/pyproject.toml
sed -i '1,10s/1\.0\.0/1.1.0/' clients/react/package{,-lock}.json
sed -i 's/^## \[1\.0\]/## [1.1] – 2026-02-03\n\n- A column.\n- # is no comment.\n\n&/' CHANGELOG.md
commit "Version 1.1"
find_nothing
find_nothing --release

message=$(cat build/tag-message)
rm -rf build
if [ "$message" != $'session_manager 1.1\n\n- A column.\n- # is no comment.' ]; then
  printf 'the message of the tag is:\n%s\n' "$message"
  status=1
fi

# What is found after a COMMAND has broken something; "release" before it: by
# --release alone.  What is committed, too.
found() {
  local expected=$1 options=()

  shift
  [ "$1" != release ] || { options=(--release) && shift; }
  "$@"
  if [ ${#options[@]} -gt 0 ]; then
    find_nothing
    commit broken
  fi
  if scripts/check-release.sh "${options[@]}" >"$work/out" 2>&1; then
    printf 'not found: %s\n' "$expected"
    status=1
  elif ! grep -qE -- "$expected" "$work/out"; then
    printf 'found in place of "%s":\n' "$expected"
    cat "$work/out"
    status=1
  fi
  [ ! -e build/tag-message ] || { printf 'a message for a tag after: %s\n' "$expected"; status=1; }
  in_repo reset --quiet --hard v1.1-ready
  in_repo clean --quiet -d --force
}

in_repo branch v1.1-ready
found 'session_manager_router.control has version 1.0, not 1.1' sed -i s/1.1/1.0/ session_manager_router.control
found 'session_manager.control has no version' sed -i "s/'1.1'/'next'/" session_manager.control
found 'pyproject.toml has version 1.0.0, not 1.1.0' sed -i 's/^version = .*/version = "1.0.0"/' clients/django/pyproject.toml
found 'package.json has version 1.0.0, not 1.1.0' sed -i '1,5s/1\.1\.0/1.0.0/' clients/react/package.json
found 'package-lock.json.* has version 1.0.0' sed -i '1,5s/1\.1\.0/1.0.0/' clients/react/package-lock.json
found 'META.json has version 1.0.0, not 1.1.0' sed -i '0,/1\.1\.0/s//1.0.0/' META.json
found 'META.json does not name sql/session_manager--1.1.sql' sed -i 's/session_manager--1\.1\.sql/session_manager--1.0.sql/' META.json
found 'META.json: there is no license' sed -i /license/d META.json
found 'META.json: version is not semantic: 1.1' sed -i '0,/1\.1\.0/s//1.1/' META.json
found 'the docfile of session_manager is not there' sed -i s/reference.md/missing.md/ META.json
found 'META.json: it cannot be read' sed -i 1d META.json
found 'docs/react.md has version 1.0.0' sed -i 's/1\.1\.0\.tgz/1.0.0.tgz/' docs/react.md
found 'CHANGELOG.md begins with' sed -i '0,/^## /s/\[1\.1\]/[1.2]/' CHANGELOG.md
found 'the Makefile does not install sql/session_manager--1.0--1.1.sql' sed -i /session_manager--1.0--1.1/d Makefile
found 'sql/session_manager--1.1.sql is missing' rm sql/session_manager--1.1.sql
found 'no upgrade leads from session_manager_router 1.0 to 1.1' rm sql/session_manager_router--1.0--1.1.sql
found 'does not begin with the demand for the library of 1.1' sed -i s/require_library\(\'1.1/require_library\(\'1.0/ sql/session_manager--1.0--1.1.sql
found 'does not begin with the demand' sed -i '/^SELECT/d' sql/session_manager--1.0--1.1.sql
found 'sql/session_manager--1.0.sql has been changed since v1.0' sed -i 1d sql/session_manager--1.0.sql
found 'sql/session_manager_router--1.0.sql, which v1.0 has released, is missing' rm sql/session_manager_router--1.0.sql
found 'META.json: maintainer has no address' release sed -i 's/ <maintainers@example.com>//' META.json
found 'resources.repository.url is missing' release sed -i 's/"repository": {[^}]*}, //' META.json
found 'resources.bugtracker is missing' release sed -i 's/, "bugtracker": {[^}]*}//' META.json
found 'release_status is not stable' release sed -i 's/"stable"/"testing"/' META.json
found 'version 1.1 has no date' release sed -i 's/2026-02-03/unreleased/' CHANGELOG.md
found 'has a date to come' release sed -i 's/2026-02-03/2999-02-03/' CHANGELOG.md
found 'still says that version 1.1 is not released' release sed -i 's/A column/Everything may still change/' CHANGELOG.md
found 'version 1.1 has no entry' release sed -i '/column/d; /comment/d' CHANGELOG.md
found 'README.md still says' release sed -i '1s/^/**Status**: not released\n/' README.md
found 'a tag v1.1 already' release in_repo tag v1.1
in_repo tag --delete v1.1 >"$work/out"
printf '\n' >>README.md
if scripts/check-release.sh --release >"$work/out" 2>&1 || ! grep -q 'not committed' "$work/out"; then
  printf 'a change that is not committed is not found\n'
  status=1
fi
exit $status
