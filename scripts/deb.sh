#!/bin/bash
#
# Build the Debian packages, source and binary, for the PostgreSQL of the
# release of Debian that this runs on, into build/deb.  What is needed for that
# is installed by apt.

set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
made=$root/build/deb
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
# make deb hands down its own
unset PG_CONFIG MAKEFLAGS

as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo)
if ! dpkg-checkbuilddeps "$root/debian/control" 2>/dev/null; then
  "${as_root[@]}" apt-get -qq update
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get -qq -y --no-install-recommends build-dep "$root"
fi

# the upstream version, without the package's
version=$(dpkg-parsechangelog -l "$root/debian/changelog" -S Version)
name=session_manager-${version%-*}
mkdir "$work/$name"
tar -C "$root" -cf - --exclude=./build --exclude=./.git --exclude=node_modules \
  --exclude=.next --exclude='*.o' --exclude='*.so' . | tar -C "$work/$name" -xf - --no-same-owner
tar -C "$work" -cJf "$work/postgresql-session-manager_${version%-*}.orig.tar.xz" \
  --exclude="$name/debian" "$name"

cd "$work/$name"
# debian/control in the tree names the PostgreSQL of one release
pg_buildext updatecontrol
dpkg-buildpackage --no-sign
rm -rf "$made"
mkdir -p "$made"
find "$work" -maxdepth 1 -type f -exec mv {} "$made/" \;
ls -l "$made"
