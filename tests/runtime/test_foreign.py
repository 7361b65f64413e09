"""Models made elsewhere: recognised by what they hold, tried in a limited process, used as our own are."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from edgestill.cli import main
from edgestill.models.errors import ArtifactError, EdgestillError, UsageError
from edgestill.quantize import verify
from edgestill.quantize.proof.clients import _node
from edgestill.runtime import evaluate, load, profile
from edgestill.runtime.engines import onnx as onnx_engine
from edgestill.runtime.engines._concat import ConcatEngine
from edgestill.runtime.files import limited_process, onnx_header
from edgestill.runtime.loading.foreign import codec_of, open_model
from edgestill.runtime.text import gguf_tokenizer
from edgestill.runtime.text.codec import Codec

from .. import proving, tiny


@pytest.fixture(scope="module")
def gguf(packed_llama: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF file with nothing beside it."""
    return Path(shutil.copy(packed_llama["gguf"] / "model.gguf", tmp_path_factory.mktemp("bare") / "x.gguf"))


@pytest.fixture(scope="module")
def graph(packed_llama: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as transformers.js and onnxruntime-genai load it."""
    folder = tmp_path_factory.mktemp("graphs") / "llama"
    shutil.copytree(packed_llama["onnx"], folder, ignore=shutil.ignore_patterns("manifest.json"))
    return folder


@pytest.fixture(scope="module")
def classifier(packed_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graphs") / "bert"
    shutil.copytree(packed_bert, folder, ignore=shutil.ignore_patterns("manifest.json"))
    return folder


@pytest.fixture(scope="module")
def folder_of_the_builder(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What onnxruntime-genai's own builder writes: int4, model.onnx at the root."""
    from onnxruntime_genai.models import builder

    folder = tmp_path_factory.mktemp("builder") / "int4"
    arguments = ("", str(tiny_llama), str(folder), "int4", "cpu", str(folder / "cache"))
    builder.create_model(*arguments, **builder.parse_extra_options(*arguments, []))
    return folder


def test_a_bare_gguf_answers_as_the_artifact_does(gguf: Path, packed_llama: dict[str, Path]) -> None:
    with load(packed_llama["gguf"], threads=1) as ours, load(gguf, threads=1) as foreign:
        for prompt in ("turn off the light", "Grüße 你好 🙂", "12 + 34"):
            assert foreign.generate(prompt, max_new_tokens=12).ids == ours.generate(prompt, max_new_tokens=12).ids
        with pytest.raises(UsageError, match="a GGUF file holds none"):
            foreign.generate("x", schema={"type": "object"})


def test_the_codec_of_a_gguf_is_that_of_its_tokenizer_file(gguf: Path, tiny_llama: Path) -> None:
    found, expected = gguf_tokenizer.codec(gguf), Codec.from_folder(tiny_llama)
    assert (found.stop_ids, found.eos_id, found.pad_id, found.template) == (
        expected.stop_ids, expected.eos_id, expected.pad_id, expected.template)
    assert found.vocabulary_size == expected.vocabulary_size and found.adds_bos == expected.adds_bos
    for text in [*tiny.SENTENCES, "<|user|>a<|end|>"]:
        ids = expected.encode(text)
        assert found.encode(text) == ids
        for skipped in (True, False):
            assert found.decode(ids, skipped) == expected.decode(ids, skipped)
    chat = [{"role": "user", "content": "hi"}]
    assert found.prompt_ids(chat) == expected.prompt_ids(chat)
    assert found.tokenizer.get_added_tokens_decoder().keys() == expected.tokenizer.get_added_tokens_decoder().keys()


def test_a_graph_folder_answers_as_the_artifact_does(graph: Path, packed_llama: dict[str, Path]) -> None:
    with load(packed_llama["onnx"], threads=1) as ours:
        expected = ours.generate("turn off the light", max_new_tokens=12).ids
    for path in (graph, next(graph.rglob("*.onnx"))):
        with load(path, threads=1) as foreign:
            assert foreign.generate("turn off the light", max_new_tokens=12).ids == expected


def test_a_graph_that_copies_its_cache_answers_alike(graph: Path, packed_llama: dict[str, Path],
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    """GroupQueryAttention too appends to a copy when past and present are two buffers, as transformers.js runs it."""
    artifact = open_model(graph)
    ids = Codec.from_folder(graph).encode(" ".join(tiny.SENTENCES[:10]))[:100]
    shared = onnx_engine.open(artifact, 1, 128)
    assert isinstance(shared, onnx_engine.OnnxEngine)
    monkeypatch.setattr(onnx_header, "read", lambda _: onnx_header.Header())
    copying = onnx_engine.open(artifact, 1, 128)
    assert isinstance(copying, ConcatEngine)
    expected = np.array(shared.logits(ids))
    assert np.abs(copying.logits(ids) - expected).max() < 1e-3 and copying.position == 100
    copying.truncate(40)
    state = copying.saved()
    assert np.abs(copying.decode(ids[40]) - expected[40]).max() < 1e-3
    copying.restore(ids[:40], state)
    assert np.abs(copying.extend(ids[40:44]) - expected[40:44]).max() < 1e-3
    with pytest.raises(ArtifactError, match="does not fit"):
        copying.restore(ids[:39], state)
    for engine in (shared, copying):
        engine.close()


def test_a_graph_that_is_no_decoder_is_refused(classifier: Path) -> None:
    artifact = open_model(classifier)
    with pytest.raises(ArtifactError, match="no decoder graph with a cache"):
        onnx_engine.open(artifact, 1, 16)


def test_a_foreign_classifier_names_its_labels(classifier: Path) -> None:
    with load(classifier, threads=1) as model:
        assert model.classify("turn off the light").probabilities.keys() == set(tiny.LABELS)


def test_what_the_builder_writes_is_proven(folder_of_the_builder: Path, tiny_llama: Path) -> None:
    artifact = open_model(folder_of_the_builder)
    assert artifact.manifest.scheme == "onnx:int4" and artifact.manifest.dimensions["layers"] == 3
    proven = verify(folder_of_the_builder, proving.TEST_ROWS, threads=1, against=tiny_llama)
    proven.require()
    assert proven.origin == "origin unverified" and "onnxruntime" in proven.ran_with


def test_foreign_models_are_evaluated_and_profiled(gguf: Path) -> None:
    with load(gguf, threads=1) as model:
        assert evaluate(model, proving.TEST_ROWS).metrics["exact_match"].n == len(proving.TEST_ROWS)
    found = profile(gguf, prompt_tokens=8, new_tokens=4, warmup=0, repeats=1, threads=1)
    assert found.file_bytes == gguf.stat().st_size and found.decode_tokens_per_s > 0


@pytest.mark.parametrize("verb", [["inspect"], ["generate", "turn off the light"], ["verify", "--json"]])
def test_verbs_say_that_the_origin_is_unverified(verb: list[str], gguf: Path, tiny_llama: Path, tmp_path: Path,
                                                 capsys: pytest.CaptureFixture[str],
                                                 caplog: pytest.LogCaptureFixture) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": text, "completion": "x"}) + "\n" for text in tiny.SENTENCES[:3]))
    more = ["--against", str(tiny_llama), "--data", str(rows), "--threads", "1"] if verb[0] == "verify" else []
    assert main.call([verb[0], str(gguf), *verb[1:], *more]) == 0
    captured = capsys.readouterr()
    assert "unverified" in captured.out + caplog.text
    if verb[0] == "verify":
        (proven,) = json.loads(captured.out).values()
        assert proven["passed"] and proven["origin"] == "origin unverified"
        assert proven["schema"] == 3 and not proven["grade"]["name"]  # of three rows nobody can tell
        assert proven["grade"]["words"].startswith("not graded: ")
        assert {check["name"] for check in proven["checks"]} >= {
            "task_metric_drop", "token_ids_rows_in_file"}


def test_a_proof_that_fails_ends_with_code_3_and_the_cause(gguf: Path, tmp_path: Path,
                                                          capsys: pytest.CaptureFixture[str]) -> None:
    other = tiny.decoder(tmp_path / "other", "llama", seed=1)
    assert main.call(["verify", str(gguf), "--against", str(other), "--threads", "1"]) == 3
    assert "cause: weights" in capsys.readouterr().err


def replaced(path: Path, folder: Path, old: bytes, new: bytes) -> Path:
    data = path.read_bytes()
    assert old in data and len(old) == len(new)
    (folder / "x.gguf").write_bytes(data.replace(old, new))
    return folder / "x.gguf"


def test_a_file_that_is_not_there_is_called_a_file(tmp_path: Path) -> None:
    for name in ("x.gguf", "x.onnx"):
        with pytest.raises(ArtifactError, match=f"{name}: no such file"):
            open_model(tmp_path / name)


def test_a_gguf_of_an_unknown_architecture_is_refused_with_the_list(gguf: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'ollam', which is not known") as caught:
        load(replaced(gguf, tmp_path, b"architecture\x08\0\0\0\x05\0\0\0\0\0\0\0llama",
                      b"architecture\x08\0\0\0\x05\0\0\0\0\0\0\0ollam"))
    assert "llama" in caught.value.hint and "gpt2" in caught.value.hint


def test_a_pre_tokenizer_that_llama_cpp_does_not_know_is_the_tokenizers_fault(gguf: Path, tiny_llama: Path,
                                                                             tmp_path: Path) -> None:
    """llama.cpp refuses the file: a check that failed, with its cause, and no error of ours."""
    path = replaced(gguf, tmp_path, b"smollm", b"smallm")
    proven = verify(path, proving.TEST_ROWS, threads=1, against=tiny_llama)
    assert proven.causes == ("tokenizer",) and "unknown pre-tokenizer" in proven.failed[0].detail
    with pytest.raises(ArtifactError, match="llama.cpp cannot load"):
        load(path)


def test_a_file_that_crashes_the_engine_is_a_failed_check_and_no_crash_of_ours(gguf: Path, tiny_llama: Path,
                                                                              tmp_path: Path) -> None:
    key = b"llama.attention.head_count\x04\0\0\0"
    path = replaced(gguf, tmp_path, key + b"\x04\0\0\0", key + b"\0\0\0\0")
    proven = verify(path, proving.TEST_ROWS, threads=1, against=tiny_llama)
    assert proven.causes == ("weights",), proven.failed
    with pytest.raises(ArtifactError):
        load(path)


def test_a_file_of_another_model_is_refused_before_weights_load(gguf: Path, tmp_path: Path,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    from edgestill.quantize.source.float_model import FloatModel

    monkeypatch.setattr(FloatModel, "from_folder", lambda _: pytest.fail("weights were loaded"))
    with pytest.raises(UsageError, match="its architecture is llama, that of .* is qwen2"):
        verify(gguf, against=tiny.decoder(tmp_path / "qwen", "qwen2"))
    with pytest.raises(UsageError, match="its layers is 3, that of .* is 2"):
        verify(gguf, against=tiny.decoder(tmp_path / "short", "llama", num_hidden_layers=2))
    with pytest.raises(UsageError, match="its task is generate, that of .* is classify"):
        verify(gguf, against=tiny.classifier(tmp_path / "labels", "bert"))


def two_graphs(folder: Path) -> None:
    (folder / "genai_config.json").unlink()
    path = next(folder.rglob("*.onnx"))
    shutil.copy(path, path.with_name("other.onnx"))


def named_outside(folder: Path) -> None:
    proving.edit_json(folder / "genai_config.json",
                      lambda table: table["model"]["decoder"].update(filename="../../other.onnx"))


def no_configs(folder: Path) -> None:
    for name in ("genai_config.json", "config.json"):
        (folder / name).unlink()


BAD: list[tuple[str, Callable[[Path], object]]] = [
    ("2 ONNX graphs in it", two_graphs), ("there is no such file in the folder", named_outside),
    ("neither config.json nor genai_config.json", no_configs),
    ("no valid JSON", lambda folder: (folder / "genai_config.json").write_text("{")),
    ("a JSON object was expected", lambda folder: (folder / "config.json").write_text("[]")),
    ("genai_config.json: model: a JSON object was expected, found list",
     lambda folder: (folder / "genai_config.json").write_text('{"model": []}')),
    ("genai_config.json: decoder: a JSON object was expected, found int",
     lambda folder: (folder / "genai_config.json").write_text('{"model": {"decoder": 3}}')),
    *[(f"genai_config.json: model.{key} = ", lambda folder, change=change: proving.edit_json(
        folder / "genai_config.json", lambda table: change(table["model"])))
      for key, change in {
          "context_length": lambda model: model.update(context_length="long"),
          "vocab_size": lambda model: model.update(vocab_size=True),
          "decoder.filename": lambda model: model["decoder"].update(filename="a" * 256),
          "decoder.head_size": lambda model: model["decoder"].update(head_size=10**400)}.items()],
    ("config.json: id2label = 'first', and it must be ids", lambda folder: proving.edit_json(
        folder / "config.json", lambda table: table.update(architectures=["BertForSequenceClassification"],
                                                           id2label={"first": "a"}))),
    ("no tokenizer.json", lambda folder: (folder / "tokenizer.json").unlink()),
    ("which is no file in the same folder", lambda folder: next(folder.rglob("*.onnx_data")).unlink()),
    ("not an artifact", lambda folder: (folder / "certificate.json").write_text("{}")),
]


@pytest.mark.parametrize(("message", "spoil"), BAD, ids=[message for message, _ in BAD])
def test_a_bad_folder_is_refused_with_a_next_step(message: str, spoil: Callable[[Path], object], graph: Path,
                                                  tmp_path: Path) -> None:
    folder = shutil.copytree(graph, tmp_path / "folder")
    spoil(folder)
    with pytest.raises(EdgestillError, match=message) as caught:
        codec_of(open_model(folder))
    assert caught.value.hint


def test_what_no_engine_runs_is_refused_with_a_next_step(tiny_llama: Path, gguf: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        shutil.copy(gguf, tmp_path / f"{name}.gguf")
    (tmp_path / "model.bin").write_bytes(b"PK")
    cases: list[tuple[Path, str, str]] = [
        (tiny_llama, "stored as 'hf', which no engine", "edgestill export"), (tmp_path, "2 GGUF files", "name one"),
        (tmp_path / "model.bin", "neither a .gguf nor an .onnx", "give an artifact")]
    for path, message, hint in cases:
        with pytest.raises(EdgestillError, match=message) as caught:
            load(path)
        assert hint in caught.value.hint
    for path in (gguf, tiny_llama):
        with pytest.raises(UsageError, match="says nothing of the float model") as caught:
            verify(path)
        assert "--against" in caught.value.hint


CHILD = """
import os, sys, time
from edgestill.models.errors import DataError
from edgestill.runtime.files.limited_process import serve
def work(job):
    yield {"begun": job["how"]}
    if job["how"] == "crash": os.abort()
    if job["how"] == "raise": raise RuntimeError("broken")
    if job["how"] == "refuse": raise DataError("bad", "do this")
    if job["how"] == "hang": time.sleep(60)
    if job["how"] == "eat": bytearray(2 ** 40)
    print("noise of a library")
    yield {"ended": True}
serve(work)
"""


def beside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a fresh interpreter find the child."""
    (folder / "limited_child.py").write_text(CHILD)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))


@pytest.mark.parametrize(("how", "crash", "found"), [
    ("work", "", 2), ("crash", "SIGABRT", 1), ("raise", "RuntimeError: broken", 1), ("hang", "longer than 3", 1),
    ("eat", "MemoryError", 1)])
def test_a_limited_process_tells_how_far_it_came_and_how_it_ended(how: str, crash: str, found: int, tmp_path: Path,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    beside(tmp_path, monkeypatch)
    outcome = limited_process.run("limited_child", {"how": how}, seconds=3 if how == "hang" else 60)
    assert crash in outcome.crash and bool(crash) == bool(outcome.crash)
    assert len(outcome.found) == found and outcome.found[0] == {"begun": how}


def test_another_machines_artifact_is_tried_once(packed_llama: dict[str, Path], tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that starts the same file every morning must not pay for the trial each time."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another machine"))
    load(packed_llama["gguf"]).close()
    monkeypatch.setattr(limited_process, "run", lambda *arguments: pytest.fail("tried again"))
    load(packed_llama["gguf"]).close()
    changed = shutil.copytree(packed_llama["gguf"], tmp_path / "changed")
    content = (changed / "model.gguf").read_bytes()
    (changed / "model.gguf").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ArtifactError):
        load(changed)


def test_what_a_limited_process_refuses_is_raised_as_what_it_is(tmp_path: Path,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    beside(tmp_path, monkeypatch)
    outcome = limited_process.run("limited_child", {"how": "refuse"})
    assert outcome.error is not None and str(outcome.error) == "bad\n  do this" and len(outcome.found) == 1


def test_no_process_imports_what_lies_beside_a_model(gguf: Path, tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("numpy", "json", "jinja2", "llama_cpp", "llguidance"):
        (tmp_path / f"{name}.py").write_text("open('run', 'w').close()\nraise SystemExit(3)\n")
    monkeypatch.chdir(tmp_path)
    load(gguf, threads=1).close()  # in a limited process first
    profile(gguf, repeats=1, warmup=0, prompt_tokens=4, new_tokens=2, threads=1)
    subprocess.run([sys.executable, "-m", "edgestill", "generate", str(gguf), "x", "--max-new-tokens", "1"], check=True)
    assert not (tmp_path / "run").exists()


def test_node_takes_no_package_that_came_with_a_model(gguf: Path, tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "model"
    for folder in (tmp_path, inside):
        (folder / "node_modules" / "x").mkdir(parents=True)
        (folder / "node_modules" / "x" / "package.json").write_text('{"version": "1"}')
    monkeypatch.chdir(inside)
    assert _node._place("x") == inside / "node_modules" / "x"
    shutil.copy(gguf, inside)
    assert _node._place("x") is None
    monkeypatch.chdir(tmp_path)
    assert _node._place("x") == tmp_path / "node_modules" / "x"


def test_our_own_files_load_without_what_foreign_ones_need(packed_llama: dict[str, Path]) -> None:
    code = ("import sys\nfrom edgestill.runtime import load\nload(sys.argv[1], threads=1).close()\n"
            "ours = {'edgestill.runtime.' + name for name in sys.argv[2:]} & set(sys.modules)\nassert not ours, ours\n")
    lean = ("files.limited_process", "files.gguf_header", "files.onnx_header", "text.gguf_tokenizer")
    assert all(importlib.util.find_spec(f"edgestill.runtime.{name}") for name in lean)
    subprocess.run([sys.executable, "-c", code, str(packed_llama["gguf"]), *lean], check=True)
