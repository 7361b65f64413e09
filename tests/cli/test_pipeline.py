"""The pipeline end to end on tiny models: what is redone, what is kept, what a killed run leaves, what a plan costs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from contextlib import redirect_stderr, redirect_stdout
from hashlib import sha256
from pathlib import Path

import pytest
from edgestill.cli import main
from edgestill.cli.output import cell
from edgestill.cli.pipeline import engine

ROOMS = ("kitchen", "bedroom", "office", "garage", "hallway", "attic", "garden", "balcony")
THINGS = ("light", "fan", "heater", "radio", "lamp")


SHIPS = "[student]\nmodel='x'\n[[export]]\ntarget='gguf:Q8_0'\n"


def write_rows(folder: Path) -> None:
    """Forty rows for training and eight for each other split, without a row in two of them."""
    rows = [{"prompt": f"turn {state} the {room} {thing}", "completion": f'{{"{thing}":"{state}"}}',
             "passage": f"hidden-passage {room}"}
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
system = "prompt.txt"
examples = "examples.jsonl"
context = "passage"
cache = {{}}
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
    (folder / "prompt.txt").write_text("Answer as the hidden-system says.\n")
    (folder / "examples.jsonl").write_text(json.dumps(
        {"prompt": "turn it off", "completion": "hidden-example", "passage": "hidden-passage"}))
    with (folder / "told.txt").open("w") as file, redirect_stdout(file), redirect_stderr(file):
        assert main.call(["run", str(run_file), "-o", str(folder / "out")]) == 0
    return run_file, folder / "out"


def modified(folder: Path) -> dict[str, int]:
    """Every file below `folder` but the lock and when it was last written."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*")
            if path.is_file() and path.name != engine.LOCK}


def test_a_run_writes_every_output(made: tuple[Path, Path]) -> None:
    summary = json.loads((made[1] / "summary.json").read_text())
    assert [model["role"] for model in summary["models"]] == ["baseline", "teacher", "labels", "student", "shipped"]
    assert summary["metric"] == "exact_match" and summary["test_rows"] == 12
    shipped = summary["models"][-1]
    assert shipped["checks"] and shipped["profile"]["decode_tokens_per_s"] and shipped["model_bytes"] > 0
    assert summary["models"][3]["training"][0]["loss"] > 0
    assert (made[1] / "report.html").stat().st_size > 5000
    told = [path.read_text() for path in made[1].glob("*/run.toml")]
    assert len(told) == 3 and not any(str(made[0].parent.parent) in text for text in told)


