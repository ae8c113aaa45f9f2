# shellcheck shell=bash
#
# Sourced by the other scripts: a work directory, a build of the extension
# installed there beside a copy of PostgreSQL, and servers on Unix sockets.
#
# Nothing outside the work directory is written.  As root everything runs as
# the user postgres, because PostgreSQL refuses root; otherwise as the caller.
# Whatever ends the script, its servers are stopped and the directory goes.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=
keep_work=no

die() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

# The mirror of the Debian archive NAME that this machine's apt uses, in either
# format of its sources.
host_mirror() {
  cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
    sed -nE 's/^URIs: *([^ ]+).*/\1/p; s/^deb +(\[[^]]*\] +)?([^ ]+) .*/\2/p' |
    grep -m 1 -E "/$1/?\$" || true
}

# Make the work directory, and see to its end.
start_work() {
  local config=${PG_CONFIG:-pg_config}
  local variable

  pg_config=$(command -v "$config") || die "$config not found"
  # Nothing of the caller's connections: PGHOST, PGOPTIONS, PGSERVICE, ...
  for variable in "${!PG@}"; do
    [[ $variable == PG_TEST_* ]] || unset "$variable"
  done

  export LC_ALL=C.UTF-8 TZ=UTC
  trap end_work EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  work=$(mktemp -d "${TMPDIR:-/tmp}/session_manager.XXXXXX")
  export HOME=$work
  [ "$(id -u)" -ne 0 ] || chown postgres: "$work"
  cd "$work" || die "cannot enter $work"
}

# End what was started beside the script: a job may lead a process group.
end_jobs() {
  local pid

  for pid in $(jobs -p); do
    kill -TERM -- "-$pid" 2>/dev/null || kill -TERM "$pid" 2>/dev/null || true
  done
}

end_work() {
  local status=$?
  local pidfile pid signal waits

  trap - EXIT
  trap '' INT TERM HUP
  end_jobs
  [ -n "$work" ] && [ $keep_work = no ] || exit $status
  cd /
  # Test programs start servers too; all of them live below $work.
  while IFS= read -r pidfile; do
    pid=$(head -n 1 "$pidfile" 2>/dev/null) || continue
    # A server that was killed leaves its file, and its number is used again.
    [ "$(readlink "/proc/$pid/cwd")" = "$(dirname "$pidfile")" ] || continue
    for signal in INT QUIT; do
      kill -"$signal" "$pid" 2>/dev/null || continue 2
      # What it still writes would be left behind.
      for ((waits = 0; waits < 600; waits++)); do
        # (one that has ended has no directory, also while nobody has asked for its status)
        readlink "/proc/$pid/cwd" >/dev/null || continue 3
        sleep 0.1
      done
    done
  done < <(find "$work" -name postmaster.pid 2>/dev/null)
  # What else a test program has started, if it was killed before it could end it.
  for pid in /proc/[0-9]*; do
    [[ $(readlink "$pid/cwd") != "$work"/* ]] || kill -KILL "${pid#/proc/}" 2>/dev/null || true
  done
  rm -rf "$work"
  exit $status
}

# Run a command as the user who owns the servers.
as_owner() {
  if [ "$(id -u)" -eq 0 ]; then
    setpriv --reuid=postgres --regid=postgres --init-groups -- "$@"
  else
    "$@"
  fi
}

# Copy the source tree to $work/NAME.  Status 1 of tar says that something
# changed meanwhile, as a directory does in which npm makes node_modules beside
# us; nothing that is copied does.
copy_tree() {
  mkdir "$work/$1"
  {
    tar -cf - -C "$root" --exclude=node_modules --exclude=.next --exclude='*.o' --exclude='*.bc' --exclude='*.so' \
      --exclude=./build --exclude=./.git --exclude='./results' . || [ $? -eq 1 ]
  } |
    tar -xf - -C "$work/$1" --no-same-owner
  [ "$(id -u)" -ne 0 ] || chown -R postgres: "$work/$1"
}

# Build the copy of the tree NAME with further arguments for make.
build_tree() {
  local tree=$work/$1

  shift
  as_owner make -s -C "$tree" PG_CONFIG="$pg_config" "$@"
}

# Build the copy of the tree NAME with further arguments for make, install it
# beside a copy of PostgreSQL and set bindir to its programs.
stage_tree() {
  as_owner test -x "$pg_config" ||
    die "$pg_config cannot be run by the user postgres: keep the source where that user may enter"
  build_tree "$@" install DESTDIR="$work/stage-$1" >/dev/null || return
  stage_postgresql "$1"
}

# Make a copy NAME of PostgreSQL and set bindir to its programs.  They find their
# files relative to themselves: programs are copied, all else is linked.
stage_postgresql() {
  local stage=$work/stage-$1
  local dir

  for dir in "$("$pg_config" --pkglibdir)" "$("$pg_config" --sharedir)"; do
    as_owner mkdir -p "$stage$dir"
    as_owner cp -Rs --no-clobber "$dir/." "$stage$dir/"
  done
  bindir=$stage$("$pg_config" --bindir)
  as_owner mkdir -p "$bindir"
  as_owner cp -RL --remove-destination "$("$pg_config" --bindir)/." "$bindir/"
}

# Start a server NAME with further lines for its configuration.  Its socket,
# key file and log are in $work/NAME, which is open to its owner alone.
start_server() {
  local dir=$work/$1

  shift
  as_owner mkdir -m 700 "$dir"
  as_owner "$bindir/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 \
    --locale=C.UTF-8 --no-sync >"$dir.initdb" 2>&1 ||
    { cat "$dir.initdb" >&2; die "initdb failed"; }
  printf '%s\n' \
    "listen_addresses = ''" \
    "unix_socket_directories = '$dir'" \
    "timezone = 'UTC'" \
    "log_timezone = 'UTC'" \
    "session_manager.key_file = '$dir/keys'" \
    "$@" >>"$dir/data/postgresql.conf"
  as_owner "$bindir/pg_ctl" -D "$dir/data" -l "$dir/log" -s -w start ||
    { cat "$dir/log" >&2; die "the server did not start"; }
}

stop_server() {
  as_owner "$bindir/pg_ctl" -D "$work/$1/data" -m fast -s -w stop
}
