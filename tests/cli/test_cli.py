"""The command line: help, exit codes, messages, and one document on stdout."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from edgestill.cli import extras, inputs, lazy, main, quiet
from edgestill.cli.commands import doctor_command
from edgestill.models import runfile
from edgestill.models.errors import (
    ArtifactError,
    CheckFailed,
    DataError,
    EdgestillError,
    MissingExtra,
    TrainingError,
    UsageError,
)

VERBS = {name: line for section in lazy.SECTIONS.values() for name, line in section.items()}
Capture = pytest.CaptureFixture[str]


def command_of(name: str) -> click.Command:
    """The click command of a verb."""
    command = main.root.get_command(click.Context(main.root), name)
    assert command is not None
    return command


def leaves() -> list[tuple[str, ...]]:
    """Every verb, and every sub-verb of a group."""
    found: list[tuple[str, ...]] = []
    for name in VERBS:
        command = command_of(name)
        found.append((name,))
        if isinstance(command, click.Group):
            found += [(name, sub) for sub in command.commands]
    return found


@pytest.mark.parametrize("path", leaves(), ids=" ".join)
def test_every_verb_has_help_with_an_example(path: tuple[str, ...], capsys: Capture) -> None:
    assert main.call([*path, "--help"]) == 0
    text = capsys.readouterr().out
    assert "Example:" in text and f"edgestill {' '.join(path)}" in text.split("Example:")[1]
    assert "-v, --verbose" in text or path == ("data",)


@pytest.mark.parametrize("name", VERBS)
def test_the_line_in_the_root_help_is_the_verbs_own(name: str) -> None:
    assert command_of(name).get_short_help_str(limit=200) == VERBS[name]


def test_every_command_file_is_a_verb() -> None:
    folder = Path(lazy.__file__).parent / "commands"
    assert {path.name.removesuffix("_command.py") for path in folder.glob("*_command.py")} == set(VERBS)


def test_root_help_lists_every_verb_in_its_group(capsys: Capture) -> None:
    assert main.call(["--help"]) == 0
    text = capsys.readouterr().out
    positions = [text.index(f"{section}:") for section in lazy.SECTIONS]
    assert positions == sorted(positions)
    assert all(f"  {name} " in text for name in VERBS)


@pytest.mark.parametrize(("arguments", "code", "message"), [
    (["modles"], 2, "did you mean 'models'"),
    (["models", "smollm-135m"], 2, "did you mean 'smollm2-135m'"),
    (["models", "--jsn"], 2, "--json"),
    (["run", "missing.toml", "-o", "out"], 2, "no such file"),
    (["run", "missing.toml"], 2, "--out"),
    (["inspect", "missing"], 1, "no such folder"),
    (["verify", "missing"], 1, "no such folder"),
    (["generate", "missing", "hello"], 1, "no such folder"),
    (["classify", "missing", "hello"], 1, "no such folder"),
    (["generate", "missing", " "], 2, "the prompt is empty"),
    (["report", "."], 1, "no summary.json"),
    (["compare", "a"], 2, "needs 2 or more"),
    (["compare", "a", "a"], 2, "given twice"),
    (["compare", "a", "b"], 2, "--rows"),
    (["compare", "a.json", "b"], 2, "no such file"),
    (["export", "x", "-o", "out"], 2, "no export target"),
    (["export", "x", "--to", "gguf:Q4", "-o", "out"], 2, "did you mean 'gguf:Q4_0'"),
    (["export", "x", "--to", "gguf:Q4_0", "--budget-mb", "3", "-o", "out"], 2, "budget means nothing"),
    (["export", "x", "--to", "onnx:mixed", "--budget-mb", "3", "--bits-per-weight", "5", "-o", "out"], 2, "two sizes"),
    (["export", "x", "--to", "onnx:int4", "--method", "gptk", "-o", "out"], 2, "did you mean 'gptq'"),
    (["init", "missing.jsonl"], 1, "no such file"),
    (["init", "missing.jsonl", "--student", "minilm"], 2, "did you mean 'minilm-l6'"),
    (["init", "missing.jsonl", "--column", "text"], 2, "ours=theirs"),
    (["data", "check", "missing.jsonl"], 1, "no such file"),
    (["data", "check", "missing.jsonl", "--set", "a.b=1"], 2, "is no run file"),
    (["evaluate", "x", "run.toml", "--column", "a=b"], 2, "not used with a run file"),
    (["data", "check", "run.toml", "--column", "a=b"], 2, "not used with a run file"),
    (["evaluate", "x", "rows.jsonl", "--set", "a.b=1"], 2, "is no run file"),
    (["generate", "x", "hi", "--schema", "missing.json"], 2, "no such file"),
])
def test_what_a_user_gets_wrong_has_a_message_a_hint_and_a_code(
    arguments: list[str], code: int, message: str, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main.call(arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err and captured.err.startswith("error: ") and "\nhint: " in captured.err
    assert "Traceback" not in captured.err


def raising(error: BaseException) -> Callable[..., Any]:
    """A stand-in for a command's work that fails."""
    def fail(*_: Any, **__: Any) -> None:
        raise error
    return fail


