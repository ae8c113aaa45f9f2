"""The processors of each option as stacked bars in SVG, for light and dark pages."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from model import Forecast

WIDTH, LEFT, RIGHT, TOP, ROW, BAR = 860, 150, 150, 66, 44, 24
#: What is drawn together, with its colours on light and dark pages.
PARTS = (
    ("reads", ("reads",), "#336791", "#6ea8d8"),
    ("logins", ("logins",), "#2f9e6e", "#4cc38a"),
    (
        "refreshes and other changes",
        ("refreshes", "rotations", "updates", "logouts"),
        "#c77d0a",
        "#e3a23b",
    ),
    ("writing uses", ("touches",), "#8a5cc2", "#b392f0"),
    ("sweep, idle, cache worker", ("swept", "idle", "cache"), "#6e7781", "#8b949e"),
    ("standbys", ("standby",), "#c2577a", "#f08aac"),
    ("Redis", ("redis",), "#b3372b", "#f0776c"),
)


def shown(forecast: Forecast) -> list[float]:
    cpu = forecast.cpu | {"standby": forecast.standby_cpu, "redis": forecast.redis_cpu}
    return [sum(cpu.get(name, 0.0) for name in names) for _, names, _, _ in PARTS]


def step(highest: float) -> float:
    """Between marks of the axis: four to ten of them."""
    power: float = 10.0 ** math.floor(math.log10(highest))
    return power * next(part for part in (0.2, 0.5, 1) if highest <= 9 * part * power)


def drawn(names: Sequence[str], forecasts: Sequence[Forecast]) -> str:
    parts = [shown(forecast) for forecast in forecasts]
    highest = max(sum(values) for values in parts) or 1.0
    mark = step(highest)
    marks = math.ceil(highest / mark - 1e-9)
    bottom = TOP + ROW * len(names)
    height = bottom + 36

    def x(value: float) -> float:
        return LEFT + value / (marks * mark) * (WIDTH - LEFT - RIGHT)

    light = "\n".join(f"  .p{i} {{ fill: {part[2]}; }}" for i, part in enumerate(PARTS))
    dark = "\n".join(f"    .p{i} {{ fill: {part[3]}; }}" for i, part in enumerate(PARTS))
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="Inter, \'Segoe UI\', Helvetica, Arial, sans-serif" font-size="12" '
        'role="img" aria-labelledby="title">',
        '<title id="title">Processors that a fleet keeps busy, by option</title>',
        "<style>",
        "  .page { fill: #ffffff; }\n  text { fill: #1f2328; }\n  .grid { stroke: #d0d7de; }",
        light,
        "  @media (prefers-color-scheme: dark) {",
        "    .page { fill: #0d1117; }\n    text { fill: #e6edf3; }\n    .grid { stroke: #30363d; }",
        dark,
        "  }\n</style>",
        f'<rect class="page" width="{WIDTH}" height="{height}" rx="8"/>',
    ]
    for i, (name, *_) in enumerate(PARTS):
        key_x, key_y = 20 + i % 4 * 210, 14 + i // 4 * 20
        out.append(
            f'<rect class="p{i}" x="{key_x}" y="{key_y}" width="12" height="12" rx="2"/>'
            f'<text x="{key_x + 18}" y="{key_y + 10}">{html.escape(name)}</text>'
        )
    for k in range(marks + 1):
        out.append(
            f'<path class="grid" d="M{x(k * mark):.1f} {TOP - 6}V{bottom}"/>'
            f'<text x="{x(k * mark):.1f}" y="{bottom + 16}" text-anchor="middle">'
            f"{k * mark:g}</text>"
        )
    for i, (name, values, forecast) in enumerate(zip(names, parts, forecasts, strict=True)):
        y = TOP + i * ROW + (ROW - BAR) / 2
        out.append(
            f'<text x="{LEFT - 10}" y="{y + BAR / 2 + 4:.1f}" text-anchor="end">'
            f"{html.escape(name)}</text>"
        )
        total = 0.0
        for k, value in enumerate(values):
            if value > 0:
                out.append(
                    f'<rect class="p{k}" x="{x(total):.1f}" y="{y:.1f}" '
                    f'width="{x(total + value) - x(total):.1f}" height="{BAR}"/>'
                )
            total += value
        servers = "1 shard" if forecast.shards == 1 else f"{forecast.shards} shards"
        out.append(
            f'<text x="{x(total) + 8:.1f}" y="{y + BAR / 2 + 4:.1f}">{total:.2f}, {servers}</text>'
        )
    out.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{height - 4}" text-anchor="middle">'
        "processors busy</text>"
    )
    return "\n".join([*out, "</svg>", ""])
