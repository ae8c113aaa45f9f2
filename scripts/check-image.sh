#!/bin/bash
#
# Build the images of deploy/ and run them, as users do: a first start, a restart,
# a lost volume, mounted secrets, keys that cannot be used.  Prints lines "ok ..."
# and "not ok ...", and how large what the image adds is.
#
# No registry is needed: buildah runs each instruction of deploy/Dockerfile on a
# base that debootstrap makes in the layout of the official image; what cannot be
# checked so is the name of the base alone.  The containers' roots and their base
# are kept in build/image.
#
#	MAJORS		releases of PostgreSQL (15 18); the compose file is run with the last
#	MIRROR		package mirror (the host's own)
#	PARTS		what of it: server, for each of the releases, and compose (both)
#	ENTRYPOINT	the docker-entrypoint.sh of the base (test/image/docker-entrypoint.sh)

set -euo pipefail

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

most=$((15 * 1000 * 1000))
store=$root/build/image
work=$(mktemp -d "${TMPDIR:-/tmp}/session_manager.XXXXXX")
entrypoint=${ENTRYPOINT:-$root/test/image/docker-entrypoint.sh}
failed=0
containers=()

bu() {
  buildah --root "$store" --runroot "$work/containers" "$@"
}

# shellcheck disable=SC2317,SC2329 # called by the trap
end() {
  local status=$? container

  trap - EXIT
  for container in "${containers[@]}"; do
    stop "$container" || true
    bu rm "$container" >/dev/null 2>&1 || true
  done
  umount "$work"/containers/* "$store/overlay" 2>/dev/null || true
  rm -rf --one-file-system "$work"
  exit "$status"
}

ok() {
  printf 'ok image %s: %s\n' "$major" "$1"
}

not_ok() {
  printf 'not ok image %s: %s\n' "$major" "$1"
  sed 's/^/# /' "${2:-/dev/null}" | tail -n 30
  failed=1
}

# A command, and what it is to show.
check() {
  local name=$1

  shift
  if "$@" >"$work/output" 2>&1; then
    ok "$name"
  else
    not_ok "$name" "$work/output"
  fi
}

# The release of Debian that has PostgreSQL N.
release() {
  case $1 in
    15) printf bookworm ;;
    17) printf trixie ;;
    18) printf forky ;;
    *) die "no release of Debian has PostgreSQL $1" ;;
  esac
}

# Where the official image of PostgreSQL N keeps its data.
data_directory() {
  if [ "$1" -ge 18 ]; then
    printf '/var/lib/postgresql/%s/docker' "$1"
  else
    printf /var/lib/postgresql/data
  fi
}

# The image postgres:N, in the layout of the official one.
make_base() {
  local suite container dir script

  ! bu inspect --type image "localhost/postgres:$major" >/dev/null 2>&1 || return 0
  suite=$(release "$major")
  printf '# making a base image of PostgreSQL %s from Debian %s\n' "$major" "$suite"
  script=/usr/share/debootstrap/scripts/$suite
  # A release younger than the host's debootstrap is made as sid is.
  [ -e "$script" ] || script=/usr/share/debootstrap/scripts/sid
  container=$(bu from scratch)
  dir=$(bu mount "$container")
  debootstrap --variant=minbase "$suite" "$dir" "${MIRROR:-$(host_mirror debian)}" "$script" >"$work/base.log" 2>&1 ||
    { tail -n 20 "$work/base.log" >&2; die "debootstrap failed"; }
  # as Debian's own images have it
  printf 'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/*.bin"; };\nDir::Cache::pkgcache "";\nDir::Cache::srcpkgcache "";\n' \
    >"$dir/etc/apt/apt.conf.d/docker-clean"
  # Releases in preparation expire within days on a mirror that lags.
  printf 'Acquire::Check-Valid-Until "false";\n' >"$dir/etc/apt/apt.conf.d/99valid-until"
  cp "$entrypoint" "$dir/usr/local/bin/docker-entrypoint.sh"
  bu run --isolation chroot "$container" -- bash -ec "
    groupadd -r -g 999 postgres
    useradd -r -g postgres -u 999 -d /var/lib/postgresql -s /bin/bash postgres
    install -d -o postgres -g postgres /var/lib/postgresql
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update
    apt-get -qq install -y --no-install-recommends gosu postgresql-common
    sed -ri 's/#(create_main_cluster) .*$/\1 = false/' /etc/postgresql-common/createcluster.conf
    apt-get -qq install -y --no-install-recommends postgresql-$major
    rm -rf /var/lib/apt/lists/*
    mkdir /docker-entrypoint-initdb.d
    cp /usr/share/postgresql/$major/postgresql.conf.sample /usr/share/postgresql/postgresql.conf.sample
    ln -sf ../postgresql.conf.sample /usr/share/postgresql/$major/postgresql.conf.sample
    sed -ri \"s!^#?(listen_addresses)\\s*=\\s*\\S+.*!\\1 = '*'!\" /usr/share/postgresql/postgresql.conf.sample
    install -d -o postgres -g postgres -m 3777 /var/run/postgresql
    install -d -o postgres -g postgres -m 1777 $(data_directory "$major")" >"$work/base.log" 2>&1 ||
    { tail -n 20 "$work/base.log" >&2; die "making the base failed"; }
  bu config --env PG_MAJOR="$major" --env PGDATA="$(data_directory "$major")" --env LANG=C.UTF-8 \
    --env PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/postgresql/$major/bin" \
    --entrypoint '["docker-entrypoint.sh"]' --cmd postgres --stop-signal SIGINT "$container"
  bu commit -q "$container" "localhost/postgres:$major" >/dev/null
  bu rm "$container" >/dev/null
}

build() {
  bu bud -q --isolation chroot --pull-never --layers --build-arg PG_MAJOR="$major" --target "$1" \
    -f "$root/deploy/Dockerfile" -t "localhost/session_manager-$1:$major" "$root" >"$work/build.log" 2>&1 ||
    { tail -n 30 "$work/build.log" >&2; die "the build of $1 for PostgreSQL $major failed"; }
}

# The bytes of the layers that an image has beyond the first N.
layers_beyond() {
  rm -rf "$work/layers"
  bu push -q --disable-compression "$1" "dir:$work/layers"
  python3 -c 'import json, sys; print(sum(layer["size"] for layer in json.load(open(sys.argv[1]))["layers"][int(sys.argv[2]):]))' \
    "$work/layers/manifest.json" "$2"
}

size() {
  local bytes=$1 name=$2

  printf 'size: %s for PostgreSQL %s adds %d.%02d MB\n' "$name" "$major" $((bytes / 1000000)) $((bytes % 1000000 / 10000))
  check "$name adds no more than 15 MB" test "$bytes" -le $most
}

# Start a container NAME of an image, with further arguments of buildah run before a --, and its command behind it.
# Its volumes are directories: the data, the keys, and the directory of its socket.
start() {
  local name=$1 image=$2

  shift 2
  bu from -q --pull-never --name "$name" "localhost/$image:$major" >/dev/null
  containers+=("$name")
  bu run --isolation chroot -v "$work/data:$(data_directory "$major")" -v "$work/socket:/var/run/postgresql" \
    --env POSTGRES_PASSWORD=secret --env POSTGRES_DB=app "$@" >"$work/$name.log" 2>&1 &
  printf '%s\n' $! >"$work/$name.pid"
}

# Wait until the server of a container answers over TCP, as it does not while it is being made.
await() {
  local name=$1 waits

  for ((waits = 0; waits < 300; waits++)); do
    ! query "SELECT 1" >/dev/null 2>&1 || return 0
    kill -0 "$(cat "$work/$name.pid")" 2>/dev/null || return 1
    sleep 0.2
  done
  return 1
}

# Wait until a container that cannot start has ended; fails if it ran.
ends_with_error() {
  local status=0

  wait "$(cat "$work/$1.pid")" || status=$?
  [ $status -ne 0 ]
}

stop() {
  local name=$1 pid

  [ -e "$work/$name.pid" ] || return 0
  for pid in $(head -q -n 1 "$work"/data/{,pgdata/}postmaster.pid 2>/dev/null); do
    # a number of a server that has ended may be another's by now
    [[ $(readlink "/proc/$pid/exe") != */postgres ]] || kill -INT "$pid" || true
  done
  wait "$(cat "$work/$name.pid")" || true
  rm "$work/$name.pid"
  bu rm "$name" >/dev/null
}

