"""Killed at any moment, short of disk, or with a damaged checkpoint: a run goes on and ends with the same bits."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from edgestill.distill.training.checkpoint import State, Store, locked
from edgestill.models.errors import EdgestillError, TrainingError

from . import test_loop

RUNNER = Path(__file__).parent.with_name("crash_runner.py")
posix = pytest.mark.skipif(os.name == "nt", reason="needs fork and SIGKILL")


@pytest.fixture(scope="module")
def crashed(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of all killed runs, and what came of them: of one process, which imports torch once."""
    folder = tmp_path_factory.mktemp("crashed")
    rows = [{"prompt": f"turn on the light {index}", "completion": f"on {index}"} for index in range(40)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "run.toml").write_text(
        f'data.train = "rows.jsonl"\nstudent.model = "{tiny_llama.as_posix()}"\nstudent.layers = [0, 1]\n'
        '[tune]\nsteps = 12\nbatch_size = 4\nlearning_rate = 1e-3\ncheckpoint_seconds = 0.0\nevaluate_every = 3\n')
    done = subprocess.run([sys.executable, RUNNER, folder, "17", folder / "run.toml", "5"], capture_output=True,
                          text=True, env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, json.loads(done.stdout)


@posix
def test_killed_at_operations_on_files_it_ends_with_the_same_weights(crashed: tuple[Path, dict[str, Any]]) -> None:
    result = crashed[1]["line"]
    assert result["found"] == [result["wanted"]]
    assert result["points"] >= 9, "the faults must have struck"
    assert result["restarts"] > 5


@posix
def test_a_whole_run_killed_at_random_moments_ends_with_the_same_weights(crashed: tuple[Path, dict[str, Any]]) -> None:
    folder, result = crashed[0], crashed[1]["tune"]
    assert result["found"] == [result["wanted"]] and result["kills"] >= 2
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith("killed")) == ["killed"]


def weights(value: float) -> dict[str, torch.Tensor]:
    return {"w": torch.full((4, 4), value), "b": torch.full((3,), value)}


def three_checkpoints(folder: Path, notes: list[str]) -> Store:
    store = Store(folder, notes.append)
    for step in (1, 2, 3):
        state = State(step=step, best_step=1, best_loss=0.5)
        if step == 1:
            store.save_best(state, weights(1.0))
            best = state.best_sha256
        state.best_sha256 = best
        store.save(state, weights(float(step)), {"exp_avg:w": torch.full((4, 4), -float(step))})
    return store


def test_the_newest_two_are_kept_and_the_newest_is_read(tmp_path: Path) -> None:
    store = three_checkpoints(tmp_path, [])
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-000000002", "step-000000003"]
    found = store.load()
    assert found is not None
    state, loaded, moments = found
    assert state.step == 3 and float(loaded["w"][0, 0]) == 3.0 and float(moments["exp_avg:w"][0, 0]) == -3.0
    assert float(store.load_best(state)["b"][0]) == 1.0
    assert not list(tmp_path.rglob("*.pt")) + list(tmp_path.rglob("*.pkl"))


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(tmp_path: Path, name: str, damage: str) -> None:
    notes: list[str] = []
    store = three_checkpoints(tmp_path, notes)
    path = tmp_path / "step-000000003" / name
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2 if name != "state.json" else content.index(b'"step": 3') + 8] ^= 1
        path.write_bytes(content)
    found = store.load()
    assert found is not None and found[0].step == 2 and float(found[1]["w"][0, 0]) == 2.0
    assert any("step-000000003 is damaged" in note for note in notes)


def test_with_every_checkpoint_damaged_training_starts_again(tmp_path: Path) -> None:
    notes: list[str] = []
    store = three_checkpoints(tmp_path, notes)
    (next(tmp_path.glob("best-*"))).write_bytes(b"nothing")
    assert store.load() is None and len(notes) == 2


def test_best_weights_changed_while_training_are_not_used(tmp_path: Path) -> None:
    store = three_checkpoints(tmp_path, [])
    found = store.load()
    assert found is not None
    next(tmp_path.glob("best-*")).write_bytes(b"nothing")
    with pytest.raises(TrainingError, match="was changed"):
        store.load_best(found[0])


@pytest.mark.parametrize("operation", ["fsync", "replace", "rename"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_full_or_broken_disk_loses_nothing_that_was_saved(tmp_path: Path, operation: str, number: int,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    _, undisturbed = test_loop.run(tmp_path / "undisturbed", test_loop.SETTINGS)
    real = getattr(os, operation)
    for nth in (2, 9):
        count = 0

        def failing(*arguments: Any, nth: int = nth, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == nth:
                raise OSError(number, os.strerror(number))
            return real(*arguments, **options)

        work = tmp_path / f"work{nth}"
        with monkeypatch.context() as patched:
            patched.setattr(os, operation, failing)
            try:
                test_loop.run(work, test_loop.SETTINGS)
                assert count < nth, "the fault must have struck"
            except (TrainingError, OSError) as error:
                struck = error
                assert isinstance(error, TrainingError) or not list(work.glob("step-*")), struck
        assert not list(work.glob(".*")), "nothing half written stays"
        _, model = test_loop.run(work, test_loop.SETTINGS)
        assert torch.equal(model.layer.weight, undisturbed.layer.weight)


def test_no_space_is_an_error_with_the_bytes_and_the_next_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path, print)

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(TrainingError, match=r"0\.0 MB could not be written: no space is left") as caught:
        store.save(State(step=1), weights(1.0), {})
    assert "same command" in caught.value.hint


def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(EdgestillError, match="another process"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass
