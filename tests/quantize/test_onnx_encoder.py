"""ONNX exports of encoder classifiers against torch, in every shape, and what int8 does to size and numbers."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from edgestill.models.errors import MissingExtra, UsageError
from edgestill.models.scheme import Scheme
from edgestill.quantize.onnx import write as onnx_format
from edgestill.quantize.onnx.rewrite import matmul_int8
from numpy.typing import NDArray

from .. import tiny
from ..onnx_models import LIMIT, distance, encode, graph_file, in_torch, session

Export = Callable[[Path, str], Path]


@pytest.fixture(scope="session")
def classifiers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    import safetensors.numpy

    made = {name: tiny.classifier(tmp_path_factory.mktemp("classifier"), name) for name in ("bert", "distilbert")}
    weights = safetensors.numpy.load_file(made["distilbert"] / "model.safetensors")
    weights["classifier.bias"][:] = 0  # as in a fresh head: tracing leaves such a bias out
    safetensors.numpy.save_file(weights, made["distilbert"] / "model.safetensors", {"format": "pt"})
    return made


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory) -> Export:
    made: dict[tuple[Path, str], Path] = {}

    def make(source: Path, type: str) -> Path:
        if (source, type) not in made:
            folder = tmp_path_factory.mktemp("onnx")
            assert folder / onnx_format.write(source, folder, Scheme("onnx", type), encode) == graph_file(folder)
            made[source, type] = folder
        return made[source, type]

    return make


def texts(segments: bool, batch: int, length: int) -> dict[str, NDArray[np.int64]]:
    ids = np.random.default_rng(length).integers(5, 100, (batch, length))
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    feed["attention_mask"][0, length // 2 + 1:] = 0
    return feed | ({"token_type_ids": np.zeros_like(ids)} if segments else {})


@pytest.mark.parametrize(("family", "type", "limit"), [("bert", "fp32", LIMIT), ("bert", "int8", 0.25),
                                                       ("distilbert", "fp32", LIMIT), ("distilbert", "int8", 0.25)])
def test_encoders_agree_with_torch(
        classifiers: dict[str, Path], export: Export, family: str, type: str, limit: float) -> None:
    import torch

    source = classifiers[family]
    engine, model = session(export(source, type)), in_torch(source)
    assert [each.name for each in engine.get_outputs()] == ["logits"]
    assert {tuple(each.shape) for each in engine.get_inputs()} == {("batch_size", "sequence_length")}
    for batch, length in ((1, 1), (1, 7), (3, 7), (3, 40)):
        feed = texts(family == "bert", batch, length)
        with torch.no_grad():
            wanted = model(**{name: torch.tensor(value) for name, value in feed.items()}).logits.numpy()
        assert distance(engine.run(None, feed)[0], wanted) < limit


def test_int8_encoders_hold_no_large_float_tensor(classifiers: dict[str, Path], export: Export) -> None:
    import onnx

    folder = export(classifiers["bert"], "int8")
    assert [path.relative_to(folder).as_posix() for path in folder.rglob("*.*")] == ["onnx/model_quantized.onnx"]
    model = onnx.load(graph_file(folder))
    floats = {each.name: int(np.prod(each.dims)) for each in model.graph.initializer if each.data_type == 1}
    assert {name: size for name, size in floats.items() if size > 1000} == {}
    operators = {node.op_type for node in model.graph.node}
    assert "MultiHeadAttention" in operators and not operators & {"Transpose", "MatMul", "Gemm"}


@pytest.mark.usefixtures("untraced")
def test_encoder_bytes_repeat_and_tell_nothing_of_this_machine(
        classifiers: dict[str, Path], export: Export, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = classifiers["bert"]
    first = export(source, "fp32")
    capfd.readouterr()
    onnx_format.write(source, tmp_path, Scheme("onnx", "fp32"), encode)
    assert capfd.readouterr().out == ""
    content = graph_file(tmp_path).read_bytes()
    repeated = content == graph_file(first).read_bytes()
    assert repeated, "pytest would compare them for minutes"
    assert b"site-packages" not in content and b"File \"" not in content


def test_int8_encoder_bytes_repeat(classifiers: dict[str, Path], export: Export, tmp_path: Path) -> None:
    onnx_format.write(classifiers["bert"], tmp_path, Scheme("onnx", "int8"), encode)
    repeated = graph_file(tmp_path).read_bytes() == graph_file(export(classifiers["bert"], "int8")).read_bytes()
    assert repeated


def test_four_bit_encoders_are_refused(classifiers: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="slower than int8"):
        onnx_format.write(classifiers["bert"], tmp_path, Scheme("onnx", "int4"), encode)


def test_an_encoder_that_looks_back_only_is_carried(tmp_path: Path) -> None:
    import torch

    source = tiny.classifier(tmp_path / "causal", "bert")
    config = json.loads((source / "config.json").read_text()) | {"is_decoder": True, "use_cache": False}
    (source / "config.json").write_text(json.dumps(config))
    onnx_format.write(source, tmp_path, Scheme("onnx", "fp32"), encode)
    feed = texts(True, 2, 9)
    with torch.no_grad():
        wanted = in_torch(source)(**{name: torch.tensor(value) for name, value in feed.items()}).logits.numpy()
    assert distance(session(tmp_path).run(None, feed)[0], wanted) < LIMIT


@pytest.mark.usefixtures("untraced")
def test_a_missing_package_is_named(
        classifiers: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtra, match="onnxscript is not installed"):
        onnx_format.write(classifiers["bert"], tmp_path, Scheme("onnx", "int8"), encode)


def test_large_products_do_not_saturate() -> None:
    import onnx
    import onnx_ir as ir
    import onnxruntime

    weight = np.full((64, 8), 1.0, np.float32)  # every product of two bytes is as large as it can be
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"], name="product")], "graph",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 64])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 8])],
        [onnx.numpy_helper.from_array(weight, "w")])
    model = ir.serde.deserialize_model(onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10))
    matmul_int8(model.graph, next(iter(model.graph)), "product", weight)
    engine = onnxruntime.InferenceSession(ir.serde.serialize_model(model).SerializeToString(),
                                          providers=["CPUExecutionProvider"])
    found = engine.run(None, {"x": np.full((1, 64), 2.0, np.float32)})[0]
    assert found == pytest.approx(np.full((1, 8), 128.0), rel=1e-5)
