#!/bin/bash
#
# Check the example application as make example starts it: what it says, the
# addresses that it names, its backend, and its end by Ctrl-C.  Prints a line
# "ok" or "not ok" for each test; takes the variables of example.sh.

set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
output=$(mktemp)
export TMPDIR
TMPDIR=$(mktemp -d)
chmod 755 "$TMPDIR"
status=0
pid=

# shellcheck disable=SC2317,SC2329 # called by the trap
clean_up() {
  [ -z "$pid" ] || { kill -TERM -- "-$pid" 2>/dev/null || true; wait "$pid" || true; }
  rm -rf "$output" "$TMPDIR"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

check() {
  local name=$1

  shift
  if "$@"; then
    printf 'ok - example: %s\n' "$name"
  else
    printf 'not ok - example: %s\n' "$name"
    sed 's/^/# /' "$output"
    status=1
  fi
}

# Wait until the output matches, or the example has ended.
await_output() {
  local waits

  for ((waits = 0; waits < 6000; waits++)); do
    ! grep -qE "$1" "$output" || return 0
    kill -0 "$pid" 2>/dev/null || return
    sleep 0.1
  done
  return 1
}

# shellcheck disable=SC2317,SC2329 # called by check
answers() {
  [ "$(curl -s -L -o /dev/null -w '%{http_code}' "$1")" = 200 ]
}

# shellcheck disable=SC2317,SC2329 # called by check
is_empty() {
  [ -z "$(ls -A "$1")" ]
}

# shellcheck disable=SC2317,SC2329 # called by check
begins_with_step() {
  [[ $(head -n 1 "$output") == "example: "* ]] && ! grep -q 'http' "$output"
}

# A process group of its own, as a terminal's Ctrl-C reaches all of one.  Where
# this script runs in the background, SIGINT may be ignored; not so at a terminal.
set -m
env --default-signal=INT "$root/scripts/example.sh" >"$output" 2>&1 &
pid=$!
set +m

await_output . || true
check "it begins by naming a step, long before it is there" begins_with_step
check "it comes to an end" await_output 'Ctrl-C'
mapfile -t urls < <(sed '1,/^The example is running/d' "$output" | grep -oE 'https?://[^ ]+')
check "each step is named before the addresses" \
  test "$(sed '/^The example is running/,$d' "$output" | grep -c '^example: ')" -ge 5
check "each address is named once" \
  test "${#urls[@]}" -ge 2 -a "$(grep -cE 'https?://' "$output")" -eq "${#urls[@]}"
for url in "${urls[@]}"; do
  check "$url answers" answers "$url"
done
check "how to stop it is the last line" grep -q 'Ctrl-C' <(tail -n 1 "$output")

EXAMPLE_URL=http://localhost:${FRONTEND_PORT:-3000} BACKEND_URL=http://127.0.0.1:${BACKEND_PORT:-8000} \
  ISSUER_URL=http://127.0.0.1:${ISSUER_PORT:-9000} python3 "$root/examples/backend/check.py" || status=1

kill -INT -- "-$pid"
ended=0
wait "$pid" || ended=$?
pid=
check "Ctrl-C ends it" test "$ended" -eq 130
check "and nothing of it is left" is_empty "$TMPDIR"
exit $status
