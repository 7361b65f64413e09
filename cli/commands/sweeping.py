"""`edgestill profile` over several models, numbers of threads, contexts and streams."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ...models.errors import UsageError
from .. import output, quiet
from . import named_models

if TYPE_CHECKING:
    from ...runtime.profiling.targets._base import Target

_OTHERS = ("explains", "prompts", "schema", "sustained", "gates", "run_file", "junit", "markdown",
           "columns", "skip_bad")
"""Options of a profile of one model."""
_AXES = ("model", "threads", "context", "streams")
_SHOWN = {"generate": ("ttft_ms", "decode_tokens_per_s", "tokens_per_s", "peak_rss_bytes")}
_SHOWN_ELSE = ("latency_ms", "texts_per_s", "peak_rss_bytes")


def counts(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    """One or several numbers as an option's value: 1,2,4. Of threads 0 alone may stand, too; empty: none."""
    found = tuple(int(part) if part.strip().isdecimal() else -1 for part in value.split(",")) if value else ()
    if any(count < 1 for count in found) and (found != (0,) or parameter.name != "threads"):
        raise click.BadParameter(f"{value!r}: write numbers from 1 on, such as 1,2,4", context, parameter)
    if len(set(found)) < len(found):
        raise click.BadParameter(f"{value!r}: a number is given twice", context, parameter)
    return found


def given(name: str) -> bool:
    """Whether an option or argument of the command that runs was given."""
    return click.get_current_context().get_parameter_source(name) == ParameterSource.COMMANDLINE


def refuse(names: Sequence[str], of: str) -> None:
    """UsageError for the first of these options that was given, which does not go with `of`."""
    for parameter in click.get_current_context().command.params:
        if parameter.name in names and given(parameter.name):
            raise UsageError(f"{parameter.opts[-1]} does not go with {of}", f"leave it out, or leave {of} out")


def run(models: Sequence[Path], places: Sequence[str], threads: Sequence[int], contexts: Sequence[int],
        streams: Sequence[int], prompt_tokens: int, new_tokens: int | None, warmup: int, repeats: int,
        out: Path | None, table: Path | None, as_json: bool) -> None:
    """Sweep, and tell what was found; `table` is a CSV file. UsageError for options that do not go with it."""
    from ...models import files
    from ...runtime.profiling.prompts import DEFAULT_NEW_TOKENS
    from ...runtime.profiling.targets._base import Swept

    refuse(_OTHERS + (("prompt_tokens",) if contexts else ()), "a sweep")
    if not models:
        raise UsageError("a sweep needs a model that lies here, and none is named", "edgestill profile ARTIFACT …")
    if out is None:
        raise UsageError("a sweep keeps every round as it goes", "give -o sweep.json; the same call goes on after a "
                         "crash")
    if len(set(models)) < len(models):
        raise UsageError("an artifact is given twice", "name every artifact once")
    target, new = _target(places), new_tokens or DEFAULT_NEW_TOKENS
    asked = Swept({str(path): named_models.model(path) for path in models}, [count for count in threads if count],
                  list(contexts or (prompt_tokens + new,)), list(streams or (1,)), new, warmup, repeats)
    with quiet.stdout_kept_clean():
        found = output.plain(target.kind.sweep(target.place, asked, out.with_name(f"{out.name}.rounds.jsonl"),
                                               output.note))
    files.write_json(out, found)
    if table is not None:
        files.write_text(table, csv_of(found))
    if as_json:
        output.result(found)
    else:
        show(found)


def _target(places: Sequence[str]) -> Target:
    """The one machine of a sweep; UsageError for several, and for those where none of ours can run."""
    from ...runtime.profiling.targets import _base

    targets = _base.parse(places)
    if len(targets) > 1:
        raise UsageError(f"--target: a sweep measures one machine, and {len(targets)} are named",
                         "call it once for each of them")
    if not hasattr(targets[0].kind, "sweep"):
        raise UsageError(f"--target {targets[0].place}: cannot be swept from here",
                         "sweep this machine (local), or one that ssh reaches")
    return targets[0]


def show(found: Mapping[str, Any]) -> None:
    """Print a sweep for a human: medians of undisturbed requests, of all where none was undisturbed."""
    for task in sorted({model["task"] for model in found["models"].values()}):
        names = _SHOWN.get(task, _SHOWN_ELSE)
        rows = [[*(cell[axis] for axis in _AXES), *(_told(name, (cell["clean"] or cell["as_met"])[name])
                                                    for name in names),
                 _disturbed(cell)] for cell in found["cells"] if found["models"][cell["model"]]["task"] == task]
        output.table([*_AXES, *names, "disturbed"], rows)
    for line in found["verdict"]:
        click.echo(line)


def csv_of(found: Mapping[str, Any]) -> str:
    """A sweep as CSV: a line for every number of every cell, as met and clean."""
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow([*_AXES, "view", "number", "p50", "lower", "upper", "rounds"])
    for cell in found["cells"]:
        for view in ("as_met", "clean"):
            for name, one in cell[view].items():
                writer.writerow([*(cell[axis] for axis in _AXES), view, name, one["p50"], one["lower"], one["upper"],
                                 len(one["values"])])
    return lines.getvalue()


def _told(name: str, number: Mapping[str, Any]) -> str:
    """A median with its bounds, where the rounds were enough for them; of memory the median alone."""
    if name.endswith("_bytes"):
        return output.size(round(number["p50"]))
    if number["lower"] is None or number["upper"] is None:
        return output.cell(float(number["p50"]))
    return f"{output.cell(float(number['p50']))} [{output.cell(number['lower'])}, {output.cell(number['upper'])}]"


def _disturbed(cell: Mapping[str, Any]) -> str:
    if not cell["disturbed_rounds"]:
        return ""
    from ...runtime.profiling.conditions import SHORT

    causes = ", ".join(SHORT[cause] for cause in cell["causes"])
    most = sorted(cell["programs"].items(), key=lambda item: -item[1])[:1]
    busy = "".join(f" ({name} {cores:.2f})" for name, cores in most)
    alone = "" if cell["clean"] else ", so all count"
    return f"{cell['disturbed_rounds']} of {cell['rounds']}: {causes}{busy}{alone}"
