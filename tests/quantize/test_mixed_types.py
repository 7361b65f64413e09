"""Types dealt out for a budget: the knapsack, what it is told, and the files that follow from it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgestill.cli import main
from edgestill.models import family
from edgestill.models.artifact import is_of_model, open_artifact
from edgestill.models.errors import DataError, UsageError
from edgestill.models.runfile import Export, check_export
from edgestill.models.scheme import Scheme
from edgestill.quantize.gguf import write as gguf
from edgestill.quantize.grid import calibration
from edgestill.quantize.grid.encode import encoder
from edgestill.quantize.mixed.choose_types import Mixer, Part
from edgestill.quantize.mixed.knapsack import Option, allocate
from edgestill.quantize.mixed.sensitivity import Sensitivity
from edgestill.quantize.onnx import write as onnx
from edgestill.quantize.source.float_model import FloatModel
from hypothesis import given, settings
from hypothesis import strategies as st

from .. import decoders

SEQUENCES = [[5, 9, 17, 30, 40, 60, 61], [8, 8, 100, 3], [201, 90, 12, 50]] * 4
OPTIONS = st.lists(st.builds(Option, st.text(max_size=3), st.integers(1, 50), st.floats(0, 10)), min_size=1, max_size=4)


@settings(deadline=None, max_examples=200)
@given(st.dictionaries(st.text(max_size=3), OPTIONS, min_size=1, max_size=4), st.integers(0, 250), st.integers(0, 50))
def test_a_budget_is_kept_and_nearly_used(options: dict[str, list[Option]], budget: int, fixed: int) -> None:
    smallest = sum(min(option.bytes for option in choices) for choices in options.values())
    if smallest > budget:
        with pytest.raises(UsageError, match=f"smallest file has {smallest + fixed:,}"):
            allocate(options, budget + fixed, fixed)
        return
    chosen = allocate(options, budget + fixed, fixed)
    spent, loss = sum(option.bytes for option in chosen.values()), sum(option.loss for option in chosen.values())
    assert chosen.keys() == options.keys() and spent <= budget
    assert all(option in options[name] for name, option in chosen.items())
    # No single change that fits would lose less.
    for name, choices in options.items():
        for option in choices:
            assert option.loss >= chosen[name].loss or spent - chosen[name].bytes + option.bytes > budget
    # Greed along convex hulls misses the best by less than the largest step.
    best = min(sum(option.loss for option in picked) for picked in _all(list(options.values()))
               if sum(option.bytes for option in picked) <= budget)
    largest = max(max(option.loss for option in choices) - min(option.loss for option in choices)
                  for choices in options.values())
    assert best <= loss + 1e-9 and loss <= best + largest + 1e-9


def test_bytes_go_where_they_take_off_most_not_where_most_is_lost() -> None:
    # One part loses most and takes many bytes; ten others lose less, and more for each byte.
    options = {"large": [Option("narrow", 100, 10.0), Option("wide", 200, 0.0)],
               **{f"small {index}": [Option("narrow", 10, 2.0), Option("wide", 20, 0.0)] for index in range(10)}}
    chosen = allocate(options, 300)
    assert {name for name, option in chosen.items() if option.type == "wide"} == {f"small {i}" for i in range(10)}
    # What is left, too little for any step along a hull, goes to the one change that takes off most.
    rest = {name: [Option("narrow", 10, 5.0), Option("between", size, loss), Option("wide", 50, 1.0)]
            for name, size, loss in (("a", 16, 4.8), ("b", 18, 4.4))}
    assert {name: option.type for name, option in allocate(rest, 28).items()} == {"a": "narrow", "b": "between"}


def _all(choices: list[list[Option]]) -> list[tuple[Option, ...]]:
    import itertools

    return list(itertools.product(*choices))


@pytest.fixture(scope="module")
def model(tiny_llama: Path) -> FloatModel:
    return FloatModel.from_folder(tiny_llama)


def test_what_changed_weights_cost_is_measured_and_nothing_stays_changed(model: FloatModel) -> None:
    measured = Sensitivity(model, SEQUENCES)
    before = model.logits(SEQUENCES[0]).copy()
    name = "model.layers.2.mlp.up_proj.weight"
    changed = measured.weight(name) * np.float32(1.1)
    assert measured.kl({name: changed}) > 1e-5
    assert measured.kl({}) == 0
    assert np.array_equal(FloatModel(model.folder, model.module).logits(SEQUENCES[0]), before)


def test_what_errors_of_a_layer_cost_is_the_kl_that_they_make(model: FloatModel) -> None:
    sequences = [[int(i) for i in np.random.default_rng(seed).integers(5, 380, 60)] for seed in range(6)]
    statistics, measured = calibration.measure(model, sequences), Sensitivity(model, sequences)
    costs, random, expected = measured.costs(), np.random.default_rng(0), {}
    for name in costs:
        if "layers" in name:
            weight = measured.weight(name)
            off = (0.02 * weight.std() * random.standard_normal(weight.shape)).astype(np.float32)
            expected[name] = (float(np.einsum("r,rc,rc->", costs[name], off @ statistics.gram(name), off)),
                              measured.kl({name: weight + off}))
    assert len(expected) == 21
    ratios = np.array([told / found for told, found in expected.values()])
    # Errors of one layer go together here and there, which is not looked at.
    assert 0.8 < np.exp(np.log(ratios).mean()) < 1.25 and (abs(np.log(ratios)) < 0.3).sum() >= 18
    told, found = np.log(np.array(list(expected.values()))).T
    assert np.corrcoef(told, found)[0, 1] > 0.9
    assert all(parameter.requires_grad for parameter in model.module.parameters())


def test_a_mixed_file_loses_less_than_the_same_bytes_dealt_out_the_other_way_round(
        tiny_llama: Path, tmp_path: Path, model: FloatModel) -> None:
    statistics = calibration.measure(model, SEQUENCES)
    mixer = Mixer(model, SEQUENCES, statistics, Export("gguf:mixed", budget_mb=0.125))
    seen: dict[str, object] = {}

    def choose(parts: list[Part], fixed: int, plain: int, restore: Callable[[str, str], np.ndarray]) -> dict[str, str]:
        seen.update(parts=parts, restore=restore, types=mixer(parts, fixed, plain, restore))
        return seen["types"]  # type: ignore[return-value]
    gguf.write(tiny_llama, tmp_path, Scheme("gguf", "mixed"), encoder({"kind": "scale_search"}, statistics),
               statistics, choose)
    types: dict[str, str] = seen["types"]  # type: ignore[assignment]
    by_size: dict[int, list[str]] = {}
    for part in seen["parts"]:  # type: ignore[attr-defined]
        by_size.setdefault(part.sizes["Q8_0"], []).append(part.names[0])
    # Within parts of one size types change places, so that the bytes stay the same.
    turned = {name: other for names in by_size.values()
              for name, other in zip(names, sorted((types[name] for name in names), key=list(types.values()).count),
                                     strict=True)}
    sensitivity = Sensitivity(model, SEQUENCES)
    losses = [sensitivity.kl({name: seen["restore"](name, type) for name, type in dealt.items()})  # type: ignore
              for dealt in (types, turned)]
    assert types != turned and losses[0] < losses[1]


@pytest.mark.parametrize(("format", "writer"), [("gguf", gguf), ("onnx", onnx)])
@pytest.mark.parametrize("kind", ["scale_search", "gptq"])
def test_a_mixed_file_fits_its_budget_and_loses_less_with_more(
        tiny_llama: Path, tmp_path: Path, model: FloatModel, format: str, writer: object, kind: str) -> None:
    statistics = calibration.measure(model, SEQUENCES)
    losses = []
    for megabytes in (0.115, 0.15) if format == "gguf" else (0.13, 0.145):
        mixer = Mixer(model, SEQUENCES, statistics, Export(f"{format}:mixed", budget_mb=megabytes))
        folder = tmp_path / f"{megabytes}"
        folder.mkdir()
        name = writer.write(tiny_llama, folder, Scheme(format, "mixed"),  # type: ignore[attr-defined]
                            encoder({"kind": kind}, statistics), statistics, mixer)
        size = model_bytes(folder, name)
        assert 0.8e6 * megabytes < size <= 1e6 * megabytes
        assert len(set(mixer.told["types"].values())) > 1
        losses.append(mixer.told["kl_nats"])
    assert losses[1] < losses[0]


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "qwen3_5"])
def test_families_whose_files_name_or_turn_weights_otherwise_are_mixed_too(name: str, tmp_path: Path) -> None:
    folder, _ = decoders.make(tmp_path / name, name, {"tie_word_embeddings": False})
    model = FloatModel.from_folder(folder)
    statistics = calibration.measure(model, SEQUENCES)
    mixer = Mixer(model, SEQUENCES, statistics, Export("gguf:mixed"))
    gguf.write(folder, tmp_path, Scheme("gguf", "mixed"), encoder({"kind": "gptq"}, statistics), statistics, mixer)
    head = model.module.get_output_embeddings().weight
    assert model.parameter(family.load(name).head) is head
    assert statistics.gram(family.load(name).head) is not None
    assert 0 < mixer.told["kl_nats"] < 0.2 and family.load(name).head in mixer.told["types"]


@pytest.mark.parametrize(("format", "writer", "type_name"), [("gguf", gguf, "Q4_0"), ("onnx", onnx, "int4")])
def test_without_a_budget_a_mixed_file_takes_a_tenth_more_than_the_plain_one(
        tiny_llama: Path, tmp_path: Path, model: FloatModel, format: str, writer: Any, type_name: str) -> None:
    statistics = calibration.measure(model, SEQUENCES)
    mixer = Mixer(model, SEQUENCES, statistics, Export(f"{format}:mixed"))
    sizes = []
    for kind, choose in ((type_name, None), ("mixed", mixer)):
        (tmp_path / kind).mkdir()
        name = writer.write(tiny_llama, tmp_path / kind, Scheme(format, kind), encoder({"kind": "rtn"}, statistics),
                            statistics, choose)
        sizes.append(model_bytes(tmp_path / kind, name))
    # Its metadata are a little longer.
    assert sizes[0] < sizes[1] <= mixer.told["budget_bytes"] and 1.09 < mixer.told["budget_bytes"] / sizes[0] < 1.12


def model_bytes(folder: Path, model_file: str) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*")
               if is_of_model(path.relative_to(folder).as_posix(), model_file))


def test_the_smallest_onnx_file_is_as_large_as_it_is_said_to_be(
        tiny_llama: Path, tmp_path: Path, model: FloatModel) -> None:
    statistics = calibration.measure(model, SEQUENCES)

    def size(budget: int, folder: Path) -> int:
        folder.mkdir()
        mixer = Mixer(model, SEQUENCES, statistics, Export("onnx:mixed", budget_mb=budget / 1e6))
        name = onnx.write(tiny_llama, folder, Scheme("onnx", "mixed"), encoder({"kind": "rtn"}, None), statistics,
                          mixer)
        return model_bytes(folder, name)

    with pytest.raises(UsageError, match="smallest file has") as refused:
        size(1000, tmp_path / "none")
    smallest = int(refused.value.message.split()[-1].replace(",", ""))
    # Every budget is kept, and what cannot be known before (gaps, digits of places) is little.
    assert smallest - 2000 < size(smallest, tmp_path / "smallest") <= smallest
    assert size(smallest + 7000, tmp_path / "more") <= smallest + 7000


def test_a_budget_on_the_command_line_ends_in_proven_files(
        tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tmp_path / "rows.jsonl"  # a data file calibrates, and is no proof of what the model can do
    rows.write_text("".join(json.dumps({"prompt": f"set an alarm for {hour}", "completion": f"at {hour}"}) + "\n"
                            for hour in range(12)))
    arguments = ["export", str(tiny_llama), "--to", "onnx:mixed", "--method", "gptq", "--rows", str(rows), "-o",
                 str(tmp_path), "--json", "--bits-per-weight"]
    assert main.call([*arguments, "2"]) == 2
    assert "a budget of 33,904 bytes is too small: the smallest file has" in capsys.readouterr().err
    assert main.call([*arguments, "8"]) == 0
    artifact = open_artifact(Path(json.loads(capsys.readouterr().out)["onnx:mixed"]))
    assert artifact.model_bytes() <= 135616 == artifact.manifest.settings["allocation"]["budget_bytes"]
    assert artifact.manifest.checks["kl_nats"]["passed"]


def test_what_cannot_be_mixed_is_refused(model: FloatModel, tiny_llama: Path, tmp_path: Path) -> None:
    statistics = calibration.measure(model, SEQUENCES)
    with pytest.raises(DataError, match="no rows to measure"):
        Mixer(model, [], None, Export("gguf:mixed", budget_mb=1))
    mixer = Mixer(model, SEQUENCES, statistics, Export("gguf:mixed", bits_per_weight=2))
    with pytest.raises(UsageError, match="smallest file has"):
        gguf.write(tiny_llama, tmp_path, Scheme("gguf", "mixed"), encoder({"kind": "rtn"}, None), statistics, mixer)
    for export, message in ((Export("gguf:Q4_0", budget_mb=3), "budget means nothing"),
                            (Export("onnx:mixed", budget_mb=3, bits_per_weight=4), "two sizes")):
        with pytest.raises(UsageError, match=message):
            check_export(export)
