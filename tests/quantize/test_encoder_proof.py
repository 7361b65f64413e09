"""Every encoder family against torch through the runtime: classifiers and embedders, padded, longer than any window.

The bound is 5e-3 of the output's standard deviation; a model with queries and keys exchanged lies 100 times as far.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgestill.models import family
from edgestill.models.task import Task
from edgestill.quantize.onnx import encoder, storage
from edgestill.runtime import load
from edgestill.runtime.encoders.encoder import Graph
from numpy.typing import NDArray

from .. import packed, tiny
from ..onnx_models import LIMIT, distance, in_torch

ENCODERS = [name for name in family.names() if family.load(name).onnx == "exporter"]
LAYERS: dict[str, dict[str, int]] = {
    "classify": {"modernbert": 2}, "embed": dict.fromkeys(ENCODERS, 1) | {"modernbert": 2}}
"""By task and family, where they are not two: each takes seconds to trace. ModernBERT's first sees everything, its
second has a window; that layers follow each other right is seen by the classifiers."""
LENGTHS = (1, 7, 60, 33)
"""Tokens of the texts of one batch: windows of the tiny ModernBERT are nine wide."""


def widened(source: Path) -> Path:
    """The model with logits that spread, and with attention that chooses: flat attention is the same exchanged."""
    from safetensors.numpy import load_file, save_file

    weights = load_file(source / "model.safetensors")
    for key in weights:
        if key in ("classifier.weight", "classifier.out_proj.weight"):
            weights[key] *= 12
        elif key.endswith((".query.weight", ".key.weight", ".q_lin.weight", ".k_lin.weight")):
            weights[key] *= 2
    save_file(weights, source / "model.safetensors", {"format": "pt"})
    return source


def in_engine(source: Path, folder: Path, name: str, task: Task,
              target: str = "onnx:fp32") -> tuple[Path, NDArray[np.float32]]:
    artifact = packed.pack(source, folder, target, task, family=name, dimensions={"context": 126, "hidden": 64})
    with load(artifact, threads=1) as model:
        return artifact, output(model, sequences())


def output(model: Any, ids: list[list[int]]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = model.logits(ids) if model.artifact.manifest.task.kind == "classify" else (
        model.vectors(ids))
    return found


def sequences() -> list[list[int]]:
    draw = np.random.default_rng(0)
    return [draw.integers(5, 100, length).tolist() for length in LENGTHS]


def expected(model: Any, task: Task) -> NDArray[np.float32]:
    """One text at a time, without padding."""
    import torch

    rows = []
    for ids in sequences():
        with torch.no_grad():
            found = model(input_ids=torch.tensor([ids]))[0][0]
        if task.kind == "embed":
            found = found[0] if task.pooling == "cls" else found.mean(0)
            found = found / found.norm()
        rows.append(found.numpy())
    return np.stack(rows)


def exchange_queries_and_keys(model: Any) -> None:
    for module in list(model.modules()):
        for query, key in (("query", "key"), ("q_lin", "k_lin")):
            if hasattr(module, query):
                first, second = getattr(module, query), getattr(module, key)
                setattr(module, query, second)
                setattr(module, key, first)
        if hasattr(module, "Wqkv"):
            query, key, value = module.Wqkv.weight.data.chunk(3)
            module.Wqkv.weight.data = query.new_tensor(np.concatenate([key, query, value]))


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("task", [Task("classify", labels=list(tiny.LABELS)), Task("embed", pooling="mean")],
                         ids=lambda task: task.kind)
def test_an_encoder_is_the_float_model(name: str, task: Task, tmp_path: Path) -> None:
    make = tiny.classifier if task.kind == "classify" else tiny.embedder
    key = "n_layers" if name == "distilbert" else "num_hidden_layers"
    source = widened(make(tmp_path / "source", name, **{key: LAYERS[task.kind].get(name, 2)}))
    artifact, found = in_engine(source, tmp_path / "packed", name, task)
    wanted = expected(in_torch(source), task)
    assert task.kind == "embed" or wanted.std() >= 1
    assert distance(found, wanted) < LIMIT
    assert distance(found, expected(in_torch(source, exchange_queries_and_keys), task)) > 100 * LIMIT
    assert distance(in_eight_bits(artifact, tmp_path / "int8.onnx", task), wanted) < 0.4


@pytest.mark.parametrize("name", [name for name in ENCODERS if family.load(name).gguf])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_gguf_encoder_is_the_float_model(name: str, pooling: str, tmp_path: Path) -> None:
    from llama_cpp import Llama

    task = Task("embed", pooling=pooling)
    source = widened(tiny.embedder(tmp_path / "source", name, pooling))
    artifact, found = in_engine(source, tmp_path / "packed", name, task, "gguf:F32")
    assert distance(found, expected(in_torch(source), task)) < LIMIT
    assert distance(found, expected(in_torch(source, exchange_queries_and_keys), task)) > 100 * LIMIT
    with load(artifact, threads=1) as model:
        ours = model.embed(tiny.SENTENCES[0])  # type: ignore[union-attr]
    other = Llama(str(artifact / "model.gguf"), embedding=True, verbose=False, n_threads=1)  # pools as the file says
    np.testing.assert_allclose(other.embed(tiny.SENTENCES[0], normalize=True), ours, atol=1e-5)
    other.close()


def in_eight_bits(artifact: Path, path: Path, task: Task) -> NDArray[np.float32]:
    """The same graph with int8 weights, one text at a time as it is used."""
    import onnx_ir as ir
    from onnx_ir.passes.common import ShapeInferencePass

    model = ir.load(artifact / "onnx" / "model.onnx")
    ShapeInferencePass()(model)  # what is written holds no shapes
    encoder.compress(model)
    storage.save(model, path)
    with load(artifact, threads=1) as whole:
        whole._model = Graph(path, 1, "logits" if task.kind == "classify" else "last_hidden_state")  # type: ignore[union-attr]
        return np.concatenate([output(whole, [ids]) for ids in sequences()])
