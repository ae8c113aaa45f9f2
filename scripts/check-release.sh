#!/bin/bash
#
# Check what a release needs, as RELEASING.md says.  A line for each finding is
# printed.
#
#   scripts/check-release.sh            what must hold at any time: the versions
#                                       agree, each released version leads to this
#                                       one, and no released script has changed
#   scripts/check-release.sh --release  also what must hold when this version is
#                                       released; makes build/tag-message of the
#                                       changelog, for the signed tag
#
# A version that has been released is one that has a tag: v1.0.

set -euo pipefail

cd "$(dirname "$0")/.."

scope=${1-}
status=0

complain() {
  printf '%s\n' "$*"
  status=1
}

# Whoever owns the tree.
git_here() {
  git -c safe.directory='*' "$@"
}

# What stands in a FILE between quotes behind a KEY.
value() {
  sed -nE "s/^ *\"?$2\"?(:| =) ['\"](.*)['\"],?\$/\2/p" "$1" | head -n 1
}

same() {
  [ "$2" = "$3" ] || complain "$1 has version ${2:-none}, not $3"
}

version=$(value session_manager.control default_version)
[[ $version =~ ^[0-9]+\.[0-9]+(\.[0-9]+)?$ ]] || complain "session_manager.control has no version"
# as PGXN, PyPI and npm want it
three=$version
[[ $version == *.*.* ]] || three=$version.0

same session_manager_router.control "$(value session_manager_router.control default_version)" "$version"
same clients/django/pyproject.toml "$(value clients/django/pyproject.toml version)" "$three"
same clients/react/package.json "$(value clients/react/package.json version)" "$three"
while IFS= read -r found; do
  same "clients/react/package-lock.json, of the package itself," "$found" "$three"
done < <(head -n 10 clients/react/package-lock.json | sed -nE 's/^ *"version": "(.*)",?$/\1/p')
while IFS= read -r found; do
  same META.json "$found" "$three"
done < <(sed '/"meta-spec"/,$d' META.json | sed -nE 's/^ *"version": "(.*)",?$/\1/p')
while IFS= read -r found; do
  same docs/react.md "$found" "$three"
done < <(grep -oE 'session-manager-react-[0-9.]+\.tgz' docs/react.md | sed -E 's/.*-(.*)\.tgz/\1/' | sort -u)
if [ -e debian/changelog ]; then
  found=$(sed -nE '1s/.*\(([0-9.]+).*/\1/p' debian/changelog)
  [ "$found" = "$three" ] || same debian/changelog "$found" "$version"
fi
heading=$(grep -m 1 -E '^## ' CHANGELOG.md || true)
[[ $heading == "## [$version] – "* ]] || complain "CHANGELOG.md begins with \"$heading\", not with version $version"
scripts/check_meta.py META.json || status=1
for name in session_manager session_manager_router; do
  grep -qF "\"file\": \"sql/$name--$version.sql\"" META.json || complain "META.json does not name sql/$name--$version.sql"
done

# The Makefile installs what is in sql/.
for file in sql/*; do
  grep -qE "^	$file( \\\\)?\$" Makefile || complain "the Makefile does not install $file"
done

# Does an upgrade lead from a version of an EXTENSION to this one?  All that can
# be reached are tried, as PostgreSQL does.
leads_here() {
  local name=$1 file from to
  local -A seen=([$2]=yes)
  local todo=("$2")

  while [ ${#todo[@]} -gt 0 ]; do
    from=${todo[0]}
    todo=("${todo[@]:1}")
    [ "$from" != "$version" ] || return 0
    for file in sql/"$name--$from--"*.sql; do
      to=${file##*--}
      to=${to%.sql}
      if [ ! -e "$file" ] || [ -n "${seen[$to]-}" ]; then
        continue
      fi
      seen[$to]=yes
      todo+=("$to")
    done
  done
  return 1
}

for name in session_manager session_manager_router; do
  [ -e "sql/$name--$version.sql" ] || complain "sql/$name--$version.sql is missing"
  for file in sql/"$name"--*.sql; do
    from=${file#"sql/$name--"}
    from=${from%.sql}
    to=${from##*--}
    if [ "$from" = "$to" ]; then
      leads_here "$name" "$from" || complain "no upgrade leads from $name $from to $version"
    # the library must not be older: first of all
    elif ! grep -m 3 -vE '^(--.*|\\echo .*|)$' "$file" | tr -d '\n' | grep -F >/dev/null \
      "CREATE FUNCTION session_require_library(text) RETURNS void AS 'MODULE_PATHNAME', 'sm_require_library' LANGUAGE C;SELECT session_require_library('$to');DROP FUNCTION session_require_library(text);"; then
      complain "$file does not begin with the demand for the library of $to that RELEASING.md has"
    fi
  done
done

# What has been released stays as it was.
tags=()
if git_here rev-parse --git-dir >/dev/null 2>&1; then
  mapfile -t tags < <(git_here tag --list 'v[0-9]*')
fi
for tag in "${tags[@]}"; do
  while IFS= read -r file; do
    if [ ! -e "$file" ]; then
      complain "$file, which $tag has released, is missing"
    elif ! git_here diff --quiet "$tag" -- "$file"; then
      complain "$file has been changed since $tag has released it"
    fi
  done < <(git_here ls-tree --name-only "$tag" sql/)
done

# The changelog's section of this version.
section() {
  awk -v heading="$heading" '$0 == heading { inside = 1; next } /^## / { inside = 0 } inside' CHANGELOG.md | sed '1{/^$/d}'
}

if [ "$scope" = --release ]; then
  scripts/check_meta.py --release META.json || status=1
  today=$(date -u +%F)
  date=${heading#"## [$version] – "}
  if ! [[ $date =~ ^[0-9]{4}-[0-9]{2}-[0-9]{2}$ ]]; then
    complain "CHANGELOG.md: version $version has no date"
  elif [[ $date > $today ]]; then
    complain "CHANGELOG.md: version $version has a date to come, $date"
  fi
  ! section | grep -iE '(not|un)[ -]?released|may still change' >/dev/null ||
    complain "CHANGELOG.md still says that version $version is not released"
  section | grep '^- ' >/dev/null || complain "CHANGELOG.md: version $version has no entry"
  ! grep -qiE '\*\*Status\*\*.*not released' README.md || complain "README.md still says that it is not released"
  if [[ " ${tags[*]} " == *" v$version "* ]]; then
    complain "there is a tag v$version already"
  fi
  [ -z "$(git_here status --porcelain)" ] || complain "there are changes that are not committed"
  if [ $status -eq 0 ]; then
    mkdir -p build
    printf 'session_manager %s\n\n' "$version" >build/tag-message
    section >>build/tag-message
    printf 'Ready.  The tag:\n\n    git tag --sign --cleanup=verbatim --file=build/tag-message v%s\n' "$version"
  fi
fi
exit $status
