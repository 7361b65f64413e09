"""Certificates: sound files pass, and every planted fault is caught with its cause."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgestill.models import kinds
from edgestill.models.artifact import open_artifact
from edgestill.models.errors import ArtifactError, CheckFailed
from edgestill.models.scheme import TYPES
from edgestill.quantize import export, verify
from edgestill.quantize.grid import codes
from edgestill.quantize.grid.codes_in_torch import Coded
from edgestill.quantize.grid.encode import encoder
from edgestill.quantize.onnx import blocks, decoder
from edgestill.quantize.proof import certificate, grade, limits, prove
from edgestill.quantize.source.float_model import FloatModel
from edgestill.runtime.engines import gguf as gguf_engine

from .. import proving, tiny

DECODER_CHECKS = {"token_ids", "decoded_text", "template", "stop_ids", "kl_nats", "kl_p999_nats", "same_top1_decisive",
                  "cache_kl_nats", "decode_kl_nats", "kl_top64_nats", "opens"}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Queries and keys of one shape, so that they can be exchanged; two tokens end a turn."""
    folder = tiny.decoder(tmp_path_factory.mktemp("sources") / "llama", "llama", num_key_value_heads=4)
    proving.edit_json(folder / "generation_config.json", lambda table: table.update(eos_token_id=[0, 3]))
    return folder


@pytest.fixture(scope="module")
def sound(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The Llama in every engine and in the coarsest type."""
    targets = ["gguf:Q4_0", "onnx:int4", "gguf:F32"]
    return export(llama, targets, tmp_path_factory.mktemp("sound"), proving.ROWS, proving.TEST_ROWS)


@pytest.fixture(scope="module", params=["gguf:Q4_0", "onnx:int4"])
def packed(request: pytest.FixtureRequest, sound: dict[str, Path]) -> Path:
    return sound[request.param]


def test_sound_decoders_pass_every_check(sound: dict[str, Path]) -> None:
    for target, folder in sound.items():
        proven = verify(folder, proving.TEST_ROWS)
        assert proven.passed, proven.failed
        run = {check.name for check in proven.checks if check.passed}
        assert run >= DECODER_CHECKS and (("token_ids_in_file" in run) == target.startswith("gguf"))
        made = {check.name: check for check in certificate.read(folder).checks}
        assert ("codes_kl_nats" in made) == ("rtn_kl_nats" in made) == (target != "gguf:F32")
        assert made.keys() >= DECODER_CHECKS
        unproven = {name for name, check in made.items() if not check.passed}
        assert unproven == {"task_metric_drop"} and made["task_metric_drop"].passed is None
        assert proven.grade.name == certificate.read(folder).grade.name
        assert (proven.grade.name == "excellent") == (target == "gguf:F32")  # four bits ruin random weights


@pytest.mark.parametrize(("family", "targets"), [
    ("qwen2", ["gguf:Q8_0", "onnx:int8"]), ("qwen3", ["gguf:F16", "onnx:fp32"]), ("gpt2", ["gguf:BF16", "gguf:Q4_0"])])
def test_sound_files_of_other_families_raise_nothing(family: str, targets: list[str], tmp_path: Path) -> None:
    packed = export(tiny.decoder(tmp_path / family, family), targets, tmp_path / "out", proving.ROWS, proving.TEST_ROWS)
    for folder in packed.values():
        verify(folder, proving.TEST_ROWS).require()


@pytest.mark.parametrize(("family", "target"), [("bert", "onnx:int8"), ("distilbert", "onnx:fp32")])
def test_sound_classifiers_raise_nothing(family: str, target: str, tmp_path: Path) -> None:
    rows, held_out = proving.label_rows(tiny.SENTENCES[:9]), proving.label_rows(tiny.SENTENCES[9:12])
    folder = export(tiny.classifier(tmp_path / family, family), target, tmp_path / "out", rows, held_out)[target]
    proven = verify(folder, held_out)
    proven.require()
    assert {check.name for check in proven.checks if check.passed} >= {"token_ids", "kl_nats"}


def test_a_certificate_of_another_schema_is_not_guessed_at(packed: Path, tmp_path: Path) -> None:
    shutil.copy(packed / "certificate.json", tmp_path)
    assert certificate.read(tmp_path).schema == certificate.SCHEMA
    proving.edit_json(tmp_path / "certificate.json", lambda table: table.update(schema=99))
    with pytest.raises(ArtifactError, match="its schema is not"):
        certificate.read(tmp_path)


def unreadable_model(folder: Path) -> None:
    model = open_artifact(folder).model_path
    model.write_bytes(model.read_bytes()[: model.stat().st_size // 2])


def unreadable_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"model": 1}')


@pytest.mark.parametrize(("fault", "cause"), [(unreadable_model, "weights"), (unreadable_tokenizer, "tokenizer")])
def test_what_the_engine_refuses_is_a_failed_check_with_its_cause(packed: Path, tmp_path: Path, cause: str,
                                                                  fault: Callable[[Path], None]) -> None:
    proven = verify(proving.damaged(packed, tmp_path / "damaged", fault))
    assert proven.causes == (cause,) and proven.failed[0].detail


def other_numbers(folder: Path) -> None:
    """Another constant in transformers.js's graph: it opens, and answers otherwise."""
    import onnx

    path = folder / "onnx" / "model_q4.onnx"
    model = onnx.load(path, load_external_data=False)
    (weights,) = (tensor for tensor in model.graph.initializer if tensor.name == "nibbles.weights")
    weights.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weights)[::-1], weights.name))
    path.write_bytes(model.SerializeToString())


