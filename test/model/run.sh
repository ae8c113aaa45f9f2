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

# search DIRECTORY KIND MODEL DEFINITION ...: the program that spin makes writes
# what it found to pan.log.  One that breaks ends too soon to be worth optimizing.
search() {
  local model=$models/$3 level=1

  [ "$2" = holds ] || level=0
  cd "$1"
  shift 3
  spin "$@" -a "$model"
  gcc -O$level -w -DSAFETY -o pan pan.c
  ./pan -E -m2000000 >pan.log 2>&1
}

# "holds": every state is looked at, and none is wrong.  "breaks", after a
# change for the worse: the search stops at a state that is wrong.
searches=(
  "holds strict.pml -DEPOCHS=4"
  "holds strict.pml -DREADERS=3 -DCHANGES=1"
  "holds async.pml"
  "holds shards.pml"
  "holds shards.pml -DSHARED"
)
for change in BLIND_FILL NO_XMAX NO_EPOCH EPOCH_REUSED RELATIVE NO_WAIT \
  EPOCH_LATE EARLY_TOMBSTONE FORGETFUL USELESS; do
  searches+=("breaks strict.pml -D$change")
done
for change in NO_STOP RELATIVE TIME_LATE NO_EPOCH BLIND_FILL TIGHT; do
  searches+=("breaks async.pml -D$change")
done

for change in ANY_INSTALLATION EPOCH_STAYS BACKEND_ALONE TOO_EARLY USELESS; do
  searches+=("breaks shards.pml -D$change" "breaks shards.pml -DSHARED -D$change")
done

# As many at once as there are processors, of which each may take 1 GB.
for i in "${!searches[@]}"; do
  read -ra words <<<"${searches[i]}"
  mkdir "$work/$i"
  while [ "$(jobs -pr | wc -l)" -ge "$(nproc)" ]; do
    wait -n || true
  done
  (search "$work/$i" "${words[@]}") >"$work/$i/log" 2>&1 &
done
wait

status=0
for i in "${!searches[@]}"; do
  cd "$work/$i"
  touch pan.log
  states=$(sed -nE 's/^ *([0-9.e+]+) states, stored.*/\1/p' pan.log)
  errors=$(sed -nE 's/.*errors: ([0-9]+)$/\1/p' pan.log)
  text="${searches[i]/ / (} in ${states:-no} states)"
  verdict=no
  case ${searches[i]} in
    holds*) [ "$errors" != 0 ] || grep -q 'not completed\|too small' pan.log || verdict=yes ;;
    breaks*) [ "$errors" != 1 ] || ! grep -q 'assertion violated' pan.log || verdict=yes ;;
  esac
  if [ $verdict = yes ]; then
    printf 'ok %s - %s\n' $((i + 1)) "$text"
  else
    printf 'not ok %s - %s\n' $((i + 1)) "$text"
    sed 's/^/# /' log pan.log
    status=1
  fi
done
printf '1..%s\n' ${#searches[@]}
exit $status
