"""What the rounds of a sweep come to: medians with their bounds, what disturbed them, the threads that suit a model."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..machine.cores import allowed_cores
from ..machine.remembered_threads import remember
from . import percentile_bounds
from .conditions import SHORT
from .measures import NUMBERS
from .views import view

if TYPE_CHECKING:
    from ...models.artifact import Artifact

Entry = Mapping[str, Any]
_PROGRAMS = 3
"""Programs that are named."""


def table(artifacts: Mapping[str, Artifact], rounds: Sequence[Entry], facts: Mapping[str, Any]) -> dict[str, Any]:
    """A sweep summed up, and the threads remembered that it speaks for.

    `cells` hold a combination each, with its numbers `as_met` and, of undisturbed requests alone, `clean`: as `p50`
    the median of the rounds' medians, as `lower` and `upper` its one-sided 95 % bounds (None where the rounds are too
    few), and each round's as `values`.
    """
    by_cell: dict[tuple[Any, ...], list[Entry]] = {}
    for entry in rounds:
        by_cell.setdefault(tuple(entry["cell"].values()), []).append(entry)
    cells = [_cell(entries) for _, entries in sorted(by_cell.items())]
    threads = {name: chosen for name, artifact in artifacts.items()
               if (chosen := _threads(artifact, [cell for cell in cells if cell["model"] == name]))}
    models = {name: {"scheme": artifact.manifest.scheme, "task": artifact.manifest.task.kind,
                     "file_bytes": artifact.model_bytes()} for name, artifact in artifacts.items()}
    return {"kind": "sweep", "models": models, "machine": dict(facts), "cells": cells, "threads": threads,
            "verdict": _verdict(cells, threads)}


def _cell(entries: Sequence[Entry]) -> dict[str, Any]:
    causes = Counter(cause for entry in entries for cause in {one for request in entry["requests"]
                                                              for one in request["disturbed"]})
    disturbed = [entry for entry in entries if any(request["disturbed"] for request in entry["requests"])]
    programs: dict[str, float] = {}
    for entry in disturbed:
        for name, cores in entry["conditions"]["programs"].items():
            programs[name] = max(cores, programs.get(name, 0.0))
    met, clean = ([numbers for entry in entries if (numbers := _numbers(entry, every))] for every in (True, False))
    return {**entries[0]["cell"], "rounds": len(entries), "disturbed_rounds": len(disturbed), "causes": dict(causes),
            "programs": dict(sorted(programs.items(), key=lambda item: -item[1])[:_PROGRAMS]),
            "as_met": _medians(met), "clean": _medians(clean)}


def _numbers(entry: Entry, every: bool) -> dict[str, float]:
    """The medians of a round, of its undisturbed requests alone unless `every` one counts; empty without any."""
    groups = [request for request in entry["requests"] if every or not request["disturbed"]]
    if not groups:
        return {}
    alone = [one for group in groups for one in group.get("streams", [group])]
    found = {name: float(spread["p50"]) for name, spread in view(alone).items() if name in NUMBERS}
    if "new_tokens" in alone[0]:
        found["tokens_per_s"] = statistics.median(
            1e9 * sum(one["new_tokens"] for one in group.get("streams", [group])) / group["end_ns"] for group in groups)
    return found | {"load_ms": entry["load_ms"], "peak_rss_bytes": entry["memory"]["peak_rss_bytes"]}


def _medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in rounds[0] if rounds else ():
        values = [numbers[name] for numbers in rounds]
        found[name] = {"p50": statistics.median(values), "lower": percentile_bounds.lower(values, 0.5).value,
                       "upper": percentile_bounds.upper(values, 0.5).value, "values": values}
    return found


def _threads(artifact: Artifact, cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The fewest threads that about reach the best speed, over all contexts with as few streams as there were: None
    where some were never measured undisturbed. Empty where there was no choice."""
    speed = "decode_tokens_per_s" if artifact.manifest.task.kind == "generate" else "texts_per_s"
    fewest = min(cell["streams"] for cell in cells)
    found: dict[int, list[float]] = {}
    told = [cell for cell in cells if cell["streams"] == fewest and cell["threads"] <= allowed_cores()]
    for cell in told:
        found.setdefault(cell["threads"], []).append((cell["clean"] or cell["as_met"])[speed]["p50"])
    if len(found) < 2:
        return {}
    speeds = {count: math.exp(statistics.fmean(map(math.log, several))) for count, several in found.items()}
    return {"chosen": remember(artifact, speeds) if all(cell["clean"] for cell in told) else None,
            "per_s": {str(count): value for count, value in speeds.items()}}


def _verdict(cells: Sequence[Mapping[str, Any]], threads: Mapping[str, Any]) -> list[str]:
    found = [f"{name}: {chosen['chosen']} threads from now on" if chosen["chosen"] else
             f"{name}: no number of threads is remembered, for some were never measured undisturbed"
             for name, chosen in threads.items()]
    disturbed = sum(cell["disturbed_rounds"] for cell in cells)
    if disturbed:
        causes = sum((Counter(cell["causes"]) for cell in cells), Counter[str]())
        cores: dict[str, float] = {}
        for name, used in ((name, used) for cell in cells for name, used in cell["programs"].items()):
            cores[name] = max(used, cores.get(name, 0.0))
        programs = sorted(cores, key=lambda name: -cores[name])[:_PROGRAMS]
        found.append(f"{disturbed} of {sum(cell['rounds'] for cell in cells)} rounds were disturbed, by "
                     + ", ".join(f"{SHORT[cause]} ({count})" for cause, count in causes.most_common())
                     + (f"; busy meanwhile: {', '.join(programs)}" if programs else ""))
    return found
