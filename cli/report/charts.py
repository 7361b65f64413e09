"""Charts of a run's models as inline SVG, drawn here so that the page needs no script and no other file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from . import svg


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


def scatter(points: Sequence[Point], x_label: str, y_label: str, size_label: str) -> str:
    """Size by quality; the area of a dot is its speed. Empty text for no points."""
    if not points:
        return ""
    height = 320.0
    left, right = min(p.x for p in points) * 0.7, max(p.x for p in points) * 1.5
    low, high = max(0.0, min(p.low for p in points) - 0.03), min(1.0, max(p.high for p in points) + 0.03)
    x = svg.Axis(left, right, svg.LEFT, svg.WIDTH - svg.RIGHT, logarithmic=True)
    y = svg.Axis(low, high, height - svg.BOTTOM, svg.TOP)
    parts = [svg.grid(x, y, height, svg.short_bytes, svg.short_percent), svg.labels(x_label, y_label, height)]
    largest = max(p.size for p in points) or 1.0
    places = {p: (x.at(p.x), y.at(p.y), 4 + 12 * math.sqrt(p.size / largest)) for p in points}
    taken = [(px - radius, px + radius, py + 4, radius + 6) for px, py, radius in places.values()]
    for point in sorted(points, key=lambda p: -p.size):
        px, py, radius = places[point]
        title = f"{point.name}: {svg.short_bytes(point.x)}, {svg.short_percent(point.y)}, {point.size:.4g} {size_label}"
        parts.append(svg.group(
            point.role, svg.line("whisker", px, y.at(point.low), px, y.at(point.high)), svg.dot(px, py, radius, title)))
        parts.append(svg.tag(point.name, px, py, radius, taken, height))
    return svg.drawing("".join(parts), height, f"{y_label} by {x_label}; the area of a dot is {size_label}")


def dots(bars: Sequence[Bar], x_label: str) -> str:
    """One line for each value, a dot with its interval, on a common axis of shares."""
    if not bars:
        return ""
    row, top = 34.0, 6.0
    bottom = top + row * len(bars)
    height = bottom + svg.BOTTOM
    x = svg.Axis(0.0, 1.0, 14.0, svg.WIDTH - svg.RIGHT)
    parts = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts += [svg.line("grid", x.at(tick), top, x.at(tick), bottom),
                  svg.text("tick", x.at(tick), bottom + 16, svg.short_percent(tick), "middle")]
    for index, bar in enumerate(bars):
        middle = top + row * index + row * 0.72
        interval = f"{100 * bar.value:.1f} %  ({100 * bar.low:.1f}–{100 * bar.high:.1f})"
        parts.append(
            svg.group(
                bar.role,
                svg.text("name", 14, middle - 9, bar.name),
                svg.text("value", svg.WIDTH - svg.RIGHT, middle - 9, interval, "end"),
                svg.line("track", x.at(0), middle, x.at(bar.value), middle),
                svg.line("whisker", x.at(bar.low), middle, x.at(bar.high), middle),
                svg.dot(x.at(bar.value), middle, 5.0),
            )
        )
    parts.append(svg.text("label", svg.WIDTH / 2, height - 6, x_label, "middle"))
    return svg.drawing("".join(parts), height, x_label)


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
    x = svg.Axis(0.0, max(a for _, points in kept for a, _ in points), svg.LEFT, svg.WIDTH - svg.RIGHT)
    y = svg.Axis(min(0.0, values[0]), top_value * 1.05, bottom - svg.BOTTOM, svg.TOP)
    parts = [svg.grid(x, y, bottom, svg.short_number, svg.short_number), svg.labels(x_label, y_label, bottom)]
    for index, (one, points) in enumerate(kept):
        path = " ".join(f"{x.at(a):.1f},{y.at(b):.1f}" for a, b in svg.thin(points))
        css = "curve dashed" if one.dashed else "curve"
        left, base = (svg.LEFT if index % columns == 0 else svg.WIDTH / 2 + 10), bottom + 12 + 18 * (index // columns)
        key = svg.line(css, left, base - 4, left + 22, base - 4) + svg.text("name", left + 28, base, one.name)
        parts.append(svg.group(one.role, f'<polyline class="{css}" points="{path}"/>', key))
    return svg.drawing("".join(parts), height, f"{y_label} over {x_label}")
