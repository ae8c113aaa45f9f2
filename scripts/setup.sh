#!/bin/bash
#
# Install by apt what building and running the extension needs, and with
# --tests what its tests need, with --source also what building PostgreSQL with
# assertions, and its tests, needs, with --indent what laying out its sources
# needs, and with --chroot what chroots of Debian releases need.  Does nothing where nothing is missing; no service is started and no
# existing cluster is touched.
#
#	PACKAGES		no: without what the packages' tests need (yes)

set -euo pipefail

tests=no
source=no
indent=no
chroot=no
case ${1-} in
  --tests) tests=yes ;;
  --source) tests=yes source=yes ;;
  --indent) indent=yes ;;
  --chroot) chroot=yes ;;
esac

export DEBIAN_FRONTEND=noninteractive

die() {
  printf 'setup: %s\n' "$*" >&2
  exit 1
}

have() {
  command -v "$1" >/dev/null
}

pg_config() {
  command "${PG_CONFIG:-pg_config}" "$@" 2>/dev/null
}

# The major version that pg_config builds for, or else the distribution's.
pg_major() {
  if pg_config --version | sed -nE 's/^PostgreSQL ([0-9]+).*/\1/p' | grep .; then
    return
  fi
  apt-cache depends postgresql 2>/dev/null |
    sed -nE 's/.*Depends: postgresql-([0-9]+)$/\1/p' | head -n 1
}

can_install() {
  apt-cache policy "$1" 2>/dev/null | grep -E '^ +Candidate: +[^(]' >/dev/null
}

can_fuzz() {
  printf '#include <stddef.h>
int LLVMFuzzerTestOneInput(const unsigned char *d, size_t n)
{ return d == NULL && n > 0; }' |
    clang -fsanitize=fuzzer,address,undefined -x c -o /dev/null - 2>/dev/null
}

# Fills the array missing with the packages whose content is not there.
find_missing() {
  missing=()
  [ -x "$(pg_config --bindir)/postgres" ] &&
    [ -e "$(pg_config --sharedir)/extension/pgcrypto.control" ] ||
    missing+=("postgresql-$1")
  [ -e "$(pg_config --includedir-server)/postgres.h" ] &&
    [ -e "$(pg_config --pgxs)" ] ||
    missing+=("postgresql-server-dev-$1")
  have gcc || missing+=(gcc libc6-dev)
  have make || missing+=(make)
  [ -e /usr/include/sodium.h ] || missing+=(libsodium-dev)
  [ -e /usr/include/hiredis/hiredis.h ] || missing+=(libhiredis-dev)
  if [ $indent = yes ]; then
    have perltidy || missing+=(perltidy)
  fi
  if [ $chroot = yes ]; then
    have debootstrap || missing+=(debootstrap)
    have python3 || missing+=(python3)
  fi
  [ $tests = yes ] || return 0
  have clang || missing+=(clang)
  have clang && can_fuzz || missing+=(libclang-rt-dev)
  have git || missing+=(git)
  have prove || missing+=(perl)
  perl -MIPC::Run -e 1 2>/dev/null || missing+=(libipc-run-perl)
  have pgbouncer || missing+=(pgbouncer)
  # there is none for some releases of PostgreSQL
  [ -e "$(pg_config --pkglibdir)/plproxy.so" ] || ! can_install "postgresql-$1-plproxy" || missing+=("postgresql-$1-plproxy")
  have redis-server || missing+=(redis-server)
  have prometheus || missing+=(prometheus)
  have prometheus-postgres-exporter || missing+=(prometheus-postgres-exporter)
  have shellcheck || missing+=(shellcheck)
  have spin || missing+=(spin)
  have gdb || missing+=(gdb)
  have python3 || missing+=(python3)
  [ -e "$(pg_config --includedir)/libpq-fe.h" ] || missing+=(libpq-dev)
  if [ $source = yes ]; then
    have bison || missing+=(bison)
    have bzip2 || missing+=(bzip2)
    have flex || missing+=(flex)
    have valgrind || missing+=(valgrind)
    [ -e /usr/include/zlib.h ] || missing+=(zlib1g-dev)
    [ -e /usr/include/openssl/ssl.h ] || missing+=(libssl-dev)
  fi
  [ "${PACKAGES-yes}" = yes ] || return 0
  /usr/bin/python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
  have node || missing+=(nodejs)
  have npm || missing+=(npm)
  have git || missing+=(git)
  # only the whole browser binds sessions to devices; the headless shell needs two thirds of its CPU time
  have chromium || missing+=(chromium)
  have chromium-headless-shell || missing+=(chromium-headless-shell)
  # a certificate that the browser trusts
  have certutil || missing+=(libnss3-tools)
  have openssl || missing+=(openssl)
  have pgxn || ! can_install pgxnclient || missing+=(pgxnclient)
  [ -e /usr/share/fonts/opentype/inter ] || missing+=(fonts-inter)
}

major=$(pg_major || true)
find_missing "${major:-NN}"
[ ${#missing[@]} -gt 0 ] || exit 0

have apt-get || die "not found, and there is no apt-get to install it: ${missing[*]}"

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  have sudo || die "run as root: apt-get install ${missing[*]}"
  as_root=(sudo)
fi

# Services start when they are installed unless this file forbids it.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  trap '"${as_root[@]}" rm -f $policy' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee $policy >/dev/null
  "${as_root[@]}" chmod 755 $policy
fi

printf 'setup: updating the lists of packages\n'
"${as_root[@]}" apt-get -qq update
if [ -z "$major" ]; then
  major=$(pg_major || true)
  [ -n "$major" ] || die "apt knows no package postgresql"
  find_missing "$major"
fi

purpose="build the extension"
[ $tests = no ] || purpose="build the extension and run its tests"
[ $indent = no ] || purpose="lay out the sources"
[ $chroot = no ] || purpose="make chroots of Debian releases"
printf 'setup: installing, to %s: %s\n' "$purpose" "${missing[*]}"
log=$(mktemp)
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
  apt-get -qq -y --no-install-recommends install "${missing[@]}" >"$log" 2>&1 ||
  { cat "$log" >&2; rm -f "$log"; die "apt-get failed"; }
rm -f "$log"

find_missing "$major"
[ ${#missing[@]} -eq 0 ] || die "still not found after installing: ${missing[*]}"
