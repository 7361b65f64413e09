"""Classifiers against torch: probabilities, batches, truncation, faults."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgestill.models.errors import ArtifactError, EdgestillError, UsageError
from edgestill.runtime import load
from edgestill.runtime.encoders.classifier import Classifier

from .. import packed
from ..tiny import SENTENCES

TEXTS = SENTENCES[:8]


@pytest.fixture(scope="module")
def model(packed_bert: Path) -> Iterator[Classifier]:
    with load(packed_bert, threads=1) as one:
        assert isinstance(one, Classifier)
        yield one


def torch_probabilities(folder: Path, text: str) -> Any:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    inputs = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt", truncation=True, max_length=24)
    with torch.no_grad():
        return torch.softmax(model(**inputs).logits[0] / 2.0, -1).numpy()  # the artifact's temperature is 2


def test_probabilities_are_those_of_torch(model: Classifier, tiny_bert: Path) -> None:
    for text in [*TEXTS, "", "turn off the light " * 20]:
        found, wanted = model.classify(text), torch_probabilities(tiny_bert, text)
        np.testing.assert_allclose(list(found.probabilities.values()), wanted, atol=1e-4)
        assert found.label == model.labels[int(wanted.argmax())]
        assert found.probability == max(found.probabilities.values())
        assert found.truncated == (len(text) > 100)


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_batches_answer_in_order(batch: int, model: Classifier) -> None:
    single = [model.classify(text) for text in TEXTS]
    for one, other in zip(single, model.classify_all(TEXTS, batch=batch), strict=True):
        assert one.label == other.label
        np.testing.assert_allclose(list(one.probabilities.values()), list(other.probabilities.values()), atol=1e-5)
    assert model.classify_all([]) == []


def test_labels_come_from_the_config_where_the_task_names_none(packed_bert: Path, tmp_path: Path) -> None:
    folder = changed(packed_bert, tmp_path / "model", task={"kind": "classify"})
    with load(folder) as model:
        assert model.labels == ["light", "music", "weather"]  # type: ignore[union-attr]
    (folder / "config.json").write_text("{}")
    packed.resealed(folder)
    with pytest.raises(ArtifactError, match="names no labels"):
        load(folder, check_hashes=False)


def test_wrong_artifacts_are_refused(packed_bert: Path, packed_llama: dict[str, Path], tmp_path: Path,
                                     model: Classifier) -> None:
    with pytest.raises(ArtifactError, match="3 labels, the task has 2"):
        load(changed(packed_bert, tmp_path / "two", task={"kind": "classify", "labels": ["a", "b"]}))
    with pytest.raises(ArtifactError, match="no encoder graph with the output 'logits'"):
        load(changed(packed_llama["onnx"], tmp_path / "decoder", task={"kind": "classify", "labels": ["a", "b"]}))
    with pytest.raises(UsageError, match="batch: 0"):
        model.classify_all(TEXTS, batch=0)


def changed(source: Path, folder: Path, **changes: Any) -> Path:
    shutil.copytree(source, folder)
    return packed.resealed(folder, **changes)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_outputs_that_are_no_numbers_are_no_answer(value: float, packed_bert: Path, packed_vectors: Path,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    """The first label was given, and a vector of nothing."""
    for path, verb in ((packed_bert, "classify"), (packed_vectors, "embed")):
        with load(path, threads=1) as one:
            run = one._model.run  # type: ignore[union-attr]
            monkeypatch.setattr(one._model, "run", lambda *given, run=run: (run(*given)[0] * np.float32(value), *run(
                *given)[1:]))  # type: ignore[union-attr]
            with pytest.raises(EdgestillError, match="not finite") as caught:
                getattr(one, verb)("hello")
            assert str(path) in caught.value.message and "edgestill verify" in caught.value.hint
