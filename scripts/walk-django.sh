#!/bin/bash
#
# Walk the quick start of docs/django.md as it is written, as an ordinary user
# of the machine and as PostgreSQL's role webapp: on a server that the README's
# SQL has prepared, and on one that the page's own command prepares.  A line
# "ok ..." or "not ok ..." for each step is printed; make check counts them.
#
#	PYTHON		interpreter for the virtual environment (python3)
#	BINDIR		programs of a staged PostgreSQL that has the extension
#	WHEEL		a wheel to install in place of the source, which is then not there
#	DJANGO		what pip is to install of Django (the newest that runs on the interpreter)
#
# What pip has downloaded is kept in build/walk.

set -euo pipefail

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

"$root/scripts/deps.sh" build
"$root/scripts/setup.sh" --tests
start_work

# PostgreSQL's superuser is not who walks.
as_walker() {
  if [ "$(id -u)" -eq 0 ]; then
    setpriv --reuid=nobody --regid=nogroup --clear-groups -- "$@"
  else
    "$@"
  fi
}

give() {
  [ "$(id -u)" -ne 0 ] || chown -R nobody:nogroup "$@"
}

copy_tree tree
if [ -n "${BINDIR-}" ]; then
  bindir=$BINDIR
else
  stage_tree tree
fi
chmod 711 "$work"
home=$work/home
mkdir "$home"
cp -R "$work/tree" "$home/session_manager"
mkdir -p "$root/build/walk/pip"
cp -R "$root/build/walk/pip" "$home/pip"
wheel=
if [ -n "${WHEEL-}" ]; then
  wheel=$home/$(basename "$WHEEL")
  cp "$WHEEL" "$wheel"
  rm -rf "$home/session_manager/clients"
fi
give "$home"

status=0
for route in readme page; do
  as_owner mkdir -m 755 "$work/socket-$route"
  start_server "$route" "fsync = off" \
    "shared_preload_libraries = 'session_manager'" \
    "unix_socket_directories = '$work/socket-$route'"
  as_walker env HOME="$home" PATH="$bindir:$PATH" PGHOST="$work/socket-$route" \
    WHEEL="$wheel" DJANGO="${DJANGO-}" PIP_CACHE_DIR="$home/pip" PYTHONDONTWRITEBYTECODE=1 \
    "${PYTHON:-/usr/bin/python3}" "$home/session_manager/scripts/walk_django.py" \
    $route "$home" || status=1
  stop_server "$route"
done
cp -R "$home/pip/." "$root/build/walk/pip"
exit $status
