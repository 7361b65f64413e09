"""ONNX exports against torch: the same numbers in float, the promised ones in blocks, the same bytes every time."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgestill.models import family
from edgestill.models.errors import ArtifactError, MissingExtra, UsageError
from edgestill.models.scheme import HALF, Scheme
from edgestill.quantize.grid import codes
from edgestill.quantize.layouts import transformers_js
from edgestill.quantize.onnx import blocks, builder, decoder, half
from edgestill.quantize.onnx import write as onnx_format
from edgestill.quantize.source.checkpoint import Checkpoint
from edgestill.runtime.engines._onnx_engine import OnnxEngine
from numpy.typing import NDArray

from .. import decoders, tiny
from ..onnx_models import LIMIT, distance, encode, graph_file, in_torch, session

Export = Callable[..., Path]
BUILT = [name for name in family.names() if family.load(name).onnx == "builder"]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    made: dict[str, Path] = {}

    def make(model_type: str, **changes: Any) -> Path:
        key = f"{model_type}-{json.dumps(changes, sort_keys=True)}"
        if key not in made:
            folder = tmp_path_factory.mktemp("checkpoint")
            made[key] = tiny.decoder(folder, model_type, **changes)
        return made[key]

    return make


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


def decode(folder: Path, ids: NDArray[np.int64], steps: list[int]) -> NDArray[np.float32]:
    """Logits of `ids` [1, n], fed in pieces of `steps` tokens through the cache."""
    engine = session(folder)
    cache = {each.name: np.zeros((1, each.shape[1], 0, each.shape[3]), np.float32)
             for each in engine.get_inputs() if each.name.startswith("past")}
    names, found, done = [each.name for each in engine.get_outputs()], [], 0
    for step in steps:
        feed = {"input_ids": ids[:, done:done + step], "attention_mask": np.ones((1, done + step), np.int64)}
        out = dict(zip(names, engine.run(names, feed | cache), strict=True))
        found.append(out.pop("logits"))
        cache = {name.replace("present", "past_key_values"): value for name, value in out.items()}
        done += step
    return np.concatenate(found, axis=1)


def expected(source: Path, ids: NDArray[np.int64], change: Callable[[Any], None] = lambda model: None) -> Any:
    import torch

    with torch.no_grad():
        return in_torch(source, change)(torch.tensor(ids)).logits.numpy()


def tokens(count: int = 24) -> NDArray[np.int64]:
    return np.random.default_rng(0).integers(5, 300, (1, count))


def test_embeddings_are_scaled_by_no_rounded_number(tmp_path: Path, export: Export) -> None:
    source, wanted = decoders.make(tmp_path, "gemma3", {"hidden_size": 96})  # 9.797959, which the builder makes 9.8
    found = decode(export(source, "fp32"), np.array([decoders.IDS]), [len(decoders.IDS)])
    assert distance(found[0], wanted) < 1e-4


def test_swapped_queries_and_keys_in_a_graph_are_refused(checkpoint: Any) -> None:
    opened = Checkpoint.open(checkpoint("llama", num_key_value_heads=4))
    swapped = {"q_proj": "k_proj", "k_proj": "q_proj"}

    def wrong(name: str) -> NDArray[np.float32]:
        part = name.split(".")[-2]
        return opened.tensor(name.replace(part, swapped.get(part, part)))

    with builder.built(opened) as built, pytest.raises(ArtifactError, match=r"other numbers in .*qkv_proj"):
        decoder.compress(built.model, opened.family, wrong, 8, encode)


def test_no_weight_of_the_float_graph_stays_mapped(checkpoint: Callable[..., Path]) -> None:
    opened = Checkpoint.open(checkpoint("llama"))
    with builder.built(opened) as built:
        weights = {name: value.const_value for name, value in built.model.graph.initializers.items()
                   if hasattr(value.const_value, "raw")}
        decoder.compress(built.model, opened.family, opened.tensor, 4, encode)
        assert not [name for name, tensor in weights.items() if tensor.raw and name.endswith("MatMul.weight")]
        for tensor in weights.values():
            tensor.numpy()
    assert len(weights) > 10 and not [name for name, tensor in weights.items() if tensor.raw]


def test_a_matrix_of_no_known_layer_is_refused() -> None:
    with pytest.raises(ArtifactError, match="no known layer"):
        decoder.source_names("model.layers.0.moe.router.MatMul.weight", family.load("llama"))


def requantized(bits: int) -> Callable[[Any], None]:
    """Put into a torch model the weights that the export's blocks stand for."""
    import torch

    def change(model: Any) -> None:
        model.lm_head.weight.data = model.lm_head.weight.data.clone()
        for name, module in model.named_modules():
            if isinstance(module, (torch.nn.Linear, torch.nn.Embedding)):
                weight = module.weight.detach().numpy()
                four = bits == 4 and isinstance(module, torch.nn.Linear) and name != "lm_head"
                packed = blocks.eight_bit(weight)
                if four and codes.fits(weight.shape[1]):
                    packed = blocks.four_bit([encode(name, weight)])
                module.weight.data = torch.tensor(blocks.dequantize(packed))

    return change


