"""What each stage's key depends on: all that the stage reads, and nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edgestill.cli.pipeline import engine, packages, resolve
from edgestill.cli.pipeline.plan import Plan
from edgestill.models import hub, runfile
from edgestill.models.errors import UsageError
from edgestill.runtime.data.reader import Row, rows_digest

CHECK, BASELINE = "check the data", "answer with a trivial baseline"
TEACHER, STUDENT, LABELS = "evaluate the teacher", "distill the student", "train the student on labels alone"
EVALUATED = {"evaluate the student", "evaluate the student on labels alone"}
EXPORT, SHIPPED, PROFILE = "export and certify gguf:Q8_0", "evaluate gguf:Q8_0", "profile gguf:Q8_0"
SUM = "sum up"
TRAINED = {STUDENT, LABELS}


def write(path: Path, *rows: tuple[str, str]) -> None:
    path.write_text("".join(json.dumps({"prompt": one, "completion": two}) + "\n" for one, two in rows))


@pytest.fixture(scope="module")
def home(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run file, its rows and its teacher."""
    folder = tmp_path_factory.mktemp("home")
    shutil.copytree(tiny_llama, folder / "teacher")
    write(folder / "train.jsonl", *((f"ask {number}", f"say {number}") for number in range(8)))
    write(folder / "validation.jsonl", ("ask v", "say v"))
    write(folder / "test.jsonl", *((f"ask t{number}", f"say t{number}") for number in range(4)))
    (folder / "schema.json").write_text('{"type": "string"}')
    (folder / "run.toml").write_text("""
[task]
schema = "schema.json"
[data]
train = "train.jsonl"
validation = "validation.jsonl"
test = "test.jsonl"
[student]
layers = [0]
[teacher]
kind = "local"
model = "teacher"
[distill]
labels_control = true
[[export]]
target = "gguf:Q8_0"
certify_rows = 2
""")
    return folder


def keys(folder: Path, *overrides: str) -> dict[str, tuple[str, dict[str, str]]]:
    """Stage → its key before anything was made, and the versions it was made with."""
    path = folder / "run.toml"
    plan = Plan(resolve.read(path, overrides), folder / "out", "title", print, runfile.read(path, overrides))
    return {stage.name: (engine._key(stage, {}), dict(stage.versions)) for stage in plan.stages}


def changed(folder: Path, before: dict[str, Any], *overrides: str) -> set[str]:
    after = keys(folder, *overrides)
    return {name for name in after if before.get(name) != after[name]}


def edited(name: str, old: str, new: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
    return edit


def created(name: str, text: str) -> Callable[[Path], None]:
    def create(folder: Path) -> None:
        (folder / name).write_text(text)
    return create


def grown(name: str) -> Callable[[Path], None]:
    """A JSON file says one thing more."""
    def grow(folder: Path) -> None:
        path = folder / name
        table = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps(table | {"said": "more"}))
    return grow


MODEL = {TEACHER, *TRAINED}


