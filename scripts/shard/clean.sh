# shellcheck shell=bash disable=SC2154  # shard.sh sets what is not set here
#
# Sourced by shard.sh: deletes the sessions and events of buckets that a server
# does not hold any more, in short transactions.

# Pages of user_sessions in a batch: with a cache, more than a thousand deleted
# sessions would end its epoch; a page has at most twenty or so.
session_pages=40
event_pages=200

# Delete after a split what a server has of a share.
clean() {
  # what is deleted here must be there
  target_holds "$given" || die "the target does not hold $given"
  must target "SELECT pg_is_in_recovery()"
  [ "$answer" = f ] || die "the target has not been promoted"
  must source "SHOW session_manager.shard"
  [ "$(normal_share "$answer")" = "$kept" ] || die "the source does not hold $kept"

  step clean "sessions and events of $2 go from the $1"
  delete_share "$@"
}

# Delete what a server has of a share; with "yes" also the events that are of
# no user, as those of keys: they are the other server's.
delete_share() {
  local name=$1 share=$2 of_nobody=$3 of_event table deleted idle=0

  while
    clean_table "$name" @ext@.user_sessions "$(in_share 'get_byte(uuid_send(session_id), 14)' "$share")" $session_pages
    must "$name" "SELECT EXISTS (SELECT FROM @ext@.user_sessions WHERE $(in_share 'get_byte(uuid_send(session_id), 14)' "$share"))"
    [ "$answer" = t ]
  do
    # an update may have moved a row to a page that was done, but not each time
    if [ "$deleted" -gt 0 ]; then idle=0; else idle=$((idle + 1)); fi
    [ $idle -lt 3 ] || die "sessions of $share stay on the $name although they are deleted: has the table a trigger?"
  done

  of_event=$(in_share 'coalesce(get_byte(uuid_send(session_id), 14), @ext@.session_bucket(user_id) / 256)' "$share")
  [ "$of_nobody" = no ] || of_event="($of_event OR (session_id IS NULL AND user_id IS NULL))"
  must "$name" "SELECT relid::text FROM pg_partition_tree('@ext@.session_events') WHERE isleaf"
  while IFS= read -r table <&3; do
    clean_table "$name" "$table" "$of_event" $event_pages
  done 3<<<"$answer"
  # counted again from the events that are left: the other server has the rest
  must "$name" "DELETE FROM @ext@.session_activity"
}

# Page by page: no index knows the buckets.  Sets deleted.
clean_table() {
  local name=$1 table=$2 condition=$3 step=$4 pages page=0 began=$SECONDS shown_at=$SECONDS left

  deleted=0
  must "$name" "SELECT pg_relation_size(to_regclass($(literal "$table"))) / current_setting('block_size')::int"
  pages=${answer:-0}
  while [ "$page" -lt "$pages" ]; do
    if ! ask "$name" "WITH gone AS (DELETE FROM $table WHERE ctid >= '($page,0)' AND ctid < '($((page + step)),0)' AND $condition RETURNING 1)
      SELECT count(*) FROM gone"; then
      local failure=$answer
      # a partition that has been dropped meanwhile, because of its age
      must "$name" "SELECT to_regclass($(literal "$table")) IS NULL"
      [ "$answer" = t ] || die "the $name says:" "$failure"
      return 0
    fi
    deleted=$((deleted + answer))
    page=$((page + step))
    if [ $SECONDS -gt $shown_at ] && [ "$page" -lt "$pages" ]; then
      shown_at=$SECONDS
      left=$(((SECONDS - began) * (pages - page) / page))
      say "  ${table#@ext@.} on the $name: $((page * 100 / pages)) % of $pages pages, $deleted rows deleted, about $((left / 60)) min $((left % 60)) s left"
    fi
    [ "$pause_ms" = 0 ] || sleep "$(printf '%d.%03d' $((pause_ms / 1000)) $((pause_ms % 1000)))"
  done
  [ $deleted -eq 0 ] || say "  ${table#@ext@.} on the $name: $deleted rows deleted"
}
