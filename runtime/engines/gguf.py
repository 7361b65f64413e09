"""llama.cpp over a GGUF file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...models.kv_cache import AUTO
from ..machine.cores import allowed_cores
from ._gguf_context import GgufContext
from ._gguf_engine import GgufEngine

if TYPE_CHECKING:
    from ...models.artifact import Artifact

_LOSSLESS = ("gguf:F32", "gguf:F16", "gguf:BF16")
"""Whoever keeps such weights wants their answers: a float16 cache would cost models with large keys more than the file
does."""


def open(artifact: Artifact, threads: int, context: int, exact: bool = False) -> GgufEngine:
    """Load the artifact's file; `threads` 0 means the physical cores, `context` 0 the default length.

    `exact` keeps keys and values in float32, as files of _LOSSLESS types do that were not told otherwise.
    Raises ArtifactError when llama.cpp refuses the file, MissingExtra without llama-cpp-python.
    """
    return GgufEngine(_context(artifact, threads, context, exact))


def open_streams(artifact: Artifact, threads: int, context: int, count: int) -> list[GgufEngine]:
    """As `open`, `count` times with a cache of its own each over the same weights, one where the model's running
    state cannot be kept apart."""
    from ._gguf_streams import streams

    shared = _context(artifact, threads, context, sequences=count)
    return streams(shared, count) if shared.rewinds else [GgufEngine(shared)]


def _context(artifact: Artifact, threads: int, context: int, exact: bool = False, sequences: int = 1) -> GgufContext:
    cache = artifact.manifest.kv
    if exact or (cache == AUTO and artifact.manifest.scheme in _LOSSLESS):
        cache = "f32"
    return GgufContext(artifact.model_path, threads or allowed_cores(), context, "f16" if cache == AUTO else cache,
                       sequences)