def no_graph(folder: Path) -> None:
    (folder / "onnx" / "model_q4.onnx").write_bytes(b"")


@pytest.mark.parametrize("fault", [other_numbers, no_graph])
def test_a_graph_for_other_programs_is_proven_too(sound: dict[str, Path], tmp_path: Path,
                                                  fault: Callable[[Path], None]) -> None:
    proven = verify(proving.damaged(sound["onnx:int4"], tmp_path / "damaged", fault))
    assert proven.causes == ("weights",) and proven.failed[0].name.startswith("second_graph")
    assert "model_q4.onnx" in proven.failed[0].detail and len(proven.failed) == 1


def test_a_file_that_is_not_its_own_codes_fails_where_the_distance_to_the_float_model_says_nothing(
        llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = decoder.four_bit

    def wrong(parts: list[codes.Codes]) -> blocks.Blocks:
        return pack([replace(part, scales=(part.scales * np.float16(1.15))) for part in parts])

    monkeypatch.setattr(decoder, "four_bit", wrong)
    with pytest.raises(CheckFailed, match="cause: weights.*codes_kl_nats"):
        export(llama, "onnx:int4", tmp_path, proving.ROWS, proving.TEST_ROWS)
    found = {check.name: check for check in certificate.read(tmp_path / "onnx-int4.failed").checks}
    assert found["kl_nats"].passed and found["codes_kl_nats"].value > 2 * found["codes_kl_nats"].limit, found
    assert [name for name, check in found.items() if check.passed is False] == ["codes_kl_nats", "rtn_kl_nats"]


def test_codes_are_put_into_the_float_model_and_taken_out_again(llama: Path) -> None:
    model = FloatModel.from_folder(llama)
    weight = model.module.model.layers[0].mlp.up_proj.weight
    before, coded = weight.detach().numpy().copy(), Coded(encoder({"kind": "rtn"}, None))
    given = coded("model.layers.0.mlp.up_proj.weight", before)
    ids = list(range(5, 25))
    wanted = model.logits(ids)
    seen: list[np.ndarray] = []
    with coded.placed(model) as placed:
        assert placed is not None
        layer = model.module.model.layers[0].mlp.up_proj
        with layer.register_forward_pre_hook(lambda *_: seen.append(weight.detach().numpy().copy())):
            assert not np.array_equal(placed.logits(ids), wanted)
        # Only while its layer computes: a second copy of the whole model would not fit.
        assert np.array_equal(seen[0], codes.dequantize(given)) and np.array_equal(weight.detach().numpy(), before)
        with pytest.raises(RuntimeError):
            layer(layer.weight[:1, :3])
        assert np.array_equal(weight.detach().numpy(), before)
    assert np.array_equal(model.logits(ids), wanted) and not layer._forward_pre_hooks
    coded("model.layers.1.mlp.up_proj.weight", before)  # another layer's numbers: not what the model has there
    with coded.placed(model) as placed:
        assert placed is None
    assert np.array_equal(weight.detach().numpy(), before)


def test_the_reproven_kl_is_a_lower_bound_of_the_measured_one(packed: Path) -> None:
    measured = {check.name: check.value for check in certificate.read(packed).checks}
    again = {check.name: check.value for check in verify(packed).checks}
    assert 0.2 * measured["kl_nats"] < again["kl_nats"] <= measured["kl_nats"] * 1.001


def test_every_export_target_has_limits_and_coarser_types_have_wider_ones() -> None:
    assert set(limits.LIMITS) == {f"{format}:{type}" for format, types in TYPES.items() for type in types}
    for format in TYPES:
        bounds = [limits.LIMITS[f"{format}:{type}"].kl_nats for type in TYPES[format] if type != "BF16"]
        assert bounds == sorted(bounds)
    assert set(grade.ORDER) == {type for types in TYPES.values() for type in types}


@pytest.mark.parametrize("name", kinds.names("quantize.proof.checks"))
def test_every_check_says_what_it_applies_to(name: str) -> None:
    module = kinds.load("quantize.proof.checks", name)
    assert set(module.TASKS) <= {"generate", "classify", "embed"} and module.TASKS and module.__doc__


def wrong_template(folder: Path) -> None:
    changed = tiny.TEMPLATE.replace("<|end|>", "<|end|>\n")
    (folder / "chat_template.jinja").write_text(changed)


def no_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    proving.edit_json(folder / "tokenizer_config.json", lambda table: table.pop("chat_template", None))


def missing_stop_id(folder: Path) -> None:
    proving.edit_json(folder / "generation_config.json", lambda table: table.update(eos_token_id=0))


def other_tokenizer(folder: Path) -> None:
    def exchange(table: dict[str, Any]) -> None:
        vocabulary = table["model"]["vocab"]
        vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    proving.edit_json(folder / "tokenizer.json", exchange)


def lost_merges(folder: Path) -> None:
    def cut(table: dict[str, Any]) -> None:
        table["model"]["merges"] = table["model"]["merges"][20:]
    proving.edit_json(folder / "tokenizer.json", cut)


@pytest.mark.parametrize(("fault", "cause"), [
    (wrong_template, "template"), (no_template, "template"), (missing_stop_id, "stop ids"),
    (other_tokenizer, "tokenizer"), (lost_merges, "tokenizer")])
def test_a_fault_in_the_files_beside_the_model_is_named(packed: Path, tmp_path: Path, fault: Callable[[Path], None],
                                                        cause: str) -> None:
    proven = verify(proving.damaged(packed, tmp_path / "damaged", fault))
    assert proven.causes[:1] == (cause,), proven.failed
    with pytest.raises(CheckFailed, match=f"cause: {cause}") as caught:
        proven.require()
    assert caught.value.exit_code == 3


def test_a_stop_id_missing_in_the_manifest_is_named(packed: Path, tmp_path: Path) -> None:
    folder = proving.damaged(packed, tmp_path / "damaged", lambda _: None,
                             lambda manifest: replace(manifest, tokenizer=replace(manifest.tokenizer, stop_ids=[0])))
    assert verify(folder).causes == ("stop ids",)


@pytest.mark.parametrize("name", ["genai_config.json", "generation_config.json"])
def test_a_stop_id_missing_for_another_program_is_named(sound: dict[str, Path], tmp_path: Path, name: str) -> None:
    def cut(table: dict[str, Any]) -> None:
        table.get("model", table)["eos_token_id"] = []
    folder = next(path for target, path in sound.items() if target.startswith("onnx"))
    proven = verify(proving.damaged(folder, tmp_path / "damaged", lambda path: proving.edit_json(path / name, cut)))
    assert proven.causes == ("stop ids",) and name in proven.failed[0].detail


def planted(monkeypatch: pytest.MonkeyPatch, format: str, source: Path) -> None:
    """Let the format's writer read another model than the one that is exported."""
    module = kinds.load("quantize.formats", format)
    write = module.write
    monkeypatch.setattr(module, "write", lambda _source, *rest: write(source, *rest))


@pytest.mark.parametrize("target", ["gguf:Q4_0", "onnx:int4", "gguf:F32"])
def test_exchanged_queries_and_keys_are_caught_in_the_packed_file(
        target: str, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, target.split(":")[0], proving.swapped_queries_and_keys(llama, tmp_path / "swapped"))
    with pytest.raises(CheckFailed, match="cause: weights") as caught:
        export(llama, target, tmp_path / "out", proving.ROWS, proving.TEST_ROWS)
    assert "kl_nats" in caught.value.message and "cache_kl_nats" not in caught.value.message


@pytest.mark.parametrize(("fault", "cause"), [
    (wrong_template, "template"), (missing_stop_id, "stop ids"), (other_tokenizer, "tokenizer"),
    (lost_merges, "tokenizer")])
def test_a_fault_inside_the_gguf_is_named(fault: Callable[[Path], None], cause: str, llama: Path, tmp_path: Path,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    """llama.cpp's other clients read tokenizer, template and stop ids from the file itself."""
    shutil.copytree(llama, tmp_path / "other")
    fault(tmp_path / "other")
    planted(monkeypatch, "gguf", tmp_path / "other")
    with pytest.raises(CheckFailed, match=f"cause: {cause} "):
        export(llama, "gguf:F32", tmp_path / "out", proving.ROWS)


class OffByOne:
    """An engine whose cached decode answers with the token before; prefill is right."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.last: np.ndarray | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def decode(self, token: int) -> np.ndarray:
        before, self.last = self.last, np.array(self.engine.decode(token))
        return self.last if before is None else before


class NeverForgets(OffByOne):
    """An engine that does not cut its cache back."""

    def truncate(self, length: int) -> None:
        if length == 0:
            self.engine.truncate(0)

    def decode(self, token: int) -> np.ndarray:
        if self.engine.position == self.engine.context_length:
            self.engine.truncate(self.engine.position - 1)
        return np.array(self.engine.decode(token))


@pytest.mark.parametrize("broken", [OffByOne, NeverForgets])
def test_a_broken_cache_is_named_and_not_taken_for_wrong_weights(
        broken: type[OffByOne], sound: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = gguf_engine.open
    monkeypatch.setattr(gguf_engine, "open", lambda *args, **options: broken(whole(*args, **options)))
    proven = verify(sound["gguf:F32"])
    assert proven.causes == ("cache",), proven.failed
    assert {check.name for check in proven.failed} == {"cache_kl_nats", "decode_kl_nats"}


def test_a_flipped_byte_in_any_file_is_found_before_anything_is_read(packed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(packed, folder)
    names = sorted(open_artifact(folder).manifest.files)
    assert len(names) >= 8
    for name in names:
        path = folder / name
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :])
        proven = verify(folder)
        assert proven.causes == ("files",) and name in "".join(check.name for check in proven.failed), name
        path.write_bytes(data)
    assert verify(folder).passed


def test_no_flipped_byte_of_the_manifest_goes_unseen(sound: dict[str, Path], tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prove, "certify", lambda *_: ())
    folder = tmp_path / "copy"
    shutil.copytree(sound["onnx:int4"], folder)
    path = folder / "manifest.json"
    data = path.read_bytes()
    for position in range(0, len(data), 13):
        path.write_bytes(data[:position] + bytes([data[position] ^ 4]) + data[position + 1 :])
        try:
            assert verify(folder).causes == ("files",), data[position - 20 : position + 20]
        except ArtifactError:
            continue
    path.write_bytes(data)
    assert verify(folder).passed


def test_a_changed_manifest_is_named_even_when_it_is_well_formed(packed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(packed, folder)
    path = folder / "manifest.json"
    path.write_text(re.sub(r'"max_new_tokens": \d+', '"max_new_tokens": 999', path.read_text()))
    assert verify(folder).causes == ("files",)


def test_a_template_with_todays_date_is_not_compared_on_another_day(packed: Path, tmp_path: Path) -> None:
    def dated(folder: Path) -> None:
        def change(table: dict[str, Any]) -> None:
            table.update(clock=True, renderings=[chat | {"sha256": "0" * 64} for chat in table["renderings"]])
        proving.edit_json(folder / "fixtures.json", change)
    proven = verify(proving.damaged(packed, tmp_path / "dated", dated))
    (check,) = [check for check in proven.checks if check.name == "template"]
    assert proven.passed and check.passed is None and "date" in check.detail


def test_rows_the_float_model_was_not_scored_on_leave_the_metric_unmeasured(packed: Path) -> None:
    proven = verify(packed, proving.chat_rows(["never seen before"]))
    (check,) = [check for check in proven.checks if check.name == "task_metric_drop"]
    assert check.passed is None and proven.passed


def test_verifying_needs_no_torch(sound: dict[str, Path]) -> None:
    code = ("import sys\n"
            "for name in ('torch', 'transformers', 'onnx', 'gguf', 'click'): sys.modules[name] = None\n"
            "from edgestill.quantize import verify\n"
            "for folder in sys.argv[1:]: verify(folder).require()\n")
    subprocess.run([sys.executable, "-c", code, *map(str, sound.values())], check=True, cwd=Path(__file__).parent)


def test_a_folder_without_a_manifest_is_refused(packed: Path, tmp_path: Path) -> None:
    shutil.copytree(packed, tmp_path / "copy")
    (tmp_path / "copy" / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match="not an artifact"):
        verify(tmp_path / "copy")


def test_an_unpacked_artifact_has_its_hashes_checked_only(llama: Path, tmp_path: Path) -> None:
    from edgestill.models.artifact import seal
    from edgestill.models.task import Task

    shutil.copytree(llama, tmp_path / "tuned")
    seal(tmp_path / "tuned", stage="tune", task=Task(), family="llama", scheme="hf", model_file="model.safetensors")
    proven = verify(tmp_path / "tuned")
    assert proven.passed and all(check.name.startswith("hash ") for check in proven.checks)
    assert open_artifact(tmp_path / "tuned").manifest.stage == "tune"
