#!/bin/bash
#
# Run the example application: a private PostgreSQL with the extension, Redis,
# an OpenID provider, the Django backend and, where Node.js is, the Next.js
# frontend.  Everything listens on loopback, keeps its data in a temporary
# directory and ends with Ctrl-C.  Each step is named as it begins.
#
#   scripts/example.sh            start it and print where it is
#   scripts/example.sh COMMAND    start it, run COMMAND and stop it; the command
#                                 finds EXAMPLE_URL, BACKEND_URL and ISSUER_URL
#
#	FRONTEND_PORT	3000
#	BACKEND_PORT	8000
#	ISSUER_PORT	9000
#	FRONTEND	no: without the frontend (yes)
#	APP_URL		where browsers reach the frontend, if something with a
#			certificate is in front: an https address below example.test,
#			where sessions are bound to devices (EXAMPLE_URL)
#	BINDIR		programs of a staged PostgreSQL that has the extension
#	WHEEL		the Django package to install in place of the source

set -euo pipefail

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

frontend_port=${FRONTEND_PORT:-3000}
backend_port=${BACKEND_PORT:-8000}
issuer_port=${ISSUER_PORT:-9000}
# localhost and not 127.0.0.1: what a browser calls a secure context.
export EXAMPLE_URL=http://localhost:$frontend_port
export APP_URL=${APP_URL:-$EXAMPLE_URL}
export BACKEND_URL=http://127.0.0.1:$backend_port
export ISSUER_URL=http://127.0.0.1:$issuer_port
audience=https://api.example.com
client=example-web
pids=()

step() {
  printf 'example: %s\n' "$*"
}

# End what was started, newest first; groups, as servers have children.
# shellcheck disable=SC2317,SC2329 # called by the trap
stop_all() {
  local i

  for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
    kill -TERM -- "-${pids[i]}" 2>/dev/null || true
  done
  for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
    wait "${pids[i]}" 2>/dev/null || true
  done
  pids=()
}

# Nothing else may listen on the port that VARIABLE names: it would be taken for what is started.
need_port() {
  ! (: <>"/dev/tcp/localhost/${!1}") 2>/dev/null || die "port ${!1} is in use; ${1^^} can name another"
}

# Start NAME with a command, in a process group of its own, its output in a log.
start() {
  local name=$1

  shift
  set -m
  "$@" </dev/null >"$work/$name.log" 2>&1 &
  pids+=($!)
  set +m
}

# Wait until URL answers, or show the log of NAME.
await() {
  local name=$1 url=$2 pid=${pids[-1]} waits

  for ((waits = 0; waits < 600; waits++)); do
    curl -s -o /dev/null "$url" && return
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  cat "$work/$name.log" >&2
  die "$name did not start"
}

# The Django package as it is now, in the virtual environment of the example.
install_client() {
  venv=$root/build/example/venv
  HOME=$home "$venv/bin/pip" install -q --disable-pip-version-check --no-index --no-deps --no-build-isolation \
    --force-reinstall "${WHEEL:-$work/tree/clients/django}"
}

start_postgresql() {
  start_server database "fsync = off" \
    "shared_preload_libraries = 'session_manager'" \
    "session_manager.redis_mode = strict" \
    "session_manager.redis_socket = '$work/redis/socket'" \
    "session_manager.sweep_interval = 5s" \
    "session_manager.flush_interval = 2s"
  "$bindir/psql" -X -q -h "$work/database" -U postgres -d postgres \
    -c 'CREATE ROLE webapp LOGIN' -c 'CREATE DATABASE app OWNER webapp'
}

start_redis() {
  mkdir -m 755 "$work/redis"
  start redis redis-server --port 0 --unixsocket "$work/redis/socket" \
    --unixsocketperm 777 --save '' --appendonly no --dir "$work/redis"
  redis_pid=${pids[-1]}
}

