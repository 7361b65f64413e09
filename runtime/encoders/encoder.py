"""What classifiers and embedders share: an ONNX encoder, and texts in batches of like length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ...models.errors import ArtifactError, ContextError, EdgestillError, UsageError
from ..engines._exclusive_use import CLOSED

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

    from ...models.artifact import Artifact
    from ..text.codec import Codec
    from ..text.tokenizer import Encoding


Text = str | tuple[str, str]
"""A text, or two that are read as one pair."""


class Graph:
    """A loaded encoder graph of which one output is read."""

    def __init__(self, path: Path, threads: int, output: str) -> None:
        """Load `path`; ArtifactError when its inputs are no encoder's, or it has no such output."""
        from ..engines._onnx_engine import session

        self._session, self._output = session(path, threads), output
        self.inputs = {item.name for item in self._session.get_inputs()}
        outputs = {item.name: item.shape for item in self._session.get_outputs()}
        known = {"input_ids", "attention_mask", "token_type_ids"}
        if not {"input_ids", "attention_mask"} <= self.inputs <= known or output not in outputs:
            raise ArtifactError(f"{path}: no encoder graph with the output {output!r} (inputs {sorted(self.inputs)}, "
                                f"outputs {sorted(outputs)})", "export the model with edgestill export --to onnx:int8")
        self.width: int | None = outputs[output][-1] if isinstance(outputs[output][-1], int) else None
        """Size of the output's last dimension, where the graph says it."""

    def run(self, ids: Sequence[Sequence[int]], pad_id: int,
            types: Sequence[Sequence[int]] = ()) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The output for a batch of token ids, and the mask [n, longest] that is 1 where there is a token. `types` says
        which of a pair's texts each token belongs to; without it, all are the first's."""
        length = max(1, *(len(row) for row in ids))
        tokens = np.full((len(ids), length), pad_id, np.int64)
        mask = np.zeros((len(ids), length), np.int64)
        for index, row in enumerate(ids):
            tokens[index, :len(row)] = row
            mask[index, :len(row)] = 1
        feeds = {"input_ids": tokens, "attention_mask": mask}
        if "token_type_ids" in self.inputs:
            feeds["token_type_ids"] = np.zeros_like(tokens)
            for index, row in enumerate(types):
                feeds["token_type_ids"][index, :len(row)] = row
        return self._session.run([self._output], feeds)[0], mask

    def close(self) -> None:
        """Free the model."""
        self._session = CLOSED


def finite(found: NDArray[np.float32], path: Path) -> NDArray[np.float32]:
    """`found` as it is; EdgestillError where it holds what is no number, which would look like an answer."""
    if not np.isfinite(found).all():
        raise EdgestillError(f"{path}: the model's outputs are not finite, so they say nothing",
                             "the file is damaged or its numbers overflow: run edgestill verify on it")
    return found


class TextEncoder:
    """A loaded model that reads whole texts at once."""

    def __init__(self, artifact: Artifact, codec: Codec, threads: int = 0) -> None:
        """`threads` 0 means the physical cores. Texts are cut to the artifact's context."""
        from ..machine.cores import allowed_cores

        self.artifact, self.codec = artifact, codec
        self.threads = threads or allowed_cores()
        self._model: Any = None
        self.context: int = artifact.manifest.dimensions.get("context", 0)
        """Most tokens that are read of a text; 0 where that is not known."""
        if self.context:
            codec.tokenizer.enable_truncation(self.context)

    def batches(self, texts: Sequence[Text], batch: int) -> Iterator[tuple[list[int], list[Encoding]]]:
        """The texts in batches, the shortest first: their indices and encodings."""
        if batch < 1:
            raise UsageError(f"batch: {batch} is below the limit 1", "use 1 or more")
        encodings = [self.codec.encoding(text) if isinstance(text, str) else self.codec.encoding(text[0], pair=text[1])
                     for text in texts]
        order = sorted(range(len(texts)), key=lambda index: len(encodings[index].ids))
        for start in range(0, len(order), batch):
            chosen = order[start:start + batch]
            yield chosen, [encodings[index] for index in chosen]

    def whole(self, text: str) -> Encoding:
        """The encoding of a text that is read to its end; ContextError for a longer one."""
        if self.context:
            self.codec.check_length(len(text), self.context)
        found = self.codec.encoding(text)
        if found.overflowing:
            rest = sum(mask.count(0) for mask in (part.special_tokens_mask for part in found.overflowing))
            raise ContextError(f"the text has {len(found.ids) + rest} tokens, the model reads {self.context}",
                               "shorten the text", self.context)
        return found

    def close(self) -> None:
        """Free the model."""
        self._model.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()
