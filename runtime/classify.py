"""Labels from an ONNX encoder: one forward pass, calibrated probabilities."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..models.errors import ArtifactError, UsageError

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

    from ..models.artifact import Artifact
    from .text import Codec


@dataclass(frozen=True)
class Classification:
    """The likeliest label of a text."""

    label: str
    probability: float
    probabilities: dict[str, float]
    truncated: bool = False
    """Whether the text was longer than the model can read and its end was left out."""


class Classifier:
    """A loaded encoder with a classification head."""

    def __init__(self, artifact: Artifact, codec: Codec, threads: int = 0) -> None:
        """Load the graph; `threads` 0 means the physical cores.

        Raises ArtifactError when the graph is no classifier, or has another number of labels than the task.
        """
        from .engines.onnx import session
        from .threads import allowed_cores

        self.artifact, self.codec = artifact, codec
        self.threads = threads or allowed_cores()
        self._session = session(artifact.model_path, self.threads)
        self._inputs = {item.name for item in self._session.get_inputs()}
        outputs = {item.name: item.shape for item in self._session.get_outputs()}
        known = {"input_ids", "attention_mask", "token_type_ids"}
        if not {"input_ids", "attention_mask"} <= self._inputs <= known or "logits" not in outputs:
            raise ArtifactError(
                f"{artifact.model_path}: no classifier graph (inputs {sorted(self._inputs)}, "
                f"outputs {sorted(outputs)})",
                "export the classifier with edgestill export --to onnx:int8")
        self.labels = list(artifact.manifest.task.labels) or _labels(artifact.folder)
        given = outputs["logits"][-1]
        if isinstance(given, int) and given != len(self.labels):
            raise ArtifactError(f"{artifact.model_path}: {given} labels, the task has {len(self.labels)}",
                                "export the classifier again")
        self._temperature = float(artifact.manifest.settings.get("temperature", 1.0))
        length = artifact.manifest.dimensions.get("context")
        if length:
            codec.tokenizer.enable_truncation(length)

    def classify(self, text: str) -> Classification:
        """The label of one text."""
        return self.classify_all([text])[0]

    def classify_all(self, texts: Sequence[str], batch: int = 1) -> list[Classification]:
        """The labels of texts, in their order.

        Larger batches are faster on many cores, with texts of like length together. In an int8 graph the scale of
        the activations spans the batch, so probabilities then differ slightly from those of each text by itself.
        """
        if batch < 1:
            raise UsageError(f"batch: {batch} is below the limit 1", "use 1 or more")
        encodings = [self.codec.encoding(text) for text in texts]
        order = sorted(range(len(texts)), key=lambda index: len(encodings[index].ids))
        found: dict[int, Classification] = {}
        for start in range(0, len(order), batch):
            chosen = order[start:start + batch]
            probabilities = self._probabilities([encodings[index].ids for index in chosen])
            for index, row in zip(chosen, probabilities, strict=True):
                found[index] = self._classification(row, bool(encodings[index].overflowing))
        return [found[index] for index in range(len(texts))]

    def logits(self, ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Logits [n, labels] of a batch of token ids, padded to the longest."""
        length = max(len(row) for row in ids)
        tokens = np.full((len(ids), length), self.codec.pad_id or 0, np.int64)
        mask = np.zeros((len(ids), length), np.int64)
        for index, row in enumerate(ids):
            tokens[index, :len(row)] = row
            mask[index, :len(row)] = 1
        feeds = {"input_ids": tokens, "attention_mask": mask}
        if "token_type_ids" in self._inputs:
            feeds["token_type_ids"] = np.zeros_like(tokens)
        result: NDArray[np.float32] = self._session.run(["logits"], feeds)[0]
        return result

    def close(self) -> None:
        """Free the model."""
        del self._session

    def __enter__(self) -> Classifier:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def _probabilities(self, ids: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        scores = self.logits(ids).astype(np.float64) / self._temperature
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        probabilities: NDArray[np.float64] = scores / scores.sum(axis=1, keepdims=True)
        return probabilities

    def _classification(self, row: NDArray[np.float64], truncated: bool) -> Classification:
        best = int(row.argmax())
        return Classification(self.labels[best], float(row[best]),
                              {label: float(value) for label, value in zip(self.labels, row, strict=True)}, truncated)


def _labels(folder: Path) -> list[str]:
    """Labels of a model whose task names none: those of its config.json, in the order of their ids."""
    path = folder / "config.json"
    table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    names = table.get("id2label") or {}
    if not names:
        raise ArtifactError(f"{folder}: neither the task nor config.json names labels", "export the classifier again")
    return [str(names[key]) for key in sorted(names, key=int)]