def at_accuracy(graph: Path, target: Path, level: int) -> Path:
    """The same model with activations of another precision."""
    import onnx

    model = onnx.load(graph)
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                attribute.i = level
    (target / "onnx").mkdir(parents=True)
    onnx.save(model, target / "onnx" / "model.onnx")
    return target


@pytest.mark.parametrize(("family", "type", "changes"), [
    ("llama", "int4", {}), ("llama", "int8", {}), ("qwen3", "int8", {}),
    ("qwen2", "int4", {"tie_word_embeddings": False}),
    ("llama", "int4", {"intermediate_size": 100}),  # rows that are no whole number of blocks keep 8 bits
])
def test_blocks_hold_exactly_the_codes(
        checkpoint: Any, export: Export, tmp_path: Path, family: str, type: str, changes: dict[str, Any]) -> None:
    source, ids = checkpoint(family, **changes), tokens()
    folder = export(source, type)
    wanted = expected(source, ids, requantized(onnx_format.BITS[type]))
    exact = at_accuracy(graph_file(folder), tmp_path, 1)
    assert distance(decode(exact, ids, [24]), wanted) < LIMIT
    assert distance(decode(exact, ids, [10] + [1] * 14), wanted) < LIMIT
    shipped = decode(folder, ids, [24])
    assert np.corrcoef(shipped.ravel(), wanted.ravel())[0, 1] > 0.98  # int8 activations: noise, not another model


@pytest.mark.parametrize(("family", "type", "changes"), [
    ("llama", "int4", {}), ("llama", "int8", {}), ("qwen2", "int4", {"tie_word_embeddings": False}),
    ("gpt_neox", "int8", {}),
    ("llama", "int8", {"intermediate_size": 100})])  # the last block of a row is a part of one
def test_a_graph_of_4_bits_alone_gives_the_same_over_the_same_weights(
        checkpoint: Any, export: Export, tmp_path: Path, family: str, type: str, changes: dict[str, Any]) -> None:
    folder, ids = export(checkpoint(family, **changes), type), tokens()
    direct, older = graph_file(folder), folder / transformers_js.model_file(type)
    assert bits(older) == {4} and 8 in bits(direct)
    assert places(older).items() <= places(direct).items()
    wanted, found = (decode(at_accuracy(graph, tmp_path / graph.stem, 1), ids, [10] + [1] * 14)
                     for graph in (direct, older))
    assert distance(found, wanted) < LIMIT


def test_a_graph_without_blocks_is_for_all(checkpoint: Any, export: Export) -> None:
    folder = export(checkpoint("llama"), "fp32")
    assert [path.name for path in (folder / "onnx").glob("*.onnx")] == ["model.onnx"]


