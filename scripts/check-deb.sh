#!/bin/bash
#
# From nothing to a session with the Debian packages, and back: build them in a
# clean chroot of each release; in another, beside a running cluster, install
# one as docs/deployment.md says, run the tests that are in the package's
# source against it, upgrade it while it is used, and remove it.  Then a cluster
# of each release before it in SUITES, with its package, becomes one of this
# release.  The packages are left in build/deb-RELEASE.
#
#	SUITES		releases of Debian (bookworm trixie forky: PostgreSQL 15, 17 and 18)
#	CHROOTS		where the chroots are kept (build/chroots)
#	MIRROR		package mirror (the host's own)

set -euo pipefail

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/chroot.sh
. "$root/scripts/chroot.sh"

# the chroots at work
build=
user=

# A copy of the clean chroot of SUITE as DIR, in which apt asks nothing, and
# dpkg does not wait for the disk.
clean_copy() {
  local suite=$1 dir=$2

  make_chroot "$suite" "$chroots/$suite-clean"
  rm -rf "$dir"
  cp -a "$chroots/$suite-clean" "$dir"
  printf '%s;\n' 'APT::Get::Assume-Yes "true"' 'Dpkg::Use-Pty "false"' >"$dir/etc/apt/apt.conf.d/99answers"
  printf 'debconf debconf/frontend select Noninteractive\n' | in_chroot "$dir" debconf-set-selections
  # sudo looks its own host up
  printf '127.0.0.1 localhost %s\n' "$(hostname)" >"$dir/etc/hosts"
  printf 'force-unsafe-io\n' >"$dir/etc/dpkg/dpkg.cfg.d/unsafe-io"
  mount_chroot "$dir"
}

# Install packages in the chroot DIR.
install_packages() {
  local dir=$1

  shift
  in_chroot "$dir" apt-get -qq update
  in_chroot "$dir" DEBIAN_FRONTEND=noninteractive \
    apt-get -qq --no-install-recommends install "$@" >"$dir.log" 2>&1 ||
    { tail -n 20 "$dir.log" >&2; die "cannot install $*"; }
}

# The processes that run in the chroot DIR.
processes_in() {
  local process

  for process in /proc/[0-9]*; do
    [ "$(readlink "$process/root")" != "$1" ] || printf '%s\n' "${process#/proc/}"
  done
}

