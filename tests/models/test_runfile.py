"""The run file: read, overridden, refused, and written back unchanged."""

from __future__ import annotations

from pathlib import Path

import pytest
from edgestill.models import runfile, toml_text
from edgestill.models.errors import UsageError
from edgestill.models.runfile import Data, Export, RunFile, Training
from edgestill.models.task import Task
from hypothesis import given
from hypothesis import strategies as st

EXAMPLE = """
[task]
kind = "classify"
labels = ["a", "b"]
[data]
train = "train.jsonl"
columns = { text = "utterance" }
[teacher]
kind = "local"
model = "some/folder"
[tune]
learning_rate = 2e-4
[[export]]
target = "onnx:int8"
[gates]
minimum = { accuracy = 0.9 }
"""


def written(folder: Path, text: str = EXAMPLE) -> Path:
    path = folder / "run.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_number_in_scientific_notation_is_a_number(tmp_path: Path) -> None:
    assert runfile.read(written(tmp_path)).tune.learning_rate == 2e-4


def test_overrides_take_toml_values_and_plain_text(tmp_path: Path) -> None:
    run = runfile.read(written(tmp_path), ["tune.seed=7", "data.dir=/elsewhere", 'task.labels=["x","y"]'])
    assert (run.tune.seed, run.data.dir, run.task.labels) == (7, "/elsewhere", ["x", "y"])


@pytest.mark.parametrize(("override", "expected"), [
    ("tune.lerning_rate=1", "did you mean 'learning_rate'"),
    ("tune.seed=-1", "below the limit 0"),
    ("tune", "no '='"),
    ("data.train.x=1", "not a table"),
    (f"tune.seed={'1' * 5000}", "is str, not a whole number"),
    ("task.kind=generat", "did you mean 'generate'"),
])
def test_an_override_that_cannot_be_is_refused(tmp_path: Path, override: str, expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        runfile.read(written(tmp_path), [override])


@pytest.mark.parametrize(("text", "expected"), [
    ("[data\n", "not valid TOML"),
    ('[[export]]\ntarget = "gguf:Q4_1"\n', "gguf:Q4_0"),
    ("[nonsense]\n", "unknown key"),
    (f"[tune]\nlearning_rate = 1{'0' * 400}\n", "tune.learning_rate: a whole number of 1329 bits"),
    (f"[tune]\nseed = 0x{'f' * 5000}\n", "tune.seed: a whole number of 20000 bits"),
    (f"[tune]\nseed = 1{'0' * 5000}\n", "not valid TOML"),
    (f"a = {'[' * 5000}", "not valid TOML"),
])
def test_a_run_file_that_cannot_be_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        runfile.read(written(tmp_path, text))


def test_a_missing_run_file_names_the_way_to_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="edgestill init"):
        runfile.read(tmp_path / "none.toml")


@given(system=st.text(), labels=st.lists(st.text(max_size=8), max_size=4), rate=st.floats(0, 1),
       columns=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3))
def test_what_is_written_reads_back_the_same(tmp_path_factory: pytest.TempPathFactory, system: str, labels: list[str],
                                             rate: float, columns: dict[str, str]) -> None:
    run = RunFile(task=Task(system=system, labels=labels), data=Data(columns=columns),
                  tune=Training(learning_rate=rate), export=[Export("gguf:Q4_0"), Export("onnx:int4")],
                  teacher={"kind": "local", "model": "m"})
    path = written(tmp_path_factory.mktemp("run"), toml_text.to_toml(run))
    assert runfile.read(path) == run
