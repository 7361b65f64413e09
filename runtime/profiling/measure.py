"""Time a shipped model in processes of its own: load, first token, prefill, decode, memory."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...models.artifact import Artifact
from ...models.errors import UsageError
from ..engines._base import DEFAULT_CONTEXT
from ..loading.foreign import codec_of, is_stranger, open_model, place, try_out
from . import machine
from .jobs import prompt_of, run
from .sweep import tune

if TYPE_CHECKING:
    from ..data.reader import Row
    from ..encoders.encoder import TextEncoder
    from ..generation.generator import Generator

_LOADS = 3
"""Fresh processes whose start is timed."""


@dataclass(frozen=True)
class Profile:
    """What was measured. Single numbers are medians; `raw` holds every value they come from."""

    kind: str
    """generate, classify or embed."""
    threads: int
    file_bytes: int
    """The model file and its external data."""
    peak_rss_bytes: int
    """The most memory the measured process ever had in RAM, interpreter and libraries included."""
    load_ms: float
    """From the interpreter's first line to a model ready to run, in a fresh process: imports, hashes, weights."""
    start_ms: float
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
    """p50, p90, p99 and max of one token: choice, detokenizing and the model's step, over all repeats."""
    latency_ms: dict[str, float] | None = None
    """classify and embed: p50, p90, p99 and max of one text, tokenizing included."""
    texts_per_s: float | None = None


def profile(model: Path | str | Generator | TextEncoder, prompt_tokens: int = 128, new_tokens: int = 64,
            warmup: int = 2, repeats: int = 10, rows: Sequence[Row] | None = None, threads: int = 0) -> Profile:
    """Measure an artifact, a .gguf file or an ONNX folder (or what a loaded model came from) on this machine.

    Prompts have exactly `prompt_tokens` tokens, taken from `rows` where given, else drawn from the vocabulary; every
    repeat has another prompt and an empty cache. Encoders read the rows' own texts where given. `threads` 0 means
    those of the loaded model, or those that a measurement of this model shows to be fastest; it is remembered, and
    `load` takes them from then on. Raises UsageError for counts out of range or beyond the model's
    context, and what `load` raises.
    """
    counts = (("prompt_tokens", prompt_tokens, 1), ("new_tokens", new_tokens, 2), ("warmup", warmup, 0),
              ("repeats", repeats, 1), ("threads", threads, 0))
    for name, value, least in counts:
        if value < least:
            raise UsageError(f"{name}: {value} is below the limit {least}", f"use {least} or more")
    if isinstance(model, (str, Path)):
        artifact = open_model(Path(model))
        if is_stranger(artifact):
            try_out(artifact)
    else:
        if model.artifact is None:
            raise UsageError("the model was not loaded from an artifact", "give the path of an artifact")
        artifact = model.artifact
        threads = threads or model.threads
    kind = artifact.manifest.task.kind
    whole = kind != "generate"
    codec = codec_of(artifact, artifact.manifest.task)
    prompts: list[Any] = [prompt_of(codec, rows, prompt_tokens, index) for index in range(warmup + repeats)]
    if whole:
        prompts = [rows[index % len(rows)].question if rows else codec.decode(prompt) for index,
                   prompt in enumerate(prompts)]
    speeds: dict[int, float] = {}
    if not threads:
        threads, speeds = tune(artifact)
    needed = prompt_tokens + new_tokens
    job = {"path": str(place(artifact)), "check_hashes": not is_stranger(artifact), "threads": threads,
           "warmup": warmup, "new_tokens": new_tokens,
           "context": 0 if whole or needed <= _default_context(artifact) else needed}
    before = machine.facts()
    starts = [run(job | {"prompts": prompts[:1], "warmup": 0}) for _ in range(_LOADS)]
    found = run(job | {"prompts": prompts})
    raw: dict[str, Any] = {
        "load_ms": [start["load_ms"] for start in starts], "start_ms": [start["start_ms"] for start in starts],
        "start_peak_rss_bytes": [start["peak_rss_bytes"] for start in starts],
        "prompt_source": "rows" if rows else "vocabulary", "warmup": warmup, "repeats": repeats,
        "per_s_by_threads": {str(count): speed for count, speed in speeds.items()}}
    common = {
        "threads": found["threads"], "file_bytes": artifact.model_bytes(), "peak_rss_bytes": found["peak_rss_bytes"],
        "load_ms": statistics.median(raw["load_ms"]), "start_ms": statistics.median(raw["start_ms"]), "machine": before}
    if whole:
        times = found["latency_ms"]
        lengths = [len(codec.encode(text, add_special_tokens=True)) for text in prompts[warmup:]]
        return Profile(kind, prompt_tokens=round(statistics.mean(lengths)),
                       raw=raw | {"latency_ms": times, "tokens": lengths},
                       latency_ms=_percentiles(times), texts_per_s=1000 / statistics.mean(times), **common)
    runs = found["runs"]
    tokens = [value for run in runs for value in run["token_ms"]]
    return Profile(
        "generate", prompt_tokens=prompt_tokens, new_tokens=new_tokens, context=found["context"],
        raw=raw | {"runs": runs},
        ttft_ms=statistics.median(run["tokenize_ms"] + run["prefill_ms"] for run in runs),
        prefill_tokens_per_s=statistics.median(1000 * prompt_tokens / run["prefill_ms"] for run in runs),
        decode_tokens_per_s=statistics.median(1000 * len(run["token_ms"]) / sum(run["token_ms"]) for run in runs),
        token_ms=_percentiles(tokens), **common)


def _default_context(artifact: Artifact) -> int:
    """The context that `load` takes by itself; 0 where the manifest does not say, so that it is asked for."""
    return min(artifact.manifest.dimensions.get("context", 0), DEFAULT_CONTEXT)


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    p50, p90, p99 = (float(value) for value in np.percentile(values, (50, 90, 99)))
    return {"p50": p50, "p90": p90, "p99": p99, "max": max(values)}
