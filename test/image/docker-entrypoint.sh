#!/bin/bash
#
# Stands for the script of that name in the official image, where that image cannot be had: it does what the
# image's documentation promises, and what deploy/ relies on.  As root it gives the data directory to the user
# postgres and goes on as that user; an empty data directory is made into a server with the password
# POSTGRES_PASSWORD and the database POSTGRES_DB, on which the files in /docker-entrypoint-initdb.d are run while
# it listens on its socket alone.

set -Eeuo pipefail

[[ ${1-} != -* ]] || set -- postgres "$@"
if [ "${1-}" = postgres ]; then
  if [ -n "${POSTGRES_PASSWORD_FILE-}" ]; then
    POSTGRES_PASSWORD=$(<"$POSTGRES_PASSWORD_FILE")
    unset POSTGRES_PASSWORD_FILE
  fi
  export POSTGRES_PASSWORD=${POSTGRES_PASSWORD-} POSTGRES_USER=${POSTGRES_USER:-postgres}
  export POSTGRES_DB=${POSTGRES_DB:-$POSTGRES_USER}
  mkdir -p "$PGDATA" /var/run/postgresql
  if [ "$(id -u)" -eq 0 ]; then
    chown postgres "$PGDATA" /var/run/postgresql
    chmod 700 "$PGDATA"
    exec gosu postgres "${BASH_SOURCE[0]}" "$@"
  fi
  if [ ! -s "$PGDATA/PG_VERSION" ]; then
    [ -n "$POSTGRES_PASSWORD" ] || { printf 'Error: POSTGRES_PASSWORD is not set\n' >&2; exit 1; }
    initdb --username="$POSTGRES_USER" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") >/dev/null
    printf 'host all all all %s\n' "$(postgres -C password_encryption)" >>"$PGDATA/pg_hba.conf"
    export PGPASSWORD=$POSTGRES_PASSWORD
    pg_ctl -D "$PGDATA" -o "$(printf '%q ' "${@:2}" -c listen_addresses=)" -w start
    sql=(psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --no-password --no-psqlrc)
    [ "$POSTGRES_DB" = postgres ] || printf 'CREATE DATABASE :"db";\n' | "${sql[@]}" --dbname postgres --set db="$POSTGRES_DB"
    for file in /docker-entrypoint-initdb.d/*; do
      case $file in
        *.sh)
          if [ -x "$file" ]; then
            "$file"
          else
            # shellcheck source=/dev/null
            . "$file"
          fi
          ;;
        *.sql) "${sql[@]}" --dbname "$POSTGRES_DB" -f "$file" ;;
      esac
    done
    pg_ctl -D "$PGDATA" -m fast -w stop
    unset PGPASSWORD
  fi
fi
exec "$@"
