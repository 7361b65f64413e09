"""Keys and values in fewer bits: proven, told, the same in streams and prefixes, and refused where they cost much."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgestill.cli import main
from edgestill.models import kinds, runfile
from edgestill.models.artifact import open_artifact
from edgestill.models.errors import ArtifactError, CheckFailed, UsageError
from edgestill.models.runfile import Export
from edgestill.models.task import Task
from edgestill.quantize import export, verify
from edgestill.quantize.apps import _prompt
from edgestill.quantize.proof import certificate, limits, other_programs
from edgestill.quantize.proof.clients import node_llama_cpp
from edgestill.runtime import load
from edgestill.runtime.generation.prompt_cache import model_digest
from edgestill.runtime.loading.load import load_streams
from edgestill.runtime.text.codec import Codec

from .. import proving, tiny

SHAPE = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}
BIAS = 10.0
TEXT = "turn off the kitchen light in ten minutes, please, and play some music in the living room until 6:45. "
QUESTION = [{"role": "user", "content": TEXT * 4}]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.decoder(tmp_path_factory.mktemp("source") / "qwen2", "qwen2", **SHAPE)


@pytest.fixture(scope="module")
def kept(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A proven artifact with a cache of eight bits."""
    target = Export("gguf:Q8_0", kv="q8_0", clients=["llama_cpp_python", "node_llama_cpp"])
    return export(source, [target], tmp_path_factory.mktemp("kept"), proving.ROWS, proving.TEST_ROWS)["gguf:Q8_0"]


@pytest.fixture(scope="module")
def plain(kept: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same file with the engine's own cache."""
    def without(manifest: Any) -> Any:
        del manifest.settings["kv"]
        return manifest
    return proving.damaged(kept, tmp_path_factory.mktemp("plain") / "artifact", lambda folder: None, without)


def test_it_is_proven_and_said_wherever_it_must_be_known(kept: Path) -> None:
    artifact = open_artifact(kept)
    assert artifact.manifest.kv == artifact.manifest.settings["kv"] == "q8_0"
    found = {check.name: check for check in certificate.read(kept).checks}
    cost = found["kv_kl_nats"]
    assert cost.passed and 0 < (cost.value or 0) < (cost.limit or 0) == 0.02 and cost.n > 100
    assert "keys and values in q8_0" in cost.detail and "sure tokens are the same" in cost.detail
    assert found["kl_nats"].limit == limits.of("gguf:Q8_0").kl_nats + 0.02
    assert found["client llama-cpp-python"].passed, found["client llama-cpp-python"]
    assert found[f"client {node_llama_cpp.NAME}"].detail == "it is not told to keep keys and values in q8_0"
    assert "`llama-cli -m model.gguf --cache-type-k q8_0 --cache-type-v q8_0 --flash-attn on`" in \
        (kept / "README.md").read_text()
    assert "OLLAMA_KV_CACHE_TYPE=q8_0 ollama serve" in (kept / "Modelfile").read_text().splitlines()[0]
    assert "constexpr int KV_TYPE = 8;" in _prompt.header(artifact, Codec.from_folder(kept))
    again = verify(kept, proving.TEST_ROWS)
    again.require()
    assert next(check for check in again.checks if check.name == "kv_kl_nats").passed


def test_without_it_nothing_says_so(plain: Path) -> None:
    assert open_artifact(plain).manifest.kv == "auto"
    assert not [check for check in verify(plain, quick=True).checks if check.name == "kv_kl_nats"]
    assert "constexpr int KV_TYPE = 1;" in _prompt.header(open_artifact(plain), Codec.from_folder(plain))


def test_the_engine_keeps_them_in_so_many_bits(kept: Path, plain: Path) -> None:
    sizes, logits = [], []
    for folder in (kept, plain):
        engine = kinds.load("runtime.engines", "gguf").open(open_artifact(folder), 1, 0)
        logits.append(np.array(engine.prefill(list(range(5, 133)))))
        sizes.append(engine.saved()[0].nbytes)
        engine.close()
    assert sizes[0] / sizes[1] == pytest.approx(34 / 64, abs=0.03)
    assert 0 < np.abs(logits[0] - logits[1]).max() < 1


def test_streams_and_saved_prefixes_answer_the_very_same(kept: Path, plain: Path, tmp_path: Path) -> None:
    with load(kept, threads=1) as model:
        alone: Any = model.chat(QUESTION, reuse="none", max_new_tokens=24)
        model.prefix(TEXT * 3).save(tmp_path / "state")
        prefix = model.load_prefix(tmp_path / "state")
        assert len(prefix.ids) >= 64
        model.engine.truncate(0)
        assert model.generate(TEXT, prefix=prefix, max_new_tokens=24).ids == alone.ids
    streams: Any = load_streams(kept, 2, threads=1)
    assert [stream.chat(QUESTION, max_new_tokens=24).ids for stream in streams] == [alone.ids] * 2
    streams[0].close()
    with load(plain, threads=1) as other, pytest.raises(UsageError, match="made by another model"):
        other.load_prefix(tmp_path / "state")
    assert model_digest(open_artifact(kept)) != model_digest(open_artifact(plain))


def test_a_model_whose_keys_four_bits_cannot_hold_is_refused(tmp_path: Path) -> None:
    """Large biases of keys lie beside what tells tokens apart; in the file's own bits it is sound."""
    from safetensors.numpy import load_file, save_file

    folder = tiny.decoder(tmp_path / "source", "qwen2", **SHAPE)
    weights, drawn = load_file(folder / "model.safetensors"), np.random.default_rng(1)
    for name in weights:
        if name.endswith("k_proj.bias"):
            weights[name] = (BIAS * drawn.standard_normal(weights[name].shape)).astype(weights[name].dtype)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckFailed, match=r"cause: cache .*kv_kl_nats: .* not q4_0"):
        export(folder, [Export("gguf:Q8_0", kv="q4_0")], tmp_path / "four", proving.ROWS)
    assert (tmp_path / "four" / "gguf-Q8_0.failed" / "certificate.json").is_file()
    export(folder, [Export("gguf:Q8_0")], tmp_path / "auto", proving.ROWS)


