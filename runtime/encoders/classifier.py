"""What an ONNX encoder says of texts: labels with calibrated probabilities, or scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ...models.errors import ArtifactError
from ..files.model_files import classifier_config, read_table
from .encoder import Graph, Text, TextEncoder, finite
from .head import Classification, Head

if TYPE_CHECKING:

    import numpy as np
    from numpy.typing import NDArray

    from ...models.artifact import Artifact
    from ..text.codec import Codec

__all__ = ["Classification", "Classifier"]


def head_of(artifact: Artifact, outputs: int | None = None) -> Head | None:
    """How an artifact's logits become answers; None for one that does not classify. `outputs` is their number, where
    the graph says it. Raises what `Head.of` raises, naming the model."""
    manifest = artifact.manifest
    if manifest.task.kind != "classify":
        return None
    try:
        return Head.of(manifest.task, classifier_config(artifact.folder), outputs,
                       float(manifest.settings.get("temperature", 1.0)))
    except ArtifactError as error:
        raise ArtifactError(f"{artifact.model_path}: {error.message}", error.hint) from error


class Classifier(TextEncoder):
    """A loaded encoder with a classification head."""

    def __init__(self, artifact: Artifact, codec: Codec, threads: int = 0) -> None:
        """Load the graph; `threads` 0 means the physical cores.

        Raises ArtifactError when the graph is no classifier, or has another number of outputs than the task labels, and
        what `Head.of` raises.
        """
        super().__init__(artifact, codec, threads)
        self._model = Graph(artifact.model_path, self.threads, "logits")
        head = head_of(artifact, self._model.width)
        assert head is not None  # whoever loads a classifier has looked at its task
        self.head = head
        self.labels = list(self.head.labels)
        self.on_answer: Callable[[Text, Classification], object] | None = None
        """Called with what `classify` is asked and says."""
        segments = int(read_table(artifact.folder / "config.json").get("type_vocab_size") or 0)
        self._deaf = segments > 1 and "token_type_ids" not in self._model.inputs

    def classify(self, text: Text) -> Classification:
        """What the model says of one text, or of a pair of texts."""
        found = self.classify_all([text])[0]
        if self.on_answer is not None:
            self.on_answer(text, found)
        return found

    def classify_all(self, texts: Sequence[Text], batch: int = 1) -> list[Classification]:
        """What it says of each text, in their order.

        Larger batches are faster on many cores, with texts of like length together. In an int8 graph the scale of
        the activations spans the batch, so numbers then differ slightly from those of each text by itself.
        """
        found: dict[int, Classification] = {}
        for chosen, encodings in self.batches(texts, batch):
            logits = self.logits([encoding.ids for encoding in encodings],
                                 [encoding.type_ids for encoding in encodings])
            for index, encoding, row in zip(chosen, encodings, logits, strict=True):
                found[index] = self.head.classification(row, bool(encoding.overflowing))
        return [found[index] for index in range(len(texts))]

    def logits(self, ids: Sequence[Sequence[int]], types: Sequence[Sequence[int]] = ()) -> NDArray[np.float32]:
        """Logits [n, outputs] of a batch of token ids, padded to the longest; `types` as in `Graph.run`.

        Raises ArtifactError for a pair of texts where the model tells them apart and its graph takes no types, and
        EdgestillError for outputs that are no numbers.
        """
        if self._deaf and any(map(any, types)):
            raise ArtifactError(f"{self.artifact.model_path}: the model tells the texts of a pair apart, and its graph "
                                "has no input token_type_ids", "export the model again, or give single texts")
        return finite(self._model.run(ids, self.codec.pad_id or 0, types)[0], self.artifact.model_path)
