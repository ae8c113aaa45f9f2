#!/bin/bash
#
# Run make check under other releases of PostgreSQL, and print a line for each:
# those of other Debian releases in chroots that are made once and used again,
# and 16, which no Debian release has, from PyPI.  The packages for Django and
# React are left out: no version changes anything for them.
#
#	SUITES		releases of Debian, and 16 (16 trixie forky: PostgreSQL 16, 17 and 18)
#	CHROOTS		where the chroots are kept (build/chroots)
#	MIRROR		package mirror (the host's own)
#	CHECK		check, check-long or check-assert (check)
#	ONLY, TEST	what of these, as they take it
#	SOURCE		for check-assert: a directory with PostgreSQL's source, where the
#			release has no source package at the moment

set -euo pipefail

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/chroot.sh
. "$root/scripts/chroot.sh"

# what make takes in a chroot
settings=(PACKAGES=no ONLY="${ONLY-}" TEST="${TEST-}" SOURCE="${SOURCE:+/srv/source}")

check() {
  local suite=$1 dir=$chroots/$1 log=$root/build/check-$1.log
  local tree=$dir/srv/session_manager status=0

  mount_chroot "$dir"
  # a server that check-assert has built there is used again
  mkdir -p "$tree"
  find "$tree" -mindepth 1 -maxdepth 1 ! -name build -exec rm -rf {} +
  copy_into "$tree"

  rm -rf "$dir/srv/source"
  [ -z "${SOURCE-}" ] || cp -R "$SOURCE" "$dir/srv/source"

  # make itself is among the packages that setup.sh installs.
  {
    in_chroot "$dir" "${settings[@]}" /srv/session_manager/scripts/setup.sh --tests &&
      in_chroot "$dir" "${settings[@]}" make -C /srv/session_manager "${CHECK:-check}"
  } >"$log" 2>&1 || status=$?
  unmount

  report "$(in_chroot "$dir" pg_config --version 2>/dev/null || echo PostgreSQL) ($suite)" "$log" $status
}

# PostgreSQL 16 outside of a chroot.  Its makefiles do not build in another
# directory, as one check of the sources does.
check_16() {
  local log=$root/build/check-16.log config status=0

  config=$("$root/scripts/postgresql-16.sh") || return
  env PG_CONFIG="$config" PACKAGES=no TEST="${TEST:-unit fuzz protocol regress isolation tap}" \
    LD_LIBRARY_PATH="$("$config" --bindir)/../../../pgserver.libs" \
    make -C "$root" "${CHECK:-check}" >"$log" 2>&1 || status=$?
  report "$("$config" --version) (PyPI)" "$log" $status
}

report() {
  printf '%s: %s\n' "$1" \
    "$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$2" || echo "ended with status $3")"
  [ "$3" -eq 0 ] || printf 'See %s\n' "${2#"$root/"}"
  return "$3"
}

start_chroots

mkdir -p "$root/build"
failed=0
for suite in ${SUITES:-16 trixie forky}; do
  if [ "$suite" = 16 ]; then
    check_16 || failed=1
    continue
  fi
  make_chroot "$suite" "$chroots/$suite"
  check "$suite" || failed=1
done
exit $failed