@pytest.mark.parametrize(("change", "wanted"), [
    (edited("test.jsonl", "say t0", "say T"), {CHECK, BASELINE, TEACHER, *EVALUATED, EXPORT, SHIPPED, PROFILE}),
    (edited("test.jsonl", "say t3", "say T"), {CHECK, BASELINE, TEACHER, *EVALUATED, SHIPPED, PROFILE}),
    (edited("validation.jsonl", "say v", "say V"), {CHECK, *TRAINED}),
    (edited("train.jsonl", "say 0", "say O"), {CHECK, BASELINE, *TRAINED, EXPORT}),
    (edited("teacher/chat_template.jinja", "{", " {"), MODEL),
    (grown("teacher/tokenizer_config.json"), MODEL),
    (grown("teacher/generation_config.json"), MODEL),
    (grown("teacher/special_tokens_map.json"), MODEL),
    (created("teacher/README.md", "---\nlicense: mit\n---\n"), MODEL),
    (created("teacher/notes.txt", "nothing reads this"), set[str]()),
    (edited("schema.json", "string", "object"), {BASELINE, TEACHER, *TRAINED, *EVALUATED}),
    (edited("run.toml", "[[export]]", "[gates.minimum]\nexact_match = 0.5\n[[export]]"), {SUM}),
    (edited("run.toml", "[[export]]", "[gates.maximum]\nnats_per_token = 2.0\n[[export]]"),
     {SUM, BASELINE, TEACHER, *EVALUATED, SHIPPED}),
    (edited("run.toml", "labels_control", "checkpoint_seconds = 1.0\nlabels_control"), {SUM}),
    (edited("run.toml", "labels_control", "losses = [{kind = 'ce'}]\nlabels_control"), {SUM, STUDENT}),
    (edited("run.toml", "labels_control = true", "labels_control = false"), {SUM}),
    (edited("run.toml", "labels_control", "seed = 7\nlabels_control"), {SUM, *TRAINED}),
    (edited("run.toml", "[student]", "max_tokens = 99\n[student]"), {SUM, *TRAINED}),
    (edited("run.toml", "[student]", "[profile]\nrepeats = 3\n[student]"), {SUM, PROFILE}),
    (edited("run.toml", "certify_rows = 2", "certify_rows = 2\ncalibration_rows = 3"), {SUM, EXPORT}),
    (edited("run.toml", '"teacher"', '"./teacher"'), {SUM}),
])
def test_a_key_holds_what_its_stage_reads(
        home: Path, tmp_path: Path, change: Callable[[Path], None], wanted: set[str]) -> None:
    folder = tmp_path / "home"
    shutil.copytree(home, folder)
    before = keys(folder)
    change(folder)
    assert changed(folder, before) == wanted


def test_a_moved_folder_and_another_place_for_the_rows_change_no_key(home: Path, tmp_path: Path) -> None:
    before = keys(home)
    shutil.copytree(home, tmp_path / "elsewhere")
    assert changed(tmp_path / "elsewhere", before) == set()
    (tmp_path / "elsewhere" / "data").mkdir()
    for name in ("train", "validation", "test"):
        shutil.move(tmp_path / "elsewhere" / f"{name}.jsonl", tmp_path / "elsewhere" / "data")
    assert changed(tmp_path / "elsewhere", before, "data.dir=data") == {SUM}  # which shows the run file


def test_a_split_of_a_datasets_folder_is_known_by_its_rows(home: Path, tmp_path: Path) -> None:
    import datasets

    def save(answer: str) -> None:
        shutil.rmtree(tmp_path / "ds", ignore_errors=True)
        rows = {"prompt": ["ask a", "ask b"], "completion": ["say a", answer]}
        datasets.DatasetDict({"train": datasets.Dataset.from_dict(rows)}).save_to_disk(tmp_path / "ds")

    source = f"data.train={tmp_path / 'ds'}:train"
    save("say b")
    before = keys(home, source)
    assert changed(home, before, source) == set()
    save("say B")
    assert changed(home, before, source) >= {CHECK, BASELINE, *TRAINED, EXPORT}


def test_versions_are_told_apart_from_the_rest(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys(home)
    real = packages.artifact.versions

    def newer(name: str) -> set[str]:
        monkeypatch.setattr(packages.artifact, "versions", lambda names: real(names) | (
            {name: "99.0"} if name in names else {}))
        return changed(home, before)

    assert newer("torch") == {TEACHER, *TRAINED, *EVALUATED, EXPORT}
    assert newer("llama-cpp-python") == {EXPORT, SHIPPED, PROFILE}
    assert newer("gguf") == {EXPORT}
    assert newer("scikit-learn") == {BASELINE}
    assert newer("onnxruntime") == set()
    assert packages.of_engine("onnx:int8")["onnxruntime"] == "99.0"
    assert newer("edgestill") == set(before)


def test_a_hub_model_is_known_by_its_commit(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    path, name = home / "run.toml", "teacher.model=smollm2-135m"

    def planned() -> str:
        plan = Plan(resolve.read(path, [name]), home / "out", "title", print, fetch=False)
        return next(engine._key(stage, {}) for stage in plan.stages if stage.name == TEACHER)

    unknown = planned()
    repository = tmp_path / "models--HuggingFaceTB--SmolLM2-135M-Instruct"
    (repository / "refs").mkdir(parents=True)
    found = []
    for commit in ("a" * 40, "b" * 40):
        (repository / "refs" / "main").write_text(commit)
        shutil.copytree(home / "teacher", repository / "snapshots" / commit)
        found.append(planned())
        assert keys(home, name)[TEACHER][0] == found[-1]  # and nothing is downloaded
    assert len({unknown, *found}) == 3


def test_half_a_download_is_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--a--b" / "snapshots" / "c"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert hub.snapshot("a/b", "c") is None
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"x": "1.safetensors", "y": "2.safetensors"}}')
    (folder / "1.safetensors").touch()
    assert hub.snapshot("a/b", "c") is None
    (folder / "2.safetensors").touch()
    assert hub.snapshot("a/b", "c") == folder and hub.snapshot("a/b") is None


