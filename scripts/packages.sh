#!/bin/bash
#
# Make the packages that users install, as make dist does, and use each where
# nothing else of this tree is, on servers of its own.
#
#   scripts/packages.sh [PACKAGE ...]
#
#	pgxn		the zip, by PGXN's client: built, installed, loaded and its
#			regression tests run
#	django-V	the wheel, in a new virtual environment with Django V (4.2, 5.2,
#			6): the quick start of docs/django.md
#	next-V		the tarball, in a new project with Next.js V (15, 16), and the
#			wheel behind it: the quick start of docs/react.md
#
# Without arguments: pgxn django-5.2 next-16.
#
#	PYTHON		interpreter for the virtual environment (/usr/bin/python3)

set -euo pipefail

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

made=$root/build/packages

# PGXN's client builds as the owner of the server, into a copy of PostgreSQL.
use_pgxn() {
  local include zip psql

  command -v pgxn >/dev/null || die "install pgxnclient"
  stage_postgresql pgxn
  # (headers are found relative to pg_config as well; the client wants to write there)
  include=$("$pg_config" --includedir)
  as_owner mkdir -p "$work/stage-pgxn$(dirname "$include")" "$work/stage-pgxn$("$pg_config" --libdir)"
  as_owner ln -s "$include" "$work/stage-pgxn$include"
  cp "$made"/session_manager-*.zip "$work/"
  zip=$(basename "$work"/session_manager-*.zip)
  client() {
    as_owner pgxn "$1" --yes --pg_config "$bindir/pg_config" "${@:2}" >"$work/pgxn.log" 2>&1 ||
      { cat "$work/pgxn.log" >&2; die "pgxn $1 failed"; }
    printf 'ok pgxn: %s %s\n' "$1" "$zip"
  }

  client install --nosudo "./$zip"
  start_server pgxn "fsync = off" "shared_preload_libraries = 'session_manager'" \
    "session_manager.sweep_interval = 1h"
  psql=(as_owner "$bindir/psql" -XAtq -v ON_ERROR_STOP=1 -h "$work/pgxn" -U postgres)
  "${psql[@]}" -d postgres -c 'CREATE DATABASE app' -c 'CREATE ROLE webapp LOGIN'
  "${psql[@]}" -d app -c 'CREATE EXTENSION pgcrypto'
  client load -h "$work/pgxn" -U postgres -d app "./$zip" session_manager
  "${psql[@]}" -d app -c 'SELECT session_key_generate()' -c "SELECT session_grant('webapp', 'app')" >/dev/null
  [ "$("${psql[@]}" -U webapp -d app -c "SELECT g.user_id FROM session_create('ann', '{\"a\": 1}') c, session_get(c.session_token) g")" = ann ] ||
    die "there is no session in what pgxn has installed"
  printf 'ok pgxn: a session, as an ordinary role\n'
  # PGXS would run the TAP tests too
  MAKEFLAGS=' -- TAP_TESTS= ISOLATION=' client check -h "$work/pgxn" -U postgres -d contrib_regression "./$zip"
  grep -oE 'All [0-9]+ tests passed' "$work/pgxn.log" || die "pgxn check has run no test"
  client unload -h "$work/pgxn" -U postgres -d app "./$zip" session_manager
  client uninstall --nosudo "./$zip"
  stop_server pgxn
}

use_django() {
  BINDIR=$bindir WHEEL=$(echo "$made"/*.whl) DJANGO="Django~=$1.0" "$root/scripts/walk-django.sh"
}

# React 19, Turbopack: the quick start of the source is tried with the others.
use_next() {
  BINDIR=$bindir WHEEL=$(echo "$made"/*.whl) TARBALL=$(echo "$made"/*.tgz) FRONTEND=no CONNECT_TIMEOUT=20 \
    "$root/scripts/example.sh" node "$root/clients/react/scripts/quick-start.mjs" "$1" 19 turbopack
}

[ $# -gt 0 ] || set -- pgxn django-5.2 next-16
for package; do
  case $package in
    pgxn | django-4.2 | django-5.2 | django-6 | next-15 | next-16) ;;
    *) die "there is no test of a package $package" ;;
  esac
done
"$root/scripts/dist.sh"
start_work

# The extension that the packages for Django and React use comes from the zip as
# well.
as_owner mkdir "$work/tree"
python3 -m zipfile -e "$made"/session_manager-*.zip "$work/unzipped"
chown -R "$(stat -c %u "$work/tree")" "$work/unzipped"
mv "$work"/unzipped/*/* "$work/tree/"
case " $* " in
  *" django-"* | *" next-"*) stage_tree tree ;;
esac

with=${bindir-}
for package; do
  printf '== %s\n' "$package"
  bindir=$with
  case $package in
    pgxn) use_pgxn ;;
    *) "use_${package%-*}" "${package#*-}" ;;
  esac
done
