#!/bin/bash
#
# Sets up and changes a fleet of shards, as docs/sharding.md describes.
#
#	shard.sh init SERVER...			make servers the shards of one installation
#	shard.sh split SOURCE TARGET	give a part of SOURCE to its standby TARGET
#	shard.sh split --undo SOURCE	take a split back that has not come far
#	shard.sh status SERVER...		show the shards, and what is wrong with them
#
# Where the rows are moved by other means, as by logical replication:
#	shard.sh give SERVER SHARE		SERVER holds SHARE no more, nothing of it is under way
#	shard.sh take SERVER SHARE		SERVER holds SHARE as well
#	shard.sh clean SERVER			delete what SERVER has and does not hold
#
# A server is a libpq connection string to the database, or the name of a service
# in pg_service.conf; the role must be a superuser, without a pooler between.
# Whatever ends a split, run it again: it goes on where it was.
#
# Options of split, --wait also of give, --pause also of clean:
#	--give SHARE		what the target is to hold, as in session_manager.shard;
#						by default the upper half of what the source holds
#	--on-switch COMMAND	has clients use the target; called with the buckets, as
#						first-last,..., and SOURCE and TARGET as given here
#	--wait SECONDS		how long to wait for what is under way (10)
#	--pause MS			pause between two batches that are deleted (0)
#	--dry-run			check everything, say what would be done, and do nothing

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/shard/buckets.sh
. "$here/shard/buckets.sh"
# shellcheck source=scripts/shard/server.sh
. "$here/shard/server.sh"
# shellcheck source=scripts/shard/init.sh
. "$here/shard/init.sh"
# shellcheck source=scripts/shard/split.sh
. "$here/shard/split.sh"
# shellcheck source=scripts/shard/clean.sh
. "$here/shard/clean.sh"
# shellcheck source=scripts/shard/move.sh
. "$here/shard/move.sh"
# shellcheck source=scripts/shard/status.sh
. "$here/shard/status.sh"

give=
on_switch=
wait_seconds=10
pause_ms=0
dry_run=no
undo=no
undo_at_failure=no
answer=
failure=
end_of_wal=
end_of_answer="-- end $$ $RANDOM"
psql_options=(-X -A -t -q -w)

say() {
  printf '%s\n' "$*"
}

warn() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
}

die() {
  warn "$@"
  exit 1
}

# A step of a split: its name and what it does, with the time.
step() {
  printf '%(%H:%M:%S)T %4d s  %-8s %s\n' -1 $((SECONDS - started)) "$1" "$2"
}

usage() {
  sed -nE '2,/^$/s/^# ?//p' "${BASH_SOURCE[0]}" | expand -t 4
}

# What a failure leaves behind is taken back if users would have to wait for it.
at_exit() {
  local status=$?

  trap - EXIT
  trap '' INT TERM HUP
  if [ "$undo_at_failure" = yes ]; then
    undo_at_failure=no
    # the connection may have ended with what ended us
    (connect source "${arguments[0]}" && find_extension source && undo) ||
      warn "the source could not take its share back: run split again, or split --undo"
  fi
  rm -rf "$pipes"
  exit $status
}

command=${1-}
[ $# -eq 0 ] || shift
arguments=()
while [ $# -gt 0 ]; do
  case $1 in
    --give | --on-switch | --wait | --pause)
      [ $# -ge 2 ] || die "$1 needs a value"
      case $1 in
        --give) give=$2 ;;
        --on-switch) on_switch=$2 ;;
        --wait) wait_seconds=$2 ;;
        --pause) pause_ms=$2 ;;
      esac
      shift ;;
    --dry-run) dry_run=yes ;;
    --undo) undo=yes ;;
    --help) command=help ;;
    --*) die "unknown option $1" ;;
    *) arguments+=("$1") ;;
  esac
  shift
done
[[ $wait_seconds =~ ^[1-9][0-9]{0,4}$ ]] || die "--wait is a number of seconds"
[[ $pause_ms =~ ^[0-9]{1,5}$ ]] || die "--pause is a number of milliseconds"

export PGAPPNAME=shard.sh PGCONNECT_TIMEOUT=${PGCONNECT_TIMEOUT-10}
export PGOPTIONS="${PGOPTIONS-} -c client_min_messages=error"
started=$SECONDS
trap '' PIPE
trap at_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
pipes=$(mktemp -d "${TMPDIR:-/tmp}/shard.XXXXXX")

case $command/$undo/${#arguments[@]} in
  init/no/[1-9]*) run_init "${arguments[@]}" ;;
  status/no/[1-9]*) run_status "${arguments[@]}" ;;
  split/no/2) run_split "${arguments[@]}" ;;
  split/yes/1) run_undo "${arguments[@]}" ;;
  give/no/2) run_give "${arguments[@]}" ;;
  take/no/2) run_take "${arguments[@]}" ;;
  clean/no/1) run_clean "${arguments[@]}" ;;
  help/*) usage ;;
  *)
    usage >&2
    exit 2 ;;
esac
