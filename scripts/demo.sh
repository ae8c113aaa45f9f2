#!/bin/bash
#
# A day of a web application's sessions, played through psql as the
# application's role on a private server.  Every step shows the SQL that is
# called and its result, and ends the demo when the result is not the right
# one.  With KEEP=1 the server stays up.

set -euo pipefail

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

sessions=20000
guests=2000
batch=500
user='auth0|user-700017'

bold='' cyan='' dim='' reset=''
if [ -t 1 ]; then
  bold=$'\e[1m' cyan=$'\e[36m' dim=$'\e[2m' reset=$'\e[0m'
fi

number=0
step() {
  number=$((number + 1))
  printf '\n%s%2d  %s%s\n' "$bold" $number "$1" "$reset"
}

say() {
  printf '    %s%s%s\n' "$dim" "$*" "$reset"
}

# Tokens are 68 characters; cut them, and the columns that hold them, to 17.
shorten() {
  sed -E -e 's/(s[md]1_.{8})[A-Za-z0-9_-]{52}([A-Za-z0-9_-]{4})/\1…\2/g' \
    -e 's/(^ *|\+)-{70}(\+|$)/\1-------------------\2/' \
    -e 's/ {20,}session_token {20,}/   session_token   /'
}

run_psql() {
  "$bindir/psql" -X -q -h "$work/demo" -d app -v ON_ERROR_STOP=1 \
    -P footer=off -P null=- "$@"
}

