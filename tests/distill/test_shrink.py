"""[student] cuts and sizes: what a run file asks for, what comes of it, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from edgestill.distill import plan_student, prepare_student, tune
from edgestill.distill.students import _target
from edgestill.models import kinds
from edgestill.models.artifact import open_artifact
from edgestill.models.errors import UsageError
from edgestill.models.runfile import Data, Export, RunFile, Student, Training
from edgestill.models.scheme import Scheme
from edgestill.quantize.gguf import write as gguf
from edgestill.quantize.grid.encode import encoder
from safetensors.numpy import load_file

from .. import tiny


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    folder = tmp_path_factory.mktemp("house")
    (folder / "llama").symlink_to(tiny_llama)
    rows = [{"prompt": f"turn {state} the {room} light", "completion": json.dumps({"state": state, "room": room})}
            for state in ("on", "off") for room in ("kitchen", "hall", "bedroom", "attic")]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def asked(**student: Any) -> RunFile:
    return RunFile(data=Data(train="rows.jsonl", validation_share=0.25), student=Student("llama", **student))


def steps(house: Path, **student: Any) -> list[dict[str, Any]]:
    return plan_student(asked(**student), house / "nowhere", house)


def total(step: dict[str, Any]) -> int:
    return sum(step["parameters"].values())


def test_short_forms_are_cuts_and_copy_the_models_own_bits(house: Path, tmp_path: Path) -> None:
    short = prepare_student(asked(layers=[0, 2], vocabulary="trim"), tmp_path / "short", base=house)
    long = prepare_student(asked(cuts=[{"kind": "depth", "keep": [0, 2]}, {"kind": "vocabulary"}]), tmp_path / "long",
                           base=house)
    for name in ("model.safetensors", "tokenizer.json", "config.json", "generation_config.json"):
        assert (short / name).read_bytes() == (long / name).read_bytes()
    cut, whole = load_file(short / "model.safetensors"), load_file(house / "llama" / "model.safetensors")
    words = [json.loads((folder / "tokenizer.json").read_text()) for folder in (short, house / "llama")]
    left, old = (table["model"]["vocab"] for table in words)
    kept = [old[token] for token in sorted(left, key=left.get)]
    assert (cut.pop("model.embed_tokens.weight") == whole["model.embed_tokens.weight"][kept]).all()
    assert cut and all((value == whole[name.replace("layers.1.", "layers.2.")]).all() for name, value in cut.items())


def test_the_vocabulary_goes_first_and_alone_where_that_is_enough(house: Path) -> None:
    before, trimmed = steps(house, vocabulary="trim")
    assert [step["kind"] for step in steps(house, to=str(total(before)))] == [""], "small enough already"
    found = steps(house, to=str(total(trimmed)))
    assert found == [before, trimmed] and trimmed["parameters"]["embedding"] == 64 * trimmed["tokens"]
    assert [step["kind"] for step in steps(house, to=str(total(trimmed) - 1))][:2] == ["", "vocabulary"]


def test_layers_and_channels_keep_the_same_share(house: Path) -> None:
    whole, trimmed = steps(house, vocabulary="trim")
    layers = trimmed["parameters"]["attention"] + trimmed["parameters"]["feed_forward"]
    limit = total(trimmed) - layers // 2
    found = steps(house, to=f"{limit / 1000} k")
    assert [step["kind"] for step in found] == ["", "vocabulary", "depth", "width"]
    assert (len(found[2]["layers"]), found[3]["feed_forward"]) == (2, 64), "2 of 3 layers, 64 of 128 channels"
    assert limit - 2 * 3 * 64 * 32 < total(found[3]) <= limit
    assert steps(house, vocabulary="trim", to=f"{limit / 1000} k") == found, "what is trimmed is not trimmed again"


def test_the_least_that_can_be_reached_is_named_and_can_be_reached(house: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be reached: .*32 of 128 channels are ([0-9,]+) parameters") as caught:
        steps(house, to="1000")
    least = str(caught.value).partition("channels are ")[2].split()[0].replace(",", "")
    out = prepare_student(asked(to=least), tmp_path / "least", base=house)
    manifest = open_artifact(out).manifest
    assert manifest.stage == "prepare" and manifest.dimensions["parameters"] == int(least)
    assert manifest.settings["cuts"][-1]["feed_forward"] == 32 and manifest.dimensions["layers"] == 2
    with pytest.raises(UsageError, match="cannot be reached"):
        steps(house, to=str(int(least) - 1))


def test_a_file_is_as_large_as_was_asked(house: Path, tmp_path: Path) -> None:
    def written(folder: Path, student: Path) -> int:
        folder.mkdir()
        name = gguf.write(student, folder, Scheme("gguf", "Q4_0"), encoder({"kind": "rtn"}, None), None)
        return (folder / name).stat().st_size

    whole = written(tmp_path / "whole", house / "llama")
    limit = int(whole * 0.6)
    student = prepare_student(asked(to=f"{limit / 1000} kB", format="gguf:Q4_0"), tmp_path / "student", base=house)
    assert 0.85 * limit < written(tmp_path / "cut", student) <= limit


@pytest.mark.parametrize(("student", "message"), [
    ({"to": "small"}, "'small' is no size"), ({"to": "1.2.3M"}, "is no size"), ({"to": "."}, "is no size"),
    ({"to": "40 MW"}, "is no size"), ({"to": "26 MB"}, "student.format is ''"),
    ({"to": "40M", "format": "gguf:Q4_0"}, "student.format is 'gguf:Q4_0'"),
    ({"format": "gguf:Q4_0"}, "student.to gives no bytes"), ({"to": "26 MB", "format": "gguf:Q4"}, "export target"),
    ({"to": "26 MB", "format": "onnx:int4"}, "onnx:int4: how large such a file will be is not known"),
    ({"to": "26 MB", "format": "gguf:mixed"}, "gguf:mixed: how large"),
    ({"cuts": [{"keep": [0]}]}, r"student.cuts\[0\].kind: is required"),
    ({"cuts": [{"kind": "dept"}]}, "students: 'dept' is not known"),
    ({"cuts": [{"kind": "width", "hidden": 8}]}, r"student.cuts\[0\].hidden"),
])
def test_cuts_and_sizes_that_mean_nothing_are_refused(student: dict[str, Any], message: str, house: Path) -> None:
    with pytest.raises(UsageError, match=message):
        steps(house, **student)


@pytest.mark.parametrize(("text", "format", "number"), [
    ("40M", "", 40_000_000), ("1.5 b", "", 1_500_000_000), ("135000", "", 135_000), ("26 MB", "gguf:Q4_0", 26_000_000),
    ("0.5gb", "gguf:F16", 500_000_000)])
def test_sizes_are_read(text: str, format: str, number: int) -> None:
    assert _target.read(text, format) == number


def test_training_starts_from_the_student_that_was_cut(house: Path, tmp_path: Path) -> None:
    def trained(name: str, **student: Any) -> Path:
        return tune(replace(asked(**student), tune=Training(steps=1)), tmp_path / name, base=house)

    assert 60_000 < open_artifact(trained("size", to="70k")).manifest.dimensions["parameters"] <= 70_000
    thin = load_file(trained("thin", cuts=[{"kind": "width", "feed_forward": 96}]) / "model.safetensors")
    assert thin["model.layers.0.mlp.up_proj.weight"].shape == (96, 64)


def test_a_plan_reads_rows_with_the_students_template_and_nothing_is_left_of_it(house: Path, tmp_path: Path) -> None:
    (house / "own.jinja").write_bytes((kinds.folder("models.templates") / "chatml.jinja").read_bytes())
    plain, planned = steps(house, vocabulary="trim"), steps(house, vocabulary="trim", template="own.jinja")
    assert planned[1]["tokens"] > plain[1]["tokens"]
    out = prepare_student(asked(vocabulary="trim", template="own.jinja"), tmp_path / "out", base=house)
    assert open_artifact(out).manifest.settings["cuts"] == planned and list(tmp_path.iterdir()) == [out]
    assert (out / "chat_template.jinja").read_bytes() == (house / "own.jinja").read_bytes()


def test_layers_that_no_export_could_carry_are_refused_at_once(house: Path, tmp_path: Path) -> None:
    """llama.cpp has it built in that every fourth layer has no positions."""
    tiny.decoder(tmp_path / "smollm3", "smollm3", num_hidden_layers=8)
    run = asked(layers=[0, 1, 2, 4, 5, 6])
    run = replace(run, student=replace(run.student, model=str(tmp_path / "smollm3")))
    assert len(plan_student(run, tmp_path / "out", house)) == 2
    with pytest.raises(UsageError, match="no_rope_layers is"):
        plan_student(replace(run, export=[Export("gguf:Q4_0")]), tmp_path / "out", house)

    def sized(run: RunFile, to: str, format: str = "") -> list[int]:
        run = replace(run, student=Student(run.student.model, to=to, format=format))
        done = plan_student(run, tmp_path / "out", house)
        layers: list[int] = next((cut["layers"] for cut in done if cut["kind"] == "depth"), [*range(8)])
        return layers

    whole = sum(plan_student(replace(run, student=Student(run.student.model)), tmp_path / "out", house)[0][
        "parameters"].values())
    half = str(whole // 2)
    assert len(sized(run, half)) not in (4, 8), "any layers may go where nothing is exported"
    for exported in (sized(replace(run, export=[Export("gguf:Q4_0")]), half), sized(run, "200 kb", "gguf:Q4_0")):
        assert [layer % 4 == 3 for layer in exported] == [place % 4 == 3 for place in range(len(exported))]
    with pytest.raises(UsageError, match="cannot be reached: the rows' vocabulary, [48] of 8 layers"):
        sized(run, "1 kb", "gguf:Q4_0")
