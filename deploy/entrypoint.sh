#!/bin/bash
#
# The entrypoint of the image: before a database is made, it sees to the key
# file, and stops where that cannot be used, so that no database is left behind
# half made.  All else is the official image's docker-entrypoint.sh.

set -euo pipefail

key=/etc/session_manager/keys

die() {
  printf 'session_manager: %s\n' "$@" >&2
  exit 1
}

# Run a command as the server's user.
as_server() {
  if [ "$(id -u)" -eq 0 ]; then
    gosu postgres "$@"
  else
    "$@"
  fi
}

# Written as a whole or not at all, and never over another.
make_key() {
  # shellcheck disable=SC2016 # the other shell's
  as_server bash -c 'set -euo pipefail
    umask 077
    new=$(mktemp "$1.XXXXXX")
    trap "rm -f \"\$new\"" EXIT
    printf "1:%s\n" "$(od -An -N32 -tx1 /dev/urandom | tr -d " \n")" >"$new"
    sync "$new"
    ln -T "$new" "$1"' bash "$key" ||
    die "cannot create the key file $key: mount a directory there that the user postgres (uid $(as_server id -u)) may write to," \
      "or a file with a line \"1:<64 hex digits>\" that root owns, in the group of that user, mode 0440"
  printf 'session_manager: created the key file %s; keep a copy apart from the backups of the database\n' "$key"
}

# The rule is the extension's (docs/keys.md).
check_key() {
  local owner mode

  read -r owner mode < <(stat -L -c '%u %a' "$key")
  if [ "$owner" != "$(as_server id -u)" ] && [ "$owner" != 0 ]; then
    die "the key file $key belongs to user $owner; it must be root's or the server's (uid $(as_server id -u))"
  fi
  if ((0$mode & 0007)) || { [ "$owner" = 0 ] && ((0$mode & 0030)); } || { [ "$owner" != 0 ] && ((0$mode & 0070)); }; then
    die "the key file $key has mode $mode; it must be 0600 or stricter, or root's and at most 0640" \
      "in Kubernetes: set defaultMode: 0440 of the secret's volume, and fsGroup to the group of the server's user ($(as_server id -g))"
  fi
  as_server test -r "$key" ||
    die "the user postgres (uid $(as_server id -u), group $(as_server id -g)) may not read the key file $key"
  as_server grep -qE '^[0-9]+:[0-9a-fA-F]{64}$' "$key" ||
    die "the key file $key has no line \"1:<64 hex digits>\""
}

case ${1-} in
  postgres | -*)
    if [ ! -s "$PGDATA/PG_VERSION" ]; then
      if as_server test -e "$key"; then
        check_key
      else
        make_key
      fi
    fi
    ;;
esac
exec docker-entrypoint.sh "$@"