# Show and run the SQL on standard input as a role, with further options for
# psql; the result is in $out.
play() {
  local sql

  sql=$(cat)
  printf '%s    %s%s\n' "$cyan" "$(shorten <<<"${sql//$'\n'/$'\n'    }")" "$reset"
  # "|| true": some of it is meant to fail.
  out=$(run_psql -U "$@" <<<"$sql" 2>&1) || true
  # Leave out the empty results of functions that return void.
  sed -zE 's/ *session_grant *\n-+\n *\n//g' <<<"$out" | grep . | shorten |
    sed -E "s/^/    /; s/ +$//; $((${lines:-100} + 1)){s/[^ ].*/.../;q}" || true
}

expect() {
  grep -qE -- "$1" <<<"$out" || die "step $number did not show $1"
}

# The session tokens in $out, one a line.
tokens() {
  grep -oE 'sm1_[A-Za-z0-9_-]{64}' <<<"$out"
}

# The digest form of a token, computed as a client does:
# sd1_ base64url(id || SHA-256("session_manager token v1" || id || secret))
digest() {
  local raw sum

  raw=$(printf %s "${1#sm1_}" | tr -- -_ +/ | base64 -d | od -An -v -tx1 | tr -d ' \n')
  sum=$({ printf 'session_manager token v1'; unhex "$raw"; } | sha256sum)
  printf 'sd1_%s' "$(unhex "${raw:0:32}${sum:0:64}" | base64 -w 0 | tr +/ -_)"
}

unhex() {
  local i

  for ((i = 0; i < ${#1}; i += 2)); do
    printf '%b' "\\x${1:i:2}"
  done
}

progress() {
  local done=$1 all=$2 bar

  printf -v bar '%*s' $((done * 40 / all)) ''
  if [ -t 1 ]; then
    printf '\r    %-40s %6d of %d' "${bar// /#}" "$done" "$all"
    [ "$done" -lt "$all" ] || printf '\n'
  elif ((done * 4 % all == 0)); then
    printf '    %6d of %d\n' "$done" "$all"
  fi
}

# Log users FROM to TO in and print the digest forms of their tokens.
log_in() {
  run_psql -U webapp -At -c "
    SELECT session_token_digest(s.session_token)
    FROM generate_series($1, $2) AS n,
      LATERAL session_create(demo.user_id(n * 2 / 3), demo.profile(n * 2 / 3), $3,
        demo.ip(n), demo.user_agent(n)) AS s"
}

# Files below the data directory that contain a string.
files_with() {
  { grep -rlaF -- "$1" "$work/demo/data" || true; } | wc -l
}

# Milliseconds that the call of session_$1 takes, from pgbench.
measure() {
  "$bindir/pgbench" -h "$work/demo" -U webapp -n -r -M prepared -T 2 \
    -D sessions=$sessions -f "$root/demo/$1.sql" app 2>"$work/pgbench.err" |
    awk -v call="session_$1" '$0 ~ call { print $1 }' | grep . ||
    { cat "$work/pgbench.err" >&2; die "pgbench failed"; }
}

"$root/scripts/setup.sh"
start_work
say "building and starting a private server in $work ..."
copy_tree tree
stage_tree tree 2>"$work/make.err" ||
  { cat "$work/make.err" >&2; die "the extension does not build"; }
# The sweep is left to step 10; the grace is short so that step 7 need not wait.
start_server demo \
  "shared_preload_libraries = 'session_manager'" \
  "session_manager.sweep_interval = 1h" \
  "session_manager.rotation_grace = 2s"
"$bindir/createdb" -h "$work/demo" -U postgres app

printf '\n%ssession_manager %s on %s%s\n' "$bold" \
  "$(sed -n "s/^default_version = '\(.*\)'/\1/p" "$root/session_manager.control")" \
  "$("$pg_config" --version)" "$reset"

step "Install, as superuser: a key, and a bundle of functions for each role"
play postgres <<'SQL'
CREATE EXTENSION session_manager CASCADE;
SELECT session_key_generate();
CREATE ROLE webapp LOGIN;
SELECT session_grant('webapp', 'app');
CREATE ROLE privacy LOGIN;
SELECT session_grant('privacy', 'admin');
SQL
expect 'session_grant'
run_psql -U postgres -f "$root/demo/profile.sql"
# Log every statement of the day: step 13 searches the log for tokens.
run_psql -U postgres -c "ALTER ROLE webapp SET log_statement = 'all'"

step "Morning: $sessions logins and $guests guests with a ticket for 5 seconds"
say "From here on everything is called by the role webapp, which can read no table."
begin=$EPOCHREALTIME
for ((i = 0; i < sessions; i += batch)); do
  log_in $((i + 1)) $((i + batch)) NULL >>"$work/cookies"
  progress $((i + batch)) $((sessions + guests))
done
for ((; i < sessions + guests; i += batch)); do
  log_in $((i + 1)) $((i + batch)) "'5 seconds'" >/dev/null
  progress $((i + batch)) $((sessions + guests))
done
guests_end=$((SECONDS + 6))
say "$(awk -v n=$((sessions + guests)) -v a="$begin" -v b="$EPOCHREALTIME" \
  'BEGIN { printf "%.1f s, %d logins per second, each with its event, in one connection", b - a, n / (b - a) }')"

step "Someone logs in on three devices; the token is returned exactly once"
play webapp <<SQL
SELECT 'laptop' AS device, session_token, expires_at
FROM session_create('$user', demo.profile(700017),
  ip => '203.0.113.7', user_agent => 'Firefox on Linux')
UNION ALL SELECT 'phone', session_token, expires_at
FROM session_create('$user', demo.profile(700017),
  ip => '192.0.2.44', user_agent => 'Safari on iOS')
UNION ALL SELECT 'tablet', session_token, expires_at
FROM session_create('$user', demo.profile(700017),
  ip => '2001:db8::9', user_agent => 'Chrome on Android');
SQL
mapfile -t token < <(tokens)
[ ${#token[@]} -eq 3 ] || die "step $number returned no three tokens"
laptop=$(digest "${token[0]}")

step "Every request: read the session by the digest of the cookie's token"
play webapp <<SQL
SELECT user_id, data->>'name' AS name, data->'app_metadata'->>'plan' AS plan, version
FROM session_get('$laptop');
SQL
expect 'Łucja Żółć'

step "The user buys a plan: a JSON merge patch, under the row's lock"
play webapp <<SQL
SELECT version, data->'app_metadata'->>'plan' AS plan, data->'user_metadata' AS user_metadata
FROM session_update('$laptop',
  '{"app_metadata": {"plan": "team"}, "user_metadata": {"recent": null, "home": "Łódź"}}');
SQL
expect '2 .* team .*"home": "Łódź"'

step "Refresh with a new token; a retry of the same request gets already_rotated"
play webapp <<SQL
SELECT status, session_token FROM session_refresh('$laptop', rotate => true);
SQL
expect rotated
new_laptop=$(digest "$(tokens)")
play webapp <<SQL
SELECT status, session_token FROM session_refresh('$laptop', rotate => true);
SELECT user_id, version FROM session_get('$new_laptop');
SQL
expect already_rotated
expect "$user.* 2"
sleep 2.2

step "A thief replays the old token after the grace period of 2 s: the session ends for both"
play webapp <<SQL
SELECT status FROM session_refresh('$laptop', rotate => true);
SELECT count(*) AS live FROM session_get('$new_laptop');
SQL
expect reused
expect '^ +0$'

step "The owner logs in again, looks at the devices and ends the tablet's session"
play webapp <<SQL
SELECT session_token
FROM session_create('$user', demo.profile(700017),
  ip => '203.0.113.7', user_agent => 'Firefox on Linux');
SQL
laptop=$(digest "$(tokens)")
play webapp <<SQL
SELECT session_id, is_current AS here, ip, user_agent
FROM session_list('$user', current_token => '$laptop');
SQL
tablet=$(sed -nE 's/^ *([0-9a-f-]{36}).*Android.*/\1/p' <<<"$out")
play webapp <<SQL
SELECT session_invalidate_id('$tablet',
  '$user', 'lost device');
SQL
expect "^ ${user/|/\\|}\$"

step "Sign out everywhere but here"
play webapp <<SQL
SELECT session_invalidate_all('$user', except_token => '$laptop');
SELECT is_current AS here, user_agent, ended_at, ended_reason
FROM session_list('$user', include_ended => true,
  current_token => '$laptop');
SQL
expect 'logout_all'

step "The guests' tickets have run out: clean up by hand, before the worker does"
while ((SECONDS < guests_end)); do sleep 0.2; done
play webapp <<'SQL'
SELECT session_active_count();
SELECT sessions_deleted, partitions_created FROM session_cleanup();
SQL
expect "^ +$guests "

step "What happened to that user"
play webapp <<SQL
SELECT date_trunc('second', at)::time AS at, event, session_event_severity(event) AS severity,
  right(session_id::text, 6) AS id, ip, detail
FROM session_history(user_id => '$user');
SQL
expect 'token_reused.*critical'

step "The user asks for a copy of everything stored (role privacy)"
lines=14 play privacy -At <<SQL
SELECT jsonb_pretty(session_export('$user')::jsonb->'sessions'->0);
SQL
expect 'Łucja'

step "What a thief of the table sees"
play webapp <<'SQL'
SELECT * FROM user_sessions;
SQL
expect 'permission denied'
play postgres -x <<SQL
SELECT session_id, user_id, ip, octet_length(sealed_data) AS sealed_bytes,
  substr(sealed_data, 1, 32) AS sealed_data, substr(verifier, 1, 32) AS verifier
FROM user_sessions WHERE user_id = '$user' AND revoked_at IS NULL;
SQL
run_psql -U postgres -c CHECKPOINT
say "Files of the data directory, write-ahead log included, that contain"
nothing=0
for needle in "$user" 'Łucja Żółć' 'user-700017@example.com' "${token[0]#sm1_}" "${token[1]#sm1_}"; do
  case $needle in
    "$user") what='the user id, which is stored as it is' ;;
    Ł*) what="the user's name" ;;
    *@*) what='the e-mail address' ;;
    "${token[0]#sm1_}") what="the laptop's first token" ;;
    *) what="the phone's token" ;;
  esac
  found=$(files_with "$needle")
  printf '    %3d  %s\n' "$found" "$what"
  [ "$needle" = "$user" ] || nothing=$((nothing + found))
done
found=$(grep -cE 's[md]1_[A-Za-z0-9_-]{64}' "$work/demo/log" || true)
printf '    %3d  %s\n' "$found" \
  "lines of the server's log with a token, of $(wc -l <"$work/demo/log") that log every statement"
[ $((nothing + found)) -eq 0 ] || die "something leaked"

step "Time per call, one client, prepared statements, $sessions sessions"
run_psql -U postgres -c 'ALTER ROLE webapp RESET log_statement' \
  -c 'CREATE TABLE demo.cookie (n serial PRIMARY KEY, digest text)' \
  -c "\\copy demo.cookie (digest) FROM '$work/cookies'" \
  -c 'GRANT SELECT ON demo.cookie TO webapp'
run_psql -U postgres -c 'VACUUM ANALYZE'
printf '    %-16s  %-16s  %s\n' '' 'durable commit' 'synchronous_commit = off'
for call in get create update refresh; do
  durable=$(measure $call)
  deferred=$(PGOPTIONS='-c synchronous_commit=off' measure $call)
  printf '    session_%-8s  %10s ms  %10s ms\n' $call "$durable" "$deferred"
done

if [ -n "${KEEP-}" ]; then
  keep_work=yes
  as_owner=''
  [ "$(id -u)" -ne 0 ] || as_owner='runuser -u postgres -- '
  printf '#!/bin/sh\n%s%s -D %s -m fast stop && rm -r %s\n' "$as_owner" \
    "$bindir/pg_ctl" "$work/demo/data" "$work" >"$work/stop"
  printf '\n%sThe server is up.%s  Connect as the application, or as postgres:\n\n' "$bold" "$reset"
  printf '    psql -h %s -U webapp app\n\n' "$work/demo"
  printf 'Stop and remove it:\n\n    sh %s\n' "$work/stop"
fi
