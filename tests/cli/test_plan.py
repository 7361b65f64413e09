"""Stages that do next to nothing: what is done again, what a killed run leaves, and when an old output goes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edgestill.cli.pipeline import engine
from edgestill.cli.pipeline.engine import UNFINISHED, Stage
from edgestill.models import files
from edgestill.models.artifact import seal
from edgestill.models.errors import EdgestillError
from edgestill.models.task import Task


class Killed(BaseException):
    """What a test raises where a process would die."""


def stages(calls: list[str], fail: str = "", setting: int = 1) -> list[Stage]:
    """Three stages that write files, each from the one before."""
    def work(name: str) -> Callable[[Path], None]:
        def write(path: Path) -> None:
            calls.append(name)
            if name == fail:
                raise Killed
            path.write_text(name)
        return write

    second = {"setting": setting} if setting != 1 else {}
    return [Stage("a", "a.json", {}, (), work("a")),
            Stage("b", "b.json", second, ("a",), work("b")),
            Stage("c", "c.json", {}, ("b",), work("c"))]


def test_a_killed_run_continues_at_the_stage_that_was_cut(tmp_path: Path) -> None:
    calls: list[str] = []
    with pytest.raises(Killed):
        engine.run(stages(calls, fail="b"), tmp_path, lambda line: None)
    engine.run(stages(calls), tmp_path, lambda line: None)
    assert calls == ["a", "b", "b", "c"]
    engine.run(stages(calls), tmp_path, lambda line: None)
    assert calls == ["a", "b", "b", "c"]


def test_a_run_killed_by_the_system_leaves_no_lock_and_continues(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from edgestill.cli.pipeline import engine
from edgestill.cli.pipeline.engine import Stage
stages = [Stage("a", "a.json", {{}}, (), lambda path: path.write_text("a")),
          Stage("b", "b.json", {{}}, ("a",), lambda path: os.kill(os.getpid(), signal.SIGKILL))]
engine.run(stages, Path({str(tmp_path)!r}), print)
"""
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    calls: list[str] = []
    steps = engine.run(stages(calls)[:2], tmp_path, lambda line: None)
    assert [step.state for step in steps] == ["kept", "made"] and calls == ["b"]


def test_an_output_that_was_whole_when_the_run_was_killed_is_kept(tmp_path: Path) -> None:
    calls: list[str] = []
    with pytest.raises(Killed):
        engine.run(stages(calls, fail="b"), tmp_path, lambda line: None)
    (tmp_path / UNFINISHED / "b.json").write_text("b")  # killed between the last rename and the ledger
    engine.run(stages(calls), tmp_path, lambda line: None)
    assert calls == ["a", "b", "c"]


def test_what_another_setting_left_unfinished_is_removed(tmp_path: Path) -> None:
    calls: list[str] = []
    with pytest.raises(Killed):
        engine.run(stages(calls, fail="b"), tmp_path, lambda line: None)
    (tmp_path / UNFINISHED / "b.json").write_text("of the first setting")
    engine.run(stages(calls, setting=2), tmp_path, lambda line: None)
    assert (tmp_path / "b.json").read_text() == "b"


def test_the_same_output_from_another_setting_spares_what_follows(tmp_path: Path) -> None:
    calls: list[str] = []
    engine.run(stages(calls), tmp_path, lambda line: None)
    steps = engine.run(stages(calls, setting=2), tmp_path, lambda line: None)
    assert [step.state for step in steps] == ["kept", "made", "kept"]


def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    def inner(path: Path) -> None:
        with pytest.raises(EdgestillError, match="another run is at work"):
            engine.run([], tmp_path, lambda line: None)
        path.write_text("x")

    engine.run([Stage("a", "a.json", {}, (), inner)], tmp_path, lambda line: None)


def test_a_broken_ledger_is_named(tmp_path: Path) -> None:
    (tmp_path / engine.LEDGER).write_text("{")
    with pytest.raises(EdgestillError, match="no valid JSON"):
        engine.run([], tmp_path, lambda line: None)


def folder_stage(calls: list[str], content: str, versions: dict[str, str] | None = None, fail: bool = False) -> Stage:
    """A stage that writes an artifact holding `content`, and what is half done beside it."""
    def work(path: Path) -> None:
        calls.append(content)
        beside = path.with_name(f"{path.name}.work")
        beside.mkdir(parents=True, exist_ok=True)
        (beside / content).touch()
        if fail:
            raise Killed
        with files.new_folder(path) as made:
            (made / "model").write_text(content)
            seal(made, stage="tune", task=Task(), family="llama", scheme="hf", model_file="model")

    return Stage("a", "model", {"content": content}, (), work, versions or {})


