"""The pipeline end to end on tiny models: what is redone, what is kept, what a killed run leaves, what a plan costs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from edgestill.cli import main, pipeline
from edgestill.cli.pipeline import Stage
from edgestill.models.errors import EdgestillError

ROOMS = ("kitchen", "bedroom", "office", "garage", "hallway", "attic", "garden", "balcony")
THINGS = ("light", "fan", "heater", "radio", "lamp")


def write_rows(folder: Path) -> None:
    """Forty rows for training and eight for each other split, without a row in two of them."""
    rows = [{"prompt": f"turn {state} the {room} {thing}", "completion": f'{{"{thing}":"{state}"}}'}
            for room in ROOMS for thing in THINGS for state in ("on", "off")]
    for name, chosen in (("train", rows[:56]), ("validation", rows[56:64]), ("test", rows[64:76])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chosen))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> tuple[Path, Path]:
    """(run file, output folder) of one whole run."""
    folder = tmp_path_factory.mktemp("pipeline")
    write_rows(folder)
    run_file = folder / "run.toml"
    run_file.write_text(f"""
[task]
max_new_tokens = 12
[data]
train = "train.jsonl"
validation = "validation.jsonl"
test = "test.jsonl"
[student]
layers = [0, 2]
[teacher]
kind = "local"
model = {json.dumps(str(tiny_llama))}
[distill]
steps = 4
batch_size = 8
labels_control = true
[profile]
prompt_tokens = 8
new_tokens = 4
warmup = 1
repeats = 2
[[export]]
target = "gguf:Q8_0"
calibration_rows = 8
certify_rows = 4
""")
    assert main.call(["run", str(run_file), "-o", str(folder / "out")]) == 0
    return run_file, folder / "out"


def modified(folder: Path) -> dict[str, int]:
    """Every file below `folder` but the lock and when it was last written."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*")
            if path.is_file() and path.name != pipeline.LOCK}


def test_a_run_writes_every_output(made: tuple[Path, Path]) -> None:
    summary = json.loads((made[1] / "summary.json").read_text())
    assert [model["role"] for model in summary["models"]] == ["baseline", "teacher", "labels", "student", "shipped"]
    assert summary["metric"] == "exact_match" and summary["test_rows"] == 12
    shipped = summary["models"][-1]
    assert shipped["checks"] and shipped["profile"]["decode_tokens_per_s"] and shipped["model_bytes"] > 0
    assert summary["models"][3]["training"][0]["loss"] > 0
    assert (made[1] / "report.html").stat().st_size > 5000


def test_a_second_run_does_nothing(made: tuple[Path, Path]) -> None:
    before = modified(made[1])
    assert main.call(["run", str(made[0]), "-o", str(made[1])]) == 0
    assert modified(made[1]) == before