def bits(graph: Path) -> set[int]:
    """What the graph's block products read."""
    import onnx

    nodes = onnx.load(graph, load_external_data=False).graph.node
    return {attribute.i for node in nodes for attribute in node.attribute if attribute.name == "bits"}


def places(graph: Path) -> dict[str, tuple[int, int]]:
    """Offset and length of every tensor outside the graph."""
    import onnx

    model = onnx.load(graph, load_external_data=False)
    facts = {each.name: {entry.key: entry.value for entry in each.external_data} for each in model.graph.initializer}
    return {name: (int(fact["offset"]), int(fact["length"])) for name, fact in facts.items() if fact}


def test_a_tied_table_is_stored_once(checkpoint: Any, export: Export) -> None:
    tied = export(checkpoint("llama"), "int4")
    untied = export(checkpoint("llama", tie_word_embeddings=False), "int4")
    found, other = places(graph_file(tied)), places(graph_file(untied))
    assert found["lm_head.codes"] == found["model.embed_tokens.table"]
    assert found["lm_head.scales"] == found["model.embed_tokens.table.scales"]
    assert other["lm_head.codes"] != other["model.embed_tokens.table"]
    ends = max(offset + length for offset, length in found.values())
    assert (tied / "onnx" / "model_q4.onnx_data").stat().st_size == ends


def test_files_and_names_are_those_that_clients_read(checkpoint: Any, export: Export) -> None:
    source = checkpoint("llama", max_position_embeddings=8192)
    folder = export(source, "int4")
    assert sorted(path.name for path in folder.iterdir()) == ["genai_config.json", "onnx"]
    assert sorted(path.name for path in (folder / "onnx").iterdir()) == [
        "model_genai.onnx", "model_q4.onnx", "model_q4.onnx_data"]
    genai = json.loads((folder / "genai_config.json").read_text())
    assert genai["model"]["decoder"]["filename"] == "onnx/model_genai.onnx"
    assert genai["model"]["context_length"] == 8192 and genai["search"]["max_length"] == 2048
    shapes = {each.name: each.shape for each in session(folder).get_inputs()}
    assert shapes["input_ids"] == ["batch_size", "sequence_length"]
    assert shapes["past_key_values.2.value"] == ["batch_size", 2, "past_sequence_length", 16]
    assert {each.shape[-1] for each in session(folder).get_outputs() if each.name != "logits"} == {16}
    # Two tables of 8,192 positions would take 512 KiB, four times the weights of this model.
    assert sum(path.stat().st_size for path in folder.rglob("*.*")) < 200_000


@pytest.mark.parametrize("name", BUILT)
def test_onnxruntime_genai_generates_what_torch_does(tmp_path: Path, export: Export, name: str) -> None:
    import onnxruntime_genai
    import torch

    source, _ = decoders.make(tmp_path, name, {})
    model = onnxruntime_genai.Model(str(export(source, "fp32")))
    parameters = onnxruntime_genai.GeneratorParams(model)
    parameters.set_search_options(max_length=32, do_sample=False)
    generator = onnxruntime_genai.Generator(model, parameters)
    ids = tokens(8)
    generator.append_tokens(ids)
    while not generator.is_done():
        generator.generate_next_token()
    found = [int(token) for token in generator.get_sequence(0)]
    wanted = in_torch(source).generate(torch.tensor(ids), max_length=32, do_sample=False)[0].tolist()
    assert found == wanted


