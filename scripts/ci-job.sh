#!/bin/bash
#
# Run one job of continuous integration, as .github/workflows does and as any
# Debian machine can.
#
#   scripts/ci-job.sh NAME
#   scripts/ci-job.sh --list
#
#	quick			what make check-quick runs
#	lint			sources, types, style
#	docs			the pages against the code, their site, and the quick start for Django
#	postgresql-N		every test of the extension on PostgreSQL N
#	postgresql-N-assert	the same on one that is built with assertions
#	django-V		the Django package on Django V
#	peers-V			the tests of Django V and of django-allauth themselves, with the session engine
#	react			the React package and the example
#	react-NEXT-REACT-BUNDLER	the quick start for React on these versions
#	packages		the packages that users install, each on one version of what it is for
#	packages-django-V, packages-next-V	the one for Django, or for Next.js, on another version
#	image			the images of deploy/, on a base that debootstrap makes: needs root
#	deb-RELEASE		the Debian packages, from nothing to a session and back, in chroots;
#				and a cluster of each release before it becomes one of this
#
# A PostgreSQL that this machine does not have is taken from a chroot of the
# Debian release that has it, 16 from PyPI: that needs root.
#
#	ONLY, TEST	less than all, as make check-assert and make check take them

set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
# 16 cannot be built with assertions: no Debian release has its source.
jobs=(quick lint docs
  postgresql-{15,16,17,18} postgresql-{15,17,18}-assert
  {django,peers}-{4.2,5.2,newest}
  react react-{15,16}-{18,19}-{turbopack,webpack}
  packages packages-django-{4.2,6} packages-next-15 image deb-{bookworm,trixie,forky})

die() {
  printf 'ci-job: %s\n' "$*" >&2
  exit 1
}

# The release of Debian that has PostgreSQL N.
release() {
  case $1 in
    15) printf bookworm ;;
    16) printf 16 ;;
    17) printf trixie ;;
    18) printf forky ;;
  esac
}

# TASK of make on PostgreSQL N.
on_postgresql() {
  local major=$1 task=$2 here

  export PACKAGES=no ONLY=${ONLY:-suites}
  here=$("${PG_CONFIG:-pg_config}" --version 2>/dev/null || true)
  if [[ $here == "PostgreSQL $major"[.a-z]* ]] || [ "$(release "$major")" = "$(codename)" ]; then
    make -C "$root" "$task"
  else
    CHECK=$task SUITES=$(release "$major") "$root/scripts/check-versions.sh"
  fi
}

codename() {
  # shellcheck source=/dev/null
  (. /etc/os-release && printf '%s' "${VERSION_CODENAME-}")
}

[ $# -eq 1 ] || die "usage: ci-job.sh NAME, or --list"
if [ "$1" = --list ]; then
  printf '%s\n' "${jobs[@]}"
  exit
fi
[[ " ${jobs[*]} " == *" $1 "* ]] || die "no job $1; there are: ${jobs[*]}"

# make itself is among the packages that it installs
"$root/scripts/setup.sh"
cd "$root"
case $1 in
  quick) make check-quick ;;
  lint) make check TEST=lint ;;
  docs)
    scripts/check-docs.sh
    scripts/docs.sh --check
    scripts/walk-django.sh
    ;;
  postgresql-*-assert)
    major=${1#postgresql-}
    on_postgresql "${major%-assert}" check-assert
    ;;
  postgresql-16)
    # parts of it are compiled
    scripts/setup.sh --source
    on_postgresql 16 check
    ;;
  postgresql-*) on_postgresql "${1#postgresql-}" check ;;
  django-*) DJANGO=${1#django-} scripts/check-django.sh --long ;;
  peers-*) scripts/check-peers.sh --long "${1#peers-}" ;;
  react) scripts/check-react.sh ;;
  react-*)
    IFS=- read -r _ next react bundler <<<"$1"
    scripts/deps.sh react
    FRONTEND=no CONNECT_TIMEOUT=20 \
      scripts/example.sh node clients/react/scripts/quick-start.mjs "$next" "$react" "$bundler"
    ;;
  packages) scripts/packages.sh ;;
  packages-*) scripts/packages.sh "${1#packages-}" ;;
  image) scripts/check-image.sh ;;
  deb-*)
    scripts/setup.sh --chroot
    # with those before it, whose clusters are upgraded
    case $1 in
      *-trixie) SUITES="bookworm trixie" ;;
      *-forky) SUITES="bookworm trixie forky" ;;
      *) SUITES=${1#deb-} ;;
    esac
    SUITES=$SUITES make check-deb
    ;;
esac