def test_a_changed_setting_redoes_only_what_depends_on_it(
    made: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    before = modified(made[1])
    assert main.call(["run", str(made[0]), "-o", str(made[1]), "--set", "profile.repeats=3"]) == 0
    changed = {name for name, time in modified(made[1]).items() if before.get(name) != time}
    assert changed == {"profiles/gguf-Q8_0.json", "summary.json", "report.html", "stages.json"}
    assert "distill the student: unchanged" in capsys.readouterr().err


def test_the_plan_tells_what_would_be_redone(made: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.call(["run", str(made[0]), "-o", str(made[1]), "--set", "export=[]", "--set", "distill.steps=5",
                      "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    states = {stage["name"]: stage["state"] for stage in plan["stages"]}
    assert states["evaluate the teacher"] == "kept" and states["check the data"] == "kept"
    assert states["distill the student"] == states["write the report"] == "make"
    assert plan["run"]["distill"]["steps"] == 5


def test_a_damaged_output_is_made_again(made: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    (made[1] / "evaluations" / "baseline.json").write_text("{}")
    assert main.call(["run", str(made[0]), "-o", str(made[1]), "--set", "profile.repeats=3"]) == 0
    said = capsys.readouterr().err
    assert "answer with a trivial baseline: unchanged" not in said and "distill the student: unchanged" in said


def test_a_gate_that_does_not_hold_is_exit_code_3(made: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    gate = ["--set", "gates.minimum.exact_match=1.0"]
    assert main.call(["run", str(made[0]), "-o", str(made[1]), "--set", "profile.repeats=3", *gate]) == 3
    captured = capsys.readouterr()
    assert "gguf:Q8_0: exact_match is" in captured.err and "model" in captured.out


def test_dry_run_loads_no_torch_and_writes_nothing(made: tuple[Path, Path], tmp_path: Path) -> None:
    code = f"""
import sys
from edgestill.cli.main import call
assert call(["run", {str(made[0])!r}, "-o", {str(tmp_path / "out")!r}, "--dry-run"]) == 0
heavy = {{"torch", "transformers", "onnx", "onnxruntime", "llama_cpp", "datasets", "sklearn"}} & set(sys.modules)
assert not heavy, heavy
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert "distill the student" in found.stdout and "[distill]" in found.stdout
    assert not (tmp_path / "out").exists()


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
        pipeline.run(stages(calls, fail="b"), tmp_path, lambda line: None)
    pipeline.run(stages(calls), tmp_path, lambda line: None)
    assert calls == ["a", "b", "b", "c"]
    pipeline.run(stages(calls), tmp_path, lambda line: None)
    assert calls == ["a", "b", "b", "c"]


def test_a_run_killed_by_the_system_leaves_no_lock_and_continues(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from edgestill.cli import pipeline
from edgestill.cli.pipeline import Stage
stages = [Stage("a", "a.json", {{}}, (), lambda path: path.write_text("a")),
          Stage("b", "b.json", {{}}, ("a",), lambda path: os.kill(os.getpid(), signal.SIGKILL))]
pipeline.run(stages, Path({str(tmp_path)!r}), print)
"""
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    calls: list[str] = []
    steps = pipeline.run(stages(calls)[:2], tmp_path, lambda line: None)
    assert [step.state for step in steps] == ["kept", "made"] and calls == ["b"]


def test_an_output_that_was_whole_when_the_run_was_killed_is_kept(tmp_path: Path) -> None:
    calls: list[str] = []
    with pytest.raises(Killed):
        pipeline.run(stages(calls, fail="b"), tmp_path, lambda line: None)
    (tmp_path / "b.json").write_text("b")  # killed between the last rename and the ledger
    pipeline.run(stages(calls), tmp_path, lambda line: None)
    assert calls == ["a", "b", "c"]


def test_what_another_setting_left_unfinished_is_removed(tmp_path: Path) -> None:
    calls: list[str] = []
    with pytest.raises(Killed):
        pipeline.run(stages(calls, fail="b"), tmp_path, lambda line: None)
    (tmp_path / "b.json").write_text("of the first setting")
    pipeline.run(stages(calls, setting=2), tmp_path, lambda line: None)
    assert (tmp_path / "b.json").read_text() == "b"


def test_the_same_output_from_another_setting_spares_what_follows(tmp_path: Path) -> None:
    calls: list[str] = []
    pipeline.run(stages(calls), tmp_path, lambda line: None)
    steps = pipeline.run(stages(calls, setting=2), tmp_path, lambda line: None)
    assert [step.state for step in steps] == ["kept", "made", "kept"]


def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    def inner(path: Path) -> None:
        with pytest.raises(EdgestillError, match="another run is at work"):
            pipeline.run([], tmp_path, lambda line: None)
        path.write_text("x")

    pipeline.run([Stage("a", "a.json", {}, (), inner)], tmp_path, lambda line: None)


def test_a_broken_ledger_is_named(tmp_path: Path) -> None:
    (tmp_path / pipeline.LEDGER).write_text("{")
    with pytest.raises(EdgestillError, match="not valid JSON"):
        pipeline.run([], tmp_path, lambda line: None)


@pytest.mark.parametrize(("text", "message"), [
    ("[teacher]\nkind='local'\n", "teacher.model"),
    ("[teacher]\nkind='locl'\nmodel='x'\n", "did you mean 'local'"),
    ("[distill]\nlosses=[{kind='forwardkl'}]\n[student]\nmodel='x'\n", "did you mean 'forward_kl'"),
    ("[tune]\nadapter={kind='lora', rnk=2}\n[student]\nmodel='x'\n", "tune.adapter.rnk"),
    ("[[export]]\ntarget='gguf:Q4_0'\nmethod={kind='rtn', x=1}\n[student]\nmodel='x'\n", "export[0].method.x"),
    ("[[export]]\ntarget='gguf:Q4_0'\n[[export]]\ntarget='gguf:Q4_0'\n[student]\nmodel='x'\n", "stands 2 times"),
    ("[gates.minimum]\nexact_mach=1.0\n[student]\nmodel='x'\n", "did you mean 'exact_match'"),
    ("[task]\nschema='missing.json'\n[student]\nmodel='x'\n", "no such file"),
    ("", "student.model"),
])
def test_what_a_run_file_cannot_say_is_refused_before_anything(
        tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str) -> None:
    (tmp_path / "run.toml").write_text(text)
    assert main.call(["run", str(tmp_path / "run.toml"), "-o", str(tmp_path / "out"), "--dry-run"]) == 2
    assert message in capsys.readouterr().err
