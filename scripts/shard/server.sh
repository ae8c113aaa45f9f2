# shellcheck shell=bash disable=SC2154,SC2034  # shard.sh sets what is not set here, and reads what is not read
#
# Sourced by shard.sh: connections that stay open, and what is asked of every
# server.  A connection is a psql that reads statements from a pipe, so it ends
# with this script, however that ends, and with it the locks that it holds.

declare -A conninfo=() to_server=() from_server=() schema=()

# Where the pipes are.
pipes=

# The libpq connection string of an argument: a bare word is a service.
connection_string() {
  case $1 in
    *=* | *://*) printf '%s\n' "$1" ;;
    *) printf 'service=%s\n' "$1" ;;
  esac
}

# An argument as messages show it, without a password.
shown() {
  sed -E "s/(password *= *)('([^'\\\\]|\\\\.)*'|[^ ]+)/\1***/; s|(://[^:/@]+):[^@]*@|\1:***@|" <<<"$1"
}

# Open a connection NAME.
connect() {
  local name=$1 pipe=$pipes/$1 in out

  conninfo[$name]=$(connection_string "$2")
  mkfifo "$pipe"
  # Our end for reading is opened by its other end's being opened.
  exec {in}> >(exec psql "${psql_options[@]}" -d "${conninfo[$name]}" >"$pipe" 2>&1)
  exec {out}<"$pipe"
  rm "$pipe"
  to_server[$name]=$in
  from_server[$name]=$out
  # Nothing that this script waits for may take for ever, and no standby is waited for.
  ask "$name" "SET statement_timeout = '60s'; SET lock_timeout = '10s'; SET idle_session_timeout = 0;
    SET synchronous_commit = local; SET search_path = pg_catalog, pg_temp" ||
    die "cannot connect to $(shown "$2"):" "$answer"
}

disconnect() {
  local in=${to_server[$1]} out=${from_server[$1]}

  exec {in}>&- {out}<&-
  unset "to_server[$1]" "from_server[$1]"
}

# Run SQL on a connection, in which @ext@ is the extension's schema: it is not
# in search_path, as others may create functions there.  Sets answer to the
# output, or to the error if it fails.  The last statement decides.
ask() {
  local name=$1 line

  answer=
  printf '%s;\n\\echo :ERROR %s\n' "${2//@ext@/"${schema[$1]-}"}" "$end_of_answer" 1>&"${to_server[$name]}" 2>/dev/null || true
  while IFS= read -r -t 90 -u "${from_server[$name]}" line; do
    case $line in
      "false $end_of_answer") return 0 ;;
      "true $end_of_answer") return 1 ;;
      *) answer+=${answer:+$'\n'}$line ;;
    esac
  done
  answer+=${answer:+$'\n'}"the connection to the $name is lost"
  return 1
}

# The same where a failure ends the script.
must() {
  ask "$@" || die "the $1 says:" "$answer"
}

# Run statements on a connection that is made for them.
ask_anew() {
  local name=$1 statement commands=()

  shift
  for statement in "$@"; do
    commands+=(-c "${statement//@ext@/"${schema[$name]-}"}")
  done
  answer=$(psql "${psql_options[@]}" -v ON_ERROR_STOP=1 -d "${conninfo[$name]}" "${commands[@]}" 2>&1)
}

# A text as an SQL literal.
literal() {
  printf "'%s'\n" "${1//\'/\'\'}"
}

# Know where the extension's objects are.
find_extension() {
  must "$1" "SELECT extnamespace::regnamespace FROM pg_extension WHERE extname = 'session_manager'"
  [ -n "$answer" ] || die "the $1 has no extension session_manager in its database"
  schema[$1]=$answer
  must "$1" "SET search_path = pg_catalog, pg_temp"
  must "$1" "SET session_manager.revoke_commit = local"
}

# What must be so before anything is done on a server.
check_server() {
  must "$1" "SELECT usesuper FROM pg_user WHERE usename = current_user"
  [ "$answer" = t ] || die "connect to the $1 as a superuser"
  must "$1" "SELECT value FROM @ext@.session_info() WHERE key = 'preloaded'"
  [ "$answer" = yes ] || die "the $1 does not preload session_manager: see shared_preload_libraries"
}