start_issuer() {
  need_port issuer_port
  start issuer "$venv/bin/python" "$root/examples/issuer/issuer.py" --port "$issuer_port" \
    --client "$client" --redirect "$APP_URL/auth/callback" --audience "$audience"
  await issuer "$ISSUER_URL/.well-known/jwks.json"
}

set_up_database() {
  (umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$work/cache.key")
  backend_env=(
    "PGHOST=$work/database"
    "APP_URL=$APP_URL"
    "SECRET_KEY=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')"
    "OIDC_ISSUER=$ISSUER_URL/"
    "OIDC_AUDIENCE=$audience"
    "REDIS_URL=unix://$work/redis/socket"
    "CACHE_KEY_FILE=$work/cache.key"
    "LOGIN_RATE=${LOGIN_RATE:-20/min}"
    "CONNECT_TIMEOUT=${CONNECT_TIMEOUT:-2}"
    "PYTHONDONTWRITEBYTECODE=1"
  )
  manage setup_session_manager --database admin --role webapp
  manage migrate -v 0
  manage check --database default --fail-level ERROR
  backend_env+=("DJANGO_SUPERUSER_PASSWORD=admin")
  manage createsuperuser --noinput --username admin --email admin@example.com
}

start_backend() {
  need_port backend_port
  start backend env "${backend_env[@]}" "$venv/bin/gunicorn" --chdir "$root/examples/backend" \
    --bind "127.0.0.1:$backend_port" --workers 2 --threads 4 \
    --access-logfile - config.wsgi
  backend_pid=${pids[-1]}
  await backend "$BACKEND_URL/api/sessions/current/"
}

manage() {
  env "${backend_env[@]}" "$venv/bin/python" "$root/examples/backend/manage.py" "$@" \
    >"$work/manage.log" 2>&1 || { cat "$work/manage.log" >&2; die "manage.py $1 failed"; }
}

start_frontend() {
  local frontend=$root/examples/frontend

  [ "${FRONTEND-yes}" = yes ] || return 0
  [ -e "$frontend/package.json" ] && command -v npm >/dev/null || return 0
  [ -e "$root/scripts/example-frontend.sh" ] || return 0
  # shellcheck disable=SC1091
  . "$root/scripts/example-frontend.sh"
}

step "looking for the programs that it needs"
"$root/scripts/deps.sh" build example
home=$(getent passwd "$(id -u)" | cut -d: -f6)
start_work
# end_work looks at the status that the script ends with.
trap 'status=$?; set +e; stop_all; (exit $status); end_work' EXIT

copy_tree tree
if [ -n "${BINDIR-}" ]; then
  bindir=$BINDIR
else
  step "building the extension"
  stage_tree tree
fi
step "installing the Django package"
install_client
step "starting Redis and PostgreSQL"
start_redis
start_postgresql
step "starting the OpenID provider"
start_issuer
step "setting up the database"
set_up_database
step "starting Django"
start_backend
start_frontend

if [ $# -gt 0 ]; then
  # for tests that take the database away, or Redis, or that restart them or Django
  export EXAMPLE_PSQL="$bindir/psql -X -q -h $work/database -U postgres -d app"
  owner=
  [ "$(id -u)" -ne 0 ] || owner="setpriv --reuid=postgres --regid=postgres --init-groups --"
  export EXAMPLE_PG_CTL="$owner $bindir/pg_ctl -D $work/database/data -s -w -l $work/database/log"
  export EXAMPLE_REDIS_PID=$redis_pid EXAMPLE_BACKEND_PID=$backend_pid
  cd "$root"
  "$@"
  exit
fi

printf '\nThe example is running.\n\n'
[ ! -e "$work/frontend.log" ] || printf '  application   %s/\n' "$EXAMPLE_URL"
printf '  admin         %s/admin/\n' "$BACKEND_URL"
printf '  API schema    %s/api/schema/\n' "$BACKEND_URL"
printf '\nThe admin is "admin" with the password "admin". Press Ctrl-C to stop it all.\n'
wait -n "${pids[@]}" || true
tail -n 20 "$work"/*.log >&2
die "one of the servers has ended; the ends of their logs are above"