@pytest.mark.parametrize(("error", "code", "shown"), [
    (EdgestillError("thing", "step"), 1, "error: thing\nhint: step"),
    (DataError("rows", "step"), 1, "error: rows"),
    (ArtifactError("file", "step"), 1, "error: file"),
    (TrainingError("loss", "step"), 1, "error: loss"),
    (UsageError("option", "step"), 2, "error: option"),
    (CheckFailed("gate", "step"), 3, "error: gate"),
    (MissingExtra("gguf", "export"), 1, "hint: pip install 'edgestill[export]'"),
    (KeyboardInterrupt(), 130, "error: interrupted"),
    (click.Abort(), 130, "error: interrupted"),
    *((ModuleNotFoundError("no", name=name), 1, f"hint: pip install 'edgestill[{extra}]'")
      for extra, packages in extras.EXTRAS.items() if extra != "base" for name in packages),
    (ModuleNotFoundError("no", name="transformers.models"), 1, "hint: pip install 'edgestill[train]'"),
    (PermissionError(13, "Permission denied", "/x"), 1, "error: /x: Permission denied"),
    (OSError(28, "No space left on device"), 1, "error: No space left on device"),
    (MemoryError(), 1, "error: out of memory"),
])
def test_every_kind_of_failure_has_its_exit_code(
        error: BaseException, code: int, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr("edgestill.cli.commands.models_command.names", raising(error))
    assert main.call(["models"]) == code
    captured = capsys.readouterr()
    assert shown in captured.err and "Traceback" not in captured.err and captured.out == ""


def test_verbose_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr("edgestill.cli.commands.models_command.names", raising(DataError("rows", "step")))
    assert main.call(["models", "-v"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_defect_shows_its_traceback_without_being_asked(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr("edgestill.cli.commands.models_command.names", raising(ZeroDivisionError("no")))
    assert main.call(["models"]) == 1
    shown = capsys.readouterr().err
    assert "Traceback" in shown and "this is a defect of edgestill" in shown


def test_a_reader_that_goes_away_is_no_error_message() -> None:
    code = f"{shlex.quote(sys.executable)} -m edgestill models --json | head -c 1"
    found = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=False)
    assert found.stdout == "{" and found.stderr == ""


def test_main_exits_with_the_code() -> None:
    with pytest.raises(SystemExit) as left:
        main.main(["modles"])
    assert left.value.code == 2


def test_version_and_a_call_without_arguments(capsys: Capture) -> None:
    assert main.call([]) == 2
    assert "make:" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["models"], ["models", "smollm2-135m"], ["doctor"]])
def test_json_is_one_document(arguments: list[str], capsys: Capture) -> None:
    assert main.call([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


def test_doctor_names_every_switch_and_package(capsys: Capture) -> None:
    assert main.call(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["telemetry"]) == set(quiet.SWITCHES) and found["packages"]["base"]["numpy"]
    assert main.call(["doctor"]) == 0
    assert "ORT_DISABLE_TELEMETRY" in capsys.readouterr().out


def test_doctor_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    known = doctor_command._version
    monkeypatch.setattr(doctor_command, "_version", lambda name: None if name in ("gguf", "numpy") else known(name))
    monkeypatch.setattr(doctor_command, "_gpu", lambda: "NVIDIA")
    monkeypatch.setattr(doctor_command, "torch_build", lambda: "cpu")
    assert main.call(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert "pip install 'edgestill[export]'" in shown and "torch is a CPU build and there is a GPU" in shown
    monkeypatch.setattr(doctor_command, "_gpu", lambda: None)
    monkeypatch.setattr(doctor_command, "cuda_packages", lambda: ["nvidia-cublas-cu12"])
    main.call(["doctor"])
    assert "1 CUDA packages" in capsys.readouterr().out


def test_doctor_names_a_package_of_the_base_install(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert main.call(["doctor"]) == 1
    shown = capsys.readouterr().err
    assert "error: psutil is not installed" in shown and "pip install edgestill" in shown and "defect" not in shown


def test_extras_are_those_of_the_project_file() -> None:
    path = Path(main.__file__).resolve().parent.parent / "pyproject.toml"
    if not path.is_file():
        pytest.skip("needs the source tree")
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    wanted = {"base": project["dependencies"], **project["optional-dependencies"]}
    for extra, packages in extras.EXTRAS.items():
        declared = {requirement.split(">")[0].split("=")[0].strip() for requirement in wanted[extra]}
        assert set(packages.values()) == {name for name in declared if not name.startswith("edgestill")}, extra


def rows_file(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A JSONL file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


CHAT = [{"question": f"turn on lamp {index}", "answer": json.dumps({"lamp": index})} for index in range(40)]
LABELLED = [{"body": f"my card {index} is lost", "queue": ("cards", "loans")[index % 2]} for index in range(40)]


@pytest.mark.parametrize(("rows", "options", "wanted"), [
    (CHAT, [], {"task": "generate", "student": "smollm2-135m", "teacher": "smollm2-360m"}),
    (CHAT, ["--student", "qwen3-0.6b"], {"student": "qwen3-0.6b", "teacher": "qwen3-1.7b"}),
    (LABELLED, ["--column", "text=body", "--column", "label=queue"], {"task": "classify", "student": "minilm-l6"}),
    (LABELLED, ["--column", "text=body"], {"task": "generate"}),
])
def test_init_writes_a_run_file_that_fits(
    rows: list[dict[str, Any]], options: list[str], wanted: dict[str, str], tmp_path: Path, capsys: Capture
) -> None:
    data = rows_file(tmp_path / "rows.jsonl", rows)
    out = tmp_path / "runs" / "run.toml"
    assert main.call(["init", str(data), "-o", str(out), "--json", *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {key: found[key] for key in wanted} == wanted and found["rows"] == 40
    assert main.call(["data", "check", str(out), "--json"]) == 0  # its paths lead to the rows
    capsys.readouterr()
    assert main.call(["run", str(out), "-o", str(tmp_path / "out"), "--dry-run"]) == 0
    assert main.call(["init", str(data), "-o", str(out)]) == 2
    assert "already exists" in capsys.readouterr().err


def test_init_takes_folders_and_hub_names(
    tiny_llama: Path, tiny_bert: Path, tmp_path: Path, capsys: Capture
) -> None:
    data, out = rows_file(tmp_path / "rows.jsonl", CHAT), tmp_path / "run.toml"
    names = ["--student", str(tiny_llama), "--teacher", "owner/larger"]
    assert main.call(["init", str(data), *names, "-o", str(out)]) == 0
    run = runfile.read(out)
    assert (out.parent / run.student.model).resolve() == tiny_llama and run.teacher["model"] == "owner/larger"
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "config.json").write_text("[]")
    for name, code, message in ((str(tiny_bert), 2, "is for classify"), (str(tmp_path), 1, "no config.json"),
                                (str(tmp_path / "list"), 1, "a JSON object was expected"),
                                ("nowhere", 2, "'nowhere'")):
        assert main.call(["init", str(data), "--student", name, "-o", str(tmp_path / "b.toml")]) == code
        assert message in capsys.readouterr().err


def test_bad_rows_are_left_out_when_asked(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = rows_file(tmp_path / "rows.jsonl", CHAT)
    data.write_bytes(b"{\n" + data.read_bytes())
    assert main.call(["init", str(data)]) == 1
    assert "--skip-bad" in capsys.readouterr().err
    assert main.call(["init", str(data), "--skip-bad"]) == 0
    assert "1 bad rows left out, all in bad-rows.jsonl; the first is" in capsys.readouterr().err
    assert json.loads(Path("bad-rows.jsonl").read_text(encoding="utf-8"))["line"] == 1
    assert inputs.read_rows(Path("run.toml"), split="train")  # what init wrote goes on leaving them out
    assert inputs.read_rows(data, skip_bad=True) and len(inputs.read_rows(data, skip_bad=True)) == len(CHAT)


def test_init_dry_run_prints_the_file_and_writes_nothing(tmp_path: Path, capsys: Capture) -> None:
    data = rows_file(tmp_path / "rows.jsonl", CHAT)
    assert main.call(["init", str(data), "-o", str(tmp_path / "run.toml"), "--dry-run"]) == 0
    assert tomllib.loads(capsys.readouterr().out)["student"]["model"] == "smollm2-135m"
    assert not (tmp_path / "run.toml").exists()


def test_init_refuses_a_student_for_another_task(tmp_path: Path, capsys: Capture) -> None:
    data = rows_file(tmp_path / "rows.jsonl", CHAT)
    assert main.call(["init", str(data), "--student", "minilm-l6"]) == 2
    assert "is for classify" in capsys.readouterr().err


def test_data_check_finds_leaked_rows(tmp_path: Path, capsys: Capture) -> None:
    train, test = rows_file(tmp_path / "train.jsonl", CHAT), rows_file(tmp_path / "test.jsonl", CHAT[:3])
    report = tmp_path / "report.json"
    assert main.call(["data", "check", str(train), "--test", str(test), "-o", str(report)]) == 3
    assert "3 of 3 rows stand in train too" in capsys.readouterr().out
    assert json.loads(report.read_text())["failed"] is True


@pytest.mark.parametrize("verb", ["tune", "distill"])
def test_training_verbs_print_the_resolved_run_file(verb: str, tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "run.toml"
    path.write_text("[data]\ntrain = 'rows.jsonl'\n[student]\nmodel = 'smollm2-135m'\n")
    assert main.call([verb, str(path), "-o", str(tmp_path / "out"), "--dry-run", "--set", "tune.seed=7"]) == 0
    assert tomllib.loads(capsys.readouterr().out)["tune"]["seed"] == 7
    assert main.call([verb, str(path), "-o", str(tmp_path / "out"), "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verb"] == verb


def test_export_dry_run_shows_the_folders(tmp_path: Path, capsys: Capture) -> None:
    arguments = [
        "export",
        "student",
        "--to",
        "gguf:Q4_0",
        "--to",
        "onnx:int4",
        "-o",
        str(tmp_path),
        "--dry-run",
        "--json",
    ]
    assert main.call(arguments) == 0
    assert json.loads(capsys.readouterr().out)["onnx:int4"] == str(tmp_path / "onnx-int4")
    (tmp_path / "onnx-int4").mkdir()
    (tmp_path / "onnx-int4" / "x").write_text("")
    assert main.call(arguments) == 1
    assert "is not empty" in capsys.readouterr().err


def test_saved_profiles_are_compared_by_their_medians(tmp_path: Path, capsys: Capture) -> None:
    for name, speed in (("a", 100.0), ("b", 150.0)):
        (tmp_path / f"{name}.json").write_text(json.dumps({"decode_tokens_per_s": speed, "latency_ms": {"p50": 2.0}}))
    paths = [str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    assert main.call(["compare", *paths, "--json"]) == 0
    rows = {row[0]: row[1:] for row in json.loads(capsys.readouterr().out)["rows"]}
    assert rows["decode_tokens_per_s"] == [100.0, 150.0, 1.5] and rows["latency_ms"] == [2.0, 2.0, 1.0]
    assert main.call(["compare", paths[0], "artifact"]) == 2
    assert "only be compared with saved profiles" in capsys.readouterr().err


def test_what_a_verb_reads_is_never_written_over(tmp_path: Path, capsys: Capture) -> None:
    rows, content = tmp_path / "rows.jsonl", '{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}\n'
    rows.write_text(content)
    (tmp_path / "link.json").symlink_to(rows)
    for arguments in (["data", "check", str(rows)], ["evaluate", "none", str(rows)], ["classify", "none", str(rows)],
                      ["embed", "none", str(rows)], ["cascade", "none", "--rows", str(rows)]):
        for out in (rows, tmp_path / "link.json"):
            assert main.call([*arguments, "-o", str(out)]) == 2, arguments
            assert f"--out: {out} is read here, and would be written over" in capsys.readouterr().err
    assert rows.read_text() == content
    assert main.call(["data", "check", str(rows), "-o", str(tmp_path / "report.json")]) == 0
    assert json.loads((tmp_path / "report.json").read_text())["failed"] is False


def test_library_prints_never_reach_stdout() -> None:
    code = """
import os
from edgestill.cli import quiet
with quiet.stdout_kept_clean():
    print("from python"); os.write(1, b"from C")
print("result")
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "result\n" and "from python" in found.stderr and "from C" in found.stderr