query() {
  PGPASSWORD=secret PGCONNECT_TIMEOUT=2 psql -XAtq -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$port" -U postgres -d app -c "$1"
}

volumes() {
  local name

  for name in "$@"; do
    rm -rf "${work:?}/$name"
    install -d -o 999 -g 999 -m 700 "$work/$name"
  done
}

# The server of the image as a container NAME, with further arguments of buildah run.
server() {
  start "$1" session_manager-server --env PGPORT="$port" "${@:2}" "$1" -- \
    session_manager-entrypoint.sh postgres -c listen_addresses=127.0.0.1
}

# The same with the keys in a directory of their own.
server_with_keys() {
  server "$1" -v "$work/keys:/etc/session_manager" "${@:2}"
}

create_session() {
  query "SELECT session_token FROM session_create('auth0|ada', '{\"plan\": \"free\"}')"
}

# Who a token belongs to; nothing if it does not work.
user_of() {
  query "SELECT user_id FROM session_get('$1')"
}

first_start() {
  volumes data keys socket
  server_with_keys first
  await first || { not_ok "starts" "$work/first.log"; return; }
  ok "starts, and makes a database"
  token=$(create_session)
  check "a session is created and found" test "$(user_of "$token")" = "auth0|ada"
  check "the library is preloaded" test "$(query "SHOW shared_preload_libraries")" = session_manager
  check "the workers run" query "SELECT 1 / count(*) FROM pg_stat_activity WHERE backend_type = 'session_manager launcher'"
  check "the key file belongs to the server alone, outside of the data" \
    test "$(stat -c '%u %a' "$work/keys/keys")" = "999 600" -a "$(query "SELECT string_agg(key_id || state || available, ' ') FROM session_keys()")" = 1activetrue
  check "the log says that there is a key to be kept" grep -q 'created the key file /etc/session_manager/keys' "$work/first.log"
  check "no warning, and no key, is in the log" no_warning first
  stop first
}

