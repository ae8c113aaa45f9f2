#!/bin/bash
#
# Run by the official image once, on the server that has just been made: creates
# the extension in the database POSTGRES_DB, and adds the keys of the key file.
# The last of them becomes the active one.

set -euo pipefail

mapfile -t ids < <(sed -nE 's/^([0-9]+):.*/\1/p' /etc/session_manager/keys)
{
  printf '%s\n' 'CREATE EXTENSION session_manager CASCADE;'
  printf 'SELECT session_key_add(%s);\n' "${ids[@]}"
  [ ${#ids[@]} -eq 1 ] || printf 'SELECT session_key_activate(%s);\n' "${ids[-1]}"
} | PGHOST='' PGHOSTADDR='' psql -X -q -o /dev/null -v ON_ERROR_STOP=1 --single-transaction --no-password \
  --username "$POSTGRES_USER" --dbname "$POSTGRES_DB"
