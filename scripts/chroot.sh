# shellcheck shell=bash disable=SC2034,SC2154  # those who source this use chroots; root is lib.sh's
#
# Sourced by the scripts that work in chroots of Debian releases, after lib.sh.
#
#	CHROOTS		where the chroots are kept (build/chroots)
#	MIRROR		package mirror (the host's own)

chroots=${CHROOTS:-$root/build/chroots}
mounted=()

# Call this first: whatever ends the script, nothing stays mounted.
start_chroots() {
  [ "$(id -u)" -eq 0 ] || die "run as root: chroot and mount need it"
  trap unmount EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
}

unmount() {
  local dir

  for dir in "${mounted[@]}"; do
    # what has just ended may still hold it
    umount "$dir" 2>/dev/null || umount -l "$dir" || true
  done
  mounted=()
}

# Make a chroot of the release SUITE as DIR, if there is none.
make_chroot() {
  local suite=$1 dir=$2 mirror=${MIRROR:-$(host_mirror debian)}
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

mount_chroot() {
  local dir=$1 mount

  for mount in proc:proc dev/shm:tmpfs; do
    mountpoint -q "$dir/${mount%:*}" && continue
    mkdir -p "$dir/${mount%:*}"
    mount -t "${mount#*:}" none "$dir/${mount%:*}"
    mounted+=("$dir/${mount%:*}")
  done
}

# Run a command, after assignments of its environment, in the chroot DIR.
in_chroot() {
  chroot "$1" /usr/bin/env -i HOME=/root LANG=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin "${@:2}"
}

# Copy the source tree into a directory.
copy_into() {
  (cd "$root" && tar -cf - --exclude=./build --exclude=./.git .) |
    tar -xf - -C "$1" --no-same-owner
}
