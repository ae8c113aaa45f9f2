# shellcheck shell=bash disable=SC2154  # work and bindir are scripts/lib.sh's
#
# Sourced after scripts/lib.sh: private servers that share the sessions between
# them, and a database in front of them that has session_manager_router.

# run_sql SERVER DATABASE: standard input, as the superuser.
run_sql() {
  as_owner "$bindir/psql" -XAtq -v ON_ERROR_STOP=1 -h "$work/$1" -U postgres -d "$2" 2>"$work/$1.sql" ||
    { cat "$work/$1.sql" >&2; die "$1: cannot prepare the database $2"; }
}

# start_shards NAME N LINE ...: servers NAME1 to NAMEn, each with its part of the
# sessions in a database "sessions", with further lines for their configuration.
# They are one installation: before the first session the row and the keys that
# the first one has made are copied to the others.
start_shards() {
  local name=$1 n=$2 i table

  shift 2
  for ((i = 1; i <= n; i++)); do
    start_server "$name$i" "shared_preload_libraries = 'session_manager'" "session_manager.shard = '$i/$n'" "$@"
    run_sql "$name$i" postgres <<<"CREATE ROLE router LOGIN; CREATE DATABASE sessions;"
    run_sql "$name$i" sessions <<<"CREATE EXTENSION session_manager CASCADE; SELECT session_grant('router', 'admin');" >/dev/null
    if [ "$i" = 1 ]; then
      run_sql "$name$i" sessions <<<"SELECT session_key_generate();" >/dev/null
      continue
    fi
    as_owner cp -p "$work/${name}1/keys" "$work/$name$i/keys"
    for table in session_installation session_keys; do
      {
        printf 'COPY %s FROM stdin;\n' $table
        run_sql "${name}1" sessions <<<"COPY $table TO stdout;"
        printf '\\.\n'
      } | run_sql "$name$i" sessions
    done
  done
}

# make_router SERVER DATABASE CONNECTION ...: the extension in a database, with a
# map of shards that have these connections.
make_router() {
  local server=$1 database=$2 connections

  shift 2
  printf -v connections "'%s'," "$@"
  run_sql "$server" "$database" >/dev/null <<END
CREATE EXTENSION session_manager_router CASCADE;
SELECT session_router_create(ARRAY[${connections%,}], 'router');
END
}
