"""The packed file under test: its engine, its tokenizers and what the float model says, opened once for all checks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..models import kinds
from ..models.artifact import Artifact
from ..models.scheme import Scheme
from ..runtime.rows import Row
from ..runtime.text import Codec
from . import divergence, limits
from .packed_tokenizer import GgufTokenizer
from .reference import Reference

if TYPE_CHECKING:
    from .float_model import FloatModel

DECODE_TOKENS = 512
"""Tokens that the cached decode is compared on."""
DECODE_TOKENS_PER_SEQUENCE = 48


class Subject:
    """What a check looks at. Close it, or use it in a `with` block: engines hold memory outside Python."""

    def __init__(self, artifact: Artifact, reference: Reference, float_model: FloatModel | None = None,
                 rows: Sequence[Row] = (), test_rows: Sequence[Row] = (), threads: int = 0) -> None:
        """`float_model` is there at export only; with it the full KL is measured instead of its lower bound."""
        self.artifact = artifact
        self.reference = reference
        self.float_model = float_model
        self.rows = rows
        self.test_rows = test_rows
        self.threads = threads
        self.scheme = Scheme.parse(artifact.manifest.scheme)
        self.limits = limits.of(self.scheme)
        self._engine: Any = None
        self._gguf: GgufTokenizer | None = None

    def __enter__(self) -> Subject:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Free the engine and the vocabulary."""
        for held in (self._engine, self._gguf):
            if held is not None:
                held.close()
        self._engine = self._gguf = None

    @property
    def classifies(self) -> bool:
        """Whether the model gives labels, not text."""
        return self.artifact.manifest.task.kind == "classify"

    @cached_property
    def codec(self) -> Codec:
        """The tokenizer and the template as the runtime reads them from the artifact, without a system prompt."""
        return Codec.from_folder(self.artifact.folder)

    @property
    def gguf(self) -> GgufTokenizer | None:
        """The tokenizer inside the model file, for formats that carry one."""
        if self._gguf is None and self.scheme.format == "gguf":
            self._gguf = GgufTokenizer(self.artifact.model_path)
        return self._gguf

    @property
    def engine(self) -> Any:
        """The runtime's engine for a decoder, with room for the longest sequence."""
        if self._engine is None:
            room = max((len(ids) for ids in self.reference.sequences), default=0) + 1
            module = kinds.load("runtime.engines", self.scheme.format)
            self._engine = module.open(self.artifact, threads=self.threads, context=room)
        return self._engine

    @cached_property
    def prefill(self) -> divergence.Divergence:
        """Float model against packed file, every position of every sequence in one pass each."""
        parts = []
        for index, ids in enumerate(self.reference.sequences):
            logits = np.asarray(self.engine.logits(ids.tolist()))
            parts.append(self.compare(index, slice(None), logits))
        return divergence.join(parts)

    def compare(self, index: int, part: slice, logits: NDArray[np.float32]) -> divergence.Divergence:
        """Float model against packed `logits` [n, vocabulary] at the positions `part` of sequence `index`."""
        reference = self.reference
        same = reference.top_ids[index][part, 0] == logits.argmax(axis=1)
        if self.float_model is None:
            return divergence.Divergence(divergence.kl_of_top(
                reference.top_ids[index][part], reference.top_logprobs[index][part], reference.tails[index][part], logits), same)
        full = self.float_model.logits(reference.sequences[index].tolist())[part]
        return divergence.Divergence(divergence.kl(full, logits), same)

    @cached_property
    def decode(self) -> tuple[divergence.Divergence, divergence.Divergence]:
        """(float model against cached decode, the file's own prefill against cached decode).

        Every sequence is prefilled whole, cut back to its half and decoded from there token by token: a cache that
        is written, cut or read wrongly shows, and so does one that remembers the sequence before.
        """
        against_float, against_prefill, left = [], [], DECODE_TOKENS
        for index, ids in enumerate(self.reference.sequences):
            start = len(ids) // 2
            end = min(len(ids), start + DECODE_TOKENS_PER_SEQUENCE, start + left)
            if start < 1 or end <= start:
                continue
            whole = np.array(self.engine.logits(ids.tolist()))
            self.engine.truncate(0)
            self.engine.prefill(ids.tolist())
            self.engine.truncate(start)
            logits = np.stack([np.array(self.engine.decode(int(token))) for token in ids[start:end]])
            part = slice(start, end)
            against_float.append(self.compare(index, part, logits))
            against_prefill.append(divergence.Divergence(
                divergence.kl(whole[part], logits), whole[part].argmax(axis=1) == logits.argmax(axis=1)))
            left -= end - start
        return divergence.join(against_float), divergence.join(against_prefill)
