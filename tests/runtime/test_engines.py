"""Every engine against torch: prefill, cached decode, truncation, limits, faults."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgestill.models import kinds
from edgestill.models.artifact import Artifact, Manifest, open_artifact
from edgestill.models.errors import ArtifactError, MissingExtra, UsageError
from edgestill.models.task import Task
from edgestill.runtime import load
from edgestill.runtime.engines import _base as shared_engine
from edgestill.runtime.files import model_files
from numpy.typing import NDArray

ENGINES = kinds.names("runtime.engines")
EXACT: dict[str, dict[str, Any]] = {"gguf": {"exact": True}, "onnx": {}}
IDS = [int(token) for token in np.random.default_rng(0).integers(5, 380, 200)]


def opened(name: str, folder: Path, context: int = 0, **options: Any) -> Any:
    return kinds.load("runtime.engines", name).open(open_artifact(folder), 1, context, **options)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, packed_llama: dict[str, Path]) -> Iterator[Any]:
    one = opened(request.param, packed_llama[request.param], **EXACT[request.param])
    yield one
    one.close()


@pytest.fixture(scope="module")
def wanted(tiny_llama: Path) -> NDArray[np.float32]:
    """Logits [200, vocabulary] of IDS in torch."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        model = AutoModelForCausalLM.from_pretrained(tiny_llama).eval()
        logits: NDArray[np.float32] = model(torch.tensor([IDS])).logits[0].numpy()
    return logits