def test_what_the_teacher_alone_is_told_stands_nowhere_but_as_a_hash(
    made: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = made
    plan = ["run", str(run), "-o", str(out), "--dry-run"]
    for verb in (plan, [*plan, "--json"], ["distill", *plan[1:]], ["data", "check", str(run)],
                 ["data", "show", str(run)]):
        assert main.call(verb) == 0
    said = "".join(capsys.readouterr())
    assert said.count("sha256:") == 6
    written = {path: path.read_bytes() for folder in (out, run.parent / "teacher-cache") for path in folder.rglob("*")
               if path.is_file()} | {Path("said"): said.encode(), Path("told"): (run.parent / "told.txt").read_bytes()}
    assert len(written) > 40 and not [path for path, content in written.items() if b"hidden-" in content]
    for name in ("student", "gguf-Q8_0"):
        told = tomllib.loads((out / name / "run.toml").read_text())["teacher"]
        assert told["system"] == f"sha256:{sha256(b'Answer as the hidden-system says.').hexdigest()}"
        assert told["examples"] == f"sha256:{sha256((run.parent / 'examples.jsonl').read_bytes()).hexdigest()}"
        parents = json.loads((out / name / "manifest.json").read_text())["parents"]
        assert any(len(parent.get("prompt_sha256", "")) == 64 for parent in parents if parent["role"] == "teacher")
    about = next((run.parent / "teacher-cache").rglob("about.json"))
    assert json.loads(about.read_text())["parents"] == [one for one in parents if one["role"] == "teacher"]


def test_what_a_request_does_without_is_measured_on_the_shipped_file(made: tuple[Path, Path]) -> None:
    shipped = json.loads((made[1] / "summary.json").read_text())["models"][-1]
    saved = shipped["saved"]
    assert saved["rows"] == 12 and saved["prompt_tokens_told"] > saved["prompt_tokens"] + 30
    assert saved["ttft_ms_told"] > 0 and saved["ttft_ms"] > 0 and saved["repeats"] == 2
    line = f"gguf:Q8_0: {saved['prompt_tokens']:.0f} prompt tokens a request instead of the " \
           f"{saved['prompt_tokens_told']:.0f} with what the teacher is told; the first token after"
    told = (made[0].parent / "told.txt").read_text()
    assert line in (made[1] / "report.html").read_text() and line in told
    (row,) = [row.split() for row in told.splitlines() if row.startswith("gguf:Q8_0  ")]
    assert {cell(shipped["profile"]["decode_tokens_per_s"]), cell(shipped["profile"]["ttft_ms"])} <= {*row}


def test_another_prompt_redoes_what_the_teacher_says(made: tuple[Path, Path], tmp_path: Path,
                                                     capsys: pytest.CaptureFixture[str]) -> None:
    home = tmp_path / "moved"
    shutil.copytree(made[0].parent, home)
    run = ["run", str(home / "run.toml"), "-o", str(home / "out"), "--dry-run", "--json"]
    for name in ("prompt.txt", "examples.jsonl"):
        text = (home / name).read_text()
        (home / name).write_text(text.replace("hidden", "other"))
        assert main.call(run) == 0
        states = {stage["name"]: stage["state"] for stage in json.loads(capsys.readouterr().out)["stages"]}
        assert states["distill the student"] == states["evaluate the teacher"] == "make"
        assert states["answer with a trivial baseline"] == states["check the data"] == "kept"
        (home / name).write_text(text)


def test_a_second_run_does_nothing(made: tuple[Path, Path]) -> None:
    before = modified(made[1])
    assert main.call(["run", str(made[0]), "-o", str(made[1])]) == 0
    assert modified(made[1]) == before


def test_a_moved_folder_redoes_nothing_and_a_test_row_trains_nothing(
    made: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "moved"
    shutil.copytree(made[0].parent, home)
    run, before = ["run", str(home / "run.toml"), "-o", str(home / "out")], modified(home)
    assert main.call(run) == 0
    assert modified(home) == before
    text = (home / "test.jsonl").read_text()
    (home / "test.jsonl").write_text(text.replace('\\"on\\"', '\\"off\\"', 1))
    capsys.readouterr()
    assert main.call([*run, "--dry-run", "--json"]) == 0
    states = {stage["name"]: stage["state"] for stage in json.loads(capsys.readouterr().out)["stages"]}
    assert states["distill the student"] == states["train the student on labels alone"] == "kept"
    assert states["evaluate the student"] == states["evaluate gguf:Q8_0"] == states["sum up"] == "make"


def test_a_changed_setting_redoes_only_what_depends_on_it(
    made: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    before = modified(made[1])
    assert main.call(["run", str(made[0]), "-o", str(made[1]), "--set", "profile.repeats=3"]) == 0
    changed = {name for name, time in modified(made[1]).items() if before.get(name) != time}
    assert changed == {"profiles/gguf-Q8_0.json", "saved/gguf-Q8_0.json", "summary.json", "report.html", "stages.json"}
    assert "distill the student: unchanged" in capsys.readouterr().err


def test_the_plan_tells_what_would_be_redone(made: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.call(["run", str(made[0]), "-o", str(made[1]), "--set", "export=[]", "--set", "distill.steps=5",
                      "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    states = {stage["name"]: stage["state"] for stage in plan["stages"]}
    assert states["evaluate the teacher"] == "kept" and states["check the data"] == "kept"
    assert states["distill the student"] == states["write the report"] == "make"
    assert plan["run"]["distill"]["steps"] == 5


def test_what_a_gate_names_is_measured_and_else_fails(
    made: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(made[1], tmp_path / "out")
    run = ["run", str(made[0]), "-o", str(tmp_path / "out"), "--json"]
    gates = ["gates.maximum.nats_per_token=0.001", "gates.minimum.ratio_to_teacher=0.5",
             "gates.maximum.token_ms_p50=1e9", "gates.maximum.token_ms_p99=1e9", "gates.maximum.start_ms=1e9"]
    assert main.call([*run, *(word for gate in gates for word in ("--set", gate))]) == 3
    summary = json.loads(capsys.readouterr().out)
    found = {gate["name"]: gate for gate in summary["gates"]}
    shipped = next(model for model in summary["models"] if model["role"] == "shipped")
    assert found["nats_per_token"]["value"] == shipped["metrics"]["nats_per_token"]["value"] > 0.001
    assert not found["nats_per_token"]["passed"]
    # An untrained teacher answers nothing right, so there is no ratio: that is no pass.
    assert shipped["ratio_to_teacher"] is None and not found["ratio_to_teacher"]["passed"]
    assert "teacher's own answers measure 0" in found["ratio_to_teacher"]["reason"]
    assert found["token_ms_p50"]["passed"] and found["start_ms"]["passed"]
    # Beside other work requests are alike, and then 299 of them may promise no p99.
    assert found["token_ms_p99"]["passed"] or "too few requests" in found["token_ms_p99"]["reason"]
    by_role = {model["role"]: model["metrics"] for model in summary["models"]}
    assert all(("nats_per_token" in metrics) is (role != "baseline") for role, metrics in by_role.items())


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


@pytest.mark.parametrize(("text", "message"), [
    ("[teacher]\nkind='local'\n", "teacher.model"),
    ("[teacher]\nkind='locl'\nmodel='x'\n", "did you mean 'local'"),
    ("[distill]\nlosses=[{kind='forwardkl'}]\n[student]\nmodel='x'\n", "did you mean 'forward_kl'"),
    ("[tune]\nadapter={kind='lora', rnk=2}\n[student]\nmodel='x'\n", "tune.adapter.rnk"),
    ("[[export]]\ntarget='gguf:Q4_0'\nmethod={kind='rtn', x=1}\n[student]\nmodel='x'\n", "export[0].method.x"),
    ("[[export]]\ntarget='gguf:Q4_0'\n[[export]]\ntarget='gguf:Q4_0'\n[student]\nmodel='x'\n", "stands 2 times"),
    ("[gates.minimum]\nexact_mach=1.0\n[student]\nmodel='x'\n", "did you mean 'exact_match'"),
    ("[gates.minimum]\nexact_match=1.0\n[student]\nmodel='x'\n", "exact_match: the run file has no [[export]]"),
    (f"{SHIPS}[gates.minimum]\nratio_to_teacher=1.0\n", "gates.minimum.ratio_to_teacher: there is no teacher"),
    (f"{SHIPS}[gates.minimum]\nagreement=1.0\n", "gates.minimum.agreement: there is no teacher"),
    (f"{SHIPS}[gates.minimum]\nperplexity=9.0\n", "write it below [gates.maximum]"),
    (f"{SHIPS}[gates.maximum]\nexact_match=0.5\n", "write it below [gates.minimum]"),
    (f"{SHIPS}[gates.minimum]\nttft_ms=5.0\n", "write it below [gates.maximum]"),
    (f"{SHIPS}[gates.maximum]\nlatency_ms_p99=5.0\n", "is not measured for task.kind = 'generate'"),
    (f"{SHIPS}[gates.maximum]\nttft_msec=5.0\n", "did you mean 'ttft_ms'"),
    (f"{SHIPS}[gates.minimum]\nexact_match=nan\n", "a finite number"),
    (f"{SHIPS}[gates.minimum]\nexact_match=95\n", "exact_match: 95, and exact_match is a share from 0 to 1"),
    (f"{SHIPS}[gates.minimum]\naccuracy=0.9\n[data]\ntrain='rows.jsonl'\n",
     "gates.minimum.accuracy: metric 'accuracy': does not measure chat rows"),
    (f"{SHIPS}[gates.minimum]\n'field_match:colour'=0.9\n[data]\ntrain='rows.jsonl'\n", "with the field 'colour'"),
    ("[task]\nschema='missing.json'\n[student]\nmodel='x'\n", "no such file"),
    ("", "student.model"),
])
def test_what_a_run_file_cannot_say_is_refused_before_anything(
        tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str) -> None:
    (tmp_path / "run.toml").write_text(text)
    (tmp_path / "rows.jsonl").write_text("".join(f'{{"prompt": "ask {n}", "completion": "{n}"}}\n' for n in range(9)))
    assert main.call(["run", str(tmp_path / "run.toml"), "-o", str(tmp_path / "out"), "--dry-run"]) == 2
    assert message in capsys.readouterr().err
