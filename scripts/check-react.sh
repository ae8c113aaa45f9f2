#!/bin/bash
#
# Check the React package and the example's frontend: types, style, unit tests,
# the size of the bundle, and the example as a whole in a browser.  Prints a line
# "ok" or "not ok" for each test, and "lint ok" or "lint not ok" for types and
# style.
#
#   scripts/check-react.sh [--long | --lint | FILE ...]
#
# --long runs the tests that are marked @long as well, and does what the quick
# start of docs/react.md says, in a new project for each version of Next.js and
# React with each bundler; --lint checks types and style alone.  A FILE is a test of the package (test/...) or of the example
# (e2e/...).
#
#	CHROMIUM	the browser (/usr/bin/chromium-headless-shell, and /usr/bin/chromium for bound sessions)
#	DEVICE_PORT	for the tests of bound sessions (8443)

set -euo pipefail

unit=() browser=() devices=no
scope=
for argument; do
  case $argument in
    --long) scope=long ;;
    --lint) scope=lint ;;
    test/*) scope=files unit+=("$argument") ;;
    e2e/device.spec.ts) scope=files devices=yes ;;
    e2e/*) scope=files browser+=("$argument") ;;
    *)
      printf 'check-react: no test %s\n' "$argument" >&2
      exit 1
      ;;
  esac
done
root=$(cd "$(dirname "$0")/.." && pwd)
export NEXT_TELEMETRY_DISABLED=1 CI=1
status=0

output=$(mktemp)
trap 'rm -f "$output"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# A KIND of check ("ok", or "lint ok") that is one command; its output is shown
# when it fails.
check() {
  local kind=$1 name=$2

  shift 2
  if "$@" >"$output" 2>&1; then
    printf '%s - %s\n' "$kind" "$name"
  else
    printf '%s - %s\n' "${kind/ok/not ok}" "$name"
    sed 's/^/# /' "$output"
    status=1
    return 1
  fi
}

# shellcheck disable=SC2317,SC2329 # called by check
in_package() {
  npm --prefix "$root/clients/react" --silent "$@"
}

# shellcheck disable=SC2317,SC2329 # called by check
in_frontend() {
  npm --prefix "$root/examples/frontend" --silent "$@"
}

# npm ci must work whatever registry npm is told to use.
# shellcheck disable=SC2317,SC2329 # called by check
no_hosts() {
  ! grep -H '"resolved": "' "$root"/{clients/react,examples/frontend}/package-lock.json |
    grep -vF '"file:../../clients/react"'
}

lint() {
  check "lint ok" "the lock files name no registry" no_hosts || true
  check "lint ok" "react: tsc" in_package run typecheck || true
  check "lint ok" "react: eslint" in_package run lint || true
  check "lint ok" "frontend: tsc" in_frontend run typecheck || true
  check "lint ok" "frontend: eslint" in_frontend run lint || true
}

# The frontend finds the package where npm has put a copy of it.
build() {
  local copy=$root/examples/frontend/node_modules/@session-manager/react

  check ok "react: build, at most 4.6 kB" in_package run build || exit 1
  grep '^size:' "$output"
  rm -rf "$copy/dist"
  cp -Rp "$root/clients/react/package.json" "$root/clients/react/dist" "$copy/"
}

unit_tests() {
  (cd "$root/clients/react" && npx vitest run --reporter=tap-flat "$@") || status=1
}

browser_tests() {
  SESSION_TRUSTED_PROXIES=1 SESSION_BACKEND_TIMEOUT=20000 OIDC_TIMEOUT=20000 CONNECT_TIMEOUT=20 LOGIN_RATE=1000/min \
    "$root/scripts/example.sh" npm --prefix "$root/examples/frontend" test -- "$@" || status=1
}

# Sessions that are bound to devices: over HTTPS, in an example of their own, as
# they take PostgreSQL, Redis and Django away.
device_tests() {
  APP_URL=https://app.example.test:${DEVICE_PORT:-8443} browser_tests e2e/device.spec.ts "$@"
}

# Say how long it took since the last call.
took() {
  printf '# %s: %s s\n' "$1" $((SECONDS - since))
  since=$SECONDS
}

"$root/scripts/deps.sh" build react
since=$SECONDS
case $scope in
  lint)
    build
    lint
    ;;
  files)
    [ ${#unit[@]} -eq 0 ] || unit_tests "${unit[@]}"
    [ ${#browser[@]} -eq 0 ] || browser_tests "${browser[@]}"
    [ $devices = no ] || device_tests
    ;;
  *)
    build
    took "building the package"
    lint
    took "types and style"
    unit_tests
    took "unit tests"
    check ok "frontend: next build" in_frontend run build || exit 1
    took "building the frontend"
    browser_tests
    took "the example in a browser"
    if [ "$scope" = long ]; then
      device_tests
    else
      device_tests --grep-invert @long
    fi
    took "bound sessions in a browser"
    if [ "$scope" = long ]; then
      FRONTEND=no CONNECT_TIMEOUT=20 \
        "$root/scripts/example.sh" node "$root/clients/react/scripts/quick-start.mjs" || status=1
      took "the quick start"
    fi
    ;;
esac

exit $status
