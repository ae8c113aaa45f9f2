# shellcheck shell=bash disable=SC2034,SC2154  # root, work are scripts/lib.sh's; venv is the callers'
#
# Sourced after scripts/lib.sh by the measurements that need Redis, or packages
# from PyPI.

redis_pids=()

# For the trap of EXIT.
# shellcheck disable=SC2317,SC2329
finish() {
  local status=$?

  [ ${#redis_pids[@]} -eq 0 ] || kill "${redis_pids[@]}" 2>/dev/null || true
  # end_work looks at the status that the script ends with
  set +e
  (exit $status)
  end_work
}

# start_redis NAME OPTION ...: on the socket $work/NAME/s
start_redis() {
  local dir=$work/$1 waits

  as_owner mkdir -m 700 "$dir"
  as_owner redis-server --port 0 --unixsocket "$dir/s" --save '' --dir "$dir" --daemonize yes \
    --pidfile "$dir/pid" --logfile "$dir/log" "${@:2}" >/dev/null
  for ((waits = 0; waits < 100; waits++)); do
    sleep 0.1
    if [ -s "$dir/pid" ] && as_owner redis-cli -s "$dir/s" ping >/dev/null 2>&1; then
      redis_pids+=("$(cat "$dir/pid")")
      return
    fi
  done
  die "redis-server did not start"
}

# make_venv NAME REQUIREMENTS: the Django package and its peers, in a virtual
# environment that is kept.  Sets venv.
make_venv() {
  local client=$work/tree/clients/django home stamp

  venv=$root/build/$1
  home=$(getent passwd "$(id -u)" | cut -d: -f6)
  stamp=$(/usr/bin/python3 -V; cat "$client/pyproject.toml" "$2")
  if [ "$(cat "$venv/stamp" 2>/dev/null)" != "$stamp" ]; then
    rm -rf "$venv"
    mkdir -p "$root/build"
    /usr/bin/python3 -m venv "$venv"
    HOME=$home "$venv/bin/pip" install -q --disable-pip-version-check "${client}[psycopg]" -r "$2"
    printf '%s\n' "$stamp" >"$venv/stamp"
  fi
  HOME=$home "$venv/bin/pip" install -q --disable-pip-version-check --no-deps --force-reinstall "$client"
}
