"""Charts as inline SVG, drawn here so that the page needs no script and no other file.

All sizes are in the units of a small view box (460 wide), so that text stays readable on a phone. Colours are CSS
classes, so that the page's light and dark themes reach into the charts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 460.0, 48.0, 14.0, 14.0, 40.0


@dataclass(frozen=True)
class Point:
    """One model in the scatter: size in bytes, quality and its interval as shares, speed as any positive number."""

    name: str
    role: str
    x: float
    y: float
    low: float
    high: float
    size: float


@dataclass(frozen=True)
class Bar:
    """One line of a dot chart: a value with its interval."""

    name: str
    role: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Series:
    """One curve: points of (x, y)."""

    name: str
    role: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False


class Axis:
    """Maps values to pixels, linearly or by logarithm."""

    def __init__(self, low: float, high: float, start: float, end: float, logarithmic: bool = False) -> None:
        if logarithmic and low <= 0:
            raise ValueError(f"a logarithmic axis begins above 0, not at {low}")
        if high <= low:
            low, high = (low / 2, high * 2) if logarithmic else (low - 0.5, high + 0.5)
        self.low, self.high, self.start, self.end, self.logarithmic = low, high, start, end, logarithmic

    def at(self, value: float) -> float:
        """The pixel of `value`; values beyond an end stand at that end."""
        value = min(max(value, self.low), self.high)
        if self.logarithmic:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, wanted: int = 5) -> list[float]:
        """Round values across the axis: 1, 2 and 5 times powers of ten."""
        if self.logarithmic:
            found = [factor * 10.0**power for power in range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
                     for factor in ((1, 2, 5) if self.high / self.low < 300 else (1,))]
            return [value for value in found if self.low <= value <= self.high * 1.0001]
        rough = (self.high - self.low) / wanted
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [round(index * step, 12) for index in range(first, math.floor(self.high / step + 1e-9) + 1)]


def scatter(points: Sequence[Point], x_label: str, y_label: str, size_label: str) -> str:
    """Size by quality; the area of a dot is its speed. Empty text for no points."""
    if not points:
        return ""
    height = 320.0
    x = Axis(min(p.x for p in points) * 0.7, max(p.x for p in points) * 1.5, LEFT, WIDTH - RIGHT, logarithmic=True)
    y = Axis(max(0.0, min(p.low for p in points) - 0.03), min(1.0, max(p.high for p in points) + 0.03), height - BOTTOM, TOP)
    parts = [_grid(x, y, height, short_bytes, short_percent), _labels(x_label, y_label, height)]
    largest = max(p.size for p in points) or 1.0
    boxes: list[tuple[float, float, float]] = []
    for point in sorted(points, key=lambda p: -p.size):
        px, py = x.at(point.x), y.at(point.y)
        radius = 4 + 12 * math.sqrt(point.size / largest)
        parts.append(
            f'<g class="role-{escape(point.role)}"><line class="whisker" x1="{px:.1f}" x2="{px:.1f}" y1="{y.at(point.low):.1f}" '
            f'y2="{y.at(point.high):.1f}"/><circle class="dot" cx="{px:.1f}" cy="{py:.1f}" r="{radius:.1f}">'
            f"<title>{escape(point.name)}: {short_bytes(point.x)}, {short_percent(point.y)}, "
            f"{point.size:.4g} {escape(size_label)}</title></circle></g>")
        parts.append(_tag(point.name, px, py, radius, boxes, height))
    return _svg("".join(parts), height, f"{y_label} by {x_label}; the area of a dot is {size_label}")


def dots(bars: Sequence[Bar], x_label: str) -> str:
    """One line for each value, a dot with its interval, on a common axis of shares."""
    if not bars:
        return ""
    row, top = 34.0, 6.0
    height = top + row * len(bars) + BOTTOM
    x = Axis(0.0, 1.0, 12.0, WIDTH - RIGHT)
    parts = [
        f'<line class="grid" x1="{x.at(t):.1f}" x2="{x.at(t):.1f}" y1="{top}" y2="{height - BOTTOM:.1f}"/>'
        f'<text class="tick" x="{x.at(t):.1f}" y="{height - BOTTOM + 16:.1f}" text-anchor="middle">{short_percent(t)}</text>'
        for t in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    for index, bar in enumerate(bars):
        middle = top + row * index + row * 0.72
        parts.append(
            f'<g class="role-{escape(bar.role)}"><text class="name" x="12" y="{middle - 9:.1f}">{escape(bar.name)}</text>'
            f'<line class="track" x1="{x.at(0):.1f}" x2="{x.at(bar.value):.1f}" y1="{middle:.1f}" y2="{middle:.1f}"/>'
            f'<line class="whisker" x1="{x.at(bar.low):.1f}" x2="{x.at(bar.high):.1f}" y1="{middle:.1f}" y2="{middle:.1f}"/>'
            f'<circle class="dot" cx="{x.at(bar.value):.1f}" cy="{middle:.1f}" r="5"/>'
            f'<text class="value" x="{WIDTH - RIGHT:.1f}" y="{middle - 9:.1f}" text-anchor="end">{short_percent(bar.value)} '
            f'<tspan class="faint">{100 * bar.low:.1f}–{100 * bar.high:.1f}</tspan></text></g>')
    parts.append(f'<text class="label" x="{WIDTH / 2}" y="{height - 6:.1f}" text-anchor="middle">{escape(x_label)}</text>')
    return _svg("".join(parts), height, x_label)


def lines(series: Sequence[Series], x_label: str, y_label: str) -> str:
    """Curves over a common linear axis, with a legend. Points that are not finite are left out."""
    kept = [(s, [(a, b) for a, b in s.points if math.isfinite(a) and math.isfinite(b)]) for s in series]
    kept = [(s, points) for s, points in kept if points]
    if not kept:
        return ""
    height = 280.0 + 18 * math.ceil(len(kept) / 2)
    bottom = 280.0
    values = sorted(b for _, points in kept for _, b in points)
    # The first steps of a training lie far above all others and would press the rest flat.
    top_value = min(values[-1], 4 * values[int(0.9 * (len(values) - 1))]) if values[0] >= 0 else values[-1]
    x = Axis(0.0, max(a for _, points in kept for a, _ in points), LEFT, WIDTH - RIGHT)
    y = Axis(min(0.0, values[0]), top_value * 1.05, bottom - BOTTOM, TOP)
    parts = [_grid(x, y, bottom, short_number, short_number), _labels(x_label, y_label, bottom)]
    for index, (one, points) in enumerate(kept):
        path = " ".join(f"{x.at(a):.1f},{y.at(b):.1f}" for a, b in thin(points))
        dash = ' stroke-dasharray="5 4"' if one.dashed else ""
        lx, ly = (LEFT if index % 2 == 0 else WIDTH / 2 + 10), bottom + 12 + 18 * (index // 2)
        parts.append(
            f'<g class="role-{escape(one.role)}"><polyline class="curve" points="{path}"{dash}/>'
            f'<line class="curve" x1="{lx:.0f}" x2="{lx + 22:.0f}" y1="{ly - 4:.0f}" y2="{ly - 4:.0f}"{dash}/>'
            f'<text class="name" x="{lx + 28:.0f}" y="{ly:.0f}">{escape(one.name)}</text></g>')
    return _svg("".join(parts), height, f"{y_label} over {x_label}")


def thin(points: Sequence[tuple[float, float]], limit: int = 300) -> list[tuple[float, float]]:
    """At most `limit` points: the mean of each run of neighbours."""
    if len(points) <= limit:
        return list(points)
    size = math.ceil(len(points) / limit)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(a for a, _ in group) / len(group), sum(b for _, b in group) / len(group)) for group in groups]


def short_bytes(value: float) -> str:
    """Bytes in a word, such as 2.5 MB."""
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value:.0f} B"


def short_percent(value: float) -> str:
    """A share as a percentage, with a decimal only where it says something."""
    return f"{100 * value:.1f}".removesuffix(".0") + " %"


def short_number(value: float) -> str:
    """A number in few characters."""
    return f"{value / 1000:.4g}k" if abs(value) >= 10000 else f"{value:.4g}"


def _grid(x: Axis, y: Axis, height: float, show_x: object, show_y: object) -> str:
    assert callable(show_x) and callable(show_y)
    parts = [
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y.at(t):.1f}" y2="{y.at(t):.1f}"/>'
        f'<text class="tick" x="{LEFT - 6}" y="{y.at(t) + 4:.1f}" text-anchor="end">{escape(show_y(t))}</text>' for t in y.ticks()
    ]
    parts += [
        f'<line class="grid" x1="{x.at(t):.1f}" x2="{x.at(t):.1f}" y1="{TOP}" y2="{height - BOTTOM}"/>'
        f'<text class="tick" x="{x.at(t):.1f}" y="{height - BOTTOM + 15:.1f}" text-anchor="middle">{escape(show_x(t))}</text>'
        for t in x.ticks()
    ]
    return "".join(parts)


def _labels(x_label: str, y_label: str, height: float) -> str:
    return (f'<text class="label" x="{(WIDTH + LEFT) / 2:.0f}" y="{height - 8:.0f}" text-anchor="middle">{escape(x_label)}</text>'
            f'<text class="label" x="{LEFT + 4}" y="{TOP + 10}">{escape(y_label)}</text>')


def _tag(name: str, px: float, py: float, radius: float, boxes: list[tuple[float, float, float]], height: float) -> str:
    """A dot's name, moved up or down until it covers no other name."""
    width = 6.4 * len(name)
    left = px + radius + 4 if px + radius + 4 + width < WIDTH - 4 else px - radius - 4 - width
    for shift in (0, 14, -14, 28, -28, 42, -42, 56, -56):
        base = py + 4 + shift
        free = all(abs(base - other) > 13 or left + width < start or left > end for start, end, other in boxes)
        if free and TOP + 8 < base < height - BOTTOM - 2:
            break
    boxes.append((left, left + width, base))
    return f'<text class="name" x="{left:.1f}" y="{base:.1f}">{escape(name)}</text>'


def _svg(content: str, height: float, label: str) -> str:
    return (f'<svg viewBox="0 0 {WIDTH:.0f} {height:.0f}" role="img" aria-label="{escape(label)}">{content}</svg>')
