"""Whether a file of a coarse type is what it claims to be: held to plain rounding, and to what its export measured."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from edgestill.models.artifact import Artifact, Manifest, open_artifact
from edgestill.models.errors import CheckFailed, EdgestillError
from edgestill.models.runfile import Export
from edgestill.models.task import Task
from edgestill.quantize import export, verify
from edgestill.quantize.gguf import llama_quantizer
from edgestill.quantize.grid import codes
from edgestill.quantize.methods import scale_search
from edgestill.quantize.proof import certificate, packed_file, reference
from edgestill.quantize.proof.checks import agreement, tensors
from edgestill.quantize.source.checkpoint import Checkpoint
from edgestill.runtime.files import gguf_header

from .. import gguf_files, proving


def test_a_method_that_is_worse_than_plain_rounding_fails(tiny_llama: Path, tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    """Its codes are packed as they are, so nothing else knows: scales that are a quarter too small."""
    found = scale_search.quantize

    def wrong(*given: Any) -> codes.Codes:
        right = found(*given)
        return replace(right, scales=right.scales * np.float16(0.75))
    monkeypatch.setattr(scale_search, "quantize", wrong)
    with pytest.raises(CheckFailed, match="cause: weights.*rtn_kl_nats"):
        export(tiny_llama, [Export("gguf:Q4_0", {"kind": "scale_search"})], tmp_path, proving.ROWS, proving.TEST_ROWS)
    checks = {check.name: check for check in certificate.read(tmp_path / "gguf-Q4_0.failed").checks}
    assert checks["codes_kl_nats"].passed and checks["kl_nats"].passed
    assert checks["rtn_kl_nats"].value > 1.2 * checks["rtn_kl_nats"].limit, checks["rtn_kl_nats"]


@pytest.mark.parametrize(("value", "passed"), [(0.2, True), (0.2299, True), (0.1701, True), (0.2305, False),
                                               (0.1695, False)])
def test_a_later_proof_is_held_to_what_the_export_measured(value: float, passed: bool) -> None:
    told = certificate.Check(agreement.AGAIN, True, value=0.2, n=100)
    opened: Any = SimpleNamespace(at_export={agreement.AGAIN: told})
    assert agreement._again(agreement.AGAIN, value, 100, opened).passed is passed
    assert agreement._again(agreement.AGAIN, 9.0, 99, opened).passed  # other tokens: nothing to hold it to


def test_a_quick_proof_is_held_to_what_the_export_measured_on_the_first_texts(
        tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_file, "QUICK_TOKENS", 30)
    (folder,) = export(tiny_llama, "gguf:Q8_0", tmp_path, proving.ROWS, proving.TEST_ROWS).values()
    made = {check.name: check for check in certificate.read(folder).checks}
    whole, quick = ({check.name: check for check in verify(folder, quick=quick).checks} for quick in (False, True))
    few = quick["kl_nats"].n
    assert 30 <= few < whole["kl_nats"].n == made["kl_nats"].n
    assert agreement.AGAIN not in quick and quick[agreement.AGAIN_QUICK].n == whole[agreement.AGAIN_QUICK].n == few
    for found in (quick[agreement.AGAIN_QUICK], whole[agreement.AGAIN_QUICK], whole[agreement.AGAIN]):
        assert found.passed and found.limit and found.value == pytest.approx(made[found.name].value, rel=1e-3)
    other = replace(made[agreement.AGAIN_QUICK], value=2 * made[agreement.AGAIN_QUICK].value + 0.01)
    with packed_file.Subject(open_artifact(folder), reference.read(folder), at_export=[other], quick=True) as opened:
        failed = [check.name for check in agreement.check(opened) if not check.passed]
    assert failed == [agreement.AGAIN_QUICK]


def as_type(folder: Path, target: str) -> Artifact:
    return Artifact(folder, Manifest("export", Task(), "llama", target, "model.gguf"))


@pytest.fixture(scope="module")
def floats(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that holds nothing but floats."""
    return gguf_files.write(tiny_llama, tmp_path_factory.mktemp("floats")).parent


