"""A GGUF file as the model to start from: in a run file, for `init`, `tune` and `export`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from edgestill.cli import main
from edgestill.cli.commands import named_models
from edgestill.distill import tune
from edgestill.distill.sources import resolve
from edgestill.models import runfile
from edgestill.models.errors import UsageError
from edgestill.quantize import export
from edgestill.quantize.unpack import folder

from .. import gguf_files, proving
from .test_stage_keys import STUDENT, keys, write


@pytest.fixture(scope="module")
def home(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows, a run file, and a file to start from."""
    home = tmp_path_factory.mktemp("home")
    shutil.move(gguf_files.write(tiny_llama, home / "made"), home / "tiny.gguf")
    write(home / "train.jsonl", *((f"ask {number}", f"say {number}") for number in range(40)))
    (home / "run.toml").write_text("""
[data]
train = "train.jsonl"
[student]
model = "tiny.gguf"
[teacher]
kind = "local"
model = "tiny.gguf"
[tune]
steps = 1
[[export]]
target = "gguf:Q8_0"
""")
    return home


def test_training_starts_from_the_file_and_names_it(home: Path, tmp_path: Path) -> None:
    made = tune(home / "run.toml", tmp_path / "tuned")
    parents = json.loads((made / "manifest.json").read_text(encoding="utf-8"))["parents"]
    assert {"role": "gguf", "name": "tiny.gguf", "sha256": folder.digest(home / "tiny.gguf")} in parents
    assert [parent["name"] for parent in parents if parent["role"] == "student"] == ["tiny.gguf"]
    assert resolve("tiny.gguf", base=home).licence == "unknown"
    assert 'model = "tiny.gguf"' in (made / "run.toml").read_text(encoding="utf-8")


def test_init_writes_a_run_file_that_starts_from_it(home: Path, tmp_path: Path) -> None:
    out = home / "begun.toml"
    assert main.call(["init", str(home / "train.jsonl"), "--student", str(home / "tiny.gguf"), "-o", str(out)]) == 0
    run = runfile.read(out)
    assert run.student.model == "tiny.gguf" and run.data.max_tokens <= 64
    assert "counted in the student's tokens" in out.read_text(encoding="utf-8")


def test_a_stage_is_known_by_the_files_content(home: Path, tmp_path: Path) -> None:
    before = keys(home)
    moved = shutil.copytree(home, tmp_path / "moved")
    assert keys(moved) == before
    with (moved / "tiny.gguf").open("ab") as file:
        file.write(b"\0")
    assert keys(moved)[STUDENT][0] != before[STUDENT][0]


def test_it_is_packed_anew(home: Path, tmp_path: Path) -> None:
    made = export(home / "tiny.gguf", "gguf:F16", tmp_path, proving.ROWS)["gguf:F16"]
    parents = json.loads((made / "manifest.json").read_text(encoding="utf-8"))["parents"]
    assert [(parent["role"], parent["name"]) for parent in parents] == [("gguf", "tiny.gguf"), ("source", "tiny")]
    assert named_models.source(home / "tiny.gguf") == folder.folder_of(home / "tiny.gguf")


def test_a_file_that_is_not_there_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'no.gguf' is no folder, GGUF file, catalogue name or hub name"):
        resolve("no.gguf", base=tmp_path)
