#!/bin/sh
#
# The secrets of the backend, which are files, as its settings and libpq take them.

set -eu

umask 077
SECRET_KEY=$(cat /run/secrets/django)
PGPASSFILE=/tmp/pgpass
printf '*:*:*:webapp:%s\n' "$(cat /run/secrets/webapp)" >"$PGPASSFILE"
CACHE_KEY_FILE=/tmp/cache.key
cat /run/secrets/cache >"$CACHE_KEY_FILE"
export SECRET_KEY PGPASSFILE CACHE_KEY_FILE
exec "$@"