# shellcheck disable=SC2317,SC2329 # called by check
no_warning() {
  ! grep -E 'WARNING|[0-9a-f]{64}' "$work/$1.log"
}

restarts() {
  local sum

  sum=$(sha256sum <"$work/keys/keys")
  server_with_keys again
  await again || { not_ok "starts again" "$work/again.log"; return; }
  check "a session survives a restart" test "$(user_of "$token")" = "auth0|ada"
  stop again

  volumes data
  server_with_keys lost
  await lost || { not_ok "starts without its data" "$work/lost.log"; return; }
  check "the key of lost data is used again" test "$(sha256sum <"$work/keys/keys")" = "$sum"
  token=$(create_session)
  check "sessions are created and found after a loss of data" test "$(user_of "$token")" = "auth0|ada"
  stop lost

  mv "$work/keys/keys" "$work/lost-key"
  server_with_keys keyless
  await keyless || { not_ok "starts without its key" "$work/keyless.log"; return; }
  check "the log says that the key is missing" grep -q 'key file' "$work/keyless.log"
  check "no session is created under a key that is missing" refused "SELECT session_create('auth0|ada')" 'key'
  check "no new key is made behind the administrator's back" test ! -e "$work/keys/keys"
  check "a new key, made by hand, lets users log in again" test -n "$(
    query "SELECT session_key_generate()" >/dev/null && query "SELECT session_key_activate(2)" >/dev/null && create_session)"
  stop keyless
}

# shellcheck disable=SC2317,SC2329 # called by check
refused() {
  ! query "$1" >"$work/refused" 2>&1 && cat "$work/refused" && grep -q "$2" "$work/refused"
}

# A secret as Kubernetes mounts it: links into a directory that is exchanged as a whole, the file root's.
secret() {
  local mode=$1

  rm -rf "$work/secret"
  mkdir -p "$work/secret/..2026"
  chmod 755 "$work/secret" "$work/secret/..2026"
  # kubectl create secret --from-literal ends no line
  (IFS=$'\n' && printf '%s' "${*:2}") >"$work/secret/..2026/keys"
  ln -s ..2026 "$work/secret/..data"
  ln -s ..data/keys "$work/secret/keys"
  chown root:999 "$work/secret/..2026/keys"
  chmod "$mode" "$work/secret/..2026/keys"
}

new_key() {
  printf '%s:%s' "$1" "$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')"
}

server_with_secret() {
  server "$1" -v "$work/secret:/etc/session_manager:ro" "${@:2}"
}

mounted_secrets() {
  volumes data
  secret 440 "$(new_key 1)"
  # runAsUser, runAsGroup and fsGroup of Kubernetes
  server_with_secret secret --user 999:999
  await secret || { not_ok "starts with a mounted secret" "$work/secret.log"; return; }
  token=$(create_session)
  check "a mounted secret is the key, for a server that is never root" test "$(user_of "$token")" = "auth0|ada"
  check "no warning, and no key, is in its log" no_warning secret
  stop secret

  volumes data
  secret 440 "# two of them" "$(new_key 1)" "$(new_key 4)"
  server_with_secret two
  await two || { not_ok "starts with two keys" "$work/two.log"; return; }
  check "of several keys the last is active" test \
    "$(query "SELECT string_agg(key_id || state || available, ' ' ORDER BY key_id) FROM session_keys()")" = "1inactivetrue 4activetrue"
  stop two
}