# Change a setting by ALTER SYSTEM, or reset it without a value, and wait until
# the connection has it.  New connections have it from then on.
configure() {
  local name=$1 setting=$2 tries condition

  if [ $# -eq 3 ]; then
    condition="current_setting($(literal "$setting")) = $(literal "$3")"
    must "$name" "ALTER SYSTEM SET $setting = $(literal "$3")"
  else
    must "$name" "SELECT pg_conf_load_time()"
    condition="pg_conf_load_time() > $(literal "$answer")"
    must "$name" "ALTER SYSTEM RESET $setting"
  fi
  must "$name" "SELECT pg_reload_conf()"
  for ((tries = 0; tries < 500; tries++)); do
    must "$name" "SELECT $condition"
    [ "$answer" != t ] || return 0
    sleep 0.01
  done
  die "the $name does not take over $setting: see its log, and whether the setting is on its command line"
}

# The settings that servers of a fleet must have in common, one a line.
common_settings() {
  must "$1" "SELECT name || '=' || setting FROM pg_settings WHERE name LIKE 'session\\_manager.%'
    AND name <> ALL ('{session_manager.shard,session_manager.databases,session_manager.key_file,session_manager.touch_slots,session_manager.redis_host,session_manager.redis_port,session_manager.redis_socket,session_manager.redis_db,session_manager.redis_user,session_manager.redis_password_file,session_manager.redis_ca_file}')
    UNION ALL SELECT 'server_encoding=' || current_setting('server_encoding')
    UNION ALL SELECT 'version of session_manager=' || extversion FROM pg_extension WHERE extname = 'session_manager'
    ORDER BY 1"
  printf '%s\n' "$answer"
}

# Complain of each setting in which two servers differ.
same_settings() {
  local one other differences

  one=$(common_settings "$1") || exit
  other=$(common_settings "$2") || exit
  differences=$(diff <(printf '%s\n' "$one") <(printf '%s\n' "$other") | sed -nE "s/^</  $1:/p; s/^>/  $2:/p") || true
  [ -z "$differences" ] || { printf 'settings differ:\n%s\n' "$differences" >&2; return 1; }
}

# Events are numbered apart on each server: in a range of 2^45 whose number is
# the high byte of a bucket that the server holds.  A server that takes a range
# begins behind what a server can have used of it before, at 4,096 numbers for
# each second since 2020.  All ids stay below 2^53, which every client can read.
number_events() {
  local name=$1 share=$2 lowest
  local -a bytes

  # a server that holds nothing has no events of its own
  [ "$share" != none ] || return 0
  parse_share bytes "$share"
  for lowest in "${!bytes[@]}"; do break; done
  must "$name" "SELECT $(in_share '(last_value >> 45)' "$share") AND is_called FROM @ext@.session_events_event_id_seq"
  [ "$answer" != t ] || return 0
  # RESTART, unlike setval(), makes backends forget the numbers that they hold.
  must "$name" "DO \$\$
    DECLARE
      wrong boolean := (SELECT NOT $(in_share '(last_value >> 45)' "$share") FROM @ext@.session_events_event_id_seq);
    BEGIN
      IF wrong THEN
        EXECUTE format('ALTER SEQUENCE @ext@.session_events_event_id_seq RESTART WITH %s',
          ($lowest::bigint << 45) + (extract(epoch FROM clock_timestamp() - timestamptz '2020-01-01 00:00Z'))::bigint * 4096);
      END IF;
      PERFORM nextval('@ext@.session_events_event_id_seq');
    END \$\$"
}

# Wait until nothing is under way any more for what a server does not hold, and
# note where its WAL has all of it.  In a new connection, which exists after the
# postmaster has told every process of the share: it tells them one after the
# other, and does nothing else meanwhile.
drain() {
  ask_anew "$1" "SET search_path = pg_catalog, pg_temp" "SET statement_timeout = '${wait_seconds}s'" \
    "SET synchronous_commit = local" \
    "DO \$\$ BEGIN ASSERT current_setting('session_manager.shard') = $(literal "$2"), 'the share is another one'; END \$\$" \
    "SELECT @ext@.session_hand_over()" \
    "SELECT pg_logical_emit_message(true, 'session_manager', 'handed over')" ||
    { failure=$answer; return 1; }
  # the commit of that message has been flushed, and all before it
  must "$1" "SELECT pg_current_wal_flush_lsn()"
  end_of_wal=$answer
}

# Say what holds that up.
blockers() {
  if ask "$1" "SELECT format('process %s (%s), %s, since %s', pid, usename, state, date_trunc('second', xact_start)) FROM pg_stat_activity
    WHERE datname = current_database() AND xact_start < clock_timestamp() - interval '1 s' AND backend_type = 'client backend' AND pid <> pg_backend_pid()"; then
    [ -z "$answer" ] || warn "open transactions:" "$answer"
  fi
}
