# shellcheck shell=bash disable=SC2154  # root, home, work and URLs are example.sh's
#
# Sourced by example.sh: build the React package and the Next.js application
# where something has changed, and start the application.

package=$root/clients/react
frontend=$root/examples/frontend

# Is something below the other arguments newer than the first?
stale() {
  [ ! -e "$1" ] ||
    [ -n "$(find "${@:2}" \( -name node_modules -o -name .next -o -name test-results -o -name e2e \) -prune -o \
      -type f ! -name '*.tsbuildinfo' ! -name next-env.d.ts -newer "$1" -print -quit)" ]
}

npm_in() {
  (cd "$1" && HOME=$home npm "${@:2}") >"$work/npm.log" 2>&1 ||
    { cat "$work/npm.log" >&2; die "npm ${*:2} failed in $1"; }
}

# What npm has installed, and what Next.js has built, is told by these files.
installed=node_modules/.package-lock.json
built=$frontend/.next/BUILD_ID

export NEXT_TELEMETRY_DISABLED=1
if stale "$package/$installed" "$package/package-lock.json"; then
  step "installing what the React package is built with"
  npm_in "$package" ci
fi
if stale "$package/dist/index.js" "$package/src"; then
  step "building the React package"
  npm_in "$package" run build
fi
if stale "$frontend/$installed" "$frontend/package-lock.json"; then
  step "installing Next.js and the React package"
  npm_in "$frontend" ci
fi
# npm has copied the package as it was then.
copy=$frontend/node_modules/@session-manager/react
rm -rf "$copy/dist"
cp -Rp "$package/package.json" "$package/dist" "$copy/"
if stale "$built" "$frontend" "$frontend/$installed" "$package/dist"; then
  step "building the frontend"
  npm_in "$frontend" run build
fi

step "starting Next.js"
need_port frontend_port
start frontend env --chdir="$frontend" \
  SESSION_BACKEND_URL="$BACKEND_URL" \
  SESSION_BACKEND_TIMEOUT="${SESSION_BACKEND_TIMEOUT:-5000}" \
  OIDC_TIMEOUT="${OIDC_TIMEOUT:-5000}" \
  SESSION_TRUSTED_PROXIES="${SESSION_TRUSTED_PROXIES:-0}" \
  OIDC_ISSUER="$ISSUER_URL/" OIDC_CLIENT_ID="$client" OIDC_AUDIENCE="$audience" \
  APP_URL="$APP_URL" \
  node node_modules/next/dist/bin/next start --hostname localhost --port "$frontend_port"
await frontend "$EXAMPLE_URL/login"
