"""`edgestill profile --per-op`: a table of operators, and a trace."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from .. import output, quiet
from . import named_models, sweeping

_OTHERS = ("explains", "prompts", "schema", "warmup", "repeats", "sustained", "gates", "run_file", "junit", "markdown",
           "columns", "skip_bad", "table")
"""Options of other measurements."""
_SHOWN = 12
"""Lines of a table."""


def run(path: Path, prompt_tokens: int, new_tokens: int | None, threads: int, out: Path | None, traced: Path | None,
        as_json: bool) -> None:
    """Time a model's operators and tell of them; `traced` is a file for Perfetto. UsageError for options that do not go
    with it."""
    from ...models import files
    from ...runtime.profiling.operators import STEPS, operators, trace

    sweeping.refuse(_OTHERS, "--per-op")
    with quiet.stdout_kept_clean():
        found = operators(named_models.model(path), prompt_tokens, new_tokens or STEPS, threads)
    if out is not None:
        files.write_json(out, output.plain(found))
    if traced is not None:
        files.write_text(traced, json.dumps(trace(found)))
    if as_json:
        output.result(found)
    else:
        show(found)


def show(found: Mapping[str, Any]) -> None:
    """Print for a human where the time went."""
    for name, phase in found["phases"].items():
        for kind, title in (("operators", f"a {name}: operators"), ("parts", f"a {name}: of all layers together")):
            rows = [[one["operator"], *([one["name"]] if kind == "parts" else []), one["ms"],
                     output.percent(one["share"]), one["calls"]] for one in phase[kind][:_SHOWN]]
            output.table(["operator", *(["name"] if kind == "parts" else []), "ms", "share", "calls"], rows, title)
            click.echo()
    for name, phase in found["phases"].items():
        whole = sum(one["ms"] for one in phase["operators"])
        click.echo(f"a {name} takes {output.cell(phase['undisturbed_ms'])} ms; while it is watched "
                   f"{output.cell(phase['watched_ms'])} ms, its operators {output.cell(whole)} ms of them")
    if found["scheme"].startswith("gguf"):
        click.echo("llama.cpp computes every operator apart while it is watched: shares tell where the time goes, sums "
                   "are not what it takes")
