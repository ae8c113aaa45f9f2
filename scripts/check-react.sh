#!/bin/bash
#
# Check the React package and the example's frontend: types, style, unit tests,
# the size of the bundle, the example as a whole in a browser, and the quick
# start of docs/react.md in a new project.  Prints a line "ok" or "not ok" for
# each test.
#
# --long tries the quick start on every version of Next.js and React with each
# bundler, not on the newest alone.
#
#	CHROMIUM	the browser (/usr/bin/chromium)

set -euo pipefail

all=()
[ "${1-}" != --long ] || all=(--all)
root=$(cd "$(dirname "$0")/.." && pwd)
export NEXT_TELEMETRY_DISABLED=1 CI=1
status=0

output=$(mktemp)
trap 'rm -f "$output"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# A test that is one command; its output is shown when it fails.
check() {
  local name=$1

  shift
  if "$@" >"$output" 2>&1; then
    printf 'ok - %s\n' "$name"
  else
    printf 'not ok - %s\n' "$name"
    sed 's/^/# /' "$output"
    status=1
    return 1
  fi
}

# npm ci must work whatever registry npm is told to use.
# shellcheck disable=SC2317,SC2329 # called by check
no_hosts() {
  ! grep -H '"resolved": "' "$root"/{clients/react,examples/frontend}/package-lock.json |
    grep -vF '"file:../../clients/react"'
}

check "the lock files name no registry" no_hosts || true

cd "$root/clients/react"
check "react: npm ci" npm ci --no-audit --no-fund || exit 1
check "react: tsc" npm run --silent typecheck || true
check "react: eslint" npm run --silent lint || true
npx vitest run --reporter=tap-flat || status=1
check "react: build, at most 5 kB" npm run --silent build || exit 1
grep '^size:' "$output"

cd "$root/examples/frontend"
check "frontend: npm ci" npm ci --no-audit --no-fund || exit 1
check "frontend: tsc" npm run --silent typecheck || true
check "frontend: eslint" npm run --silent lint || true
check "frontend: next build" npm run --silent build || exit 1
SESSION_TRUSTED_PROXIES=1 SESSION_BACKEND_TIMEOUT=20000 LOGIN_RATE=1000/min \
  "$root/scripts/example.sh" npm --prefix "$root/examples/frontend" test || status=1
FRONTEND=no "$root/scripts/example.sh" node "$root/clients/react/scripts/quick-start.mjs" "${all[@]}" || status=1

exit $status