def test_a_run_without_test_rows_is_refused_before_it_starts(home: Path) -> None:
    with pytest.raises(UsageError, match="no test rows"):
        keys(home, "data.test=", "data.test_share=0.0")


def test_new_fields_of_a_row_count() -> None:
    """Whatever a row may hold is in its digest; where it was read from is not."""
    from dataclasses import fields, replace

    plain = Row(text="a")
    for item in fields(Row):
        value = {"messages": ({"role": "user", "content": "x"},), "tools": ({"name": "x"},)}.get(item.name, "other")
        differs = rows_digest([replace(plain, **{item.name: value})]) != rows_digest([plain])
        assert differs is (item.name != "where"), item.name


def test_a_template_of_the_students_own_is_known_by_its_text(home: Path) -> None:
    option = "student.template=own.jinja"
    created("own.jinja", "{{ messages }}")(home)
    before = keys(home, option)
    created("own.jinja", "{{ messages[0] }}")(home)
    assert changed(home, before, option) == TRAINED


def test_a_student_of_a_size_depends_on_the_formats_that_carry_it(home: Path) -> None:
    more = "export=[{target = 'gguf:Q8_0', certify_rows = 2}, {target = 'onnx:int8'}]"
    assert not TRAINED & changed(home, keys(home), more)
    sized = keys(home, "student.to=80k")
    assert {name for name, key in keys(home, "student.to=80k", more).items() if sized.get(name, key) != key} >= TRAINED


def test_training_is_given_the_rows_that_its_key_was_made_of(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is edited while a run goes on changes the next run."""
    given: list[Any] = []
    plan = Plan(resolve.read(home / "run.toml"), home / "out", "title", print)
    for verb in ("tune", "distill"):
        monkeypatch.setattr(f"edgestill.distill.{verb}", lambda *args, splits, **named: given.append(splits))
    for stage in plan.stages:
        if stage.name in TRAINED:
            stage.work(home / "out" / stage.output)
    assert len(given) == 2 and all(splits is plan.rows for splits in given)


def test_a_trainings_own_key_holds_a_schema_by_its_content(tmp_path: Path) -> None:
    from edgestill.distill.training.job import task_facts
    from edgestill.models.task import Task

    def facts(name: str, text: str) -> dict[str, Any]:
        (tmp_path / name).write_text(text)
        return task_facts(Task(schema=name), tmp_path)

    assert facts("a.json", "{}") == facts("b.json", "{}") != facts("a.json", "[]")
    assert task_facts(Task(), tmp_path)["schema"] != facts("a.json", "{}")["schema"]


def test_an_artifact_tells_names_and_no_places(home: Path) -> None:
    from edgestill.distill.training.finish import told

    run = told(resolve.read(home / "run.toml", ["data.validation='/rows/v.jsonl'", "data.test='/rows/t.jsonl'",
                                                "student.base='/b/base'", "student.template='/b/chat.jinja'"]))
    assert (run.data.dir, run.data.train, run.data.validation, run.data.test) == (
        ".", "train.jsonl", "v.jsonl", "t.jsonl")
    assert run.teacher == {"kind": "local", "model": "teacher"}
    assert (run.student.base, run.student.template) == ("base", "chat.jinja")
    assert told(runfile.read(home / "run.toml", ["student.model='owner/name'"])).student.model == "owner/name"
