"""Charts of measured requests: how long they took, what happened meanwhile, sweeps, and models beside each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from . import svg

POINTS = 160
"""Of a curve: more than a phone can show."""
DASHES = ("", "7 3", "2 3", "9 3 2 3")
"""Of curves, so that no reader needs the colours to tell them apart."""
COLOURS = 6


@dataclass(frozen=True)
class Times:
    """Of one run: values [n] in ms, and the upper 95 % bound of their p95 where there is one."""

    name: str
    values: Sequence[float]
    p95_at_most: float | None = None


@dataclass(frozen=True)
class Panel:
    """One strip of a timeline: a number over the seconds, and where it is many values at a time, their p10 and p90."""

    label: str
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float, float]] = ()
    """(seconds, low, high)."""
    reaches: float = 0.0
    """The axis ends no lower: what is far below is drawn as little as it is."""


def role(index: int) -> str:
    """The CSS class of the run with this number."""
    return f"run{index % COLOURS}"


def short(name: str, most: int = 18) -> str:
    """A name that fits beside others: its end, which tells files of one folder apart."""
    return name if len(name) <= most else f"…{name[1 - most:]}"


def cumulative(runs: Sequence[Times], x_label: str) -> str:
    """The share of values up to each number of ms, a curve a run; a bar shows how far the p95 may lie. Empty without
    values."""
    kept = [(index, run) for index, run in enumerate(runs) if len(run.values) > 1]
    if not kept:
        return ""
    bottom = 280.0
    height = bottom + 18 * len(kept)
    bounds = [run.p95_at_most for _, run in kept if run.p95_at_most]
    x = svg.Axis(min(min(run.values) for _, run in kept) * 0.97,
                 max([*bounds, *(max(run.values) for _, run in kept)]) * 1.03, svg.LEFT, svg.WIDTH - svg.RIGHT,
                 logarithmic=True)
    y = svg.Axis(0.0, 1.0, bottom - svg.BOTTOM, svg.TOP)
    parts = [svg.labels(x_label, "share of them up to there", bottom)]
    for share in (0.0, 0.25, 0.5, 0.75, 0.95):
        css, at = "grid strong" if share == 0.95 else "grid", y.at(share)
        parts += [svg.line(css, svg.LEFT, at, svg.WIDTH - svg.RIGHT, at),
                  svg.text("tick", svg.LEFT - 6, at + 4, svg.short_percent(share), "end")]
    for tick in x.ticks():
        parts += [svg.line("grid", x.at(tick), svg.TOP, x.at(tick), bottom - svg.BOTTOM),
                  svg.text("tick", x.at(tick), bottom - svg.BOTTOM + 15, svg.short_number(tick), "middle")]
    for place, (index, run) in enumerate(kept):
        values = sorted(run.values)
        steps = [values[min(len(values) - 1, round(step * (len(values) - 1) / POINTS))] for step in range(POINTS + 1)]
        curve = [(value, step / POINTS) for step, value in enumerate(steps)]
        p95 = values[min(len(values) - 1, math.ceil(0.95 * len(values)) - 1)]
        marks: tuple[str, ...] = (svg.dot(x.at(p95), y.at(0.95), 4.0, f"{run.name}: p95 {p95:.4g} ms"),)
        if run.p95_at_most:
            end = x.at(run.p95_at_most)
            marks = (svg.line("whisker", x.at(p95), y.at(0.95), end, y.at(0.95)),
                     svg.line("whisker", end, y.at(0.95) - 5, end, y.at(0.95) + 5), *marks)
        base = bottom + 12 + 18 * place
        told = f"{short(run.name)}: half {_ms(values[len(values) // 2])}, 95 % {_ms(p95)}" + (
            f", surely {_ms(run.p95_at_most)}" if run.p95_at_most else "")
        key = _curve([(svg.LEFT, base - 4), (svg.LEFT + 22, base - 4)], index)
        parts.append(svg.group(role(index), _curve([(x.at(a), y.at(b)) for a, b in curve], index), *marks, key,
                               svg.text("name", svg.LEFT + 28, base, told)))
    return svg.drawing("".join(parts), height, f"share of values up to a number of {x_label}")


def timeline(panels: Sequence[Panel], disturbed: Sequence[tuple[float, float]], seconds: float, index: int = 0) -> str:
    """Strips below each other over the same seconds; spans in which something disturbed the run are shaded."""
    kept = [panel for panel in panels if panel.points]
    if not kept or seconds <= 0:
        return ""
    first, other, gap = 120.0, 62.0, 26.0
    height = svg.TOP + first + (len(kept) - 1) * (other + gap) + svg.BOTTOM
    x = svg.Axis(0.0, seconds, svg.LEFT, svg.WIDTH - svg.RIGHT)
    parts, top = list[str](), svg.TOP
    for place, panel in enumerate(kept):
        end = top + (first if place == 0 else other)
        y = _scale(panel, end, top)
        for begun, over in disturbed:
            wide = max(x.at(over) - x.at(begun), 1.0)
            parts.append(f'<rect class="disturbed" x="{x.at(begun):.1f}" y="{top:.1f}" width="{wide:.1f}" '
                         f'height="{end - top:.1f}"/>')
        for tick in y.ticks(4 if place == 0 else 3):
            parts += [svg.line("grid", svg.LEFT, y.at(tick), svg.WIDTH - svg.RIGHT, y.at(tick)),
                      svg.text("tick", svg.LEFT - 6, y.at(tick) + 4, svg.short_number(tick), "end")]
        outline = [(x.at(at), y.at(low)) for at, low, _ in panel.band] + [
            (x.at(at), y.at(high)) for at, _, high in reversed(panel.band)]
        area = f'<polygon class="band" points="{_path(outline)}"/>' if panel.band else ""
        parts += [svg.text("label", 4, top - 8, panel.label), svg.group(
            role(index), area, _curve([(x.at(a), y.at(b)) for a, b in svg.thin(panel.points, POINTS)], 0))]
        top = end + gap
    bottom = top - gap
    for tick in x.ticks():
        parts.append(svg.text("tick", x.at(tick), bottom + 15, svg.short_number(tick), "middle"))
    parts.append(svg.text("label", (svg.WIDTH + svg.LEFT) / 2, height - 6, "seconds since the first request", "middle"))
    return svg.drawing("".join(parts), height, f"{kept[0].label} and the machine's state over the run")


def heat_map(rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float | None]], row_label: str,
             column_label: str, what: str) -> str:
    """A cell for each pair, the darker the more; the most is framed. Empty without values."""
    known = [value for row in values for value in row if value is not None]
    if not known:
        return ""
    top, left, cell = 44.0, 62.0, 38.0
    wide = min(92.0, (svg.WIDTH - left - 8) / len(columns))
    height = top + cell * len(rows) + 10
    parts = [svg.text("label", left, 13, f"{column_label} →"), svg.text("label", 4, top - 8, f"{row_label} ↓")]
    for column, name in enumerate(columns):
        parts.append(svg.text("tick", left + wide * (column + 0.5), top - 8, name, "middle"))
    least, most = min(known), max(known)
    for row, name in enumerate(rows):
        parts.append(svg.text("tick", left - 8, top + cell * (row + 0.5) + 4, name, "end"))
        for column, value in enumerate(values[row]):
            x, y = left + wide * column, top + cell * row
            if value is None:
                parts.append(svg.text("tick", x + wide / 2, y + cell / 2 + 4, "–", "middle"))
                continue
            share = (value - least) / (most - least) if most > least else 1.0
            css = "cell most" if value == most else "cell"
            parts.append(f'<rect class="{css}" x="{x + 1:.1f}" y="{y + 1:.1f}" width="{wide - 2:.1f}" '
                         f'height="{cell - 2:.1f}" style="fill-opacity:{0.06 + 0.44 * share:.2f}"/>')
            parts.append(svg.text("name", x + wide / 2, y + cell / 2 + 4, svg.short_number(value), "middle"))
    return svg.drawing("".join(parts), height, f"{what} by {row_label} and {column_label}")


@dataclass(frozen=True)
class Model:
    """One model beside others."""

    name: str
    x: float
    y: float
    bytes: float
    front: bool
    index: int


def frontier(models: Sequence[Model], x_label: str, y_label: str, higher: bool, show_y: str = "share") -> str:
    """Models as dots, those that nobody beats joined by a line; the area of a dot is its file. Empty for fewer than
    two."""
    if len(models) < 2:
        return ""
    height = 320.0
    low, high = min(model.y for model in models), max(model.y for model in models)
    room = (high - low or abs(high) or 1.0) * 0.15
    x = svg.Axis(min(model.x for model in models) * 0.8, max(model.x for model in models) * 1.35, svg.LEFT,
                 svg.WIDTH - svg.RIGHT, logarithmic=True)
    y = svg.Axis(low - room, high + room, height - svg.BOTTOM, svg.TOP)
    show = {"share": svg.short_percent, "bytes": svg.short_bytes, "number": svg.short_number}[show_y]
    parts = [svg.grid(x, y, height, svg.short_number, show), svg.labels(x_label, y_label, height)]
    best = sorted((model for model in models if model.front), key=lambda model: (model.x, model.y))
    parts.append(f'<polyline class="frontier" points="{_path([(x.at(one.x), y.at(one.y)) for one in best])}"/>')
    largest = max(model.bytes for model in models) or 1.0
    places = [(x.at(one.x), y.at(one.y), 4 + 10 * math.sqrt(one.bytes / largest)) for one in models]
    taken = [(px - radius, px + radius, py + 4, radius + 6) for px, py, radius in places]
    for one, (px, py, radius) in zip(models, places, strict=True):
        title = f"{one.name}: {one.x:.4g} ms, {show(one.y)}, {svg.short_bytes(one.bytes)}"
        css = role(one.index) if one.front else f"{role(one.index)} beaten"
        parts += [svg.group(css, svg.dot(px, py, radius, title)),
                  svg.tag(short(one.name), px, py, radius, taken, height)]
    better = "up" if higher else "down"
    return svg.drawing("".join(parts), height, f"{y_label} by {x_label}; {better} and to the left is better")


@dataclass(frozen=True)
class Work:
    """One pass of a model: what it computed for each byte that it read, and how fast."""

    name: str
    per_byte: float
    per_s: float
    """Multiply-adds."""


def roofline(works: Sequence[Work], bytes_per_s: float, most_per_s: float, index: int = 0) -> str:
    """What was reached below the roof that memory (the slope) and arithmetic (the flat part) leave. Empty without
    work."""
    if not works:
        return ""
    height, edge = 300.0, most_per_s / bytes_per_s
    x = svg.Axis(min(edge, *(work.per_byte for work in works)) / 3, max(edge, *(work.per_byte for work in works)) * 3,
                 svg.LEFT, svg.WIDTH - svg.RIGHT, logarithmic=True)
    low = min(bytes_per_s * x.low, *(work.per_s for work in works)) / 1e9
    y = svg.Axis(low / 1.5, most_per_s / 1e9 * 2, height - svg.BOTTOM, svg.TOP, logarithmic=True)
    roof = [(at, min(bytes_per_s * at, most_per_s) / 1e9) for at in (x.low, edge, x.high)]
    parts = [svg.grid(x, y, height, svg.short_number, svg.short_number),
             svg.labels("multiply-adds for each byte read", "billion multiply-adds a second", height),
             f'<polyline class="frontier" points="{_path([(x.at(a), y.at(b)) for a, b in roof])}"/>']
    taken: list[tuple[float, float, float, float]] = []
    for work in works:
        px, py = x.at(work.per_byte), y.at(work.per_s / 1e9)
        top = y.at(min(bytes_per_s * work.per_byte, most_per_s) / 1e9)
        parts.append(svg.group(role(index), svg.line("whisker", px, py, px, top), svg.dot(px, py, 5.0, work.name)))
        parts.append(svg.tag(work.name, px, py, 5.0, taken, height))
    return svg.drawing("".join(parts), height, "what was computed, below what memory and arithmetic allow")


def _scale(panel: Panel, start: float, end: float) -> svg.Axis:
    """From 0 where that leaves the curve legible; single peaks do not press the rest flat."""
    values = sorted([value for _, value in panel.points] + [high for _, _, high in panel.band])
    top = max(min(values[-1], 3 * values[int(0.95 * (len(values) - 1))]) or values[-1], panel.reaches) or 1.0
    low = min([value for _, value in panel.points] + [low for _, low, _ in panel.band])
    if low < 0.5 * top:
        return svg.Axis(0.0, top * 1.05, start, end)
    spare = max(0.1 * (top - low), 0.05 * top)  # what hardly changes is drawn flat
    return svg.Axis(low - spare, top + spare, start, end)


def _curve(points: Sequence[tuple[float, float]], index: int) -> str:
    dashes = DASHES[index % len(DASHES)]
    style = f' style="stroke-dasharray:{dashes}"' if dashes else ""
    return f'<polyline class="curve" points="{_path(points)}"{style}/>'


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in points)


def _ms(value: float) -> str:
    return f"{value:.3g} ms" if value < 10_000 else f"{value / 1000:.3g} s"
