#!/bin/bash
#
# Check the includes of src/ against the table "Rooms of src/" in
# CONTRIBUTING.md: a file includes what its row allows and its own room, and
# nothing else; no files include each other in a circle; and only the files
# that the table says so of include a foreign library, or do without
# PostgreSQL.

set -euo pipefail

cd "$(dirname "$0")/.."

status=0

complain() {
  printf '%s\n' "$*"
  status=1
}

# "PLACE: ALLOWED ..." for each row of the table; a place is a file or a room.
table() {
  awk -F'|' '/^#/ { inside = /^#+ Rooms of `src\/`/ }
    inside && $2 ~ /`src\// { gsub(/[`, ]+/, " "); split($2, place, " "); print place[1] ":" $4 " " }' \
    CONTRIBUTING.md
}

# The row of the table that FILE belongs to: its own, or else that of its room.
row() {
  grep -F -- "${1%.[ch]}.c: " <<<"$rows" || grep -F -- "$(dirname "$1")/: " <<<"$rows" ||
    complain "CONTRIBUTING.md: no row for $1"
}

# "FILE HEADER" for each include of a header of ours.
includes() {
  local file header

  for file in src/*.[ch] src/*/*.[ch]; do
    while IFS= read -r header; do
      [ ! -e "src/$header" ] || printf '%s %s\n' "$file" "src/$header"
    done < <(sed -nE 's/^#include "(.*)"$/\1/p' "$file")
  done
}

rows=$(table)
all=$(includes)
[ "$(wc -l <<<"$rows")" -ge 5 ] || complain "CONTRIBUTING.md: the table of rooms is not found"
[ "$(wc -l <<<"$all")" -ge 50 ] || complain "the includes are not found"

while read -r file header; do
  [ "$(dirname "$file")" != "$(dirname "$header")" ] || continue
  case "$(row "$file") " in
    *" everything "* | *" $(dirname "$header")/ "* | *" $header "*) ;;
    *) complain "$file must not include $header" ;;
  esac
done <<<"$all"

# A file and its header count as one.
# shellcheck disable=SC2001
circles=$(sed 's/\.[ch]\b//g' <<<"$all" | awk '$1 != $2' | sort -u |
  tsort 2>&1 >/dev/null | sed 's/^tsort: //') ||
  complain "files include each other in a circle:" $'\n'"$circles"

# HEADER is included by FILE alone.
alone() {
  local found

  found=$(grep -lE "^#include <$1" src/*.[ch] src/*/*.[ch])
  [ "$found" = "$2" ] || complain "$1 is included by:" $'\n'"$found"
}

alone sodium.h src/keys/crypto.c
alone hiredis/ src/cache/redis.c

for file in src/keys/{token,envelope}.[ch] src/session/device.[ch]; do
  ! grep -E '^#include "' "$file" | grep -vE '"(keys/(token|envelope)|session/device)\.h"' ||
    complain "$file must do without PostgreSQL"
done

exit $status
