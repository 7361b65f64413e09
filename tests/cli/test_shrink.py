"""`edgestill shrink`: what it says and writes, for rows of both tasks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from edgestill.cli import main
from edgestill.models import kinds
from edgestill.models.artifact import open_artifact

from .. import tiny

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("rows")
    chats = [{"prompt": text, "completion": "on"} for text in tiny.SENTENCES[:3]]
    texts = [{"text": text, "label": label} for text, label in zip(tiny.SENTENCES, tiny.LABELS, strict=False)]
    for name, found in (("chats", chats), ("texts", texts)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, found)))
    (folder / "run.toml").write_text("[task]\nsystem = 'Be short.'\n[data]\ntrain = 'chats.jsonl'\ntest_share = 0.0\n"
                                     "validation_share = 0.0\n[student]\nmodel = 'another'\nlayers = [0, 1]\n"
                                     "initialise = 'random'\ntemplate = 'own.jinja'\n")
    (folder / "own.jinja").write_bytes((kinds.folder("models.templates") / "chatml.jinja").read_bytes())
    return {path.stem: path for path in folder.iterdir()}


def shrink(*arguments: str | Path) -> int:
    return main.call(["shrink", *map(str, arguments)])


def test_a_plan_is_told_and_nothing_is_written(rows: dict[str, Path], tiny_llama: Path, tmp_path: Path,
                                               capsys: Capture) -> None:
    asked = (tiny_llama, "--to", "80k", "--rows", rows["chats"], "-o", tmp_path / "out")
    assert shrink(*asked, "--dry-run", "--json") == 0
    planned = json.loads(capsys.readouterr().out)["cuts"]
    assert list(tmp_path.iterdir()) == [] and planned[-1]["kind"] == "width"
    assert shrink(*asked) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["after", "embedding", "attention", "feed-forward", "other", "parameters"]
    assert [line.split("  ")[0].strip() for line in lines[1:]] == [
        "the model", f"vocabulary: {planned[1]['tokens']} tokens", *(
            [f"depth: {len(planned[2]['layers'])} layers"] if len(planned) == 4 else []),
        f"width: {planned[-1]['feed_forward']} channels"]
    manifest = open_artifact(tmp_path / "out").manifest
    assert manifest.settings["cuts"] == planned
    assert manifest.dimensions["parameters"] == sum(planned[-1]["parameters"].values()) <= 80_000
    assert shrink(*asked) == 1 and "is not empty" in capsys.readouterr().err


def test_a_run_file_gives_task_rows_and_template_and_no_cuts(rows: dict[str, Path], tiny_llama: Path, tmp_path: Path,
                                                             capsys: Capture) -> None:
    asked = (tiny_llama, "--to", "1M", "--rows", rows["run"], "-o", tmp_path / "out", "--json")
    assert shrink(*asked) == 0
    manifest = open_artifact(tmp_path / "out").manifest
    assert manifest.task.system == "Be short." and manifest.settings["initialise"] == "weights"
    assert [cut["kind"] for cut in json.loads(capsys.readouterr().out)["cuts"]] == [""]
    assert "<|im_start|>" in (tmp_path / "out" / "chat_template.jinja").read_text()


def test_a_classifier_is_cut_for_the_labels_of_its_rows(rows: dict[str, Path], tiny_bert: Path, tmp_path: Path,
                                                        capsys: Capture) -> None:
    assert shrink(tiny_bert, "--to", "75k", "--rows", rows["texts"], "-o", tmp_path / "first") == 0
    task = open_artifact(tmp_path / "first").manifest.task
    assert (task.kind, task.labels) == ("classify", sorted(tiny.LABELS))
    assert shrink(tmp_path / "first", "--to", "65k", "--rows", rows["texts"], "-o", tmp_path / "second") == 0
    again = open_artifact(tmp_path / "second").manifest
    assert again.task == task and [parent["name"] for parent in again.parents] == [tiny_bert.name, "first"]


@pytest.mark.parametrize(("options", "message"), [
    (["--to", "tiny"], "'tiny' is no size"), (["--to", "1k"], "cannot be reached"), ([], "Missing option '--to'"),
    (["--to", "1M", "--set", "data.train=x"], "is no run file"),
    (["--to", "1M", "--set", "student.layers=[0]"], "--set student.layers: MODEL, --to and --format say"),
])
def test_what_cannot_be_is_a_usage_error(options: list[str], message: str, rows: dict[str, Path], tiny_llama: Path,
                                         tmp_path: Path, capsys: Capture) -> None:
    assert shrink(tiny_llama, *options, "--rows", rows["chats"], "-o", tmp_path / "out") == 2
    assert message in capsys.readouterr().err and list(tmp_path.iterdir()) == []
