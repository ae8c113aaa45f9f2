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

chroots=${CHROOTS:-$root/build/chroots}
mounted=()

unmount() {
  local dir

  for dir in "${mounted[@]}"; do
    # what has just ended may still hold it
    umount "$dir" 2>/dev/null || umount -l "$dir" || true
  done
  mounted=()
}

make_chroot() {
  local suite=$1 dir=$chroots/$1 mirror=${MIRROR:-$(host_mirror debian)}
  local script=/usr/share/debootstrap/scripts/$1

  [ ! -d "$dir" ] || return 0
  command -v debootstrap >/dev/null || die "install debootstrap"
  printf 'making a chroot of %s\n' "$suite"
  rm -rf "$dir.part"
  mkdir -p "$dir.part"
  # A release younger than the host's debootstrap is made as sid is.
  [ -e "$script" ] || script=/usr/share/debootstrap/scripts/sid
  debootstrap --variant=minbase "$suite" "$dir.part" "$mirror" "$script" \
    >"$dir.log" 2>&1 ||
    { tail -n 20 "$dir.log" >&2; die "debootstrap failed"; }
  # Releases in preparation expire within days on a mirror that lags.
  printf 'Acquire::Check-Valid-Until "false";\n' \
    >"$dir.part/etc/apt/apt.conf.d/99valid-until"
  mv "$dir.part" "$dir"
}

in_chroot() {
  chroot "$1" /usr/bin/env -i HOME=/root LANG=C.UTF-8 PACKAGES=no ONLY="${ONLY-}" TEST="${TEST-}" \
    SOURCE="${SOURCE:+/srv/source}" PATH=/usr/sbin:/usr/bin:/sbin:/bin "${@:2}"
}

check() {
  local suite=$1 dir=$chroots/$1 log=$root/build/check-$1.log
  local tree=$dir/srv/session_manager mount status=0

  for mount in proc:proc dev/shm:tmpfs; do
    mountpoint -q "$dir/${mount%:*}" && continue
    mkdir -p "$dir/${mount%:*}"
    mount -t "${mount#*:}" none "$dir/${mount%:*}"
    mounted+=("$dir/${mount%:*}")
  done
  # a server that check-assert has built there is used again
  mkdir -p "$tree"
  find "$tree" -mindepth 1 -maxdepth 1 ! -name build -exec rm -rf {} +
  (cd "$root" && tar -cf - --exclude=./build --exclude=./.git .) |
    tar -xf - -C "$tree" --no-same-owner

  rm -rf "$dir/srv/source"
  [ -z "${SOURCE-}" ] || cp -R "$SOURCE" "$dir/srv/source"

  # make itself is among the packages that setup.sh installs.
  {
    in_chroot "$dir" /srv/session_manager/scripts/setup.sh --tests &&
      in_chroot "$dir" make -C /srv/session_manager "${CHECK:-check}"
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

[ "$(id -u)" -eq 0 ] || die "run as root: chroot and mount need it"
trap unmount EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

mkdir -p "$root/build"
failed=0
for suite in ${SUITES:-16 trixie forky}; do
  if [ "$suite" = 16 ]; then
    check_16 || failed=1
    continue
  fi
  make_chroot "$suite"
  check "$suite" || failed=1
done
exit $failed
