"""Threads, contexts and streams of one or several models, each combination measured in fresh processes.

It goes in rounds over all of them, each round in an order of its own, and not one after the other: what changes on the
machine meanwhile, such as heat, then changes them alike.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...models.errors import UsageError
from ..generation.prompt_cache import model_digest
from ..loading.foreign import codec_of, is_stranger, open_model, try_out
from ..machine.cores import allowed_cores
from ..machine.remembered_threads import recall
from . import conditions, machine
from .jobs import job, run
from .other_programs import OtherPrograms
from .prompts import DEFAULT_NEW_TOKENS, Source
from .rounds_file import RoundsFile
from .sweep_table import table

if TYPE_CHECKING:
    from ...models.artifact import Artifact
    from ..text.codec import Codec

ROUNDS = 5
"""Rounds: as many as a median takes to have bounds on both sides."""


@dataclass(frozen=True)
class Cell:
    """One combination."""

    model: str
    threads: int
    context: int
    """Tokens of a prompt and its answer together, which fill the context; of what writes nothing those of a text."""
    streams: int
    """Requests that are answered at the same time."""


def sweep(models: Sequence[Path], lines: Path, threads: Sequence[int] = (), contexts: Sequence[int] = (192,),
          streams: Sequence[int] = (1,), new_tokens: int = DEFAULT_NEW_TOKENS, warmup: int = 2, repeats: int = 10,
          say: Callable[[str], object] = lambda line: None, names: Sequence[str] = ()) -> dict[str, Any]:
    """Measure every combination on this machine, `repeats` times each in ROUNDS rounds, and sum it up; see
    sweep_table.table.

    Every round is kept in the file `lines` as soon as it was measured: after a crash the same call goes on there. No
    `threads` means those that `load` takes. Where several were swept, what suits each model is remembered, and `load`
    takes it from then on. `names` are what the table calls the models; none: their paths.

    Raises UsageError for counts out of range or beyond a model's context and what a model cannot do, what RoundsFile
    raises, and what `load` raises.
    """
    artifacts = {name: open_model(path) for name, path in zip(names or map(str, models), models, strict=True)}
    cells = [Cell(name, count or recall(artifact) or allowed_cores(), context, at_once)
             for name, artifact in artifacts.items()
             for count, context, at_once in itertools.product(threads or (0,), contexts, streams)]
    _check(artifacts, cells, new_tokens)
    for artifact in artifacts.values():
        if is_stranger(artifact):
            try_out(artifact)
    codecs = {name: codec_of(artifact, artifact.manifest.task) for name, artifact in artifacts.items()}
    facts = machine.facts()
    settings = {"models": {name: model_digest(artifact) for name, artifact in artifacts.items()},
                "cells": [asdict(cell) for cell in cells], "new_tokens": new_tokens, "warmup": warmup,
                "repeats": repeats, "processor": facts["cpu"], "versions": facts["versions"]}
    with RoundsFile(lines, settings) as kept:
        done = {(entry["round"], Cell(**entry["cell"])) for entry in kept.rounds}
        if done:
            say(f"{lines}: {len(done)} of {ROUNDS * len(cells)} rounds are there already")
        for number in range(ROUNDS):
            order = np.random.default_rng(number).permutation(len(cells))
            due = [cells[place] for place in order if (number, cells[place]) not in done]
            began = time.monotonic()
            for cell in due:
                kept.add(_measured(artifacts[cell.model], codecs[cell.model], cell, new_tokens, warmup,
                                   -(-repeats // ROUNDS)) | {"cell": asdict(cell), "round": number})
            if due and number < ROUNDS - 1:
                took = (time.monotonic() - began) / len(due) * len(cells)
                say(f"round {number + 1} of {ROUNDS}: about {took * (ROUNDS - 1 - number) / 60:.1f} minutes left")
        return table(artifacts, kept.rounds, facts)


def _check(artifacts: dict[str, Artifact], cells: Sequence[Cell], new_tokens: int) -> None:
    """UsageError for what cannot be measured, before anything is."""
    for cell in cells:
        manifest = artifacts[cell.model].manifest
        limit = manifest.dimensions.get("context", 0)
        if limit and cell.context > limit:
            raise UsageError(f"{cell.model}: a context of {cell.context} tokens, the model's limit is {limit}",
                             f"use {limit} or less")
        if manifest.task.kind == "generate" and cell.context <= new_tokens:
            raise UsageError(f"a context of {cell.context} tokens has no room for a prompt and {new_tokens} new tokens",
                             f"use a context above {new_tokens}, or fewer --new-tokens")
        if manifest.task.kind != "generate" and cell.streams > 1:
            raise UsageError(f"{cell.model}: models that {manifest.task.kind} answer one text at a time, not "
                             f"{cell.streams}", "sweep its threads and contexts, with 1 stream")


def _measured(artifact: Artifact, codec: Codec, cell: Cell, new_tokens: int, warmup: int,
              repeats: int) -> dict[str, Any]:
    """One round of one cell: raw requests, marked with what disturbed them."""
    generates = artifact.manifest.task.kind == "generate"
    source = Source(artifact.manifest.task, codec, None, None,
                    cell.context - new_tokens if generates else cell.context, new_tokens)
    requests = source.requests(repeats * cell.streams)
    if cell.streams > 1:
        requests = [{"together": requests[start:start + cell.streams]}
                    for start in range(0, len(requests), cell.streams)]
    with OtherPrograms() as others:
        found = run(job(artifact, cell.threads, requests, cell.context if generates else 0, warmup, 0.0, cell.streams,
                        **source.ask({})))
    marks = conditions.causes(found["looks"], cell.threads)
    for request in found["requests"]:
        request["disturbed"] = marks[request["window"]]
    during = conditions.summary(found["looks"][found["requests"][0]["window"]:], others.busiest, len(requests))
    return {"at": time.time(), "load_ms": found["load_ms"], "memory": found["memory"], "affinity": found["affinity"],
            "conditions": during, "looks": found["looks"], "requests": found["requests"]}
