"""Embedders: vectors against torch, pooling as sentence-transformers' files say, certificates, neighbours."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgestill.cli.main import call
from edgestill.models.artifact import open_artifact
from edgestill.models.errors import ArtifactError, CheckFailed, DataError, UsageError
from edgestill.models.task import Task
from edgestill.quantize import export, verify
from edgestill.quantize.source import sentence_transformers
from edgestill.quantize.source.model_folder import Source
from edgestill.runtime import evaluate, load, profile
from edgestill.runtime.data.reader import Row
from edgestill.runtime.encoders.embedder import Embedder, nearest_answers
from numpy.typing import NDArray

from .. import packed, proving, tiny

TEXTS = tiny.SENTENCES[:8]
ROWS = proving.label_rows(tiny.SENTENCES[:6])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny.embedder(tmp_path_factory.mktemp("embedder") / "bert", "bert", pooling="cls")
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 24}')
    return folder


@pytest.fixture(scope="module")
def exported(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return export(source, ["onnx:fp32", "onnx:int8"], tmp_path_factory.mktemp("out"), (), ROWS)


@pytest.fixture(scope="module")
def packed_gguf(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    context = json.loads((source / "config.json").read_text())["max_position_embeddings"]
    return packed.pack(source, tmp_path_factory.mktemp("packed") / "gguf", "gguf:F32", Task("embed", pooling="cls"),
                       family="bert", dimensions={"context": context})


@pytest.fixture(scope="module")
def model(exported: dict[str, Path]) -> Iterator[Embedder]:
    with load(exported["onnx:fp32"], threads=1) as one:
        assert isinstance(one, Embedder)
        yield one


def torch_vector(folder: Path, text: str) -> NDArray[np.float32]:
    import torch
    from transformers import AutoModel, AutoTokenizer

    inputs = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt", truncation=True, max_length=24)
    with torch.no_grad():
        first = AutoModel.from_pretrained(folder).eval()(**inputs).last_hidden_state[0, 0]
    return (first / first.norm()).numpy()


def test_vectors_are_those_of_torch(model: Embedder, source: Path) -> None:
    assert model.dimensions == 64
    for text in [*TEXTS[:3], "", "turn off the light " * 20]:
        np.testing.assert_allclose(model.embed(text), torch_vector(source, text), atol=1e-5)


def test_threads_share_an_embedder_until_it_is_closed(packed_gguf: Path, exported: dict[str, Path]) -> None:
    for path in (packed_gguf, exported["onnx:fp32"]):
        shared = load(path, threads=1)
        assert isinstance(shared, Embedder)
        wanted = shared.embed_all(TEXTS)
        with ThreadPoolExecutor(4) as pool:
            for found in pool.map(shared.embed_all, [TEXTS] * 12, timeout=60):
                np.testing.assert_array_equal(found, wanted)
        shared.close()
        shared.close()
        with pytest.raises(UsageError, match="the model is closed"):
            shared.embed(TEXTS[0])


def test_a_bare_gguf_embedder_answers_and_cuts_as_the_artifact_does(packed_gguf: Path, tmp_path: Path) -> None:
    bare = shutil.copy(packed_gguf / "model.gguf", tmp_path / "x.gguf")
    with load(packed_gguf, threads=1) as ours, load(bare, threads=1) as foreign:
        assert isinstance(ours, Embedder) and isinstance(foreign, Embedder)
        texts = [*TEXTS, "turn off the light " * 200]
        np.testing.assert_array_equal(foreign.embed_all(texts), ours.embed_all(texts))


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_batches_answer_in_order(batch: int, model: Embedder) -> None:
    found = model.embed_all(TEXTS, batch)
    assert found.shape == (8, 64) and found.dtype == np.float32
    np.testing.assert_allclose(found, np.stack([model.embed(text) for text in TEXTS]), atol=1e-5)
    assert model.embed_all([]).shape == (0, 64)


def test_padding_is_not_part_of_a_mean(tmp_path: Path) -> None:
    source = tiny.embedder(tmp_path / "source", "bert")
    task = Task("embed", pooling="mean", normalise=False)
    folder = packed.pack(source, tmp_path / "packed", "onnx:fp32", task, dimensions={"hidden": 64, "context": 128})
    with load(folder, threads=1) as model:
        assert isinstance(model, Embedder)
        alone = model.embed(TEXTS[0])
        np.testing.assert_allclose(model.embed_all([TEXTS[0], " ".join(TEXTS[:4])], batch=2)[0], alone, atol=1e-5)
        assert np.linalg.norm(alone) > 1.5


def test_an_export_states_and_proves_what_it_does(exported: dict[str, Path]) -> None:
    for folder in exported.values():
        manifest = open_artifact(folder).manifest
        assert (manifest.task.kind, manifest.task.pooling, manifest.task.normalise) == ("embed", "cls", True)
        assert manifest.dimensions["context"] == 24
        assert (folder / "1_Pooling" / "config.json").is_file(), "sentence-transformers loads the folder, too"
        proven = verify(folder, ROWS)
        proven.require()
        run = {check.name for check in proven.checks if check.passed}
        assert run >= {"cosine_distance", "cosine_distance_worst", "token_ids"}
        assert "edgestill embed" in (folder / "README.md").read_text()
    some = verify(exported["onnx:fp32"], ROWS[:3]).checks
    assert next(check for check in some if check.name == "task_metric_drop").passed is None


def test_exchanged_queries_and_keys_are_caught(exported: dict[str, Path], source: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    shutil.copytree(source, tmp_path / "wrong")
    weights = load_file(tmp_path / "wrong" / "model.safetensors")
    names = [f"encoder.layer.0.attention.self.{name}.weight" for name in ("query", "key")]
    weights |= dict(zip(names, [weights[name] for name in reversed(names)], strict=True))
    save_file(weights, tmp_path / "wrong" / "model.safetensors", {"format": "pt"})
    other = packed.pack(tmp_path / "wrong", tmp_path / "packed", "onnx:fp32", Task("embed"), dimensions={})

    def exchange(folder: Path) -> None:
        shutil.copyfile(other / "onnx" / "model.onnx", folder / "onnx" / "model.onnx")
    with pytest.raises(CheckFailed, match="cause: weights"):
        verify(proving.damaged(exported["onnx:fp32"], tmp_path / "damaged", exchange)).require()


def test_an_embedder_answers_with_its_nearest_neighbour(model: Embedder) -> None:
    rows = [Row(text=text, label=label) for text, label in (("turn off the light", "a"), ("play music", "b"))] * 2
    found = evaluate(model, rows)
    assert found.answers == ["a", "b", "a", "b"] and found.metrics["accuracy"].value == 1
    pairs = [Row(messages=({"role": "user", "content": text}, {"role": "assistant", "content": text}))
             for text in TEXTS[:3]]
    assert evaluate(model, pairs).answers == TEXTS[:3]
    with pytest.raises(DataError, match="1 label rows cannot measure an embedder"):
        evaluate(model, rows[:1])
    with pytest.raises(UsageError, match="needs a model that generates text"):
        evaluate(model, [Row(text="a"), Row(text="b")])


def test_neighbours_are_found_chunk_by_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgestill.runtime.encoders.embedder.ROWS_AT_ONCE", 2)
    rows = [Row(text=str(index), label=str(index // 2)) for index in range(6)]
    angles = np.array([0.0, 0.1, 1.0, 1.1, 2.0, 2.1])
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert nearest_answers(lambda texts: points[[int(text) for text in texts]], rows) == [row.label for row in rows]


def test_an_embedder_is_profiled_by_the_text(exported: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgestill.runtime.profiling.measure._LOADS", 1)
    found = profile(exported["onnx:fp32"], prompt_tokens=8, warmup=0, repeats=2, rows=ROWS, threads=1)
    assert found.kind == "embed" and found.latency_ms is not None and found.latency_ms["p50"] > 0


def test_the_verb_shows_likeness_and_writes_vectors(
        exported: dict[str, Path], packed_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    artifact = str(exported["onnx:fp32"])
    assert call(["embed", artifact, "a light", "a light", "--threads", "1"]) == 0
    assert capsys.readouterr().out.count("1.000") == 2
    (tmp_path / "rows.jsonl").write_text('{"text": "a light", "label": "a"}\n{"text": "rain", "label": "b"}\n')
    assert call(["embed", artifact, str(tmp_path / "rows.jsonl"), "-o", str(tmp_path / "two.npy"), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [item["text"] for item in shown] == ["a light", "rain"]
    np.testing.assert_allclose(np.load(tmp_path / "two.npy"), [item["vector"] for item in shown], atol=1e-6)
    for words in (["generate", artifact, "a"], ["chat", artifact], ["classify", artifact, "a"],
                  ["embed", str(packed_bert), "a"]):
        assert call(words) == 2
        assert "is made to" in capsys.readouterr().err


def test_what_is_no_embedder_is_refused(exported: dict[str, Path], tiny_bert: Path, source: Path, tmp_path: Path,
                                        model: Embedder) -> None:
    with pytest.raises(UsageError, match="a BertForSequenceClassification can classify"):
        Source.open(tiny_bert, Task("embed"))
    with pytest.raises(UsageError, match="a BertModel can embed"):
        Source.open(source, Task("generate"))
    with pytest.raises(UsageError, match="batch: 0"):
        model.embed_all(TEXTS, 0)
    classifier = packed.pack(tiny_bert, tmp_path / "packed", "onnx:fp32", Task("embed"), dimensions={})
    with pytest.raises(ArtifactError, match="no encoder graph with the output 'last_hidden_state'"):
        load(classifier)


def test_a_gguf_embedder_is_proven_and_pools_as_its_folder_says(source: Path, tmp_path: Path) -> None:
    made = export(source, ["gguf:Q8_0"], tmp_path / "out", (), ROWS)["gguf:Q8_0"]
    proven = verify(made, ROWS)
    proven.require()
    assert {"cosine_distance", "token_ids_in_file"} <= {check.name for check in proven.checks if check.passed}
    with pytest.raises(UsageError, match="task.pooling = 'mean', and beside the model stands 'cls'"):
        export(source, ["gguf:F32"], tmp_path / "other", task=Task("embed", pooling="mean"))


def test_an_activation_that_llama_cpp_has_not_is_refused_for_gguf_alone(source: Path, tmp_path: Path) -> None:
    shutil.copytree(source, tmp_path / "relu")
    proving.edit_json(tmp_path / "relu" / "config.json", lambda table: table.update(hidden_act="relu"))
    with pytest.raises(UsageError, match="hidden_act is 'relu'"):
        packed.pack(tmp_path / "relu", tmp_path / "out", "gguf:F32", Task("embed"))


def modules(folder: Path, kinds: list[str], **pooling: Any) -> Path:
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "modules.json").write_text(json.dumps([
        {"path": "1_Pooling" if kind == "Pooling" else "", "type": f"sentence_transformers.models.{kind}"}
        for kind in kinds]))
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


def test_pooling_is_what_the_files_say(tmp_path: Path) -> None:
    plain = modules(tmp_path / "plain", ["Transformer", "Pooling"], pooling_mode_cls_token=True)
    assert sentence_transformers.complete(Task("embed"), plain) == Task("embed", pooling="cls", normalise=False)
    assert sentence_transformers.complete(Task("embed", pooling="mean"), plain).pooling == "mean", "as given"
    assert sentence_transformers.complete(Task("embed"), tmp_path) == Task("embed", pooling="mean")
    dense = modules(tmp_path / "dense", ["Transformer", "Pooling", "Dense"], pooling_mode_cls_token=True)
    with pytest.raises(UsageError, match="a step 'Dense'"):
        sentence_transformers.complete(Task("embed"), dense)
    most = modules(tmp_path / "most", ["Transformer", "Pooling"], pooling_mode_max_tokens=True)
    with pytest.raises(UsageError, match="pooling_mode_max_tokens"):
        sentence_transformers.complete(Task("embed"), most)
    (most / "modules.json").write_text("[")
    with pytest.raises(ArtifactError, match="no valid JSON"):
        sentence_transformers.complete(Task("embed"), most)
    (most / "modules.json").write_text("{}")
    with pytest.raises(ArtifactError, match="a JSON list was expected"):
        sentence_transformers.complete(Task("embed"), most)
