"""GGUF files turned back into models to train: what comes back, and faults that the proof must find."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgestill.models.errors import ArtifactError, EdgestillError, UsageError
from edgestill.quantize.gguf import tensors, weight_changes
from edgestill.quantize.gguf.tokenizer import splitters
from edgestill.quantize.source import corpus
from edgestill.quantize.source.checkpoint import Checkpoint
from edgestill.quantize.unpack import config, folder, proof, tokenizer, weights
from edgestill.runtime.files import gguf_header, limited_process
from edgestill.runtime.text.codec import Codec

from .. import decoders, gguf_files, tiny
from ..gguf_vocabulary import Change
from .test_gguf_sentencepiece import sentence_piece

LLAMA3 = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "biases": ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False}),
    "llama3": ("llama", {"rope_parameters": LLAMA3, "max_position_embeddings": 16384}),
    "linear": ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}}),
    "yarn": ("llama", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 2.0,
                                           "original_max_position_embeddings": 128}}),
    "qwen2": ("qwen2", {}), "qwen3": ("qwen3", {}), "smollm3": ("smollm3", {}),
    "phi3": ("phi3", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "partial_rotary_factor": 0.5}}),
}
"""Family and config of what is written and read back."""


def here(module: str, job: dict[str, Any], model_bytes: int = 0) -> limited_process.Outcome:
    """The limited process's work in this one, which has torch already."""
    assert module == proof.__name__
    return limited_process.Outcome(json.loads(json.dumps(list(proof._work(job)))))


@pytest.fixture(autouse=True)
def quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every twelfth text, and no process of its own, but where a test is about those."""
    if "whole" not in request.fixturenames:
        texts = corpus.texts()[::12] + ["in 2024 and 12345", "<|end|> inside"]
        monkeypatch.setattr(corpus, "texts", lambda _tokens: texts)
        monkeypatch.setattr(limited_process, "run", here)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of one of MODELS, made once."""
    known: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in known:
            family, changes = MODELS[name]
            known[name] = decoders.make(tmp_path_factory.mktemp(name), family, changes)[0]
        return known[name]
    return make


@pytest.fixture
def llama(made: Callable[[str], Path], tmp_path: Path) -> Path:
    return gguf_files.write(made("llama"), tmp_path)


def unpack(path: Path) -> Path:
    target = path.parent / "unpacked"
    target.mkdir()
    folder.write(path, target)
    return target


@pytest.mark.parametrize("name", MODELS)
def test_a_float_file_comes_back_as_the_folder_it_was_made_of(name: str, made: Callable[[str], Path],
                                                              tmp_path: Path) -> None:
    source = made(name)
    back = unpack(gguf_files.write(source, tmp_path))
    before, after = Checkpoint.open(source), Checkpoint.open(back)
    assert before.entries.keys() == after.entries.keys()
    for tensor in before.entries:
        np.testing.assert_array_equal(before.tensor(tensor), after.tensor(tensor), tensor)
    for key in before.family.keys.values():
        assert after.config.get(key) == before.config.get(key), key
    assert after.config["rope_parameters"].items() >= before.config["rope_parameters"].items() - {
        ("attention_factor", None)}
    assert after.config["tie_word_embeddings"] == before.config["tie_word_embeddings"]
    one, other = Codec.from_folder(source), Codec.from_folder(back)
    assert all(one.encode(text) == other.encode(text) for text in corpus.texts(()))
    assert (one.template, one.stop_ids, one.bos_id, one.pad_id, one.marks) == (
        other.template, other.stop_ids, one.bos_id, other.pad_id, other.marks)


@pytest.mark.parametrize("type_name", ["F16", "BF16", "Q8_0", "Q4_0"])
def test_weights_are_what_the_file_stands_for(type_name: str, made: Callable[[str], Path], tmp_path: Path) -> None:
    from gguf import GGUFReader, dequantize

    path = gguf_files.write(made("llama"), tmp_path, type_name)
    after = Checkpoint.open(unpack(path))
    stored = {tensor.name: dequantize(tensor.data, tensor.tensor_type) for tensor in GGUFReader(path).tensors}
    assert np.array_equal(after.tensor("model.layers.1.mlp.up_proj.weight"), stored["blk.1.ffn_up.weight"])
    turned = after.tensor("model.layers.2.self_attn.q_proj.weight").reshape(4, 2, 8, 64).swapaxes(1, 2).reshape(64, 64)
    assert np.array_equal(turned, stored["blk.2.attn_q.weight"])