def silent(line: str) -> None:
    """Say nothing."""


def held(folder: Path) -> str:
    """What the artifact that stands in a pipeline's folder holds."""
    return (folder / "model" / "model").read_text()


def test_the_old_output_stands_until_the_new_one_is_whole(tmp_path: Path) -> None:
    engine.run([folder_stage([], "old")], tmp_path, silent)
    with pytest.raises(Killed):
        engine.run([folder_stage([], "new", fail=True)], tmp_path, silent)
    assert held(tmp_path) == "old"
    calls: list[str] = []
    steps = engine.run([folder_stage(calls, "old")], tmp_path, silent)  # the setting is taken back
    assert steps[0].state == "kept" and not calls
    engine.run([folder_stage(calls, "new")], tmp_path, silent)
    assert held(tmp_path) == "new" and calls == ["new"]
    assert not (tmp_path / UNFINISHED).exists()


@pytest.mark.parametrize("call", range(7))
def test_a_run_killed_between_two_renames_recovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    engine.run([folder_stage([], "old")], tmp_path, silent)
    left, calls = [call], list[str]()

    def dying(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def rename(source: Any, target: Any) -> None:
            if UNFINISHED in str(target) or Path(target).name == "model" or Path(target).name == engine.LEDGER:
                left[0] -= 1
                if left[0] < 0:
                    raise Killed
            real(source, target)
        return rename

    with monkeypatch.context() as patched:
        for name in ("rename", "replace"):
            patched.setattr(os, name, dying(name))
        with pytest.raises(Killed):
            engine.run([folder_stage(calls, "new")], tmp_path, silent)
    for _ in range(2):
        engine.run([folder_stage(calls, "new")], tmp_path, silent)
        assert held(tmp_path) == "new" and not (tmp_path / UNFINISHED).exists()
    # The second and third rename belong to the work, which has to be done again; what was whole is not.
    assert len(calls) == (2 if call in (1, 2) else 1)


def test_an_old_output_whose_successor_was_lost_stands_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.run([folder_stage([], "old")], tmp_path, silent)
    real = os.replace

    def dying(source: Any, target: Any) -> None:
        if Path(target) == tmp_path / "model":  # the old output is out of the way, the new one not yet in its place
            raise Killed
        real(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", dying)
        with pytest.raises(Killed):
            engine.run([folder_stage([], "new")], tmp_path, silent)
    assert not (tmp_path / "model").exists()
    (tmp_path / UNFINISHED / "model" / "manifest.json").unlink()
    assert engine.run([folder_stage([], "old")], tmp_path, silent)[0].state == "kept" and held(tmp_path) == "old"


def test_other_versions_make_it_anew_from_what_is_half_done(tmp_path: Path) -> None:
    calls: list[str] = []
    engine.run([folder_stage(calls, "x", {"torch": "1"})], tmp_path, silent)
    engine.run([folder_stage(calls, "x", {"torch": "1"})], tmp_path, silent)
    assert calls == ["x"]
    with pytest.raises(Killed):
        engine.run([folder_stage(calls, "x", {"torch": "2"}, fail=True)], tmp_path, silent)
    assert engine.plan([folder_stage(calls, "x", {"torch": "2"})], tmp_path)[0][1] == "make"
    (tmp_path / UNFINISHED / "model.work" / "checkpoint").touch()
    seen: list[bool] = []
    stage = folder_stage(calls, "x", {"torch": "3"})
    work = stage.work

    def watched(path: Path) -> None:
        seen.append((path.with_name("model.work") / "checkpoint").is_file())
        work(path)

    engine.run([Stage(stage.name, stage.output, stage.reads, (), watched, stage.versions)], tmp_path, silent)
    assert seen == [True] and calls == ["x", "x", "x"]


def test_what_another_key_left_half_done_is_removed(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        engine.run([folder_stage([], "one", fail=True)], tmp_path, silent)
    with pytest.raises(Killed):
        engine.run([folder_stage([], "two", fail=True)], tmp_path, silent)
    assert [path.name for path in (tmp_path / UNFINISHED / "model.work").iterdir()] == ["two"]


def test_an_older_versions_ledger_is_no_obstacle(tmp_path: Path) -> None:
    ledger = {"a": {"begun": "0" * 64, "digest": "1" * 64, "seconds": 1.0}}
    (tmp_path / engine.LEDGER).write_text(json.dumps(ledger))
    assert engine.run([folder_stage([], "x")], tmp_path, silent)[0].state == "made"
