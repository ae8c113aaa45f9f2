#!/bin/bash
#
# Every measurement that takes less than an hour, one after the other.  One that
# fails does not keep the others from being made.
#
#	make bench
#	make bench STEP="get create"	some of them: steps of bench/run.sh, cache, router, django, shards, stores, fleet, growth
#	make bench QUICK=1		a first look at calls, in three minutes: small tables, few calls, wide spreads
#	make bench QUICK=1 STEP=all	everything in the same form
#	make bench WRITE=1		puts the figures into docs/benchmarks.md
#	make bench-long			growth with the number of sessions, and a day of traffic

set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
options=()
[ -z "${QUICK-}" ] || options+=(--quick)
write=()
[ -z "${WRITE-}" ] || write+=(--write)
status=0
# empty: all steps of bench/run.sh
steps=()
others=(cache router django shards stores fleet)
if [ -n "${QUICK-}" ] && [ -z "${STEP-}" ]; then
  steps=(get create refresh rotate update invalidate cleanup sweep)
  others=()
elif [ "${STEP:-all}" != all ]; then
  others=()
  for step in $STEP; do
    case $step in
      cache | router | django | shards | stores | fleet | growth) others+=("$step") ;;
      *) steps+=("$step") ;;
    esac
  done
fi

if [ "${STEP:-all}" = all ] || [ ${#steps[@]} -gt 0 ]; then
  "$here/run.sh" "${options[@]}" "${write[@]}" "${steps[@]}" || status=1
fi
for other in "${others[@]}"; do
  arguments=("${options[@]}")
  [ "$other" = cache ] || arguments+=("${write[@]}")
  "$here/$other.sh" "${arguments[@]}" || status=1
done
exit $status
