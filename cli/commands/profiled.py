"""What `edgestill profile` does around a measurement: gates read and held, tables, files for others."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...models.errors import CheckFailed, DataError, UsageError
from .. import output

if TYPE_CHECKING:
    from ...runtime.profiling.limits import Judged, Limit

_PARTS = ("p50", "p90", "p95", "p99", "max", "jitter")


def seconds(context: click.Context, parameter: click.Parameter, value: str) -> float:
    """A span of time as an option's value: 90, 90s, 10m, 1h."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", value)
    if found is None:
        raise click.BadParameter(f"{value!r} is no span of time: write 90s, 10m or 1h", context, parameter)
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def read_limits(path: Path, gates: Sequence[str], run_file: Path | None, written: bool) -> list[Limit]:
    """The limits to hold the model at `path` to; errors as in `Limit.parse`, and UsageError for a run file that has
    none on a profile, or where there are none and they are to be `written`."""
    if not gates and run_file is None:
        if written:
            raise UsageError("--junit and --markdown: there is no gate to write about",
                             "add --gate 'ttft_ms.p95<=300'")
        return []
    from ...models import runfile
    from ...runtime.loading.foreign import open_model
    from ...runtime.profiling import measures
    from ...runtime.profiling.limits import Limit

    task = open_model(path).manifest.task.kind
    found = [Limit.parse(gate, task) for gate in gates]
    if run_file is not None:
        limits = runfile.read(run_file).gates
        named = [(name, side == "maximum", value) for side in ("minimum", "maximum")
                 for name, value in getattr(limits, side).items()]
        ours = [one for one in named if measures.split(one[0])[0] in measures.NUMBERS]
        if not ours:
            raise UsageError(f"--gates {run_file}: its [gates] limit no number of a profile",
                             "for example [gates.maximum] ttft_ms_p95 = 300")
        if left := [name for name, _, _ in named if name not in {one[0] for one in ours}]:
            output.note(f"{run_file}: no numbers of a profile, so not held here: {', '.join(left)}")
        found += [Limit.of(*one, task, f"{run_file}: [gates]") for one in ours]
    return found


def answer_options(schema: Path | None) -> dict[str, Any]:
    """Options of the answers."""
    if schema is None:
        return {}
    from ...models.json_values import read_object

    return {"schema": read_object(schema, DataError, "a JSON schema is a JSON object")}


def judge(limits: Sequence[Limit], profile: Mapping[str, Any]) -> list[Judged]:
    """Every limit held against the profile."""
    if not limits:
        return []
    from ...runtime.profiling.limits import judge as hold

    return [hold(limit, profile) for limit in limits]


def write(name: str, judged: Sequence[Judged], profile: Mapping[str, Any], junit: Path | None,
          markdown: Path | None) -> None:
    """Write the files for continuous integration."""
    if junit is None and markdown is None:
        return
    from ..report import gate_files

    if junit is not None:
        gate_files.junit(junit, name, judged)
    if markdown is not None:
        gate_files.markdown(markdown, name, judged, profile)


def check(judged: Sequence[Judged]) -> None:
    """CheckFailed (exit code 3) for gates that do not hold: which, and by how much."""
    broken = [one for one in judged if not one.passed]
    if not broken:
        return
    from ..report.gate_files import told

    few = max(one.needed for one in broken)
    raise CheckFailed(f"{len(broken)} of {len(judged)} gates do not hold: " + "; ".join(map(told, broken)),
                      f"--requests {few} would be enough, or a machine that does nothing else" if few else
                      "the verdict above says what held the model back; edgestill profile -o keeps every value")


def show(profile: Mapping[str, Any], judged: Sequence[Judged]) -> None:
    """Print a profile for a human."""
    single = [[name, value] for name, value in profile.items()
              if isinstance(value, (int, float, str)) and not isinstance(value, bool)]
    output.table(["measure", "value"], single)
    met, clean = profile["views"]["as_met"], profile["views"]["clean"]
    for view, title in ((met, "as met"), (clean, "clean, undisturbed requests alone")):
        rows = [[name, *(spread[part] for part in _PARTS), *(_bound(spread, part) for part in ("p95", "p99"))]
                for name, spread in view.items() if isinstance(spread, Mapping) and "p95" in spread and spread["max"]]
        if rows and (view is met or view["requests"] < met["requests"]):
            click.echo()
            output.table([f"{view['requests']} requests", *_PARTS, "p95 at most", "p99 at most"], rows, title)
    click.echo()
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
