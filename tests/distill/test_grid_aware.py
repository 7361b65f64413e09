"""Training on the grid: the torch twin bit for bit, a start that is kept exactly, files that hold what training saw."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edgestill.cli import main
from edgestill.cli.pipeline import plan as stages
from edgestill.distill import grid_aware
from edgestill.distill.loading import load_model
from edgestill.distill.training import loop, machine
from edgestill.distill.training.grid import Grid, half_scales, places_of, steps
from edgestill.models import kinds, runfile
from edgestill.models.artifact import open_artifact
from edgestill.models.errors import DataError, UsageError
from edgestill.models.runfile import Export
from edgestill.models.task import Task
from edgestill.quantize import export
from edgestill.quantize.gguf.tensors import plan
from edgestill.quantize.gguf.weight_changes import ORDERS
from edgestill.quantize.grid.codes import Codes, choose, dequantize, exact, from_bytes
from edgestill.quantize.grid.encode import encoder
from edgestill.quantize.onnx import blocks
from edgestill.quantize.source.checkpoint import Checkpoint
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from .. import proving, tiny

HALVES = st.floats(width=16, allow_nan=False, allow_infinity=False)
RUN = """
[task]
max_new_tokens = 12
[data]
train = "train.jsonl"
validation = "validation.jsonl"
max_tokens = 64
[student]
model = "student"
[grid_aware]
steps = 12
batch_size = 8
learning_rate = 0.02
evaluate_every = 4
starts = [{kind = "rtn"}]
"""


def same_bits(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def on_grid(values: NDArray[np.uint8], scales: list[float]) -> NDArray[np.float32]:
    return dequantize(Codes(values, np.array(scales, np.float16)[:, None]))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    """A folder with rows, a float student and a run file."""
    folder = tmp_path_factory.mktemp("grid")
    shutil.copytree(tiny_llama, folder / "student")
    rows = [{"prompt": f"turn {state} the {room} {thing}", "completion": f'{{"{thing}":"{state}"}}'}
            for room in ("kitchen", "bedroom", "office", "garage") for thing in ("light", "fan", "heater", "radio")
            for state in ("on", "off")]
    for name, chosen in (("train", rows[:24]), ("validation", rows[24:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chosen))
    (folder / "run.toml").write_text(RUN)
    return folder


@pytest.fixture(scope="module")
def taught(home: Path) -> Path:
    return grid_aware(home / "run.toml", home / "taught")


def weights(folder: Path) -> dict[str, NDArray[np.float32]]:
    checkpoint = Checkpoint.open(folder)
    return {name: checkpoint.tensor(name) for name in checkpoint.entries}


def told(folder: Path) -> dict[str, Any]:
    return dict(open_artifact(folder).manifest.settings["grid_aware"])


@given(st.lists(st.one_of(st.floats(-9, 9, width=32), st.sampled_from([-8.5, -0.5, 0.5, 7.5, 0.0, -0.0, 1e30, -1e30])),
                min_size=32, max_size=32))
def test_the_torch_twin_chooses_the_codes_of_the_grid(values: list[float]) -> None:
    block = np.array(values, np.float32)
    wanted = choose(block[None], np.ones(1, np.float32))[0].astype(np.float32) - 8
    assert same_bits(steps(torch.from_numpy(block)).numpy(), wanted)


@given(st.lists(HALVES, min_size=4, max_size=4), st.lists(st.floats(-1, 1, width=32), min_size=4, max_size=4))
def test_the_torch_twin_rounds_scales_as_numpy_does(scales: list[float], growth: list[float]) -> None:
    wide = np.array(scales, np.float32)
    grown = np.clip(wide * (np.float32(1) + np.array(growth, np.float32) / np.float32(8)), -65504, 65504)
    assert same_bits(half_scales(torch.from_numpy(wide), torch.tensor(growth)).numpy(),
                     grown.astype(np.float16).astype(np.float32))
    assert same_bits(half_scales(torch.from_numpy(wide), torch.zeros(4)).numpy(), wide)


@given(st.lists(st.integers(0, 15), min_size=64, max_size=64), st.lists(HALVES, min_size=2, max_size=2))
def test_what_stands_on_the_grid_is_found_bit_for_bit_and_every_method_leaves_it(
        values: list[int], scales: list[float]) -> None:
    weight = on_grid(np.array(values, np.uint8).reshape(2, 32), scales)
    found = exact(weight)
    assert found is not None and np.array_equal(dequantize(found), weight)
    again = exact(dequantize(found))
    assert again is not None and same_bits(again.values, found.values) and same_bits(again.scales, found.scales)
    for name in kinds.names("quantize.methods"):
        kept = encoder({"kind": name}, None)("layer", weight)
        assert same_bits(kept.values, found.values) and same_bits(kept.scales, found.scales)


def test_a_float_weight_is_not_taken_for_one_on_the_grid() -> None:
    weight = on_grid(np.arange(64, dtype=np.uint8).reshape(2, 32) % 16, [0.01, -0.5])
    weight[1, 31] = np.nextafter(weight[1, 31], np.float32(9))
    assert exact(weight) is None and exact(np.zeros((2, 48), np.float32)) is None
    assert exact(np.full((1, 32), 1e6, np.float32)) is None  # its scale is above float16's limit


def test_training_starts_exactly_where_a_method_ended_even_with_codes_that_are_not_the_nearest(
        tiny_llama: Path) -> None:
    model, random = load_model(tiny_llama, Task()), np.random.default_rng(0)
    name = "model.layers.0.self_attn.q_proj.weight"
    weight = model.get_parameter(name).detach().numpy().copy()
    codes = encoder({"kind": "scale_search"}, None)(name, weight)
    shifted = np.clip(codes.values.astype(int) + random.integers(-1, 2, codes.values.shape), 0, 15).astype(np.uint8)
    grid = Grid(model, {name: False})
    for wanted in (codes, Codes(shifted, codes.scales)):
        grid.start({name: wanted}, lambda _: weight)
        model(input_ids=torch.tensor([[1, 2, 3]]))
        assert same_bits(model.model.layers[0].self_attn.q_proj.weight.detach().numpy(), dequantize(wanted))
        assert np.array_equal(dequantize(grid.codes(name)), dequantize(wanted))
    assert same_bits(grid.merge().get_parameter(name).detach().numpy(), dequantize(exact(dequantize(wanted))))
    assert name in dict(model.named_parameters()) and not any("places" in each for each, _ in model.named_parameters())


def test_places_stay_within_half_a_step_and_stand_still_where_the_scale_is_zero() -> None:
    codes = Codes(np.full((1, 32), 9, np.uint8), np.zeros((1, 1), np.float16))
    assert (places_of(np.ones((1, 32), np.float32), codes) == 1).all()
    far = places_of(np.full((1, 32), 100, np.float32), Codes(codes.values, np.ones((1, 1), np.float16)))
    assert (far < 1.5).all() and (steps(torch.from_numpy(far)) == 1).all()


def test_gradients_are_those_of_the_weights_straight_through(tiny_llama: Path) -> None:
    model = load_model(tiny_llama, Task())
    name = "model.layers.1.mlp.up_proj.weight"
    weight = model.get_parameter(name).detach().numpy().copy()
    codes = encoder({"kind": "rtn"}, None)(name, weight)
    grid = Grid(model, {name: False})
    grid.start({name: codes}, lambda _: weight)
    layer = model.model.layers[1].mlp.up_proj
    grid._fill(None, None)
    pull = torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(0))
    (layer.weight * pull).sum().backward()
    scales = torch.from_numpy(np.repeat(codes.scales.astype(np.float32), 32, axis=1))
    taken = torch.from_numpy(codes.values.astype(np.float32) - 8)
    assert torch.equal(layer.places.grad, pull * scales)
    assert torch.allclose(layer.growth.grad, (pull * taken * scales / 8).view(*codes.scales.shape, 32).sum(-1))


def test_the_kl_falls_and_the_manifest_says_from_where_to_where(taught: Path, home: Path) -> None:
    facts, manifest = told(taught), open_artifact(taught).manifest
    assert facts["kl_nats"] < 0.8 * facts["start_kl_nats"] and facts["start"] == {"kind": "rtn"}
    assert facts["kept"].startswith("step ") and facts["held_out_tokens"] > 100
    assert {"student", "data"} <= {parent["role"] for parent in manifest.parents} and manifest.stage == "grid_aware"
    assert manifest.checks["validation"]["loss"] == facts["kl_nats"]


def test_exports_by_any_method_hold_what_training_saw(taught: Path, home: Path) -> None:
    made = export(taught, [Export("gguf:Q4_0", method={"kind": "rtn"}), "onnx:int4"], home / "packed", proving.ROWS)
    trained, checkpoint = weights(taught), Checkpoint.open(taught)
    four_bit = {tensor.name: tensor for tensor in plan(checkpoint, "Q4_0")[0] if tensor.type == "Q4_0"}
    assert len(four_bit) == 7 * 3
    _gguf_holds(open_artifact(made["gguf:Q4_0"]).model_path, trained, four_bit)
    _onnx_holds(open_artifact(made["onnx:int4"]).model_path, trained, [each.source for each in four_bit.values()])
    for folder in made.values():
        manifest = open_artifact(folder).manifest
        assert manifest.settings["grid_aware"] == told(taught) and manifest.checks["kl_nats"]["value"] < 0.01


def _gguf_holds(path: Path, trained: dict[str, NDArray[np.float32]], four_bit: dict[str, Any]) -> None:
    from gguf import GGUFReader, quants

    tensors = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    for name, planned in four_bit.items():
        weight = trained[planned.source]
        if planned.change:
            weight = weight[ORDERS[planned.change](len(weight), len(weight) // 16)]
        wanted, found = exact(weight), from_bytes(tensors[name].data)
        assert wanted is not None and same_bits(found.values, wanted.values) and same_bits(found.scales, wanted.scales)
        assert same_bits(quants.dequantize(tensors[name].data, tensors[name].tensor_type), weight)
    embedding = tensors["token_embd.weight"]
    assert embedding.tensor_type.name == "Q8_0"
    assert same_bits(quants.dequantize(embedding.data, embedding.tensor_type), trained["model.embed_tokens.weight"])


def _onnx_holds(path: Path, trained: dict[str, NDArray[np.float32]], names: list[str]) -> None:
    import onnx

    graph = onnx.load(path).graph
    arrays = {each.name: onnx.numpy_helper.to_array(each, str(path.parent)) for each in graph.initializer}
    rows: set[bytes] = set()
    for node in graph.node:
        if node.op_type == "MatMulNBits":
            given = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
            packed = arrays[node.input[1]].reshape(given["N"], -1, 4 * given["bits"])
            held = blocks.Blocks(packed, arrays[node.input[2]].reshape(given["N"], -1), given["bits"], given["K"])
            rows |= {row.tobytes() for row in blocks.dequantize(held)}
    assert all(row.tobytes() in rows for name in [*names, "model.embed_tokens.weight"] for row in trained[name])


def test_what_no_grid_holds_and_the_head_stay_as_they_were(taught: Path, home: Path) -> None:
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(taught).state_dict()
    before = weights(home / "student")["model.embed_tokens.weight"]
    stored = blocks.dequantize(blocks.eight_bit(before))
    assert same_bits(loaded["model.embed_tokens.weight"].numpy(), stored)
    assert same_bits(blocks.dequantize(blocks.eight_bit(stored)), stored)
    assert not torch.equal(loaded["model.norm.weight"], torch.ones(64)), "vectors are trained in float"


def test_a_start_that_training_does_not_better_is_kept(home: Path) -> None:
    out = grid_aware(home / "run.toml", home / "wild", ["grid_aware.learning_rate=1.0", "grid_aware.steps=4",
                                                        "grid_aware.clip=0.0", "grid_aware.warmup=0.0"])
    facts = told(out)
    assert facts["kept"].startswith("the start") and facts["kl_nats"] == facts["start_kl_nats"]
    encode, before = encoder({"kind": "rtn"}, None), weights(home / "student")
    for name, weight in weights(out).items():
        if name.endswith("_proj.weight"):
            assert np.array_equal(weight, dequantize(encode(name, before[name])))


def test_of_several_starts_the_one_with_the_least_kl_is_taken(home: Path) -> None:
    kls = {}
    for starts in (["rtn"], ["scale_search"], ["rtn", "scale_search"]):
        tables = ", ".join(f"{{kind = '{name}'}}" for name in starts)
        out = grid_aware(home / "run.toml", home / "-".join(starts), ["grid_aware.steps=0", "grid_aware.epochs=0",
                                                                      f"grid_aware.starts=[{tables}]"])
        kls["-".join(starts)] = told(out)["start_kl_nats"]
    assert kls["rtn-scale_search"] == min(kls["rtn"], kls["scale_search"]) and kls["rtn"] != kls["scale_search"]


def test_long_rows_recompute_layers_and_learn_the_same(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recompute, settings = machine.recompute_layers, ["grid_aware.micro_batch_tokens=8", "grid_aware.steps=4"]

    def noted(model: Any, *sizes: int) -> None:
        recompute(model, *sizes)
        assert model.is_gradient_checkpointing

    monkeypatch.setattr(machine, "recompute_layers", noted)
    again = weights(grid_aware(home / "run.toml", home / "again", settings))
    monkeypatch.setattr(machine, "recompute_layers", lambda *_: None)
    held = weights(grid_aware(home / "run.toml", home / "held", settings))
    assert told(home / "again")["kept"] != "the start: training did not better it"
    assert all(same_bits(again[name], held[name]) for name in held)


@pytest.mark.parametrize("damage", [False, True])
def test_a_run_that_was_cut_ends_with_the_same_weights(
        home: Path, taught: Path, monkeypatch: pytest.MonkeyPatch, damage: bool) -> None:
    asked = []

    def cut(*arguments: Any) -> float:
        asked.append(arguments)
        if len(asked) == 7:
            raise KeyboardInterrupt
        return rate(*arguments)

    rate, out = loop.learning_rate, home / f"cut-{damage}"
    monkeypatch.setattr(loop, "learning_rate", cut)
    given = ["grid_aware.checkpoint_seconds=0.0"]
    with pytest.raises(KeyboardInterrupt):
        grid_aware(home / "run.toml", out, given)
    start = out.with_name(out.name + ".work") / "start.safetensors"
    assert start.is_file()
    if damage:
        start.write_bytes(start.read_bytes()[:-1])
    assert grid_aware(home / "run.toml", out, given) == out and len(asked) == 7 + 6
    one, other = weights(out), weights(taught)
    assert all(same_bits(one[name], other[name]) for name in other)


def test_tensors_that_no_block_fits_are_rounded_as_the_file_does(home: Path, tmp_path: Path) -> None:
    tiny.decoder(home / "narrow", "llama", intermediate_size=144)
    out = grid_aware(home / "run.toml", tmp_path / "narrow", ["student.model=narrow", "grid_aware.steps=1"])
    before, after = weights(home / "narrow"), weights(out)
    for name in after:
        if name.endswith("down_proj.weight"):
            assert same_bits(before[name].astype(np.float16).astype(np.float32), after[name])
        elif name.endswith("_proj.weight"):
            assert exact(after[name]) is not None
    tiny.decoder(home / "slim", "llama", hidden_size=48, head_dim=8, intermediate_size=144, num_attention_heads=6)
    with pytest.raises(UsageError, match="no tensor has rows of a whole number of blocks"):
        grid_aware(home / "run.toml", tmp_path / "slim", ["student.model=slim"])


def test_transposed_layers_stand_on_the_grid_of_their_rows(home: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = tiny.decoder(home / "gpt2", "gpt2") / "model.safetensors"
    # As the hub has it: without what transformers puts before every name.
    save_file({name.removeprefix("transformer."): value for name, value in load_file(path).items()}, path,
              {"format": "pt"})
    out = grid_aware(home / "run.toml", tmp_path / "gpt2", ["student.model=gpt2", "grid_aware.steps=2"])
    trained = weights(out)
    assert all(exact(np.ascontiguousarray(value.T)) is not None
               for name, value in trained.items() if name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")))
    assert told(out)["kl_nats"] <= told(out)["start_kl_nats"]


@pytest.mark.parametrize(("override", "error", "message"), [
    ("task.kind=classify", (UsageError, DataError), "row|decoders"),
    ("grid_aware.starts=[]", UsageError, "no method is given"),
    ("grid_aware.starts=[{kind='rtm'}]", UsageError, "did you mean 'rtn'"),
    ("grid_aware.adapter={kind='lora'}", UsageError, "adapter: unknown key"),
    ("grid_aware.learning_rate=-1.0", UsageError, "below the limit"),
])
def test_what_cannot_be_followed_is_refused_before_weights_load(
        home: Path, tmp_path: Path, override: str, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        grid_aware(home / "run.toml", tmp_path / "out", [override])


def test_no_validation_rows_is_an_error(home: Path, tmp_path: Path) -> None:
    (home / "none.toml").write_text(RUN.replace('validation = "validation.jsonl"', "validation_share = 0.0"))
    with pytest.raises(UsageError, match="no validation rows"):
        grid_aware(home / "none.toml", tmp_path / "out")
    (home / "share.toml").write_text(RUN.replace('validation = "validation.jsonl"', "validation_share = 0.25"))
    runfile.check_grid_aware(runfile.read(home / "share.toml"))


def test_distill_without_a_teacher_teaches_the_grid(
        home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["distill", str(home / "run.toml"), "-o", str(tmp_path / "out"), "--set", "grid_aware.steps=1"]
    assert main.call(given) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "out")
    assert open_artifact(tmp_path / "out").manifest.stage == "grid_aware"


def test_a_run_exports_four_bits_from_the_grid_and_all_else_from_the_float_student(
        home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "whole.toml").write_text(RUN + "".join(
        f'[[export]]\ntarget = "{target}"\n' for target in ("gguf:Q4_0", "gguf:Q8_0", "onnx:int4")))
    assert main.call(["run", str(home / "whole.toml"), "-o", str(tmp_path / "out"), "--dry-run", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert "teach the student its 4-bit grid" in [stage["name"] for stage in shown["stages"]]
    from edgestill.cli.pipeline import resolve

    made = stages.Plan(resolve.read(home / "whole.toml"), tmp_path / "out", "", lambda line: None)
    needs = {stage.name: stage.needs for stage in made.stages}
    grid, student = "teach the student its 4-bit grid", "tune the student"
    assert needs[grid] == (student,) and needs["export and certify gguf:Q8_0"] == (student,)
    assert needs["export and certify gguf:Q4_0"] == needs["export and certify onnx:int4"] == (grid,)
