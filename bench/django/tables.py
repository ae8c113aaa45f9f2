"""Turn what compare.py printed into tables on standard output.

    tables.py FILE [FOLDER]

Given a folder, write them into a section of benchmarks.md there, and a picture into
bench-django.svg.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from sides import COMPARISONS, SIDES

# bench/report.py: the other measurements' rows and picture.
sys.path.append(str(Path(__file__).parents[1]))

from report import DJANGO, Row, cores, markdown, processor, shown, svg, text, write_section

Table = list[tuple[str, ...]]


def tenths(values: list[float]) -> tuple[float, float]:
    cut = statistics.quantiles(values, n=10, method="inclusive")
    return cut[0], cut[-1]


def sides(results: dict[str, Any]) -> Table:
    table: Table = [
        (
            "side",
            "requests/s",
            "10 – 90 %",
            "database queries",
            "Redis commands",
            "look-up, µs of CPU",
        )
    ]
    for side, description in SIDES.items():
        rates = results["rates"][side]
        cpu = results["cpu"].get(side)
        table.append(
            (
                description.title,
                f"{statistics.median(rates):,.0f}",
                " – ".join(f"{rate:,.0f}" for rate in tenths(rates)),
                f"{results['queries'][side]:.2f}",
                f"{results['commands'][side]:.2f}",
                f"{statistics.median(cpu) / 1000:.0f}" if cpu else "–",
            )
        )
    return table


def rows(results: dict[str, Any]) -> list[Row]:
    return [
        Row(
            SIDES[comparison.ours].title,
            SIDES[comparison.peer].title,
            ratios,
            ("≥", comparison.promised) if comparison.promised else (),
        )
        for comparison, ratios in zip(COMPARISONS, results["ratios"], strict=True)
    ]


def ratios(results: dict[str, Any]) -> Table:
    table: Table = [
        ("requests/s of", "against", "ratio", "10 – 90 %", "lowest – highest", "target", "")
    ]
    for row in rows(results):
        extremes = f"{shown(min(row.ratios))} – {shown(max(row.ratios))}"
        table.append(
            (row.what, row.peer, row.median(), row.spread(), extremes, row.target(), row.verdict())
        )
    return table


def circumstances(results: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    return f"{versions}.\n{processor()}, {cores()} cores."


def section(results: dict[str, Any]) -> str:
    pairs = results["generations"] * results["rounds"]
    return f"""
Written by `bench/django.sh --write`; `make bench` prints the same tables. A GET of a view of Django
REST framework that requires `IsAuthenticated`, whose answer names `request.user` and a value of the
session's data.
{circumstances(results)}

{markdown(sides(results))}

![requests per second against the peers](bench-django.svg)

{markdown(ratios(results))}

- **What each side loads.** Every side ends with `request.user` from the table of users, except
  those *without the user's row*, which leave `USER_ID_FIELD` unset, so that the session is all that
  is known of the user, and *LAZY_USER*, which would load the row if the view read more than the
  user's key. The peers have no such mode. On every side, most of the cost of a request is loading
  that row through the ORM.
- **As SESSION_ENGINE**, the extension is what `request.session` is kept in: the middleware but one,
  the login and the authentication are those of Django and of DRF, as on the sides of
  `django.contrib.sessions`. With *LAZY_USER* `request.user` comes from another middleware of the
  package.
- **What else each side does.** Wherever the user's row is loaded, except for knox, a hash of the
  password is compared with the session's. With the cache off the use of a session is recorded,
  which no peer does.
- **Requests** are calls of Django's WSGI handler within the process, one at a time, including its
  signals but not the network: a web server would add the same cost to every side. Each side has a
  process of its own, and only the middleware that it needs.
- **Each side at its best.** Connections to PostgreSQL are kept (`CONN_MAX_AGE` is None), statements
  are prepared (`server_side_binding`, `prepare_threshold`), psycopg runs in C and redis-py parses
  with hiredis, PostgreSQL and Redis are reached through Unix sockets, and caches are warm.
  Everything else has its defaults. A knox token carries no data.
- **Sides take turns** in blocks of {results["block"]} requests by different users. Each ratio
  compares two blocks that ran next to each other, in random order: {pairs} pairs for each line,
  over {results["generations"]} starts of all processes. The tables have the median, the 10th and
  90th percentile, and the extremes.
- **A look-up** is `session_service.get`, or `load()` of the engine's `SessionStore`, without a
  request: the median of the time that the side's own process computes, in the system too.
- **Queries and commands** per request were counted in a separate pass, in which every answer was
  checked: queries by Django's `execute_wrapper`, commands where redis-py sends them.
"""


def main() -> None:
    results = json.loads(Path(sys.argv[1]).read_text())
    print(circumstances(results), text(sides(results)), text(ratios(results)), sep="\n\n")
    if len(sys.argv) > 2:
        folder = Path(sys.argv[2])
        write_section(folder / "benchmarks.md", DJANGO, section(results))
        picture = svg(rows(results), "requests/s over the peer's, more is better")
        (folder / "bench-django.svg").write_text(picture)


if __name__ == "__main__":
    main()