def test_what_cannot_have_it_is_refused_before_anything_is_written(
        source: Path, tiny_llama: Path, tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match=r"blocks of 32 numbers, and this model's attention heads have 16"):
        export(tiny_llama, [Export("gguf:Q8_0", kv="q8_0")], tmp_path / "heads")
    with pytest.raises(UsageError, match="scales fixed ahead of all texts"):
        export(source, [Export("onnx:int4", kv="q4_0")], tmp_path / "onnx")
    vectors = tiny.embedder(tmp_path / "vectors", "bert")
    with pytest.raises(UsageError, match="a model that embeds keeps no keys and values"):
        export(vectors, [Export("gguf:Q8_0", kv="q8_0")], tmp_path / "embed", task=Task("embed", pooling="mean"))
    for name, line, told in (("odd", 'target = "gguf:Q8_0"\nkv = "q5_1"', "'q5_1'"),
                             ("onnx", 'target = "onnx:int8"\nkv = "q8_0"', "scales fixed ahead")):
        (tmp_path / f"{name}.toml").write_text(f"[[export]]\n{line}\n")
        with pytest.raises(UsageError, match=told):
            runfile.read(tmp_path / f"{name}.toml")
    assert main.call(["export", str(source), "--to", "onnx:int4", "--kv", "q8_0", "-o", str(tmp_path / "o")]) == 2
    assert "leave kv out" in capsys.readouterr().err
    assert not any((tmp_path / name).exists() for name in ("heads", "onnx", "embed", "o"))


def test_gguf_targets_alone_get_what_the_command_line_says(source: Path, tmp_path: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Export] = []
    monkeypatch.setattr("edgestill.quantize.export", lambda source, to, out, **_: asked.extend(to) or {})
    assert main.call(["export", str(source), "--to", "gguf:Q8_0", "--to", "onnx:int8", "--kv", "q4_0",
                 "-o", str(tmp_path / "out"), "--json"]) == 0
    assert [(each.target, each.kv) for each in asked] == [("gguf:Q8_0", "q4_0"), ("onnx:int8", "auto")]


def test_a_manifest_with_another_type_is_refused(plain: Path, tmp_path: Path) -> None:
    table = json.loads((plain / "manifest.json").read_text())
    broken = tmp_path / "broken"
    proving.damaged(plain, broken, lambda _: None)
    table["settings"]["kv"] = "q2_K"
    (broken / "manifest.json").write_text(json.dumps(table))
    with pytest.raises(ArtifactError, match=r"settings.kv = 'q2_K', and it must be one of q8_0, q4_0"):
        open_artifact(broken)


def test_clients_that_keep_nothing_in_fewer_bits_are_held_where_none_are(plain: Path) -> None:
    assert other_programs._keeps(node_llama_cpp, "auto") == "" != other_programs._keeps(node_llama_cpp, "q8_0")
