"""Trains again and again in forked children that are killed, until one gets through; prints what came of it.

A helper program of test_checkpoint_resume.py. It imports torch once and forks, so a start costs little. Usage:
`crash_runner.py FOLDER STRIDE RUN_FILE SEED`: a model of one layer is killed at every STRIDE-th operation on files in
turn, a whole run of `tune` at random moments.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

OPERATIONS = ("fsync", "replace", "rename", "unlink", "rmdir")


def kill_at(number: int, after: bool) -> None:
    """Let the `number`-th operation on files end this process, before or after it is done."""
    count = 0

    def wrap(real: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == number and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*arguments, **options)
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapped

    for name in OPERATIONS:
        setattr(os, name, wrap(getattr(os, name)))


def in_child(work: Callable[[], Any], seconds: float | None = None) -> bool:
    """Do `work` in a forked child, killed after `seconds`; whether it came to its end."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
        sys.exit("the child failed")
    return os.WIFEXITED(status)


def line(folder: Path, stride: int) -> dict[str, Any]:
    """Kill a fresh run at an operation and continue it undisturbed, for every `stride`-th operation; then kill one
    run again and again, each time a little later."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    test_loop = import_module("tests.distill.test_loop")

    def train(work: Path) -> Callable[[], None]:
        def run() -> None:
            model = test_loop.Line()

            def validate() -> dict[str, float]:
                # A loss that depends on the weights alone, as a real one does.
                return {"loss": float(model.layer.weight.abs().sum())}

            outcome, model = test_loop.run(work, test_loop.replace(test_loop.SETTINGS, epochs=1), validate, model)
            content = model.layer.weight.detach().numpy().tobytes() + model.layer.bias.detach().numpy().tobytes()
            (work.parent / f"{work.name}.sha").write_text(
                hashlib.sha256(content + str(outcome.best_step).encode()).hexdigest())

        return run

    def digest(work: Path) -> str:
        return (work.parent / f"{work.name}.sha").read_text()

    train(folder / "undisturbed")()  # here, so that every import is done before forking
    wanted, found, points = digest(folder / "undisturbed"), set(), 0
    for after in (False, True):
        number = 1 + after * stride // 2
        while True:
            work = folder / "one"
            shutil.rmtree(work, ignore_errors=True)

            def disturbed(work: Path = work, number: int = number, after: bool = after) -> None:
                kill_at(number, after)
                train(work)()

            if in_child(disturbed):
                break
            assert in_child(train(work))
            found.add(digest(work))
            points += 1
            number += stride
    work, restarts = folder / "many", 0
    while True:  # killed in the recovery too
        restarts += 1

        def again(number: int = restarts) -> None:
            kill_at(3 * number, number % 2 == 0)
            train(work)()

        if in_child(again):
            break
    found.add(digest(work))
    return {"wanted": wanted, "found": sorted(found), "points": points, "restarts": restarts}


def tune(folder: Path, run_file: Path, seed: int) -> dict[str, Any]:
    """Kill a whole run at random moments, at least three times, until it is done."""
    from edgestill.distill import tune as front_door

    chance = random.Random(seed)

    def work(out: Path) -> Callable[[], Any]:
        return partial(front_door, run_file, out)

    work(folder / "undisturbed")()  # here, so that every import is done before forking
    began = time.monotonic()
    assert in_child(work(folder / "again"))
    whole = time.monotonic() - began
    kills = 0
    while kills < 60:
        if in_child(work(folder / "killed"), chance.uniform(0.02, 0.5) * whole if kills < 4 else None):
            break
        kills += 1
    digests = [hashlib.sha256((folder / name / "model.safetensors").read_bytes()).hexdigest()
               for name in ("undisturbed", "again", "killed")]
    return {"wanted": digests[0], "found": sorted(set(digests[1:])), "kills": kills}


if __name__ == "__main__":
    tensorboard: Any = import_module("edgestill.distill.watchers.tensorboard")
    tensorboard.find_spec = lambda name: None  # TensorBoard takes seconds to start, and nothing depends on it
    where, stride, run_file, seed = sys.argv[1:]
    (Path(where) / "line").mkdir()
    sys.stdout.write(json.dumps({"line": line(Path(where) / "line", int(stride)),
                                 "tune": tune(Path(where), Path(run_file), int(seed))}))
