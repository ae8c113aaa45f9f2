#!/bin/bash
#
# Measure the cache in Redis: what a revocation waits for it, what a read from
# it costs beside Redis itself, and that it costs nothing when it is off.
#
#	bench/cache.sh [--quick]
#
# Prints a table.  Sides take turns call by call; a line shows the median of
# the rounds' medians, and in brackets the lowest and highest round.
#
# From the environment:
#   ROUNDS   rounds of each comparison   20
#   CALLS    calls in each round         500

set -euo pipefail

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../scripts/lib.sh"

case ${1-} in
  '') : "${ROUNDS:=20}" "${CALLS:=500}" ;;
  --quick) : "${ROUNDS:=3}" "${CALLS:=100}" ;;
  *) die "unknown argument $1; see the head of $0" ;;
esac

redis_pid=
finish() {
  local status=$?

  [ -z "$redis_pid" ] || kill "$redis_pid" 2>/dev/null || true
  # end_work looks at the status that the script ends with
  set +e
  (exit $status)
  end_work
}

# start NAME LINE ...: a server with the extension and a role's worth of keys
start() {
  local name=$1

  start_server "$@" \
    "shared_preload_libraries = 'session_manager'" \
    "session_manager.sweep_interval = '1d'" \
    "shared_buffers = '256MB'"
  sql "$name" -c "SET client_min_messages = warning" \
    -c "CREATE EXTENSION session_manager CASCADE" -c "SELECT session_key_generate()" >/dev/null
}

# sql NAME OPTION ...
sql() {
  as_owner "$bindir/psql" -XAtq -v ON_ERROR_STOP=1 -h "$work/$1" -U postgres -d postgres "${@:2}"
}

conninfo() {
  printf 'host=%s user=postgres dbname=postgres' "$work/$1"
}

# Redis on the loopback interface, at a port that is free
start_redis() {
  local tries

  as_owner mkdir -m 700 "$work/redis"
  for ((tries = 0; tries < 20; tries++)); do
    port=$((20000 + RANDOM % 20000))
    as_owner redis-server --bind 127.0.0.1 --port "$port" --save '' --dir "$work/redis" \
      --daemonize yes --pidfile "$work/redis/pid" --logfile "$work/redis/log" >/dev/null
    for ((waits = 0; waits < 20; waits++)); do
      sleep 0.1
      if [ -s "$work/redis/pid" ] && redis-cli -p "$port" ping >/dev/null 2>&1; then
        redis_pid=$(cat "$work/redis/pid")
        return
      fi
    done
  done
  die "redis-server did not start"
}

# driver ARGUMENT ...: rounds are appended to the results
driver() {
  as_owner "$work/cache_driver" "$@" "$ROUNDS" "$CALLS" >>"$work/results"
}

"$root/scripts/setup.sh" --tests
start_work
trap finish EXIT
touch "$work/results"

printf 'building ...\n' >&2
copy_tree with
stage_tree with USE_REDIS=1
gcc -O2 -Wall -Wextra -I"$("$pg_config" --includedir)" -o "$work/cache_driver" \
  "$root/bench/cache_driver.c" -L"$("$pg_config" --libdir)" -lpq -lhiredis -lsodium
start_redis
start off
start strict \
  "session_manager.redis_mode = strict" \
  "session_manager.redis_host = '127.0.0.1'" \
  "session_manager.redis_port = $port"
copy_tree without
stage_tree without USE_REDIS=0
start bare

for ((waits = 0; waits < 100; waits++)); do
  [ "$(redis-cli -p "$port" -n 1 keys 'session:epoch:*' | wc -c)" -le 1 ] || break
  sleep 0.2
done
[ "$waits" -lt 100 ] || die "there is no epoch: $(sql strict -c "SELECT * FROM session_info()")"

printf 'measuring ...\n' >&2
(umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$work/application_key")
[ "$(id -u)" -ne 0 ] || chown postgres: "$work/application_key"
driver servers "strict against off" "$(conninfo strict)" "$(conninfo off)"
driver servers "off against USE_REDIS=0" "$(conninfo off)" "$(conninfo bare)"
driver read "$(conninfo strict)" "127.0.0.1:$port/1" "$work/application_key"

# shellcheck disable=SC2016 # awk's, not the shell's
sort -t "$(printf '\t')" -k1,1 -s "$work/results" | awk -F'\t' '
function sorted(values, n, i, j, t) {
  for (i = 2; i <= n; i++)
    for (j = i; j > 1 && values[j - 1] > values[j]; j--) {
      t = values[j]; values[j] = values[j - 1]; values[j - 1] = t
    }
}
function middle(values, n) {
  sorted(values, n)
  return n % 2 ? values[(n + 1) / 2] : (values[n / 2] + values[n / 2 + 1]) / 2
}
function line(m_a, m_b, m_d, m_r) {
  m_a = middle(a, n); m_b = middle(b, n); m_d = middle(d, n); m_r = middle(r, n)
  printf "%-45s %9.1f %9.1f %9.1f  [%7.1f %7.1f]  %6.3f  [%.3f %.3f]\n", \
    label, m_a, m_b, m_d, d[1], d[n], m_r, r[1], r[n]
}
BEGIN {
  printf "%-45s %9s %9s %9s  %-17s  %6s\n", "comparison (medians, us)", "first", "second", "difference", "", "ratio"
}
$1 != label { if (n) line(); label = $1; n = 0 }
{ n++; a[n] = $3; b[n] = $4; d[n] = $3 - $4; r[n] = $3 / $4 }
END { line() }'
