"""What charts are drawn with: axes, lines, texts and numbers in few characters, as SVG.

All sizes are in the units of a small view box (460 wide), so that text stays readable on a phone. Colours are CSS
classes, so that the page's light and dark themes reach into the charts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 460.0, 54.0, 18.0, 26.0, 40.0


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

    def _factors(self) -> tuple[float, ...]:
        """Of powers of ten, for a logarithmic axis: more of them where it spans less than a decade."""
        span = self.high / self.low
        return (1, 1.5, 2, 3, 4, 5, 7) if span < 10 else (1, 2, 5) if span < 300 else (1,)

    def ticks(self, wanted: int = 5) -> list[float]:
        """Round values across the axis: 1, 2 and 5 times powers of ten."""
        if self.logarithmic:
            found = [
                factor * 10.0**power
                for power in range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
                for factor in self._factors()
            ]
            return [value for value in found if self.low <= value <= self.high * 1.0001]
        rough = (self.high - self.low) / wanted
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [round(index * step, 12) for index in range(first, math.floor(self.high / step + 1e-9) + 1)]


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


def grid(x: Axis, y: Axis, height: float, show_x: Callable[[float], str], show_y: Callable[[float], str]) -> str:
    parts = []
    for tick in y.ticks():
        parts += [line("grid", LEFT, y.at(tick), WIDTH - RIGHT, y.at(tick)),
                  text("tick", LEFT - 6, y.at(tick) + 4, show_y(tick), "end")]
    for tick in x.ticks():
        parts += [line("grid", x.at(tick), TOP, x.at(tick), height - BOTTOM),
                  text("tick", x.at(tick), height - BOTTOM + 15, show_x(tick), "middle")]
    return "".join(parts)


def labels(x_label: str, y_label: str, height: float) -> str:
    return text("label", (WIDTH + LEFT) / 2, height - 8, x_label, "middle") + text("label", 4, 13, y_label)


def tag(name: str, px: float, py: float, radius: float, taken: list[tuple[float, float, float, float]],
         height: float) -> str:
    """A dot's name, moved up or down until it covers no dot and no other name."""
    width = 7.2 * len(name)
    right = px + radius + 4 + width < WIDTH - 4
    left = px + radius + 4 if right else px - radius - 4 - width
    for shift in (0, 14, -14, 28, -28, 42, -42, 56, -56):
        base = py + 4 + shift
        free = all(abs(base - other) > away or left + width < start or left > end for start, end, other, away in taken)
        if free and TOP + 8 < base < height - BOTTOM - 2:
            break
    taken.append((left, left + width, base, 13.0))
    return text("name", left, base, name) if right else text("name", left + width, base, name, "end")


def group(role: str, *parts: str) -> str:
    return f'<g class="role-{escape(role)}">{"".join(parts)}</g>'


def line(css: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{css}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def dot(x: float, y: float, radius: float, title: str = "") -> str:
    inside = f"<title>{escape(title)}</title>" if title else ""
    return f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}">{inside}</circle>'


def text(css: str, x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def drawing(content: str, height: float, label: str) -> str:
    box = f"0 0 {WIDTH:.0f} {height:.0f}"
    return f'<svg viewBox="{box}" role="img" aria-label="{escape(label)}">{content}</svg>'
