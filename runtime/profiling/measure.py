"""Time a shipped model in processes of its own: load, requests and their parts, memory, and what held it back."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...models.errors import UsageError
from ..loading.foreign import codec_of, is_stranger, open_model, try_out
from . import conditions, limits, machine, measures
from .enough import enough, tell
from .fastest_threads import tune
from .jobs import job, run
from .other_programs import OtherPrograms
from .prompts import Source
from .sustained import sustained
from .views import view

if TYPE_CHECKING:
    from ...models.artifact import Artifact
    from ..data.reader import Row
    from ..encoders.encoder import TextEncoder
    from ..generation.generator import Generator

_LOADS = 3
"""Fresh processes whose start is timed."""


@dataclass(frozen=True)
class Profile:
    """What was measured. Single numbers are medians; `raw` holds every nanosecond they come from."""

    kind: str
    """generate, classify or embed."""
    threads: int | None
    """None, as all that follows may be, where a server tells nothing of itself."""
    file_bytes: int | None
    """The model file and its external data."""
    peak_rss_bytes: int | None
    """The most memory the measured process ever had in RAM, interpreter and libraries included."""
    load_ms: float | None
    """From the interpreter's first line to a model ready to run, in a fresh process: imports, hashes, weights."""
    start_ms: float | None
    """From the start of a fresh process to the first token (or label) of its first prompt."""
    prompt_tokens: int
    machine: dict[str, Any]
    raw: dict[str, Any]
    new_tokens: int | None = None
    context: int | None = None
    ttft_ms: float | None = None
    """A prompt's tokenizing, prefill and choice of the first token."""
    prefill_tokens_per_s: float | None = None
    decode_tokens_per_s: float | None = None
    token_ms: dict[str, float] | None = None
    """p50 to p99 and max of one token: choice, detokenizing and the model's step, over all requests."""
    latency_ms: dict[str, float] | None = None
    """classify and embed: p50 to p99 and max of one text, tokenizing included."""
    texts_per_s: float | None = None
    request_ms: dict[str, float] | None = None
    """generate: p50, p90, p95, p99 and max of a whole request, from the prompt to the last token."""
    cold_load_ms: float | None = None
    """`load_ms` with the file out of the system's cache; None where the system does not let go of it."""
    steady_rss_bytes: int | None = None
    """Memory of the measured process after its requests."""
    steady_pss_bytes: int | None = None
    """The same with its share of what other processes hold, too; None where the system does not say it."""
    views: Mapping[str, Any] = field(default_factory=dict)
    """`as_met` sums up all requests, for promises; `clean` the undisturbed ones, for comparisons. See views.view."""
    conditions: dict[str, Any] = field(default_factory=dict)
    """What was so while the requests ran; see conditions.summary."""
    verdict: list[str] = field(default_factory=list)
    """What held the figures back, in words."""
    sustained: dict[str, Any] | None = None
    """See sustained.sustained."""


def profile(model: Path | str | Generator | TextEncoder, prompt_tokens: int = 128, new_tokens: int | None = None,
            warmup: int = 2, repeats: int = 10, rows: Sequence[Row] | None = None, threads: int = 0, *,
            prompts: Sequence[Row] | None = None, held_to: Sequence[str] = (), seconds: float = 0.0,
            options: Mapping[str, Any] | None = None, say: Callable[[str], object] = lambda line: None) -> Profile:
    """Measure an artifact, a .gguf file or an ONNX folder (or what a loaded model came from) on this machine.

    `prompts` are asked as they are, with the answers' own ends and `options` of `Generator.stream`. Without them
    prompts have exactly `prompt_tokens` tokens, taken from `rows` where given, else drawn from the vocabulary, and
    answers exactly `new_tokens` (64). Every request has an empty cache. `held_to` names numbers that a limit will hold,
    such as "ttft_ms.p95": there are then as many requests as its bound takes. With `seconds` requests are made for so
    long at least. `threads` 0 means
    those of the loaded model, or those that a measurement of this model shows to be fastest; it is remembered, and
    `load` takes them from then on. `say` is told what will take long. Raises UsageError for counts out of range or
    beyond the model's context, and what `load` raises.
    """
    counts = (("prompt_tokens", prompt_tokens, 1), ("new_tokens", new_tokens or 2, 2), ("warmup", warmup, 0),
              ("repeats", repeats, 1), ("threads", threads, 0), ("seconds", seconds, 0))
    for name, value, least in counts:
        if value < least:
            raise UsageError(f"{name}: {value} is below the limit {least}", f"use {least} or more")
    if prompts is not None and not prompts:
        raise UsageError("prompts: there are no rows", "give one or more")
    artifact, threads = _opened(model, threads)
    source = Source(artifact.manifest.task, codec_of(artifact, artifact.manifest.task), prompts, rows, prompt_tokens,
                    new_tokens)
    speeds: dict[int, float] = {}
    if not threads:
        threads, speeds = tune(artifact)
    before = machine.facts()
    context = source.context(artifact)
    ask = source.ask(options or {})
    count = max(repeats, limits.requests(held_to))
    first = source.requests(_LOADS)
    starts = [run(job(artifact, threads, [request], context, **ask)) for request in first]
    one = statistics.mean(start["requests"][0]["end_ns"] for start in starts) / 1e9
    tell(say, count, seconds, one, held_to if count > repeats else ())

    def measured(count: int) -> tuple[tuple[dict[str, Any], dict[str, float]], dict[str, Any]]:
        _let_go(artifact)
        with OtherPrograms() as others:
            found = run(job(artifact, threads, source.requests(count), context, warmup=warmup, seconds=seconds, **ask))
        return (found, others.busiest), _views(found)

    (found, others), views = enough(measured, count, held_to, say)
    return _profile(artifact, source, before, starts, found, others, views,
                    {"warmup": warmup, "repeats": len(found["requests"]), "prompt_source": source.name,
                     "per_s_by_threads": {str(count): speed for count, speed in speeds.items()}}, seconds > 0)


