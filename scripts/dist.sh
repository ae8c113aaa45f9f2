#!/bin/bash
#
# Make the packages that are published, of the commit that is checked out, into
# build/packages: the zip for PGXN, the wheel and the source package for Django,
# and the tarball for npm.  See RELEASING.md.

set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
made=$root/build/packages
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

die() {
  printf 'dist: %s\n' "$*" >&2
  exit 1
}

# No FILE may be larger than so many kilobytes.
at_most() {
  local size

  size=$(stat -c %s "$1")
  printf 'size: %s: %s bytes\n' "${1##*/}" "$size"
  [ "$size" -le $(($2 * 1000)) ] || die "${1##*/} is larger than $2 kB"
}

# Whoever owns the tree.
git_here() {
  git -c safe.directory='*' -C "$root" "$@"
}

"$root/scripts/setup.sh" --tests
git_here rev-parse --verify --quiet HEAD >"$work/commit" || die "the packages are made of a commit, and this is no clone"
[ -z "$(git_here status --porcelain --untracked-files=no)" ] ||
  printf 'dist: changes that are not committed are left out\n' >&2
"$root/scripts/check-release.sh"
"$root/scripts/deps.sh" react
rm -rf "$made"
mkdir -p "$made"

generated=$(git_here ls-files | grep -E '(^|/)(build|dist|node_modules|__pycache__)/|\.(o|so|bc|pyc)$' || true)
[ -z "$generated" ] || die "generated files are committed: $generated"

version=$(sed -nE 's/^   "version": "(.*)",$/\1/p' "$root/META.json")
git_here archive --format=zip -9 --prefix="session_manager-$version/" \
  --output="$made/session_manager-$version.zip" HEAD
at_most "$made/session_manager-$version.zip" 4000

# All packages are made of what the zip contains.  Files get the commit's time, so
# that whoever makes them again gets the same, except the source package.
SOURCE_DATE_EPOCH=$(git_here log -1 --format=%ct)
export SOURCE_DATE_EPOCH
git_here archive HEAD LICENSE clients | tar -xf - -C "$work"
cp "$work/LICENSE" "$work/clients/django/"
/usr/bin/python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check build
# (the wheel is built from the source package)
"$work/venv/bin/python" -m build --outdir "$made" "$work/clients/django" >"$work/log" 2>&1 ||
  { cat "$work/log" >&2; die "the Django package is not built"; }
# nothing but source
at_most "$(echo "$made"/*.whl)" 280

# size.mjs holds what an application's bundle grows by to its limit
ln -s "$root/clients/react/node_modules" "$work/clients/react/"
(cd "$work/clients/react" && npm pack --pack-destination "$made" >"$work/log" 2>&1) ||
  { cat "$work/log" >&2; die "the React package is not built"; }
grep '^size:' "$work/log"
at_most "$(echo "$made"/*.tgz)" 100
(cd "$made" && sha256sum -- *)