def test_types_are_read_back_from_the_file(floats: Path, tiny_llama: Path) -> None:
    checkpoint = Checkpoint.open(tiny_llama)
    sound = tensors._types(as_type(floats, "gguf:F32"), checkpoint)
    assert sound.passed and sound.value == 32 and "F32 × " in sound.detail and "542,464 bytes" in sound.detail
    for target, word in (("gguf:Q4_K_M", "weights are floats, which a file of Q4_K_M holds in blocks"),
                         ("gguf:Q4_0", "is F32, planned was Q4_0"), ("gguf:F16", "planned was F16")):
        found = tensors._types(as_type(floats, target), checkpoint)
        assert found.passed is False and word in found.detail


def test_a_mixture_coarser_than_its_name_is_found(tiny_llama: Path, tmp_path: Path) -> None:
    folder = gguf_files.write(tiny_llama, tmp_path, "Q4_0").parent
    checkpoint = Checkpoint.open(tiny_llama)
    assert tensors._types(as_type(folder, "gguf:Q4_K_M"), checkpoint).passed
    found = tensors._types(as_type(folder, "gguf:Q6_K"), checkpoint)
    assert found.passed is False and "is Q4_0, coarser than Q6_K" in found.detail


def test_tensors_that_were_not_planned_or_are_missing_are_named(floats: Path, tiny_llama: Path) -> None:
    whole = Checkpoint.open(tiny_llama)
    name = "model.layers.1.mlp.up_proj.weight"
    fewer = replace(whole, entries={key: entry for key, entry in whole.entries.items() if key != name})
    assert "blk.1.ffn_up.weight was not planned" in tensors._types(as_type(floats, "gguf:F32"), fewer).detail
    wide = replace(whole.entries[name], shape=(64, 128))
    other = replace(whole, entries=whole.entries | {name: wide, "model.layers.1.input_layernorm.bias": wide})
    detail = tensors._types(as_type(floats, "gguf:F32"), other).detail
    assert "blk.1.attn_norm.bias is not there" in detail and "is [64, 128], planned was [128, 64]" in detail


def test_numbers_are_read_back_from_the_file(floats: Path, tiny_llama: Path, tmp_path: Path) -> None:
    folder, checkpoint = tmp_path / "changed", Checkpoint.open(tiny_llama)
    assert tensors._numbers(as_type(floats, "gguf:F32"), checkpoint).passed
    folder.mkdir()
    data = bytearray((floats / "model.gguf").read_bytes())
    place = next(tensor for tensor in gguf_header.read(floats / "model.gguf").tensors if "ffn_down" in tensor.name)
    part = slice(place.offset, place.offset + place.bytes)
    data[part] = (np.frombuffer(bytes(data[part]), np.float32) * np.float32(1.001)).tobytes()
    (folder / "model.gguf").write_bytes(data)
    found = tensors._numbers(as_type(folder, "gguf:F32"), checkpoint)
    assert found.passed is False and f"{place.name} is 1.0010 times as long" in found.detail


@pytest.mark.parametrize("type", ["Q4_0", "Q4_K", "IQ4_XS", "Q5_K", "Q6_K", "Q8_0"])
def test_scales_a_quarter_too_small_show_in_every_type(type: str) -> None:
    from gguf import GGMLQuantizationType, quants

    random = np.random.default_rng(0)
    weight = (random.standard_normal((16, 512)) * random.lognormal(0, 0.5, (16, 1))).astype(np.float32)
    stored = llama_quantizer.quantize(weight, type, None)
    sound = quants.dequantize(stored, GGMLQuantizationType[type])
    assert tensors.deviation("", type, weight, sound).share < 0.7
    for wrong in (sound * 0.75, sound * 1.15, sound[::-1], -sound, np.roll(sound, 1, axis=1), sound * np.nan):
        assert tensors.deviation("", type, weight, wrong).share > 1
    assert tensors.deviation("", type, weight * 0, sound * 0).share == 0
    assert tensors.deviation("", type, weight * 0, sound).share > 1


@pytest.mark.parametrize(("line", "word"), [
    ("{}: q4_K", "tensors are not named"), ("[ 1/ 29] {} - [ 64 ], as q4_K", "no type is named")])
def test_a_log_that_reads_otherwise_is_no_plan(line: str, word: str, floats: Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    """All tensors would stay as they are, and the file be all floats under another name."""
    names = [tensor.name for tensor in gguf_header.read(floats / "model.gguf").tensors]
    monkeypatch.setattr(llama_quantizer, "_messages",
                        lambda: contextlib.nullcontext([(2, line.format(name)) for name in names]))
    with pytest.raises(EdgestillError, match=word):
        llama_quantizer.mixture(floats / "model.gguf", "Q4_K_M", {})