@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_half_precision_holds_the_codes_of_int4_and_runs_here(
        checkpoint: Any, export: Export, model_type: str, caplog: pytest.LogCaptureFixture) -> None:
    import onnx
    import onnxruntime_genai

    source, ids = checkpoint(model_type), tokens()[0].tolist()
    wide, narrow = export(source, "int4"), export(source, HALF)
    assert (narrow / "onnx" / "model_q4f16.onnx").is_file()
    held = {each.name: onnx.numpy_helper.to_array(each, str(narrow / "onnx"))
            for each in onnx.load(graph_file(narrow), load_external_data=False).graph.initializer}
    for each in onnx.load(graph_file(wide), load_external_data=False).graph.initializer:
        given = onnx.numpy_helper.to_array(each, str(wide / "onnx"))
        if each.name.endswith((".codes", ".scales", ".table")):
            assert np.array_equal(held[each.name], given)  # the scales too: they were float16 numbers
        if given.dtype == np.float32 and not each.name.startswith("rotation"):
            assert held[each.name].dtype == np.float16
    expected = np.array(OnnxEngine(graph_file(wide), wide, 1, 64).logits(ids))
    assert not caplog.records
    engine = OnnxEngine(graph_file(narrow), narrow, 1, 64)
    assert "computes in float16, for WebGPU: slow on CPUs" in caplog.text
    found = np.array(engine.logits(ids))
    assert found.dtype == np.float32 and np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.998
    engine.truncate(0)
    engine.prefill(ids[:10])
    decoded = np.stack([np.array(engine.decode(token)) for token in ids[10:]])
    assert distance(decoded, found[10:]) < 0.05
    engine.close()
    model = onnxruntime_genai.Model(str(narrow))
    parameters = onnxruntime_genai.GeneratorParams(model)
    parameters.set_search_options(max_length=32, do_sample=False)
    generator = onnxruntime_genai.Generator(model, parameters)
    generator.append_tokens(ids)
    generator.generate_next_token()
    assert generator.get_sequence(0)[-1] == found[-1].argmax()


def test_what_float16_cannot_hold_is_refused(checkpoint: Any, tmp_path: Path) -> None:
    import onnx_ir

    with pytest.raises(UsageError, match="linear attention, as in the qwen3_5 family"):
        onnx_format.write(decoders.make(tmp_path, "qwen3_5", {})[0], tmp_path, Scheme("onnx", HALF), encode)
    with builder.built(Checkpoint.open(checkpoint("llama"))) as built:
        weight = built.model.graph.initializers["model.layers.1.mlp.up_proj.MatMul.weight"]
        weight.const_value = onnx_ir.tensor(weight.const_value.numpy() * np.float32(1e7))
        with pytest.raises(ArtifactError, match="more than float16 can"):
            half.halve(built.model)


@pytest.mark.parametrize("type", ["fp32", "int4"])
def test_decoder_bytes_repeat_and_tell_nothing_of_this_machine(
        checkpoint: Any, export: Export, tmp_path: Path, type: str, capfd: pytest.CaptureFixture[str]) -> None:
    source = checkpoint("qwen3")
    first = export(source, type)
    capfd.readouterr()
    onnx_format.write(source, tmp_path, Scheme("onnx", type), encode)
    assert capfd.readouterr().out == ""
    for path in first.rglob("*.*"):
        assert path.read_bytes() == (tmp_path / path.relative_to(first)).read_bytes()
        assert str(source).encode() not in path.read_bytes() and b"site-packages" not in path.read_bytes()


def test_rotation_that_follows_the_length_is_refused(checkpoint: Any, tmp_path: Path) -> None:
    source = checkpoint("llama", rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0})
    with pytest.raises(UsageError, match="rotated in the way 'dynamic'"):
        onnx_format.write(source, tmp_path, Scheme("onnx", "fp32"), encode)


def test_a_family_without_onnx_is_refused(checkpoint: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Checkpoint.open(checkpoint("llama"))
    without = replace(opened, family=replace(opened.family, onnx=None))
    monkeypatch.setattr(onnx_format.Checkpoint, "open", lambda _folder: without)
    with pytest.raises(UsageError, match="llama family has no ONNX export"):
        onnx_format.write(opened.folder, tmp_path, Scheme("onnx", "int8"), encode)


def test_a_missing_package_is_named(checkpoint: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime_genai.models", None)
    with pytest.raises(MissingExtra, match="onnxruntime-genai is not installed"):
        onnx_format.write(checkpoint("llama"), tmp_path, Scheme("onnx", "fp32"), encode)
