#!/bin/bash
#
# Run once by the image, after the extension has been created: the application's
# role, with the password of the secret webapp, which owns the database.

set -euo pipefail

PGHOST='' PGHOSTADDR='' psql -X -q -o /dev/null -v ON_ERROR_STOP=1 --single-transaction --no-password \
  --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
  --set database="$POSTGRES_DB" --set password="$(</run/secrets/webapp)" <<'SQL'
CREATE ROLE webapp LOGIN PASSWORD :'password';
ALTER DATABASE :"database" OWNER TO webapp;
SELECT session_grant('webapp', 'app');
SELECT session_grant('webapp', 'reader');
SQL
