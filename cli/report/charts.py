"""Charts as inline SVG, drawn here so that the page needs no script and no other file.

All sizes are in the units of a small view box (460 wide), so that text stays readable on a phone. Colours are CSS
classes, so that the page's light and dark themes reach into the charts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 460.0, 48.0, 18.0, 26.0, 40.0


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
            found = [
                factor * 10.0**power
                for power in range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
                for factor in ((1, 2, 5) if self.high / self.low < 300 else (1,))
            ]
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
    left, right = min(p.x for p in points) * 0.7, max(p.x for p in points) * 1.5
    low, high = max(0.0, min(p.low for p in points) - 0.03), min(1.0, max(p.high for p in points) + 0.03)
    x, y = Axis(left, right, LEFT, WIDTH - RIGHT, logarithmic=True), Axis(low, high, height - BOTTOM, TOP)
    parts = [_grid(x, y, height, short_bytes, short_percent), _labels(x_label, y_label, height)]
    largest = max(p.size for p in points) or 1.0
    places = {p: (x.at(p.x), y.at(p.y), 4 + 12 * math.sqrt(p.size / largest)) for p in points}
    taken = [(px - radius, px + radius, py + 4, radius + 6) for px, py, radius in places.values()]
    for point in sorted(points, key=lambda p: -p.size):
        px, py, radius = places[point]
        title = f"{point.name}: {short_bytes(point.x)}, {short_percent(point.y)}, {point.size:.4g} {size_label}"
        parts.append(_group(
            point.role, _line("whisker", px, y.at(point.low), px, y.at(point.high)), _dot(px, py, radius, title)))
        parts.append(_tag(point.name, px, py, radius, taken, height))
    return _svg("".join(parts), height, f"{y_label} by {x_label}; the area of a dot is {size_label}")


def dots(bars: Sequence[Bar], x_label: str) -> str:
    """One line for each value, a dot with its interval, on a common axis of shares."""
    if not bars:
        return ""
    row, top = 34.0, 6.0
    bottom = top + row * len(bars)
    height = bottom + BOTTOM
    x = Axis(0.0, 1.0, 14.0, WIDTH - RIGHT)
    parts = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts += [_line("grid", x.at(tick), top, x.at(tick), bottom),
                  _text("tick", x.at(tick), bottom + 16, short_percent(tick), "middle")]
    for index, bar in enumerate(bars):
        middle = top + row * index + row * 0.72
        interval = f"{100 * bar.value:.1f} %  ({100 * bar.low:.1f}–{100 * bar.high:.1f})"
        parts.append(
            _group(
                bar.role,
                _text("name", 14, middle - 9, bar.name),
                _text("value", WIDTH - RIGHT, middle - 9, interval, "end"),
                _line("track", x.at(0), middle, x.at(bar.value), middle),
                _line("whisker", x.at(bar.low), middle, x.at(bar.high), middle),
                _dot(x.at(bar.value), middle, 5.0),
            )
        )
    parts.append(_text("label", WIDTH / 2, height - 6, x_label, "middle"))
    return _svg("".join(parts), height, x_label)


def lines(series: Sequence[Series], x_label: str, y_label: str) -> str:
    """Curves over a common linear axis, with a legend. Points that are not finite are left out."""
    kept = [(one, [(a, b) for a, b in one.points if math.isfinite(a) and math.isfinite(b)]) for one in series]
    kept = [(one, points) for one, points in kept if points]
    if not kept:
        return ""
    columns = 2 if all(len(one.name) < 28 for one, _ in kept) else 1
    bottom = 280.0
    height = bottom + 18 * math.ceil(len(kept) / columns)
    values = sorted(b for _, points in kept for _, b in points)
    # The first steps of a training lie far above all others and would press the rest flat.
    top_value = min(values[-1], 4 * values[int(0.9 * (len(values) - 1))]) if values[0] >= 0 else values[-1]
    x = Axis(0.0, max(a for _, points in kept for a, _ in points), LEFT, WIDTH - RIGHT)
    y = Axis(min(0.0, values[0]), top_value * 1.05, bottom - BOTTOM, TOP)
    parts = [_grid(x, y, bottom, short_number, short_number), _labels(x_label, y_label, bottom)]
    for index, (one, points) in enumerate(kept):
        path = " ".join(f"{x.at(a):.1f},{y.at(b):.1f}" for a, b in thin(points))
        css = "curve dashed" if one.dashed else "curve"
        left, base = (LEFT if index % columns == 0 else WIDTH / 2 + 10), bottom + 12 + 18 * (index // columns)
        parts.append(_group(one.role, f'<polyline class="{css}" points="{path}"/>',
                            _line(css, left, base - 4, left + 22, base - 4), _text("name", left + 28, base, one.name)))
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


def _grid(x: Axis, y: Axis, height: float, show_x: Callable[[float], str], show_y: Callable[[float], str]) -> str:
    parts = []
    for tick in y.ticks():
        parts += [_line("grid", LEFT, y.at(tick), WIDTH - RIGHT, y.at(tick)),
                  _text("tick", LEFT - 6, y.at(tick) + 4, show_y(tick), "end")]
    for tick in x.ticks():
        parts += [_line("grid", x.at(tick), TOP, x.at(tick), height - BOTTOM),
                  _text("tick", x.at(tick), height - BOTTOM + 15, show_x(tick), "middle")]
    return "".join(parts)


def _labels(x_label: str, y_label: str, height: float) -> str:
    return _text("label", (WIDTH + LEFT) / 2, height - 8, x_label, "middle") + _text("label", 4, 13, y_label)


def _tag(name: str, px: float, py: float, radius: float, taken: list[tuple[float, float, float, float]],
         height: float) -> str:
    """A dot's name, moved up or down until it covers no dot and no other name."""
    width = 6.4 * len(name)
    left = px + radius + 4 if px + radius + 4 + width < WIDTH - 4 else px - radius - 4 - width
    for shift in (0, 14, -14, 28, -28, 42, -42, 56, -56):
        base = py + 4 + shift
        free = all(abs(base - other) > away or left + width < start or left > end for start, end, other, away in taken)
        if free and TOP + 8 < base < height - BOTTOM - 2:
            break
    taken.append((left, left + width, base, 13.0))
    return _text("name", left, base, name)


def _group(role: str, *parts: str) -> str:
    return f'<g class="role-{escape(role)}">{"".join(parts)}</g>'


def _line(css: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{css}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _dot(x: float, y: float, radius: float, title: str = "") -> str:
    inside = f"<title>{escape(title)}</title>" if title else ""
    return f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}">{inside}</circle>'


def _text(css: str, x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(content: str, height: float, label: str) -> str:
    box = f"0 0 {WIDTH:.0f} {height:.0f}"
    return f'<svg viewBox="{box}" role="img" aria-label="{escape(label)}">{content}</svg>'
