#!/usr/bin/env python3
"""Say where a backend's CPU time goes, from what perf has recorded of it.

    perf script -F ip,sym | bench/parts.py CALL

Prints, tab-separated, the call, a part and its share of the samples.  A sample
belongs to the part of the innermost frame that one of them names: the memory
that the output of a value allocates is part of the result.  A function that is
not exported, and has no symbol, belongs to the one that called it.
"""

import re
import sys
from collections import Counter

# A part and the functions at its door.
PARTS = {
    "decryption": r"sm_open|sm_session_open",
    "MAC and verifier": r"sm_state_mac|sm_session_intact|sm_verifier|sm_authenticate"
    r"|sm_token_digest",
    "index": r"index_.*|bt.*|_bt_.*|sm_index_beginscan",
    "heap": r"heap.*|table_.*|slot_.*|sm_scan_decode|decode_columns",
    "result": r"printtup.*|.*tuplestore.*|sm_result.*|pq_.*message.*|pq_send.*|Output.*|append.*"
    r"|sm_session_get_json",
    "the rest of the function": r"sm_.*",
    "executor": r"standard_Executor.*|Executor.*|Portal.*|CreateQueryDesc|Exec.*|GetCachedPlan",
    "transaction and snapshot": r"StartTransaction.*|CommitTransaction.*|GetSnapshotData"
    r"|GetTransactionSnapshot|PushActiveSnapshot|PopActiveSnapshot|ResourceOwner.*",
    "protocol": r"PostgresMain",
}


def part_of(frames):
    """The part of a sample, its frames from the innermost outwards."""
    for frame in frames:
        for part, functions in PARTS.items():
            if re.fullmatch(functions, frame):
                return part
    return "protocol"


def samples(lines):
    frames = []
    for line in lines:
        fields = line.split()
        if fields:
            frames.append(re.sub(r"\+0x[0-9a-f]+$", "", fields[-1]).split("@")[0])
        elif frames:
            yield frames
            frames = []
    if frames:
        yield frames


def main():
    found = Counter(part_of(frames) for frames in samples(sys.stdin))
    if not found:
        sys.exit("parts: no samples")
    for part in PARTS:
        print(sys.argv[1], part, f"{found[part] / found.total():.4f}", sep="\t")


if __name__ == "__main__":
    main()
