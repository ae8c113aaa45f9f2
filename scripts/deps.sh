#!/bin/bash
#
# Install what the tests need and what is not there yet, by apt, pip and npm, and say for each in a line what it is and what
# for.  Does nothing where nothing is missing.  What pip and npm install goes into build/ and node_modules.
#
#   scripts/deps.sh [--long] [PART ...]
#
# Parts; where none is named, all that make check needs:
#
#	build		building the extension; the unit, regression and isolation tests
#	server		the other tests of the extension
#	newest		the Django package, on the newest Django that runs on this Python
#	4.2, 5.2	the same on another Django
#	peers-NAME	the part NAME (newest, 4.2, 5.2), and Django's own tests
#	allauth-NAME	django-allauth on that Django, and its own tests
#	example		the example's backend, and Redis
#	docs		the site of the pages
#	react		the React package, and the example, which its tests use
#
#	PACKAGES	no: without those for Django and React (yes)
#	PYTHON		interpreter for Django's virtual environments (/usr/bin/python3)

set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
# Caches of pip and npm are the user's own, whatever HOME a test has set.
HOME=$(getent passwd "$(id -u)" | cut -d: -f6)
export HOME
# Not a Python of some version manager's: the one whose venv setup.sh installs.
python=${PYTHON:-/usr/bin/python3}
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

say() {
  printf 'deps: installing %s\n' "$*"
}

# Run a command of pip or npm, whose output is shown if it fails.
quietly() {
  local log=$copy/log.$BASHPID

  "$@" >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
}

# The virtual environment build/PATH, for a PURPOSE, with what pip is given further; made again when that or what the Django
# package needs changes.
venv() {
  local path=$root/build/$1 client=$root/clients/django purpose=$2 stamp

  shift 2
  stamp=$("$python" -V; printf '%s\n' "${@//"$copy"/}"; cat "$client/pyproject.toml" "$client/requirements-test.txt")
  [ "$(cat "$path/stamp" 2>/dev/null)" != "$stamp" ] || return 0
  say "$purpose, into ${path#"$root/"}"
  rm -rf "$path"
  mkdir -p "${path%/*}"
  quietly "$python" -m venv "$path"
  quietly "$path/bin/pip" install -q --disable-pip-version-check "$@"
  printf '%s\n' "$stamp" >"$path/stamp"
}

# A copy of the Django package for the environment NAME, as a build leaves files, and several builds in one place disturb each
# other; prints the requirement.
package_for() {
  cp -R "$root/clients/django" "$copy/client_$1"
  printf '%s' "$copy/client_$1[$2]"
}

django() {
  local name=$1 client=$root/clients/django django="Django~=$1.0" driver=psycopg

  [ "$name" != newest ] || django=Django
  [ "$name" != 4.2 ] || driver=psycopg2
  venv "django/$name" "what the Django package needs, to test it on Django ($name)" \
    "$(package_for "$name" "$driver,openapi")" "$django" -r "$client/requirements-test.txt" 'setuptools>=68'
}

allauth() {
  local django="Django~=$1.0"

  [ "$1" != newest ] || django=Django
  venv "allauth/$1" "what the Django package needs, to test it under django-allauth, on Django ($1)" \
    "$(package_for "allauth_$1" psycopg)" "$django" \
    'django-allauth[headless,headless-spec,idp-oidc,mfa,openid,socialaccount]' django-ninja \
    pytest pytest-asyncio pytest-django
}

# The tests of a PACKAGE in the virtual environment build/PATH, which its source package has: into build/peers.
peer_tests() {
  local pip=$root/build/$1/bin/pip package=$2 version target source=$copy/source-${1//\//-}

  version=$("${pip%/*}/python" -c "import importlib.metadata as m; print(m.version('$package'))")
  target=$root/build/peers/$package-$version
  [ ! -e "$target" ] || return 0
  say "the tests of $package $version, into ${target#"$root/"}"
  mkdir "$source" "$source/unpacked"
  quietly "$pip" download -q --disable-pip-version-check --no-deps --no-binary "$package" -d "$source" "$package==$version"
  tar -xf "$source"/*.tar.gz -C "$source/unpacked" --strip-components=1 --wildcards --no-wildcards-match-slash \
    '*/PKG-INFO' '*/tests'
  grep -qxF "Version: $version" "$source/unpacked/PKG-INFO"
  mkdir -p "${target%/*}"
  # two parts may have the same version
  mv -T "$source/unpacked" "$target" 2>/dev/null || [ -e "$target" ]
}

# What npm has installed is told by this file.
node_modules() {
  local installed=$root/$1/node_modules/.package-lock.json

  [ ! "$installed" -nt "$root/$1/package-lock.json" ] || return 0
  say "what $1/package-lock.json names, to $2"
  (cd "$root/$1" && quietly npm ci --no-audit --no-fund)
  touch "$installed"
}

# What apt installs for a part, then what pip and npm do.
packages() {
  case $1 in
    build) "$root/scripts/setup.sh" ;;
    server)
      PACKAGES=no "$root/scripts/setup.sh" --tests
      # the layout is checked where PostgreSQL's source can be had
      [ "${PACKAGES-yes}" != yes ] || "$root/scripts/indent.sh" --tools || say "no pgindent, whose source cannot be had: the layout is not checked"
      ;;
    newest | [0-9]* | peers-* | allauth-* | docs | react | example) "$root/scripts/setup.sh" --tests ;;
    *)
      printf 'deps: no part %s\n' "$1" >&2
      exit 1
      ;;
  esac
}

example() {
  venv example/venv "what the Django package needs, for the backend of the example" "$(package_for example psycopg,openapi)" gunicorn 'setuptools>=68'
}

modules() {
  case $1 in
    newest | [0-9]*) django "$1" ;;
    peers-*)
      django "${1#peers-}"
      peer_tests "django/${1#peers-}" Django
      ;;
    allauth-*)
      allauth "${1#allauth-}"
      peer_tests "allauth/${1#allauth-}" django-allauth
      ;;
    react)
      node_modules clients/react "build and test the React package"
      node_modules examples/frontend "test it in an example"
      example
      ;;
    docs) venv docs/venv "what makes the site of the pages" 'sphinx==9.*' 'furo==2025.*' 'myst-parser==5.*' ;;
    example) example ;;
  esac
}

clients=(peers-newest 4.2 react)
if [ "${1-}" = --long ]; then
  clients=({peers,allauth}-{newest,4.2,5.2} react)
  shift
fi
parts=("$@")
if [ $# -eq 0 ]; then
  parts=(build server)
  [ "${PACKAGES-yes}" != yes ] || parts+=("${clients[@]}")
fi
for name in "${parts[@]}"; do
  packages "$name"
done
pids=()
for name in "${parts[@]}"; do
  modules "$name" &
  pids+=($!)
done
status=0
for pid in "${pids[@]}"; do
  wait "$pid" || status=1
done
exit $status
