#!/bin/bash
#
# Make the site of the pages, into build/site: a directory for the tree as it is
# (dev) and one for each release (tags vN), with search.  It can be read from the
# disk as well as from a server, and fetches nothing from elsewhere.
#
# A page that no list of contents names, a link or an anchor that leads nowhere,
# and whatever else Sphinx warns of fails the build.
#
#   scripts/docs.sh [--check]
#
#	--check		look something up in a browser; make a release and find it there

set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
site=$root/build/site
venv=$root/build/docs/venv
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

die() {
  printf 'docs: %s\n' "$*" >&2
  exit 1
}

# The releases of the repository in DIRECTORY that have a site, newest first.
releases() {
  local tag

  for tag in $(git -C "$1" tag --list 'v[0-9]*' --sort=-version:refname 2>/dev/null); do
    ! git -C "$1" cat-file -e "$tag:docs/site/conf.py" 2>/dev/null || printf '%s\n' "${tag#v}"
  done
}

# A page that leads from FILE to a relative ADDRESS.
redirect() {
  printf '<!DOCTYPE html>\n<html lang="en"><meta charset="utf-8"><title>session_manager</title>\n%s\n<a href="%s">session_manager</a></html>\n' \
    "<meta http-equiv=\"refresh\" content=\"0; url=$2\">" "$2" >"$1"
}

# The site of the tree SOURCE as the version NAME, among all VERSIONS, below TARGET.
build() {
  local source=$1 name=$2 versions=$3 target=$4

  DOCS_SOURCE=$source DOCS_VERSION=$name DOCS_VERSIONS=$versions \
    "$venv/bin/sphinx-build" -q -b html --fail-on-warning --keep-going -d "$work/doctrees-$name" \
    -c "$source/docs/site" "$source" "$target/$name"
  redirect "$target/$name/index.html" README.html
}

# The site of the repository in SOURCE, into TARGET.
build_all() {
  local source=$1 target=$2 name newest=dev versions

  versions="dev $(releases "$source" | tr '\n' ' ')"
  rm -rf "$target"
  mkdir -p "$target"
  build "$source" dev "$versions" "$target"
  for name in $(releases "$source"); do
    [ "$newest" != dev ] || newest=$name
    mkdir "$work/$name"
    git -C "$source" archive "v$name" | tar -xf - -C "$work/$name"
    build "$work/$name" "$name" "$versions" "$target"
  done
  redirect "$target/index.html" "$newest/index.html"
  "$venv/bin/python" -B "$root/scripts/check_site.py" "$target"
}

# What the site answers to a search, in a browser.
search() {
  chromium-headless-shell --no-sandbox --disable-gpu --virtual-time-budget=20000 --dump-dom \
    "file://$site/dev/search.html?q=$1" 2>/dev/null
}

check_search() {
  search emergency+stop >"$work/found"
  grep -q 'href="docs/keys.html#emergency-stop" data-score' "$work/found" || die "a search for 'emergency stop' does not find docs/keys.md"
  search xyzzyplugh >"$work/found"
  grep -q 'did not match any' "$work/found" || die "a search for nonsense does not say that it has found nothing"
  printf 'docs: search works in %s\n' "$(chromium-headless-shell --version 2>/dev/null)"
}

# A repository of this tree with two releases, whose sites lead to each other.
check_releases() {
  local repository=$work/repository name

  mkdir "$repository"
  tar -cf - -C "$root" --exclude=./build --exclude=./.git --exclude=node_modules --exclude=.next . | tar -xf - -C "$repository"
  git -C "$repository" init -q
  for name in v0.9 v0.10; do
    git -C "$repository" add -A
    git -C "$repository" -c user.name=docs -c user.email=docs@example.com commit -q --allow-empty -m "$name"
    git -C "$repository" tag "$name"
  done
  build_all "$repository" "$work/site" >/dev/null
  grep -q 'url=0.10/' "$work/site/index.html" || die "the site does not lead to the newest release"
  for name in dev 0.9; do
    grep -q 'href="../../0.10/index.html"' "$work/site/$name/docs/reference.html" || die "$name does not lead to 0.10"
  done
  printf 'docs: releases have their sites beside that of the tree\n'
}

"$root/scripts/deps.sh" docs
build_all "$root" "$site"
if [ "${1-}" = --check ]; then
  check_search
  check_releases
fi
printf 'docs: %s\n' "${site#"$root/"}/index.html"
