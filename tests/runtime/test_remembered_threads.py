"""How many threads run a model fastest here: measured, remembered, taken by `load`."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from edgestill.models import kinds
from edgestill.models.artifact import open_artifact
from edgestill.runtime import load, profile
from edgestill.runtime.machine import remembered_threads
from edgestill.runtime.profiling import fastest_threads, measure


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that remembers, in a folder of its own; this machine has four cores."""
    path = tmp_path / "threads.json"
    monkeypatch.setattr(remembered_threads, "_file", lambda: path)
    monkeypatch.setattr(remembered_threads, "allowed_cores", lambda: 4)
    monkeypatch.setattr(fastest_threads, "candidates", lambda: [1, 2, 4])
    return path


@pytest.mark.parametrize(("speeds", "threads"), [
    ({1: 100.0, 2: 180.0, 4: 300.0}, 4), ({1: 100.0, 2: 180.0, 4: 184.0}, 2), ({1: 100.0, 2: 99.0, 4: 3.0}, 1),
    ({1: 98.0, 2: 100.0}, 1), ({1: 96.0, 2: 100.0}, 2)])
def test_the_fewest_threads_that_are_about_as_fast(speeds: dict[int, float], threads: int) -> None:
    assert remembered_threads.fewest(speeds) == threads


@pytest.mark.parametrize("name", kinds.names("runtime.engines"))
def test_a_profile_measures_the_threads_and_load_takes_them(name: str, packed_llama: dict[str, Path],
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def fake(job: dict[str, object], threads: int) -> float:
        tried.append(threads)
        return {1: 100.0, 2: 180.0, 4: 70.0}[threads]

    monkeypatch.setattr(measure, "_LOADS", 1)
    monkeypatch.setattr(fastest_threads, "_speed", fake)
    path = packed_llama[name]
    found = profile(path, prompt_tokens=8, new_tokens=2, warmup=0, repeats=1)
    assert tried == [1, 2, 4, 4, 2, 1]
    assert found.threads == 2 and found.raw["per_s_by_threads"] == {"1": 100.0, "2": 180.0, "4": 70.0}
    assert load(path).threads == 2
    assert load(path, threads=1).threads == 1
    assert profile(path, prompt_tokens=8, new_tokens=2, warmup=0, repeats=1, threads=1).raw["per_s_by_threads"] == {}


def test_more_threads_are_not_tried_beyond_a_cliff(packed_llama: dict[str, Path],
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastest_threads, "_speed", lambda job, threads: {1: 100.0, 2: 4.0}[threads])
    assert fastest_threads.tune(open_artifact(packed_llama["gguf"])) == (1, {1: 100.0, 2: 4.0})


@pytest.mark.parametrize("name", ["packed_llama", "packed_bert"])
def test_what_is_measured_are_real_steps(name: str, request: pytest.FixtureRequest,
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    found = request.getfixturevalue(name)
    artifact = open_artifact(found["onnx"] if isinstance(found, dict) else found)
    monkeypatch.setattr(fastest_threads, "candidates", lambda: [1, 2])
    threads, speeds = fastest_threads.tune(artifact)
    assert sorted(speeds) == [1, 2] and all(speed > 1 for speed in speeds.values())
    assert remembered_threads.recall(artifact) == threads == remembered_threads.fewest(speeds)


def test_one_core_needs_no_measurement(packed_llama: dict[str, Path], cache: Path,
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastest_threads, "candidates", lambda: [1])
    assert fastest_threads.tune(open_artifact(packed_llama["gguf"])) == (1, {})
    assert not cache.exists()


def test_a_measurement_holds_for_its_machine_and_shape(packed_llama: dict[str, Path], cache: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    gguf, onnx = (open_artifact(packed_llama[name]) for name in ("gguf", "onnx"))
    assert remembered_threads.remember(gguf, {1: 50.0, 2: 100.0}) == remembered_threads.recall(gguf) == 2
    assert remembered_threads.recall(onnx) == 0
    remembered_threads.remember(onnx, {1: 100.0, 2: 50.0})
    assert (remembered_threads.recall(gguf), remembered_threads.recall(onnx)) == (2, 1)
    monkeypatch.setattr(remembered_threads, "allowed_cores", lambda: 1)  # a container with less
    assert remembered_threads.recall(gguf) == 0
    monkeypatch.setattr(remembered_threads, "allowed_cores", lambda: 4)
    monkeypatch.setattr(remembered_threads, "processor", lambda: "another processor")
    assert remembered_threads.recall(gguf) == 0


@pytest.mark.parametrize("content", ["{", "[]", "\0", '"x"'])
def test_a_broken_memory_is_said_and_costs_only_itself(content: str, packed_llama: dict[str, Path], cache: Path,
                                                       caplog: pytest.LogCaptureFixture) -> None:
    cache.write_text(content)
    artifact = open_artifact(packed_llama["gguf"])
    with caplog.at_level(logging.WARNING):
        assert remembered_threads.recall(artifact) == 0
    assert bool(caplog.records) == (content in ("{", "\0"))
    remembered_threads.remember(artifact, {1: 1.0})
    assert remembered_threads.recall(artifact) == 1


@pytest.mark.parametrize("threads", [0, -1, 5, "2", None, 1.5, True])
def test_a_number_that_cannot_be_is_not_taken(threads: object, packed_llama: dict[str, Path], cache: Path) -> None:
    artifact = open_artifact(packed_llama["gguf"])
    remembered_threads.remember(artifact, {1: 1.0})
    table = json.loads(cache.read_text())
    next(iter(table.values()))["threads"] = threads
    cache.write_text(json.dumps(table))
    assert remembered_threads.recall(artifact) == (1 if threads is True else 0)


def test_a_folder_that_cannot_be_written_is_no_failure(packed_llama: dict[str, Path], tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch,
                                                       caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(remembered_threads, "_file", lambda: tmp_path / "file" / "threads.json")
    with caplog.at_level(logging.WARNING):
        assert remembered_threads.remember(open_artifact(packed_llama["gguf"]), {1: 50.0, 2: 100.0}) == 2
    assert "cannot remember" in caplog.text
