"""An artifact is whole or absent, and every changed byte is found."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path

import pytest
from edgestill.models import artifact, files
from edgestill.models.errors import ArtifactError, EdgestillError
from edgestill.models.task import Task
from edgestill.runtime.loading.foreign import is_stranger


def make(target: Path) -> artifact.Artifact:
    with files.new_folder(target) as folder:
        (folder / "model.gguf").write_bytes(b"weights" * 10)
        (folder / "tokenizer.json").write_text("{}")
        artifact.seal(folder, stage="export", task=Task(), family="llama", scheme="gguf:Q4_0", model_file="model.gguf")
    return artifact.open_artifact(target)


def test_a_sealed_folder_opens_and_verifies(tmp_path: Path) -> None:
    made = make(tmp_path / "a")
    made.verify()
    assert made.model_path.read_bytes() == b"weights" * 10
    assert made.model_bytes() == 70
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("data", ["model.onnx_data", "model.onnx.data"])
def test_external_data_are_bytes_of_the_model(tmp_path: Path, data: str) -> None:
    with files.new_folder(tmp_path / "a") as folder:
        for name, size in (("model.onnx", 10), (data, 70), ("tokenizer.json", 5)):
            (folder / name).write_bytes(bytes(size))
        artifact.seal(folder, stage="export", task=Task(), family="llama", scheme="onnx:int4", model_file="model.onnx")
    assert artifact.open_artifact(tmp_path / "a").model_bytes() == 80


def test_every_flipped_byte_is_found_and_its_file_named(tmp_path: Path) -> None:
    made = make(tmp_path / "a")
    for name in made.manifest.files:
        content = bytearray((made.folder / name).read_bytes())
        for position in range(len(content)):
            content[position] ^= 1
            (made.folder / name).write_bytes(bytes(content))
            with pytest.raises(ArtifactError, match=name):
                made.verify()
            content[position] ^= 1
        (made.folder / name).write_bytes(bytes(content))
    made.verify()


@pytest.mark.parametrize(("damage", "expected"), [
    (lambda folder: (folder / "model.gguf").write_bytes(b"w"), "1 bytes, the manifest says 70"),
    (lambda folder: (folder / "tokenizer.json").unlink(), "not there"),
    (lambda folder: (folder / "manifest.json").unlink(), "not an artifact"),
    (lambda folder: (folder / "manifest.json").write_text("{"), "damaged"),
    (lambda folder: (folder / "manifest.json").write_text("[]"), "damaged"),
    (lambda folder: change_manifest(folder, schema=99), "schema 99"),
    (lambda folder: change_manifest(folder, surprise=1), "surprise"),
    (lambda folder: change_manifest(folder, stage="foreign"), "which models without a manifest have"),
    (lambda folder: change_manifest(folder, model_file="../model.gguf"), "does not list '../model.gguf'"),
    (lambda folder: change_manifest(folder, task={"schema": "schema.json"}), "does not list 'schema.json'"),
    (lambda folder: change_manifest(folder, dimensions={"context": -1}), "dimensions"),
    (lambda folder: change_manifest(folder, dimensions={"context": 2**60}), "dimensions"),
    (lambda folder: change_manifest(folder, dimensions={"context": math.nan}), "NaN"),
    (lambda folder: (folder / "chat_template.jinja").write_text("x"), "does not list 'chat_template.jinja'"),
    (lambda folder: (folder / "onnx").mkdir() or (folder / "onnx/model.onnx").touch(), "does not list 'onnx/model"),
    (lambda folder: (folder / "manifest.json").write_text('{"schema": 1, "schema": 1}'), "stands twice"),
    (lambda folder: (folder / "manifest.json").write_text("[" * 10**6), "damaged"),
    (lambda folder: os.symlink(folder / "model.gguf", folder / "config.json"), "does not list 'config.json'"),
    (lambda folder: os.symlink(shutil.move(folder / "model.gguf", folder.parent / "x"), folder / "model.gguf"),
     "listed in the manifest and not there"),
    *[(lambda folder, name=name: (folder / name).write_text("{}"), f"does not list '{name}'")
      for name in ("tokenizer_config.json", "generation_config.json", "special_tokens_map.json", "chat_template.json",
                   "added_tokens.json", "config_sentence_transformers.json", "model.safetensors.index.json")],
    (lambda folder: os.symlink((folder.parent / "beside").mkdir() or folder.parent / "beside",
                               folder / "additional_chat_templates"), "'additional_chat_templates' is a link"),
    (lambda folder: (folder / ".hidden").mkdir() or os.symlink(".hidden", folder / "1_Pooling"), "is a link"),
    (lambda folder: change_manifest(folder, settings={"seed": 10**400}, task={"thresholds": {"a": 10**400}}),
     "thresholds.a: a whole number of 1329 bits"),
    *[(lambda folder, name=name: change_manifest(folder, files={name: {"sha256": "", "bytes": 0}}), "none inside")
      for name in ("../out", "/etc/passwd", "a/../../b", "..\\\\out", "C:x", "", "a//b", "./a", "a\x00b", "a" * 256)],
    (lambda folder: change_manifest(folder, files={name: {"sha256": "", "bytes": 70}
                                                   for name in ("model.gguf", "MODEL.gguf")}), "in capitals alone"),
])
def test_a_damaged_folder_is_refused(tmp_path: Path, damage: object, expected: str) -> None:
    folder = make(tmp_path / "a").folder
    damage(folder)  # type: ignore[operator]
    with pytest.raises(ArtifactError, match=expected):
        artifact.open_artifact(folder)


def test_what_nobody_reads_may_lie_beside(tmp_path: Path) -> None:
    folder = make(tmp_path / "a").folder
    for name in ("notes.md", ".DS_Store", ".cache/huggingface/x.json", "evaluation.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    artifact.open_artifact(folder).verify()


def test_a_manifest_that_was_not_written_here_says_nothing_of_its_origin(tmp_path: Path,
                                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(tmp_path / "a")
    assert not is_stranger(made)
    copied = shutil.copytree(made.folder, tmp_path / "b")
    assert not is_stranger(artifact.open_artifact(copied))
    change_manifest(copied, licences={"base": "mine"})
    assert is_stranger(artifact.open_artifact(copied))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert is_stranger(made)
    (tmp_path / "elsewhere").write_text("no folder")
    assert is_stranger(make(tmp_path / "c"))  # and that is no error


def change_manifest(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such folder"):
        artifact.open_artifact(tmp_path / "none")


def test_a_folder_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), files.new_folder(tmp_path / "a") as folder:
        (folder / "part").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_non_empty_target_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("x")
    with pytest.raises(EdgestillError, match="not empty"), files.new_folder(tmp_path):
        pass
    assert (tmp_path / "kept").read_text() == "x"


def test_a_failed_write_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write_text(tmp_path / "a.json", "old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        files.write_text(tmp_path / "a.json", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"] and (tmp_path / "a.json").read_text() == "old"


def test_json_refuses_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "a.json", {"loss": float("nan")})