# A first start that must fail: what the log says, and that no database is left behind.
fails() {
  local name=$1 message=$2

  shift 2
  volumes data
  "$@"
  if ends_with_error "${*: -1}" && grep -q "$message" "$work/${*: -1}.log" && [ -z "$(ls "$work/data")" ]; then
    ok "$name"
  else
    not_ok "$name" "$work/${*: -1}.log"
  fi
  stop "${*: -1}"
}

unusable_keys() {
  secret 444 "$(new_key 1)"
  fails "a secret that everybody may read is refused, with what to set" 'mode 444.*' server_with_secret public
  check "the message names the setting of Kubernetes" grep -q 'defaultMode: 0440' "$work/public.log"
  secret 400 "$(new_key 1)"
  fails "a secret that the server may not read is refused" 'may not read' server_with_secret private
  secret 440 "1:abc"
  fails "a file without a key is refused" 'has no line' server_with_secret broken
  secret 440 "$(new_key 1)"
  rm "$work/secret/keys"
  fails "a directory that cannot be written to is refused" 'cannot create the key file' server_with_secret unwritable
  volumes keys
  new_key 1 >"$work/keys/keys"
  chown 1234 "$work/keys/keys"
  chmod 600 "$work/keys/keys"
  fails "a key of another user is refused" 'belongs to user 1234' server_with_keys foreign
}

# One disk, in whose root something else is, and the key copied from a secret: as where a service has one disk alone.
one_disk() {
  volumes data
  mkdir "$work/data/lost+found"
  secret 444 "$(new_key 1)"
  start disk session_manager-server --env PGPORT="$port" -v "$work/secret:/etc/secrets:ro" \
    --env "PGDATA=$(data_directory "$major")/pgdata" disk -- \
    sh -c "install -o postgres -g postgres -m 400 /etc/secrets/keys /etc/session_manager/keys && exec session_manager-entrypoint.sh postgres -c listen_addresses=127.0.0.1"
  await disk || { not_ok "starts with one disk" "$work/disk.log"; return; }
  check "sessions work with one disk and a key that is copied" test "$(user_of "$(create_session)")" = "auth0|ada"
  stop disk
}

other_commands() {
  bu from -q --pull-never --name other "localhost/session_manager-server:$major" >/dev/null
  check "other commands run as in the official image" \
    bu run --isolation chroot other -- session_manager-entrypoint.sh psql --version
  bu rm other >/dev/null
}

# The extension alone, mounted beside the official image as CloudNativePG does it.
extension_alone() {
  local mounted dir=/extensions/session_manager

  build extension
  size "$(layers_beyond "localhost/session_manager-extension:$major" 0)" "the image of the extension alone"
  bu from -q --pull-never --name extension "localhost/session_manager-extension:$major" >/dev/null
  containers+=(extension)
  mounted=$(bu mount extension)
  check "it holds the directories that CloudNativePG expects" \
    test -e "$mounted/share/extension/session_manager.control" -a -e "$mounted/lib/session_manager.so" -a -n "$(ls "$mounted/system")"
  volumes data
  secret 440 "$(new_key 1)"
  start mounted postgres --env PGPORT="$port" -v "$mounted:$dir:ro" -v "$work/secret:/etc/session_manager:ro" \
    --env "LD_LIBRARY_PATH=$dir/system" mounted -- docker-entrypoint.sh postgres -c listen_addresses=127.0.0.1 \
    -c "extension_control_path=\$system:$dir/share" -c "dynamic_library_path=\$libdir:$dir/lib" \
    -c shared_preload_libraries=session_manager -c session_manager.key_file=/etc/session_manager/keys
  await mounted || { not_ok "the official image starts with the extension mounted" "$work/mounted.log"; return; }
  check "the extension is created from the mounted files" query "CREATE EXTENSION session_manager CASCADE; SELECT session_key_add(1)"
  token=$(create_session)
  check "a session is created and found" test "$(user_of "$token")" = "auth0|ada"
  stop mounted
  bu rm extension >/dev/null
}

# What clients of package registries need to know of this machine.
registry_settings() {
  local file

  for file in /etc/pip.conf /etc/npmrc "$HOME/.npmrc" "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}"; do
    [ ! -f "$file" ] || printf '%s\n' -v "$file:$file:ro"
  done
}

