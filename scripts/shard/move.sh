# shellcheck shell=bash disable=SC2154,SC2034  # shard.sh sets what is not set here, and reads what is not read
#
# Sourced by shard.sh: the parts of a split or a merge for whoever moves the
# rows by other means than a standby, such as logical replication.

# The server holds a share no more; returns when nothing of it is under way.
run_give() {
  local held kept

  open_one "$1"
  must server "SHOW session_manager.shard"
  held=$(normal_share "$answer") || exit
  kept=$(share_without "$held" "$2") || die "the server does not hold all of $2, but $held"
  configure server session_manager.shard "$kept"
  if ! drain server "$kept"; then
    blockers server
    configure server session_manager.shard "$held"
    die "what is under way has not come to an end, the server holds $held again:" "$failure"
  fi
  number_events server "$kept"
  say "the server holds $kept; what it has given is in its WAL up to $end_of_wal"
}

# The server holds a share as well.
run_take() {
  local held
  local -a bytes=()

  open_one "$1"
  must server "SHOW session_manager.shard"
  held=$(normal_share "${answer:-none}") || exit
  if [ "$held" = none ]; then
    held=$(normal_share "$2") || exit
  else
    parse_share bytes "$held,$2"
    held=$(format_share bytes)
  fi
  number_events server "$held"
  configure server session_manager.shard "$held"
  say "the server holds $held"
}

# What the server has of others' goes.
run_clean() {
  local others

  open_one "$1"
  must server "SHOW session_manager.shard"
  others=$(normal_share "$answer") || exit
  if [ "$others" = none ]; then
    others=0-65535
  else
    others=$(share_without 0-65535 "$others")
  fi
  delete_share server "$others" no
}

open_one() {
  connect server "$1"
  find_extension server
  check_server server
  must server "SELECT pg_is_in_recovery()"
  [ "$answer" = f ] || die "the server is a standby"
}
