#!/bin/bash
#
# Put PostgreSQL 16, which no release of Debian has, into build/postgresql-16:
# the server and its headers from the wheel pgserver, pgcrypto, auto_explain and
# the modules for TAP tests from the source of Debian's PostgreSQL.  Prints the path of its
# pg_config; does nothing where it is there.

set -euo pipefail

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

wheel=pgserver==0.1.4
place=$root/build/postgresql-16
pg_config=$place/pgserver/pginstall/bin/pg_config

make_server() {
  local tests python=/usr/bin/python3

  rm -rf "$place"
  mkdir -p "$place"
  "$python" -m venv "$place/venv"
  "$place/venv/bin/pip" download -q --disable-pip-version-check --no-deps \
    -d "$place" --only-binary :all: "$wheel"
  "$python" -m zipfile -e "$place"/pgserver-*.whl "$place"
  chmod 755 "$place"/pgserver/pginstall/bin/*
  find "$place/pgserver/pginstall/lib/postgresql/pgxs" -type f ! -name '*.*' -exec chmod 755 {} +

  "$root/scripts/fetch-source.sh" "$place/source"
  make -s -C "$place/source/contrib/pgcrypto" USE_PGXS=1 PG_CONFIG="$pg_config" \
    with_ssl=openssl PG_CPPFLAGS='-include postgres.h -include varatt.h' \
    SHLIB_LINK='-lcrypto -lz' install
  make -s -C "$place/source/contrib/auto_explain" USE_PGXS=1 PG_CONFIG="$pg_config" install
  tests=$(dirname "$("$pg_config" --pgxs)")/../test
  mkdir -p "$tests/perl"
  cp -R "$place/source/src/test/perl/PostgreSQL" "$tests/perl/"
  touch "$place/complete"
}

mkdir -p "$root/build"
[ -e "$place/complete" ] || make_server >"$root/build/postgresql-16.log" 2>&1 ||
  { tail -n 20 "$root/build/postgresql-16.log" >&2; die "see build/postgresql-16.log"; }
printf '%s\n' "$pg_config"