# The images of the example, on one base that stands for those of Python, Node.js and Redis.
build_example() {
  local container dir name settings

  if ! bu inspect --type image localhost/node:22-slim >/dev/null 2>&1; then
    printf '# making a base image of Python, Node.js and Redis\n'
    container=$(bu from scratch)
    dir=$(bu mount "$container")
    debootstrap --variant=minbase trixie "$dir" "${MIRROR:-$(host_mirror debian)}" >"$work/base.log" 2>&1 ||
      { tail -n 20 "$work/base.log" >&2; die "debootstrap failed"; }
    bu commit -q "$container" localhost/debian >/dev/null
    bu rm "$container" >/dev/null
    bu bud -q --isolation chroot --pull-never -f "$root/test/image/base.Dockerfile" -t localhost/node:22-slim "$root/test/image" \
      >"$work/base.log" 2>&1 || { tail -n 20 "$work/base.log" >&2; die "making the base failed"; }
    bu tag localhost/node:22-slim localhost/python:3.13-slim localhost/redis:7
  fi
  mapfile -t settings < <(registry_settings)
  for name in backend frontend; do
    bu bud -q --isolation chroot --pull-never "${settings[@]}" -f "$root/deploy/$name.Dockerfile" \
      -t "localhost/session_manager-example-$name" "$root" >"$work/build.log" 2>&1 ||
      { tail -n 30 "$work/build.log" >&2; die "the build of the example's $name failed"; }
  done
}

# The compose file, read by docker-compose, and its services.
compose() {
  local name deploy=$work/deploy

  mkdir "$work/compose"
  cp -R "$root/deploy" "$deploy"
  rm -rf "$deploy/secrets"
  mkdir -m 711 "$deploy/secrets"
  for name in postgres webapp django cache; do
    od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$deploy/secrets/$name"
  done
  chmod 711 "$work/compose" "$deploy"
  check "compose.yml is in order, says docker-compose" env PG_MAJOR="$major" OIDC_ISSUER=http://127.0.0.1:9000/ OIDC_CLIENT_ID=web \
    OIDC_AUDIENCE=https://api.example.com docker-compose -f "$deploy/compose.yml" config
  cp "$work/output" "$work/compose.yml"
  check "a setting that is missing is named" compose_refuses "$deploy/compose.yml"
  build_example
  bu tag "localhost/session_manager-server:$major" "localhost/session_manager:$major"
  bu from -q --pull-never --name provider localhost/session_manager-example-backend >/dev/null
  containers+=(provider)
  # A network of its own, as the services' ports may be in use here, and mounts, as their names are put into /etc/hosts.
  unshare --net --mount -- sh -c 'ip link set lo up && exec "$@"' sh \
    "$root/build/image-venv/bin/python" -B "$root/test/image/compose.py" "$store" "$work/containers" "$work/compose.yml" "$work/compose" "$root/examples/issuer/issuer.py" ||
    failed=1
  bu rm provider >/dev/null
}

# shellcheck disable=SC2317,SC2329 # called by check
compose_refuses() {
  ! docker-compose -f "$1" config >"$work/refused" 2>&1 && grep -q 'address of your OpenID provider' "$work/refused"
}

# The manifests, by the schemas of Kubernetes; those of CloudNativePG's kinds are not to be had without it.
manifests() {
  local venv=$root/build/image-venv

  [ -x "$venv/bin/kubernetes-validate" ] ||
    { python3 -m venv "$venv" && "$venv/bin/pip" install -q --disable-pip-version-check 'kubernetes-validate>=1.33'; }
  check "kubernetes.yaml is in order, by the schemas of Kubernetes" "$venv/bin/kubernetes-validate" --strict "$root/deploy/kubernetes.yaml"
  check "cloudnativepg.yaml is YAML, and of two kinds" "$venv/bin/python" -c \
    'import sys, yaml; assert [part["kind"] for part in yaml.safe_load_all(open(sys.argv[1]))] == ["Cluster", "Database"]' \
    "$root/deploy/cloudnativepg.yaml"
}

[ "$(id -u)" -eq 0 ] || die "run as root: building images needs it"
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
missing=()
for name in buildah debootstrap docker-compose ip; do
  command -v $name >/dev/null || missing+=("${name/%ip/iproute2}")
done
if [ ${#missing[@]} -gt 0 ]; then
  printf 'image: installing %s\n' "${missing[*]}"
  apt-get -qq update
  DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "${missing[@]}" >/dev/null
fi
mkdir -p "$store"
chmod 711 "$work"
# free at the moment
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
for major in ${MAJORS:-15 18}; do
  make_base
  build server
  [[ ${PARTS:-server} == *server* ]] || continue
  size "$(layers_beyond "localhost/session_manager-server:$major" 1)" "the image"
  first_start
  restarts
  mounted_secrets
  unusable_keys
  one_disk
  other_commands
  [ "$major" -lt 18 ] || extension_alone
done
if [[ ${PARTS:-compose} == *compose* ]]; then
  manifests
  compose
fi
exit $failed
