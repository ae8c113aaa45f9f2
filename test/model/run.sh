#!/bin/bash
#
# Search the models of the cache protocol with spin: each has to hold as it is,
# every state looked at, and to break when something is taken away from it.
# Prints a line "ok" or "not ok" for each, in the format of TAP.

set -euo pipefail

cd "$(dirname "$0")"
models=$PWD
work=$(mktemp -d "${TMPDIR:-/tmp}/model.XXXXXX")
trap 'rm -rf "$work"' EXIT
number=0
status=0

# say VERDICT TEXT
say() {
  number=$((number + 1))
  printf '%s %s - %s\n' "$1" $number "$2"
  [ "$1" = ok ] || status=1
}

# search MODEL DEFINITION ...: leave the numbers in states, errors and
# complete.  The assertion is compiled into a program of its own.
search() {
  local model=$1
  shift

  (cd "$work" && rm -f pan* -- *.trail &&
    spin "$@" -a "$models/$model" >spin.log &&
    gcc -O2 -w -DSAFETY -o pan pan.c &&
    { ./pan -E -m2000000 >pan.log || true; }) || return
  states=$(sed -nE 's/^ *([0-9.e+]+) states, stored.*/\1/p' "$work/pan.log")
  errors=$(sed -nE 's/.*errors: ([0-9]+)$/\1/p' "$work/pan.log")
  ! grep -q 'Search not completed\|max search depth too small' "$work/pan.log"
}

# The protocol: every state is looked at, and none is wrong.
holds() {
  local model=$1 text
  shift

  text="${model%.pml} ${*:-as it is}"
  if search "$model" "$@" && [ "$errors" = 0 ]; then
    say ok "$text holds: $states states"
  else
    say "not ok" "$text"
    sed 's/^/# /' "$work"/*.log
  fi
}

# A change for the worse: the search stops at a state that is wrong.
breaks() {
  local model=$1
  shift

  search "$model" "$@" || true
  if [ "$errors" = 1 ] && grep -q 'assertion violated' "$work/pan.log"; then
    say ok "${model%.pml} $* is found out: $states states"
  else
    say "not ok" "${model%.pml} $* is not found out"
    sed 's/^/# /' "$work"/*.log
  fi
}

holds strict.pml
holds strict.pml -DREADERS=3 -DCHANGES=1 -DEPOCHS=3
for change in BLIND_FILL NO_XMAX NO_EPOCH EPOCH_REUSED RELATIVE NO_WAIT \
  EPOCH_LATE EARLY_TOMBSTONE FORGETFUL USELESS; do
  breaks strict.pml -D$change -DEPOCHS=3
done

holds async.pml
for change in NO_STOP RELATIVE TIME_LATE NO_EPOCH BLIND_FILL TIGHT; do
  breaks async.pml -D$change
done

printf '1..%s\n' $number
exit $status
