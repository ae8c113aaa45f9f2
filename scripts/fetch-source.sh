#!/bin/bash
#
# Unpack PostgreSQL's source into a new DIRECTORY: that of this Debian release,
# or of the RELEASE that has PostgreSQL MAJOR, from the newest source package
# that can be had.  The system's own lists of packages stay as they are.
#
#   scripts/fetch-source.sh DIRECTORY [RELEASE MAJOR]

set -euo pipefail

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

[ $# -eq 1 ] || [ $# -eq 3 ] || die "usage: fetch-source.sh DIRECTORY [RELEASE MAJOR]"
target=$1
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
# shellcheck source=/dev/null
release=${2:-$(. /etc/os-release && printf '%s' "$VERSION_CODENAME")}
apt=$(mktemp -d)
trap 'rm -rf "$apt"' EXIT

mkdir -p "$apt/lists/partial" "$apt/package"
printf 'deb-src [signed-by=%s] %s %s main\n' \
  $keyring "$(host_mirror debian)" "$release" \
  $keyring "$(host_mirror debian-security)" "$release-security" |
  grep :// >"$apt/sources.list"
# the user whom apt switches to cannot enter a private directory
options=(-qq -o "Dir::Etc::SourceList=$apt/sources.list" -o Dir::Etc::SourceParts=-
  -o "Dir::State::Lists=$apt/lists" -o "Dir::Cache::pkgcache=" -o "Dir::Cache::srcpkgcache="
  -o APT::Sandbox::User=root)
apt-get "${options[@]}" update
major=${3:-$(apt-cache depends postgresql | sed -nE 's/.*Depends: postgresql-([0-9]+)$/\1/p' | head -n 1)}
[ -n "$major" ] || die "apt knows no package postgresql"

# the newest may be announced before it can be had
for version in $(apt-cache "${options[@]}" showsrc "postgresql-$major" |
  sed -n 's/^Version: //p' | sort -rVu); do
  if (cd "$apt/package" && apt-get "${options[@]}" source --download-only \
    "postgresql-$major=$version") >"$apt/log" 2>&1; then
    rm -rf "$target"
    mkdir -p "$target"
    tar -xf "$apt/package/postgresql-${major}_${version%-*}.orig.tar.bz2" \
      -C "$target" --strip-components=1
    exit
  fi
done
cat "$apt/log" >&2
die "no source package of postgresql-$major can be had"