def same(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> None:
    np.testing.assert_allclose(found, wanted, atol=2e-4)


def test_every_engine_is_tested() -> None:
    assert set(ENGINES) == set(EXACT)


def test_logits_of_all_positions(engine: Any, wanted: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch) -> None:
    same(engine.logits(IDS), wanted)
    assert engine.position == len(IDS)
    monkeypatch.setattr(engine, "_rows", 33)  # in several passes, the last one short
    same(engine.logits(IDS), wanted)


def test_prefill_and_cached_decode(engine: Any, wanted: NDArray[np.float32]) -> None:
    same(engine.prefill(IDS[:50]), wanted[49])
    for place, token in enumerate(IDS[50:], start=50):
        same(engine.decode(token), wanted[place])
    assert (engine.position, engine.vocabulary_size, engine.threads) == (200, 384, 1)


def test_prefill_goes_on_from_the_cache(engine: Any, wanted: NDArray[np.float32],
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_rows", 32)
    engine.prefill(IDS[:70])
    same(engine.prefill(IDS[70:]), wanted[199])


@pytest.mark.parametrize("length", [0, 1, 60, 99, 100])
def test_truncation_leaves_no_trace(length: int, engine: Any, wanted: NDArray[np.float32]) -> None:
    engine.prefill(IDS[:60] + IDS[:40])  # from 60 on another text
    engine.truncate(length)
    kept = min(length, 60)
    engine.truncate(kept)
    same(engine.prefill(IDS[kept:150]), wanted[149])
    assert engine.position == 150


def test_results_repeat_bit_for_bit(engine: Any) -> None:
    def run() -> bytes:
        engine.truncate(0)
        first: bytes = engine.prefill(IDS[:40]).tobytes()
        return first + b"".join(engine.decode(token).tobytes() for token in IDS[40:60])

    assert run() == run()


def test_several_tokens_are_extended_at_once(engine: Any, wanted: NDArray[np.float32]) -> None:
    engine.prefill(IDS[:50])
    same(engine.extend(IDS[50:58]), wanted[50:58])
    engine.truncate(53)
    same(engine.extend(IDS[53:54]), wanted[53:54])
    same(engine.decode(IDS[54]), wanted[54])
    assert engine.held == IDS[:55]


@pytest.mark.parametrize("length", [5, 70, 129, 150])
def test_what_is_kept_for_another_prompt_leaves_no_trace(length: int, engine: Any) -> None:
    def answered() -> bytes:
        engine.prefill((IDS[:length] + IDS[:40])[engine.position:])
        return b"".join(engine.decode(token).tobytes() for token in IDS[100:110])

    fresh = answered()
    engine.truncate(0)
    engine.prefill(IDS[:length - 3])
    for token in IDS[length - 3:]:
        engine.decode(token)
    engine.rewind(length)
    assert length - 2 * engine.block < engine.position <= length and engine.position % engine.block == 0
    assert answered() == fresh
    engine.rewind(length, exact=False)
    assert engine.position == length


def test_a_saved_state_continues_bit_for_bit(engine: Any) -> None:
    def answered() -> bytes:
        return b"".join(engine.decode(token).tobytes() for token in IDS[128:140])

    engine.prefill(IDS[:128])
    state = engine.saved()
    first = answered()
    engine.truncate(0)
    engine.prefill(IDS[60:100])
    engine.restore(IDS[:128], state)
    assert engine.held == IDS[:128] and answered() == first
    engine.rewind(128)
    assert engine.position == 128
    with pytest.raises(ArtifactError, match="a state of 128 tokens"):
        engine.restore(IDS[:128], [state[0][..., :-1].copy(), *state[1:]])


def test_limits_are_named(engine: Any) -> None:
    with pytest.raises(UsageError, match="257 tokens, the context holds 256"):
        engine.prefill([5] * 257)
    engine.prefill([5] * 256)
    with pytest.raises(UsageError, match="257 tokens, the context holds 256"):
        engine.decode(5)
    with pytest.raises(UsageError, match="257 tokens"):
        engine.logits([5] * 257)
    with pytest.raises(UsageError, match="cannot truncate the cache to 257 tokens, it holds 256"):
        engine.truncate(257)
    engine.truncate(0)
    for token in (-1, 384):
        with pytest.raises(UsageError, match=f"token id {token}, the vocabulary has 384"):
            engine.prefill([5, token])
        with pytest.raises(UsageError, match=f"token id {token}"):
            engine.decode(token)
    with pytest.raises(UsageError, match="no token ids"):
        engine.prefill([])
    assert engine.position == 0


@pytest.mark.parametrize("name", ENGINES)
def test_context_is_chosen_and_checked(name: str, packed_llama: dict[str, Path]) -> None:
    small = opened(name, packed_llama[name], context=32)
    assert small.context_length == 32
    small.prefill(IDS[:32])
    with pytest.raises(UsageError, match="33 tokens, the context holds 32"):
        small.decode(5)
    small.close()
    with pytest.raises(UsageError, match="context: 257 tokens, the model's limit is 256"):
        opened(name, packed_llama[name], context=257)


def test_default_context_is_bounded() -> None:
    assert shared_engine.chosen_context(0, 32768) == 2048
    assert shared_engine.chosen_context(0, 512) == 512
    assert shared_engine.chosen_context(8192, 32768) == 8192


def test_logits_of_one_pass_are_bounded() -> None:
    assert [shared_engine.rows_per_pass(size) for size in (384, 49152, 151936, 10**7)] == [512, 341, 110, 32]


def test_onnx_cache_grows_while_decoding(packed_llama: dict[str, Path], wanted: NDArray[np.float32],
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgestill.runtime.engines._onnx_engine._FIRST_CAPACITY", 4)
    grown = opened("onnx", packed_llama["onnx"])
    same(grown.prefill(IDS[:3]), wanted[2])
    for place, token in enumerate(IDS[3:], start=3):
        same(grown.decode(token), wanted[place])
    assert grown._capacity == 256


def test_gguf_agrees_with_the_codec(packed_llama: dict[str, Path], tiny_llama: Path) -> None:
    from edgestill.runtime.text.codec import Codec

    from .. import tiny

    codec, gguf = Codec.from_folder(tiny_llama), opened("gguf", packed_llama["gguf"])
    for text in [*tiny.SENTENCES, "<|user|>hi<|end|>", "", "a" * 3000]:
        assert gguf.tokenize(text) == codec.encode(text)
    assert {token for token in range(384) if gguf.is_stop(token)} == codec.stop_ids
    assert gguf.chat_template() == codec.template
    gguf.close()


@pytest.mark.parametrize(("name", "file"), [("gguf", "model.gguf"), ("onnx", "onnx/model.onnx")])
def test_damaged_files_are_refused(name: str, file: str, packed_llama: dict[str, Path], tmp_path: Path,
                                   capfd: pytest.CaptureFixture[str]) -> None:
    content = (packed_llama[name] / file).read_bytes()
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_bytes(content[:len(content) // 3])
    artifact = Artifact(tmp_path, Manifest("export", Task(), "llama", name, file))
    with pytest.raises(ArtifactError, match="cannot load it: .+"):
        kinds.load("runtime.engines", name).open(artifact, 1, 0)
    (tmp_path / file).unlink()
    with pytest.raises(ArtifactError):
        kinds.load("runtime.engines", name).open(artifact, 1, 0)
    assert capfd.readouterr() == ("", "")


def test_onnx_reads_prompts_without_their_logits(packed_llama: dict[str, Path], wanted: NDArray[np.float32],
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    ours, other = opened("onnx", packed_llama["onnx"]), opened("onnx", packed_llama["onnx"])
    assert ours._last_only
    monkeypatch.setattr(other, "_last_only", False)  # as for a graph that was made elsewhere
    assert ours.prefill(IDS[:150]).tobytes() == other.prefill(IDS[:150]).tobytes()
    assert "logits_from" not in [item.name for item in ours.sessions[0].get_inputs()]
    same(ours.extend(IDS[150:155]), wanted[150:155])


def test_onnx_refuses_other_graphs(packed_bert: Path) -> None:
    with pytest.raises(ArtifactError, match="no decoder graph"):
        kinds.load("runtime.engines", "onnx").open(open_artifact(packed_bert), 1, 0)


def test_onnx_reads_the_head_size_beside_a_symbolic_graph(packed_llama: dict[str, Path], tmp_path: Path) -> None:
    assert model_files.head_size(packed_llama["onnx"]) == 16
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 64, "num_attention_heads": 4}))
    assert (model_files.head_size(tmp_path), model_files.context_of(tmp_path)) == (16, 0)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ArtifactError, match="size of an attention head"):
        model_files.head_size(tmp_path)


def test_a_missing_engine_names_the_extra(packed_llama: dict[str, Path], packed_bert: Path,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "llama_cpp"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for path, extra, package in ((packed_llama["gguf"], "gguf", "llama-cpp-python"),
                                 (packed_llama["onnx"], "onnx", "onnxruntime"), (packed_bert, "onnx", "onnxruntime")):
        with pytest.raises(MissingExtra, match=f"{package} is not installed") as error:
            load(path, check_hashes=False)
        assert error.value.hint == f"pip install 'edgestill[{extra}]'"


def test_the_whole_llama_package_works_beside_ours(packed_llama: dict[str, Path]) -> None:
    opened("gguf", packed_llama["gguf"]).close()
    llama_cpp = importlib.import_module("llama_cpp")
    assert llama_cpp.Llama and llama_cpp.llama_cpp.llama_decode is llama_cpp.llama_decode
    opened("gguf", packed_llama["gguf"]).close()


def test_copies_of_an_artifact_share_nothing(packed_llama: dict[str, Path], tmp_path: Path,
                                             wanted: NDArray[np.float32]) -> None:
    copy = Path(shutil.copytree(packed_llama["onnx"], tmp_path / "copy"))
    first, second = opened("onnx", packed_llama["onnx"]), opened("onnx", copy)
    first.prefill(IDS[:10])
    second.prefill(IDS[5:30])
    same(first.decode(IDS[10]), wanted[10])
