"""Several processes that train one model: they come to what one process comes to."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from edgestill.distill import distill, grid_aware
from edgestill.distill.training import loop
from edgestill.distill.training import world as world_module
from edgestill.distill.training.world import World
from edgestill.models.artifact import open_artifact
from edgestill.models.errors import EdgestillError, TrainingError, UsageError
from safetensors.numpy import load_file, save_file

from ..runtime.test_rows import jsonl

RUN = """
[data]
train = "rows.jsonl"
route = "hand"
validation_share = 0.2
[student]
model = "{model}"
layers = [0, 2]
[[teacher]]
kind = "local"
model = "{model}"
route = ["one", "two"]
cache = {{}}
[[teacher]]
kind = "local"
model = "other"
route = ["three"]
[distill]
steps = 8
batch_size = 7
learning_rate = 1e-3
evaluate_every = 4
checkpoint_seconds = 3600.0
losses = [{{ kind = "forward_kl" }}, {{ kind = "ce", weight = 0.1 }}]
"""


def start_two(folder: Path) -> list[subprocess.Popen[str]]:
    """`edgestill distill` in two processes, as a launcher would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {**os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
              "MASTER_PORT": str(port)}
    command = [sys.executable, "-m", "edgestill", "distill", "run.toml", "-o", "out"]
    return [subprocess.Popen(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(2)]


def curve(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [value for line in lines for name, value in line.items() if name in ("loss", "validation_loss")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    found = tmp_path_factory.mktemp("world")
    jsonl(found / "rows.jsonl", [{"prompt": f"turn {'the light ' * (index % 5)}on", "completion": f"on {index}",
                                  "hand": ("one", "two", "three")[index % 3]} for index in range(30)])
    shutil.copytree(tiny_llama, found / "other")
    weights = load_file(found / "other" / "model.safetensors")
    save_file({name: value * 1.5 for name, value in weights.items()}, found / "other" / "model.safetensors",
              {"format": "pt"})
    (found / "run.toml").write_text(RUN.format(model=tiny_llama))
    return found


@pytest.fixture(scope="module")
def alone(folder: Path) -> Path:
    """What one process makes."""
    return distill(folder / "run.toml", folder / "alone")


def test_two_processes_reach_what_one_reaches(folder: Path, alone: Path) -> None:
    """With two teachers, each of the rows of its route; one is kept on disk, which two processes fill once."""
    cached = (folder / "teacher-cache").rename(folder / "cached")
    two, one = start_two(folder), alone
    said = [process.communicate(timeout=240) for process in two]
    assert [process.returncode for process in two] == [0, 0], said
    assert [out.strip() for out, _ in said] == ["out", ""] and said[1][1] == ""
    both = folder / "out"
    np.testing.assert_allclose(curve(both), curve(one), rtol=1e-4)
    weights, wanted = load_file(both / "model.safetensors"), load_file(one / "model.safetensors")
    assert max(float(abs(weights[name] - wanted[name]).max()) for name in wanted) < 1e-4
    facts = [open_artifact(path).manifest for path in (one, both)]
    assert facts[0].checks["training"]["tokens"] == facts[1].checks["training"]["tokens"]
    assert facts[1].settings["processes"] == 2 and not (folder / "out.work").exists()
    kept = [{path.name: path.read_bytes() for path in place.rglob("*.shard")}
            for place in (cached, folder / "teacher-cache")]
    assert kept[0] == kept[1] != {}


def test_accelerate_starts_as_many_on_processors(tmp_path: Path) -> None:
    # One write each: two processes' parts of a line may be mixed.
    script = "import os\nos.write(1, '{RANK} {WORLD_SIZE} {MASTER_ADDR}\\n'.format(**os.environ).encode())\n"
    (tmp_path / "say.py").write_text(script)
    done = subprocess.run([sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
                           "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
                           "--main_process_port", "0", "say.py"], cwd=tmp_path, capture_output=True, text=True)
    assert sorted(done.stdout.splitlines()) == ["0 2 127.0.0.1", "1 2 127.0.0.1"], done


@pytest.mark.parametrize(("environment", "message"), [
    ({"ACCELERATE_USE_FSDP": "true", "WORLD_SIZE": "2"}, "told to use FSDP, and here each process trains the whole"),
    ({"ACCELERATE_USE_DEEPSPEED": "true", "WORLD_SIZE": "2"}, "told to use DeepSpeed"),
    ({"ACCELERATE_USE_MEGATRON_LM": "true"}, "told to use Megatron-LM"),
    ({"ACCELERATE_USE_PARALLELISM_CONFIG": "true"}, "told to use a parallelism config"),
    ({"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR"}, "told to compile with INDUCTOR, and nothing is compiled here"),
    ({"ACCELERATE_USE_CPU": "True", "MASTER_PORT": "29500"}, "has started this one alone")])
def test_what_accelerate_is_told_in_vain_is_refused(environment: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        world_module.check_launcher(environment)
    world_module.check_launcher({"ACCELERATE_USE_CPU": "True", "WORLD_SIZE": "2", "MASTER_PORT": "1"})
    world_module.check_launcher({"ACCELERATE_USE_CPU": "True", "ACCELERATE_DYNAMO_BACKEND": "no"})


def test_when_one_process_is_asked_to_stop_all_do(folder: Path, alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the others would wait for it at the next step's gradients."""
    asked = [0.0, 0.0, 1.0]

    class Others(World):
        def total(self, numbers: Mapping[str, float]) -> dict[str, float]:
            return {"asked": asked.pop(0)} if "asked" in numbers else dict(numbers)

    monkeypatch.setattr(loop, "world", Others)
    with pytest.raises(KeyboardInterrupt):
        distill(folder / "run.toml", folder / "stopped")
    assert [path.name for path in (folder / "stopped.work").glob("step-*")] == ["step-000000003"]
    monkeypatch.undo()
    again, once = (path / "model.safetensors" for path in (distill(folder / "run.toml", folder / "stopped"), alone))
    assert again.read_bytes() == once.read_bytes()


def test_grid_aware_training_is_refused_in_two(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["edgestill.distill.grid_aware"], "world", lambda: World(0, 2))
    with pytest.raises(UsageError, match="2 processes were started, and it trains in one"):
        grid_aware(folder / "run.toml", folder / "grid")


def test_gradients_are_sent_in_parts_and_one_that_is_missing_is_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[torch.Tensor] = []

    def all_reduce(flat: torch.Tensor) -> None:
        sent.append(flat.clone())
        flat += 1.0

    monkeypatch.setattr(world_module, "BUCKET", 4)
    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    parameters = [torch.nn.Parameter(torch.zeros(size)) for size in (3, 2, 2)]
    for place in (0, 2):
        parameters[place].grad = torch.full_like(parameters[place], place + 1.0)
    World(0, 2).add_gradients(parameters)
    assert [flat.tolist() for flat in sent] == [[1.0, 1.0, 1.0, 0.0, 0.0], [3.0, 3.0]]
    assert [parameter.grad.tolist() for parameter in parameters if parameter.grad is not None] == [
        [2.0, 2.0, 2.0], [1.0, 1.0], [4.0, 4.0]]


def test_the_lead_makes_what_the_others_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setattr(World, "wait", lambda self: made.append(f"{self.rank} waits"))
    for rank in (0, 1):
        World(rank, 2).by_lead(lambda: made.append("made"))
    assert made == ["made", "0 waits", "1 waits"]
    for rank in (0, 1):
        with World(rank, 2).lead_first():
            made.append(f"{rank}")
    assert made[3:] == ["0", "0 waits", "1 waits", "1"]


def test_a_process_that_is_gone_is_no_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise RuntimeError("[pair.cc:553] Connection closed by peer")

    monkeypatch.setattr(torch.distributed, "all_reduce", gone)
    with pytest.raises(EdgestillError, match="another of the processes that train together has stopped"):
        World(0, 2).total({"loss": 1.0})


def test_rows_of_another_process_are_not_blamed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Others(World):
        def total(self, numbers: Mapping[str, float]) -> dict[str, float]:
            return {"loss": float("nan")} if [*numbers] == ["loss"] else dict(numbers)

    monkeypatch.setattr(loop, "world", Others)
    with pytest.raises(TrainingError, match="step 1: the loss is nan .rows of another process"):
        distill(folder / "run.toml", folder / "nan")