def _opened(model: Path | str | Generator | TextEncoder, threads: int) -> tuple[Artifact, int]:
    """The artifact to measure, and the threads of a loaded model where none were asked for."""
    if isinstance(model, (str, Path)):
        artifact = open_model(Path(model))
        if is_stranger(artifact):
            try_out(artifact)
        return artifact, threads
    if model.artifact is None:
        raise UsageError("the model was not loaded from an artifact", "give the path of an artifact")
    return model.artifact, threads or model.threads


def _let_go(artifact: Artifact) -> None:
    """Ask the system to forget what it holds of the model's files, so that the next process reads them anew."""
    if not hasattr(os, "posix_fadvise"):
        return
    for name in artifact.manifest.files:
        with (artifact.folder / name).open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _views(found: dict[str, Any]) -> dict[str, Any]:
    """All requests summed up, and those that nothing disturbed; each is marked with what did."""
    causes = conditions.causes(found["looks"], found["threads"])
    for request in found["requests"]:
        request["disturbed"] = causes[request["window"]]
    return {"as_met": view(found["requests"]),
            "clean": view([request for request in found["requests"] if not request["disturbed"]])}


def _profile(artifact: Artifact, source: Source, before: dict[str, Any], starts: Sequence[dict[str, Any]],
             found: dict[str, Any], others: dict[str, float], views: Mapping[str, Any], raw: dict[str, Any],
             kept_busy: bool) -> Profile:
    requests, met, size = found["requests"], views["as_met"], artifact.model_bytes()
    during = conditions.summary(found["looks"][requests[0]["window"]:], others, len(requests))
    read = found["loaded"].get("disk_bytes", 0)
    raw |= {"load_ms": [start["load_ms"] for start in starts], "start_ms": [start["start_ms"] for start in starts],
            "start_peak_rss_bytes": [start["memory"]["peak_rss_bytes"] for start in starts],
            "load_rss_bytes": found["loaded"], "memory": found["memory"], "affinity": found["affinity"],
            "cold_load": {"by": "posix_fadvise", "disk_bytes": read}, "requests": requests, "looks": found["looks"]}
    ends = [request["end_ns"] / 1e6 for request in requests]

    def middle(name: str) -> float | None:
        return float(met[name]["p50"]) if name in met else None

    def spread(name: str) -> dict[str, float] | None:
        return {part: float(met[name][part]) for part in measures.SPREAD} if name in met else None

    return Profile(
        artifact.manifest.task.kind, threads=found["threads"], file_bytes=size,
        peak_rss_bytes=found["memory"]["peak_rss_bytes"], load_ms=statistics.median(raw["load_ms"]),
        start_ms=statistics.median(raw["start_ms"]), prompt_tokens=source.prompt_tokens(requests), machine=before,
        raw=raw, new_tokens=source.new_tokens(requests), context=found["context"], ttft_ms=middle("ttft_ms"),
        prefill_tokens_per_s=middle("prefill_tokens_per_s"), decode_tokens_per_s=middle("decode_tokens_per_s"),
        token_ms=spread("token_ms"), latency_ms=spread("latency_ms"), request_ms=spread("request_ms"),
        texts_per_s=1000 / statistics.mean(ends) if "latency_ms" in met else None,
        # Files that the system did not let go of were not read from the disk.
        cold_load_ms=found["load_ms"] if read >= size / 2 else None,
        steady_rss_bytes=found["memory"]["rss_bytes"], steady_pss_bytes=found["memory"].get("pss_bytes"), views=views,
        conditions=during | {"affinity": found["affinity"]},
        verdict=conditions.verdict(during, [request["disturbed"] for request in requests], before, found["threads"],
                                   found["affinity"]),
        sustained=sustained(requests) if kept_busy else None)
