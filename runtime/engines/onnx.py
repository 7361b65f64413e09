"""onnxruntime over a decoder's graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...models.artifact import FOREIGN
from ..files.model_files import context_of
from ..machine.cores import allowed_cores
from ._base import chosen_context
from ._onnx_engine import OnnxEngine, session

if TYPE_CHECKING:
    from ...models.artifact import Artifact
    from ._concat import ConcatEngine


def open(artifact: Artifact, threads: int, context: int) -> OnnxEngine | ConcatEngine:
    """Load the artifact's graph; `threads` 0 means the physical cores, `context` 0 the default length.

    Raises ArtifactError when the graph cannot be loaded or is no decoder of this kind, MissingExtra without
    onnxruntime.
    """
    limit = artifact.manifest.dimensions.get("context") or context_of(artifact.folder)
    threads, length = threads or allowed_cores(), chosen_context(context, limit)
    if artifact.manifest.stage == FOREIGN:
        from ..files import onnx_header
        from ._concat import ConcatEngine

        if "GroupQueryAttention" not in onnx_header.read(artifact.model_path).operators:
            return ConcatEngine(artifact, session(artifact.model_path, threads), threads, length)
    return OnnxEngine(artifact.model_path, artifact.folder, threads, length)


def open_streams(artifact: Artifact, threads: int, context: int, count: int) -> Sequence[OnnxEngine | ConcatEngine]:
    """As `open`, `count` times with a cache of its own each over the same weights; one of a graph of another kind."""
    from ._onnx_streams import streams

    first = open(artifact, threads, context)
    return streams(first, artifact.model_path, artifact.folder, count) if isinstance(first, OnnxEngine) else [first]
