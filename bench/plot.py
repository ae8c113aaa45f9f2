"""Line plots in SVG."""

from __future__ import annotations

import html
import math
from typing import NamedTuple

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 460, 330, 50, 40, 40, 100


class Line(NamedTuple):
    name: str
    colour: str
    dashed: bool
    points: list[tuple[float, float]]


class Panel(NamedTuple):
    title: str
    x_title: str
    ticks: list[tuple[float, str]]  # of the x axis, from its beginning to its end
    lines: list[Line]

    def highest(self) -> float:
        return max(y for line in self.lines for _, y in line.points)

    def step(self) -> float:
        """Between marks of the y axis, which begins at 0: four to ten of them."""
        power: float = 10.0 ** math.floor(math.log10(self.highest()))
        return power * next(part for part in (0.2, 0.5, 1) if self.highest() <= 9 * part * power)


def drawn(panel: Panel, left: int) -> list[str]:
    x0, x1 = left + LEFT, left + WIDTH - RIGHT
    y0, y1 = HEIGHT - BOTTOM, TOP
    first, last = panel.ticks[0][0], panel.ticks[-1][0]
    step = panel.step()
    marks = math.ceil(panel.highest() / step - 1e-9)

    def x(value: float) -> float:
        return x0 + (value - first) / (last - first) * (x1 - x0)

    def y(value: float) -> float:
        return y0 - value / (marks * step) * (y0 - y1)

    out = [f'<text x="{x0}" y="20" font-size="13">{html.escape(panel.title)}</text>']
    out += [
        f'<line x1="{x0}" x2="{x1}" y1="{y(k * step):.1f}" y2="{y(k * step):.1f}" stroke="#ddd"/>'
        f'<text x="{x0 - 6}" y="{y(k * step) + 4:.1f}" text-anchor="end">{k * step:g}</text>'
        for k in range(marks + 1)
    ]
    out += [
        f'<line x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{y1}" y2="{y0}" stroke="#eee"/>'
        f'<text x="{x(tick):.1f}" y="{y0 + 16}" text-anchor="middle">{name}</text>'
        for tick, name in panel.ticks
    ]
    middle = (x0 + x1) / 2
    out.append(
        f'<text x="{middle}" y="{y0 + 32}" text-anchor="middle">{html.escape(panel.x_title)}</text>'
    )
    for k, line in enumerate(panel.lines):
        points = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in line.points)
        style = f'stroke="{line.colour}" stroke-width="1.8"'
        style += ' stroke-dasharray="5 4"' if line.dashed else ""
        key_x, key_y = x0 + k % 2 * 190, y0 + 50 + k // 2 * 16
        out.append(
            f'<polyline points="{points}" fill="none" {style}/>'
            f'<line x1="{key_x}" x2="{key_x + 24}" y1="{key_y}" y2="{key_y}" {style}/>'
            f'<text x="{key_x + 30}" y="{key_y + 4}">{html.escape(line.name)}</text>'
        )
    return out


def plot(panels: list[Panel]) -> str:
    """Panels beside each other."""
    width = WIDTH * len(panels)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{HEIGHT}" fill="#fff"/>',
    ]
    for i, panel in enumerate(panels):
        out += drawn(panel, i * WIDTH)
    return "\n".join([*out, "</svg>", ""])
