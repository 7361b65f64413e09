"""What `edgestill profile` does around measurements: their options, and tables of one or several."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...models.errors import DataError
from .. import output
from ..sparkline import sparkline

if TYPE_CHECKING:
    from ...runtime.profiling.limits import Judged

_PARTS = ("p50", "p90", "p95", "p99", "max", "jitter")


def seconds(context: click.Context, parameter: click.Parameter, value: str) -> float:
    """A span of time as an option's value: 90, 90s, 10m, 1h."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", value)
    if found is None:
        raise click.BadParameter(f"{value!r} is no span of time: write 90s, 10m or 1h", context, parameter)
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def answer_options(schema: Path | None) -> dict[str, Any]:
    """Options of the answers."""
    if schema is None:
        return {}
    from ...models.json_values import read_object

    return {"schema": read_object(schema, DataError, "a JSON schema is a JSON object")}


def show(profile: Mapping[str, Any], judged: Sequence[Judged]) -> None:
    """Print a profile for a human."""
    output.table(["measure", "value"], _single(profile))
    met, clean = profile["views"]["as_met"], profile["views"]["clean"]
    for view, title in ((met, "as met"), (clean, "clean, undisturbed requests alone")):
        rows = [[name, *(spread[part] for part in _PARTS), *(_bound(spread, part) for part in ("p95", "p99"))]
                for name, spread in view.items() if isinstance(spread, Mapping) and "p95" in spread and spread["max"]]
        if rows and (view is met or view["requests"] < met["requests"]):
            click.echo()
            output.table([f"{view['requests']} requests", *_PARTS, "p95 at most", "p99 at most"], rows, title)
    click.echo()
    _say(profile, judged)


def show_several(profiles: Mapping[str, Mapping[str, Any]], judged: Mapping[str, Sequence[Judged]]) -> None:
    """Print one table of the profiles, and below it what is said of each."""
    rows: dict[str, dict[str, Any]] = {}
    for name, profile in profiles.items():
        for measure, value in _single(profile):
            rows.setdefault(measure, {})[name] = value
        for measure, spread in profile["views"]["as_met"].items():
            if isinstance(spread, Mapping) and "p95" in spread:
                for part in ("p50", "p95"):
                    rows.setdefault(f"{measure} {part}", {})[name] = spread[part]
                rows.setdefault(f"{measure} p95 at most", {})[name] = _bound(spread, "p95")
    output.table(["measure", *profiles], [[measure, *(found.get(name) for name in profiles)]
                                          for measure, found in rows.items()])
    for name, profile in profiles.items():
        click.echo(f"\n{name}")
        _say(profile, judged[name])


def _single(profile: Mapping[str, Any]) -> list[list[Any]]:
    return [[name, value] for name, value in profile.items()
            if isinstance(value, (int, float, str)) and not isinstance(value, bool)]


def _say(profile: Mapping[str, Any], judged: Sequence[Judged]) -> None:
    ends = [request["end_ns"] / 1e6 for request in (profile.get("raw") or {}).get("requests", [])]
    if line := sparkline(ends):
        click.echo(f"requests, one after the other, ms: {min(ends):.4g} {line} {max(ends):.4g}")
    kept = profile["sustained"]
    if kept:
        fell = kept["slowed_after_s"]
        click.echo(f"after {kept['seconds']:.0f} s {kept['kept']:.0%} of the speed was left "
                   f"({kept['first_per_s']:.4g} → {kept['last_per_s']:.4g} a second); "
                   + ("it never fell below 90 % for good" if fell is None else f"below 90 % from {fell:.0f} s on"))
    for line in profile["verdict"]:
        click.echo(line)
    if judged:
        from ..report.gate_files import told

        for one in judged:
            click.echo(f"{'holds' if one.passed else 'FAILS'}  {told(one)}")


def _bound(spread: Mapping[str, Any], part: str) -> Any:
    """An upper 95 % bound, or the requests that it would take."""
    bound = spread["upper"][part]
    return bound if bound is not None else f"needs {spread['needed'][part]}"