@pytest.fixture
def whole() -> None:
    """Nothing is made quick."""


@pytest.mark.usefixtures("whole")
def test_a_file_is_made_a_model_once(llama: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In a limited process and with the whole corpus; its manifest names the file, and says what was measured."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    found = folder.folder_of(llama)
    manifest = json.loads((found / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["parents"] == [{"role": "gguf", "name": "model.gguf", "sha256": folder.digest(llama)}]
    assert manifest["checks"]["token_ids"]["n"] > 2000 and manifest["checks"]["token_ids"]["left_out"] == 0
    assert manifest["checks"]["weights"] == {"value": 0.0, "n": 29} and manifest["checks"]["logits"]["value"] < 1e-4
    assert (manifest["stage"], manifest["family"], manifest["licences"]) == ("unpack", "llama", {"model": "unknown"})
    assert manifest["dimensions"]["parameters"] == gguf_header.read(llama).parameters
    monkeypatch.setattr(proof, "prove", None)
    assert folder.unpacked(llama) == found and folder.unpacked(found) == found


@pytest.mark.usefixtures("whole")
def test_two_processes_that_make_one_file_a_model_both_have_it(llama: Path, monkeypatch: pytest.MonkeyPatch,
                                                               tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    write, sooner = folder.write, []

    def late(path: Path, out: Path) -> dict[str, Any]:
        monkeypatch.setattr(folder, "write", write)
        sooner.append(folder.folder_of(path))  # as another process, which ends while this one works
        return write(path, out)

    monkeypatch.setattr(folder, "write", late)
    assert folder.folder_of(llama) == sooner[0] and [*sooner[0].parent.iterdir()] == sooner


def swapped(init: Any) -> Any:
    def changed(self: Any, path: Path, header: gguf_header.Header) -> None:
        init(self, path, header)
        self.tokens[300], self.tokens[301] = self.tokens[301], self.tokens[300]
    return changed


def dropped(items: Any) -> Any:
    return lambda path, header, key: items(path, header, key)[: -40 if key.endswith("merges") else None]


FAULTS: dict[str, tuple[Any, str, Callable[[Any], Any], str]] = {
    "queries and keys as the file orders them": (
        weights, "as_in_checkpoint", lambda _: lambda _tensor, values, _checkpoint: values, "attn_k.weight is not"),
    "digits not split": (tokenizer, "named", lambda _: lambda _name: splitters.SPLITTERS[0],
                         "texts get other token ids"),
    "two tokens swapped": (tokenizer.Vocabulary, "__init__", swapped, "the token 300 is|texts get other token ids"),
    "merges lost": (gguf_header, "items", dropped, "texts get other token ids"),
    "an output layer of its own": (config, "_table", lambda table: lambda *given: table(*given) | {
        "tie_word_embeddings": False}, "no tensor 'output.weight' in it"),
    "another rotation": (config, "_table", lambda table: lambda *given: table(*given) | {
        "rope_parameters": {"rope_type": "default", "rope_theta": 2e4}}, "rope.freq_base is 10000.0, and is written"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_reader_is_found(name: str, llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, attribute, change, message = FAULTS[name]
    monkeypatch.setattr(owner, attribute, change(getattr(owner, attribute)))
    with pytest.raises(ArtifactError, match=message):
        unpack(llama)


def test_a_fault_of_both_directions_is_found_by_the_logits(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the table of changes wrong, the weights would still come back as they were."""
    monkeypatch.setitem(weight_changes.ORDERS, "rotate", lambda rows, _heads: np.arange(rows))
    assert tensors.ORDERS is weight_changes.ORDERS
    with pytest.raises(ArtifactError, match="another than llama.cpp runs: its logits"):
        unpack(llama)


def test_a_tied_output_layer_is_told_by_the_file(made: Callable[[str], Path], tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    path, table = gguf_files.write(made("biases"), tmp_path), config._table
    monkeypatch.setattr(config, "_table", lambda *given: table(*given) | {"tie_word_embeddings": True})
    with pytest.raises(ArtifactError, match="'output.weight' has no place"):
        unpack(path)


def replaced(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    assert len(old) == len(new)

    def change(data: bytes) -> bytes:
        assert data.count(old) == 1
        return data.replace(old, new)
    return change


REFUSED: dict[str, tuple[Callable[[bytes], bytes], type[EdgestillError], str]] = {
    "splitting rules": (replaced(b"smollm", b"falcon"), UsageError, "split by the rules 'falcon'"),
    "tokenizer": (replaced(b"\x04\0\0\0\0\0\0\0gpt2", b"\x04\0\0\0\0\0\0\0rwkv"), UsageError, "of the kind 'rwkv'"),
    "metadata": (replaced(b"llama.rope.freq_base", b"llama.logit_scaling_"), ArtifactError,
                 "llama.logit_scaling_ is 10000.0, which is not known here: it would be lost"),
    "size": (replaced(b"llama.embedding_length", b"llama.embedding_lengtX"), ArtifactError,
             "llama.embedding_length is None, a count was expected"),
    "norm": (replaced(b"attention.layer_norm_rms_epsilon", b"attention.layer_norm_rms_epsiloX"), ArtifactError,
             "llama.attention.layer_norm_rms_epsilon is None, a number above 0"),
    "layers": (replaced(b"blk.2.ffn_up.weight", b"blk.9.ffn_up.weight"), ArtifactError,
               "block_count is 3, and it holds tensors of 4 layers"),
    "tensor": (replaced(b"blk.2.ffn_up.weight", b"blk.2.ffn_uX.weight"), ArtifactError,
               "no tensor 'blk.2.ffn_up.weight' in it"),
    "special token": (lambda data: data.replace(after := b"eos_token_id\x04\0\0\0\0\0\0\0", after[:-4] + b"\0\x90\0\0"),
                      ArtifactError, "eos_token_id is 36864, the vocabulary has 384 tokens"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_read_back_is_refused_by_name(what: str, llama: Path) -> None:
    change, error, message = REFUSED[what]
    llama.write_bytes(change(llama.read_bytes()))
    with pytest.raises(error, match=message):
        unpack(llama)


def test_other_architectures_are_refused_with_those_that_are_read(made: Callable[[str], Path], tmp_path: Path) -> None:
    path = gguf_files.write(decoders.make(tmp_path / "gemma", "gemma3", {})[0], tmp_path)
    with pytest.raises(UsageError, match="architecture 'gemma3'") as caught:
        unpack(path)
    assert "llama, phi3, qwen2, qwen3, smollm3 are" in caught.value.hint


def test_what_llama_cpp_does_not_survive_is_an_error(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limited_process, "run", lambda *_: limited_process.Outcome([], "the engine crashed (SIGSEGV)"))
    with pytest.raises(ArtifactError, match=r"the engine crashed \(SIGSEGV\)"):
        unpack(llama)


def test_a_part_of_a_file_is_refused(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = gguf_header.read

    def split(path: Path) -> gguf_header.Header:
        header = read(path)
        header.values["split.count"] = 3
        return header

    monkeypatch.setattr(gguf_header, "read", split)
    with pytest.raises(UsageError, match="one of 3 parts"):
        unpack(llama)


def without_blank(table: dict[str, Any]) -> None:
    table["normalizer"]["normalizers"].pop(0)
    table["decoder"]["decoders"].pop()


@pytest.mark.parametrize("change", [lambda table: None, without_blank], ids=["blank", "none"])
def test_llama_2s_kind_of_tokenizer_comes_back(change: Change, tmp_path: Path) -> None:
    """Its file has scores in place of merges."""
    source = tiny.decoder(tmp_path / "source", "llama", vocab_size=300, eos_token_id=2, bos_token_id=1, pad_token_id=0)
    (source / "generation_config.json").write_text('{"eos_token_id": 2, "bos_token_id": 1}')
    (source / "chat_template.jinja").unlink()
    sentence_piece(source, change)
    back = unpack(gguf_files.write(source, tmp_path))
    one, other = Codec.from_folder(source), Codec.from_folder(back)
    for text in corpus.texts(()):
        assert one.encode(text, True) == other.encode(text, True)
        assert one.decode(one.encode(text)) == other.decode(one.encode(text))
    assert (one.bos_id, one.stop_ids, one.marks) == (other.bos_id, other.stop_ids, other.marks)