# End what runs in the chroots, as clusters do, and remove them.
end_chroots() {
  local dir waits processes

  for dir in "$build" "$user"; do
    [ -n "$dir" ] || continue
    for ((waits = 0; waits < 100; waits++)); do
      mapfile -t processes < <(processes_in "$dir")
      [ ${#processes[@]} -gt 0 ] || break
      kill -INT "${processes[@]}" 2>/dev/null || true
      sleep 0.3
    done
  done
  unmount
  # (not where /proc is still mounted)
  for dir in "$build" "$user"; do
    [ -z "$dir" ] || mountpoint -q "$dir/proc" || rm -rf "$dir"
  done
}

# Run a command as somebody who may use sudo, in a directory with the packages, and show it.
dba() {
  printf '\n$ %s\n' "$*"
  in_chroot "$user" runuser -u dba -- sh -c "cd /srv/packages && $*" 2>&1
}

# The same without showing it.
quietly() {
  dba "$@" | tail -n +3
}

webapp() {
  quietly "sudo -u webapp psql -XAtq -v ON_ERROR_STOP=1 app -c \"$1\""
}

expect() {
  [ "$2" = "$3" ] || die "$1: expected '$2', not '$3'"
  printf 'ok     %s\n' "$1"
}

mentions() {
  grep -qF -- "$2" <<<"$3" || die "$1: '$2' is not in: $3"
  printf 'ok     %s\n' "$1"
}

# Build the packages from the tree in the build chroot into /srv/$1 of it.
build_packages() {
  in_chroot "$build" DEBIAN_FRONTEND=noninteractive make -C /srv/source deb >"$build.log" 2>&1 ||
    { tail -n 30 "$build.log" >&2; die "make deb failed"; }
  in_chroot "$build" mv /srv/source/build/deb "/srv/$1"
}

build_suite() {
  local library

  clean_copy "$1" "$build"
  install_packages "$build" make
  mkdir "$build/srv/source"
  copy_into "$build/srv/source"
  build_packages old
  rm -rf "$root/build/deb-$1"
  cp -R "$build/srv/old" "$root/build/deb-$1"
  printf 'ok     %s: make deb\n' "$1"
  # the same again, as a package that is newer
  sed -i -E '1s/\(([^)]*)\)/(\1+newer)/' "$build/srv/source/debian/changelog"
  build_packages new

  install_packages "$build" lintian binutils
  # (the one of Debian 12 fails for what is overridden too, so its lines are looked at)
  in_chroot "$build" sh -c 'lintian --allow-root --fail-on none --show-overrides /srv/old/*.changes' | tee "$build.lintian" ||
    die "lintian failed"
  if grep -qE '^[EW]: ' "$build.lintian"; then
    die "lintian complains"
  fi
  printf 'ok     lintian\n'

  in_chroot "$build" sh -c 'dpkg-deb -x /srv/old/postgresql-*-session-manager_*.deb /srv/unpacked'
  library=$(cd "$build" && printf '%s\n' srv/unpacked/usr/lib/postgresql/*/lib/session_manager.so)
  mentions "linked with -z now" BIND_NOW "$(in_chroot "$build" readelf -d "/$library")"
  mentions "linked with -z relro" GNU_RELRO "$(in_chroot "$build" readelf -lW "/$library")"
  mentions "compiled with a protected stack" __stack_chk_fail "$(in_chroot "$build" nm -D "/$library")"
  mentions "compiled with _FORTIFY_SOURCE" __memcpy_chk "$(in_chroot "$build" nm -D "/$library")"
}

# The package of SUITE, and the release of PostgreSQL that it is for.
package_of() {
  printf '%s\n' "$root/build/deb-$1"/postgresql-*-session-manager_*.deb
}

major_of() {
  basename "$(package_of "$1")" | sed -E 's/^postgresql-([0-9]+)-.*/\1/'
}

# The commands of a section of docs/deployment.md.
documented() {
  python3 "$root/scripts/doc_blocks.py" "$root/docs/deployment.md" "$1" --commands
}

# Install as the documentation says: the commands of its section, with the SQL
# of the README for the last of them, which is psql.
install_as_documented() {
  local command commands sql

  commands=$(documented "Debian packages" | sed -E "s/\b15\b/$major/g")
  sql=$(python3 "$root/scripts/doc_blocks.py" "$root/README.md" Install |
    python3 -c 'import json, sys; print(*(block["text"] for block in json.load(sys.stdin) if block["language"] == "sql"))')
  [[ $commands == *psql && $sql == *"CREATE EXTENSION"* ]] || die "the documentation has other commands"
  printf '%s\n' "$sql" >"$user/srv/packages/install.sql"
  while IFS= read -r command; do
    if [[ $command == *psql ]]; then
      dba "$command -v ON_ERROR_STOP=1 -a <install.sql"
    else
      dba "$command"
    fi
  done <<<"$commands"
}

# Print the id of the cluster's process, and the state of the library in it.
server_process() {
  head -n 1 "$user/var/lib/postgresql/$major/main/postmaster.pid"
}

loaded_library() {
  sed -nE 's|.*/(session_manager\.so.*)|\1|p' "/proc/$(server_process)/maps" | sort -u
}

serve_while_upgrading() {
  local before reader

  before=$(server_process)
  # new connections all the time, each of which reads the session
  touch "$user/srv/reading"
  while [ -e "$user/srv/reading" ]; do
    webapp "SELECT user_id FROM session_get('$token')" || printf 'failed\n'
  done >"$user/srv/answers" &
  reader=$!
  dba "sudo apt install ./newer/postgresql-$major-session-manager_*.deb" ||
    { rm "$user/srv/reading"; die "cannot upgrade"; }
  # some that come after it
  sleep 2
  rm "$user/srv/reading"
  wait "$reader"
  printf '%s reads during the upgrade\n' "$(wc -l <"$user/srv/answers")"
  expect "every read during the upgrade was answered" "auth0|ada" "$(sort -u "$user/srv/answers")"
  expect "the server went on" "$before" "$(server_process)"
  expect "it has the old library" "session_manager.so (deleted)" "$(loaded_library)"
  dba "sudo pg_ctlcluster $major main restart"
  expect "after a restart it has the new one" "session_manager.so" "$(loaded_library)"
  expect "the session lives" "auth0|ada" "$(webapp "SELECT user_id FROM session_get('$token')")"
}

remove_package() {
  local said

  said=$(dba "sudo apt remove postgresql-$major-session-manager")
  printf '%s\n' "$said"
  mentions "removal warns of a server that would not start" \
    "Remove session_manager from shared_preload_libraries in /etc/postgresql/$major/main/postgresql.conf" "$said"
  dba "sudo pg_conftool $major main remove shared_preload_libraries"
  dba "sudo pg_ctlcluster $major main restart"
  said=$(dba "sudo apt purge postgresql-$major-session-manager")
  printf '%s\n' "$said"
  mentions "purging names the key file" "Key file: /etc/postgresql/session_manager.keys" "$said"
  expect "the key file is as it was" "$keys" "$(sha256sum "$user/etc/postgresql/session_manager.keys")"
  expect "nothing else is left" "" "$(find "$user/usr/lib/postgresql" "$user/usr/share/postgresql" "$user/usr/share/doc" \
    "$user/var/lib/dpkg/info" -name '*session[-_]manager*')"
  expect "the server runs without it" 1 "$(quietly "sudo -u postgres psql -XAtqc 'SELECT 1'")"
}

# Make the chroot of SUITE in which a DBA works, with PACKAGE ... of Debian and a
# directory for ours.
make_user() {
  clean_copy "$1" "$user"
  [ -z "$older" ] || cp "$chroots/$older-clean/etc/apt/sources.list" "$user/etc/apt/sources.list.d/$older.list"
  install_packages "$user" sudo "${@:2}"
  in_chroot "$user" useradd -m dba
  in_chroot "$user" useradd -m webapp
  printf 'dba ALL=(ALL:ALL) NOPASSWD: ALL\n' >"$user/etc/sudoers.d/dba"
  mkdir "$user/srv/packages"
}

use_suite() {
  local package major token keys older=

  make_user "$1" postgresql
  package=$(package_of "$1")
  major=$(major_of "$1")
  mkdir "$user/srv/packages/newer"
  cp "$package" "$user/srv/packages/"
  cp "$build/srv/new/"*.deb "$build/srv/new/"*.dsc "$build/srv/new/"*.tar.xz "$user/srv/packages/newer/"
  # a cluster may have been started when it was made
  in_chroot "$user" pg_ctlcluster "$major" main start || [ $? -eq 2 ]

  install_as_documented
  keys=$(sha256sum "$user/etc/postgresql/session_manager.keys")
  expect "the key file is the server's alone" "600 postgres" \
    "$(in_chroot "$user" stat -c '%a %U' /etc/postgresql/session_manager.keys)"
  token=$(webapp "SELECT session_token FROM session_create('auth0|ada', '{}')")
  expect "a session is made" sm1_ "${token:0:4}"
  expect "and read" "auth0|ada" "$(webapp "SELECT user_id FROM session_get('$token')")"
  mentions "shard.sh runs where it is installed" "shard 1    primary" \
    "$(quietly "sudo -u postgres /usr/share/postgresql/$major/session_manager/shard.sh status dbname=app")"

  serve_while_upgrading

  install_packages "$user" autopkgtest
  dba "sudo autopkgtest ./newer/*.deb ./newer/*.dsc -- null" || die "the tests of the package failed"
  printf 'ok     tests of the installed package\n'

  remove_package
}

# A line for each thing that must be the same after the upgrade of a cluster.
contents() {
  quietly "sudo -u postgres psql -XAt -v ON_ERROR_STOP=1 app" <<'END'
SELECT 'sessions', count(*), md5(string_agg(to_jsonb(s)::text, ',' ORDER BY session_id)) FROM user_sessions s;
SELECT 'events', count(*), md5(string_agg(to_jsonb(e)::text, ',' ORDER BY event_id)) FROM session_events e;
SELECT 'keys', count(*), md5(string_agg(to_jsonb(k)::text, ',' ORDER BY key_id)) FROM session_keys k;
SELECT 'installation', to_jsonb(i) FROM session_installation i;
SELECT 'granted', grantee, count(*) FROM information_schema.routine_privileges
  WHERE grantee = 'webapp' GROUP BY 2;
END
}

as_postgres() {
  quietly "sudo -u postgres psql -XAtqc \"$1\" app"
}

# The documented commands that make the release MAJOR's cluster one of NEW, by METHOD.
upgrade_as_documented() {
  local command

  while IFS= read -r command; do
    command=$(sed -E "s/\b17\b/$new/g; s/\b15\b/$major/g; s/=upgrade/=$1/" <<<"$command")
    if [[ $command == *pg_dropcluster* ]]; then
      # "if pg_lsclusters shows one"
      drop_new
      continue
    fi
    printf '\n$ %s\n' "$command"
    quietly "$command" >"$user.log" || { cat "$user.log"; die "this failed"; }
  done <<<"$(documented "To another release of PostgreSQL")"
}

use_upgraded() {
  local tries swept=

  expect "$major to $new by $1: the server" "$new" "$(as_postgres "SELECT current_setting('server_version_num')::int / 10000")"
  expect "sessions, events, keys, grants" "$before" "$(contents)"
  expect "the session lives" "auth0|ada" "$(webapp "SELECT user_id FROM session_get('$token')")"
  expect "the ended one does not" "" "$(webapp "SELECT user_id FROM session_get('$ended')")"
  webapp "SELECT FROM session_create('auth0|eve', '{}', ttl => '1 s')"
  dba "sudo pg_conftool $new main set session_manager.sweep_interval 1s"
  dba "sudo pg_ctlcluster $new main restart"
  for ((tries = 0; tries < 60; tries++)); do
    swept=$(as_postgres "SELECT event FROM session_events WHERE user_id = 'auth0|eve' AND event = 'expired'")
    [ -z "$swept" ] || break
    sleep 1
  done
  expect "workers sweep" expired "$swept"
  expect "and none of them fails" "" "$(as_postgres "SELECT * FROM session_info() WHERE key LIKE 'errors%' AND value <> 'none'")"
}

# Does a cluster with one table and without the extension become one of the newer
# release?  Not if that is an older minor release, which does not know what is new.
plain_upgrade() {
  local status=0

  quietly "sudo apt install postgresql-$new" >"$user.log"
  drop_new
  quietly "sudo -u postgres psql -c 'CREATE TABLE plain (a int)'"
  quietly "sudo pg_upgradecluster -v $new --method=upgrade $major main" >"$user.log" || status=$?
  if [ $status -ne 0 ]; then
    # what else went wrong is no reason to go on
    grep -F 'Restoring database schemas in the new cluster' "$user.log" || { cat "$user.log"; die "this failed"; }
  fi
  restore_older
  quietly "sudo -u postgres psql -c 'DROP TABLE plain'"
  # as if it had never been there
  quietly "sudo apt purge 'postgresql*-$new'" >"$user.log"
  plain=$status
}

# Drop the cluster of the newer release, if there is one.
drop_new() {
  if in_chroot "$user" pg_lsclusters -h "$new" main 2>/dev/null | grep "^$new " >/dev/null; then
    quietly "sudo pg_dropcluster --stop $new main"
  fi
}

# The older cluster serves, and the newer one is gone.
restore_older() {
  drop_new
  quietly "sudo pg_conftool $major main set port 5432"
  quietly "sudo pg_ctlcluster $major main restart"
}

# Let a cluster of the suite OLDER become one of SUITE, both ways that
# pg_upgradecluster has, and use it.
upgrade_cluster() {
  local older=$1 major new token ended before method plain

  major=$(major_of "$older")
  new=$(major_of "$2")
  make_user "$2" "postgresql-$major"
  cp "$(package_of "$older")" "$(package_of "$2")" "$user/srv/packages/"
  in_chroot "$user" pg_lsclusters "$major" main 2>/dev/null | grep "^$major " >/dev/null ||
    in_chroot "$user" pg_createcluster "$major" main
  in_chroot "$user" pg_ctlcluster "$major" main start || [ $? -eq 2 ]
  plain_upgrade
  if [ "$plain" -ne 0 ]; then
    printf 'skipped: the PostgreSQL %s of %s cannot become that of %s without the extension either\n' "$major" "$older" "$2"
    return
  fi
  install_as_documented
  token=$(webapp "SELECT session_token FROM session_create('auth0|ada', '{}')")
  ended=$(webapp "SELECT session_token FROM session_create('auth0|ada', '{}')")
  expect "a session is ended" "auth0|ada" "$(webapp "SELECT session_invalidate('$ended')")"
  expect "there are others" 20000 \
    "$(webapp "SELECT count(*) FROM generate_series(1, 20000) AS n, session_create('user' || n, '{}')")"
  # so that nothing changes in between
  dba "sudo pg_conftool $major main set session_manager.sweep_interval 1d"
  dba "sudo pg_ctlcluster $major main restart"
  before=$(contents)
  mentions "there is something to compare" "sessions|2000" "$before"

  for method in upgrade dump; do
    upgrade_as_documented $method
    use_upgraded $method
    restore_older
  done
  upgraded=$((upgraded + 1))
}

start_chroots
trap end_chroots EXIT
mkdir -p "$chroots"
chroots=$(realpath "$chroots")
earlier=()
for suite in ${SUITES:-bookworm trixie forky}; do
  printf '== %s (%s s)\n' "$suite" $SECONDS
  build=$chroots/$suite-build user=$chroots/$suite-user
  build_suite "$suite"
  use_suite "$suite"
  end_chroots
  upgraded=0
  for older in "${earlier[@]}"; do
    upgrade_cluster "$older" "$suite"
    end_chroots
  done
  [ ${#earlier[@]} -eq 0 ] || [ $upgraded -gt 0 ] || die "no cluster was upgraded to the one of $suite"
  earlier+=("$suite")
done
printf '== done (%s s)\n' $SECONDS
