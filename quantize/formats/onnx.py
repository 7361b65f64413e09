"""ONNX, for onnxruntime, onnxruntime-genai and transformers.js."""

from __future__ import annotations

from ...models.errors import UsageError
from ...models.scheme import Scheme
from ..onnx.write import write as write
from ..source.model_folder import Source

HEAD_SIZE = 16
"""onnxruntime's GroupQueryAttention refuses heads of another multiple, and only when the first token runs."""


def check(source: Source, scheme: Scheme) -> None:
    """UsageError for a model that cannot be written as ONNX or that onnxruntime would not run."""
    source.check_family(scheme)
    family, config = source.checkpoint.family, source.checkpoint.config
    if family.onnx in ("builder", "plain"):
        size = family.head_size(config)
        if size % HEAD_SIZE:
            raise UsageError(f"{scheme}: attention heads of {size} values; onnxruntime's attention takes multiples of "
                             f"{HEAD_SIZE}", "export it as gguf, such as gguf:Q4_0")
