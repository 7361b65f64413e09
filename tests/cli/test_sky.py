"""The SkyPilot file of a run: what it mounts, what it asks for, and the run file in it."""

from __future__ import annotations

import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from edgestill.cli import main
from edgestill.cli.pipeline import resolve, sky
from edgestill.cli.pipeline.costs import Cost
from edgestill.models import runfile
from edgestill.models.errors import UsageError

RUN = """
[task]
system = "Zeile eins\\nzwei \\u2028 \\u0085 /etc/passwd"
schema = "schema.json"
[data]
dir = "rows of ü"
train = "train.jsonl"
validation = "owner/name:train"
[student]
model = "student"
to = "40M"
format = "gguf:Q4_0"
[teacher]
kind = "local"
model = "teacher"
system = "told.md"
cache = { folder = "kept" }
[[export]]
target = "gguf:Q4_0"
"""
COSTS = {"distill the student": Cost(600, 3 * 10**9), "export and certify gguf:Q4_0": Cost(300, 5 * 10**9)}
LONG = {"distill the student": Cost(90_000, 12 * 10**9), "tune the teacher": Cost(1, 10**9)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    for folder in ("student", "teacher", "rows of ü"):
        (tmp_path / folder).mkdir()
    for name in ("schema.json", "told.md", "rows of ü/train.jsonl", "not-named.jsonl"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "run.toml").write_text(RUN)
    return tmp_path / "run.toml"


def told(path: Path, costs: dict[str, Cost], out: str = "out/my run") -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(sky.text(resolve.resolve(runfile.read(path), path.parent), out, costs))
    return found


def run_of(task: dict[str, Any]) -> dict[str, Any]:
    before, _, rest = task["run"].partition(f"<<'{sky.END}'\n")
    assert before.endswith("cat > run.toml ")
    return tomllib.loads(rest.partition(f"\n{sky.END}\n")[0])


def test_what_is_mounted_is_what_the_run_file_names_and_is_there(path: Path) -> None:
    task = told(path, COSTS)
    there = {name.removeprefix("~/edgestill/"): Path(local).relative_to(path.parent).as_posix()
             for name, local in task["file_mounts"].items()}
    assert {*there.values()} == {"schema.json", "told.md", "rows of ü/train.jsonl", "student", "teacher"}
    run, by_here = run_of(task), {here: name for name, here in there.items()}
    assert run["data"]["train"] == by_here["rows of ü/train.jsonl"] and run["data"]["train"].endswith(".jsonl")
    assert run["data"]["dir"] == "." and run["data"]["validation"] == "owner/name:train"
    assert run["task"]["schema"] == by_here["schema.json"] and run["student"]["model"] == by_here["student"]
    assert run["teacher"]["model"] == by_here["teacher"] and run["teacher"]["system"] == by_here["told.md"]
    assert run["teacher"]["cache"]["folder"] == "kept"
    assert run["task"]["system"] == runfile.read(path).task.system
    assert str(path.parent) not in task["run"]


def test_the_run_file_in_it_can_be_read(path: Path, tmp_path: Path) -> None:
    (tmp_path / "there.toml").write_text(told(path, COSTS)["run"].split("\n", 4)[4].partition(f"\n{sky.END}")[0])
    there, here = runfile.read(tmp_path / "there.toml"), runfile.read(path)
    assert (there.distill, there.export, there.task.system) == (here.distill, here.export, here.task.system)


@pytest.mark.parametrize(("costs", "memory", "kinds"), [
    (COSTS, "6+", [None] * 3), (LONG, "14+", ["A10G:1", "L4:1", "A10:1"]), ({}, "19+", [None] * 3),
    ({"tune the student": Cost(4000, 40 * 10**9)}, "47+", ["H100:1", "A100-80GB:1", "A100-80GB:1"])])
def test_the_machine_is_the_plans(costs: dict[str, Cost], memory: str, kinds: list[str | None], path: Path) -> None:
    asked = told(path, costs)["resources"]
    assert asked["memory"] == memory and [one["infra"] for one in asked["any_of"]] == ["aws", "gcp", "azure"]
    assert [one.get("accelerators") for one in asked["any_of"]] == kinds


def test_what_no_gpu_holds_is_refused(path: Path) -> None:
    with pytest.raises(UsageError, match="needs about 125 GB, and one GPU of those that are asked for has room for 70"):
        told(path, {"distill the student": Cost(5000, 100 * 10**9)})


def test_the_keys_are_skypilots_and_commands_are_quoted(path: Path) -> None:
    text = sky.text(resolve.resolve(runfile.read(path), path.parent), "out/my run; rm", COSTS)
    task = yaml.safe_load(text)
    assert {*task} == {"name", "resources", "envs", "file_mounts", "setup", "run"} and task["name"] == "my-run-rm"
    assert {*task["resources"]} == {"cpus", "memory", "autostop", "any_of"}
    copy = next(line for line in text.splitlines() if "rsync" in line).removeprefix("#")
    assert shlex.split(copy) == ["rsync", "-Pavz", "my-run-rm:edgestill/out/", "out/my run; rm/"]
    assert "By the plan about 15 min and 5 GB" in text


def test_it_is_printed_by_a_dry_run_alone(tmp_path: Path, tiny_llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "".join(f'{{"prompt": "turn {i} on", "completion": "on {i}"}}\n' for i in range(20))
    (tmp_path / "rows.jsonl").write_text(rows)
    (tmp_path / "run.toml").write_text(f'[data]\ntrain = "rows.jsonl"\n[student]\nmodel = "{tiny_llama}"\n')
    command = ["run", str(tmp_path / "run.toml"), "-o", str(tmp_path / "out"), "--sky"]
    assert main.call(command) == 2 and main.call([*command, "--dry-run", "--json"]) == 2
    assert "give it with --dry-run" in capsys.readouterr().err
    assert main.call([*command, "--dry-run", "--set", "tune.steps=7"]) == 0 and not (tmp_path / "out").exists()
    task = yaml.safe_load(capsys.readouterr().out)
    assert {*task["file_mounts"].values()} == {str(tmp_path / "rows.jsonl"), str(tiny_llama)}
    assert run_of(task)["tune"]["steps"] == 7
