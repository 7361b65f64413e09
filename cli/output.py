"""How results reach the user: one JSON document or a table on stdout, everything else on stderr."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import click

NUMBER = re.compile(r"-?\d[\d,.]*(e-?\d+)?( \[.*\]| %| [kMG]?B| bytes)?$")
"""A number as `cell`, `percent` and `size` write it, with or without an interval."""


def result(value: Any) -> None:
    """Print `value` as the one JSON document of this command; numbers that JSON has no word for become null."""
    click.echo(json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False))


def note(text: str) -> None:
    """A line for the human, on stderr."""
    click.echo(text, err=True)


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str = "") -> None:
    """Print a table on stdout; columns whose cells are all numbers stand to the right.

    Where stdout is no terminal nothing is cut: a pipe has no width.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = [[cell(value) for value in row] for row in rows]
    grid = Table(header_style="bold", box=None, pad_edge=False)
    for index, column in enumerate(columns):
        numeric = all(_is_number(row[index]) for row in rows if row[index] is not None)
        grid.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in shown:
        grid.add_row(*(Text(value) for value in row))
    console = Console()
    if not console.is_terminal:
        console.width = max(200, console.width)
    if title:
        console.print(Text(title, "bold"))
    console.print(grid)


def cell(value: Any) -> str:
    """A value as it stands in a table: nothing for None, at most four significant digits for a float."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def plain(value: Any) -> Any:
    """`value` with dataclasses, tuples, paths and numpy scalars turned into what JSON knows."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in (sorted(value) if isinstance(value, (set, frozenset)) else value)]
    if isinstance(value, Path):
        return str(value)
    as_list: Any = getattr(value, "tolist", None)  # numpy's scalars and arrays, which this file does not import
    if as_list is not None:
        return plain(as_list())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def percent(value: float | None) -> str:
    """A share as a percentage, such as 97.4 %."""
    return "" if value is None else f"{100 * value:.1f} %"


def interval(measure: Any, share: bool = True) -> str:
    """A measured value with its interval, as a percentage where it is a share; nothing for None."""
    if measure is None:
        return ""
    if not share:
        return f"{measure.value:.3f} [{measure.low:.3f}, {measure.high:.3f}]"
    return f"{100 * measure.value:.1f} [{100 * measure.low:.1f}, {100 * measure.high:.1f}]"


def is_share(metric: str) -> bool:
    """Whether a metric is a share of 1, such as accuracy; perplexity and the like are not."""
    from ..models import kinds

    return bool(kinds.load("runtime.metrics", metric.partition(":")[0]).SHARE)


def size(count: int | None) -> str:
    """Bytes for a human, in powers of ten."""
    if count is None:
        return ""
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= limit:
            return f"{count / limit:.3g} {unit}"
    return f"{count} bytes"


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        return NUMBER.match(value) is not None
    return isinstance(value, (int, float)) and not isinstance(value, bool)
