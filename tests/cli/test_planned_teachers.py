"""Plans ask a teacher's kind, whatever it is: what it stands for, what it costs, whether it can be measured."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from edgestill.cli.pipeline import engine, forecast, resolve, teachers
from edgestill.cli.pipeline.evaluate import Kept
from edgestill.cli.pipeline.layout import SUMMARY, TEACHER, evaluation_file
from edgestill.cli.pipeline.plan import Plan
from edgestill.distill.teachers._cache import ABOUT, About
from edgestill.models import files
from edgestill.models.errors import UsageError
from edgestill.models.runfile import RunFile

from ..runtime.test_rows import jsonl


@pytest.fixture
def home(tmp_path: Path, tiny_llama: Path, packed_llama: dict[str, Path]) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    shutil.copyfile(packed_llama["gguf"] / "model.gguf", folder / "big.gguf")
    jsonl(folder / "rows.jsonl", [{"prompt": f"ask {row}", "completion": f"say {row}"} for row in range(20)])
    (folder / "schema.json").write_text('{"type": "object", "properties": {"on": {"type": "boolean"}}, '
                                        '"required": ["on"], "additionalProperties": false}')
    (folder / "run.toml").write_text(f"""
[task]
schema = "schema.json"
system = "Say on."
max_new_tokens = 12
[data]
train = "rows.jsonl"
test_share = 0.2
[student]
model = "{tiny_llama}"
""")
    about = About("key", "drawn", 24, [{"role": "teacher", "name": "big"}], "mit")
    files.write_json(folder / "kept" / "one" / ABOUT, vars(about))
    return folder


def planned(home: Path, teacher: str, *overrides: str) -> Plan:
    run = resolve.read(home / "run.toml", [f"teacher={teacher}", *overrides])
    return Plan(run, home / "out", "title", print)


def keys(plan: Plan) -> dict[str, str]:
    """Without the summary's, which shows the run file as it is."""
    return {stage.name: engine._key(stage, {}) for stage in plan.stages if stage.output != SUMMARY}


GGUF, CACHED = "{kind = 'gguf', model = 'big.gguf'}", "{kind = 'cached', folder = 'kept'}"
DISTILL, EVALUATE = "distill the student", "evaluate the teacher"


def test_keys_hold_what_a_teacher_is_and_not_where(home: Path, tmp_path: Path) -> None:
    before, kept = keys(planned(home, GGUF)), keys(planned(home, CACHED))
    assert kept[DISTILL] != before[DISTILL] and EVALUATE not in kept
    with_cache = "{kind = 'gguf', model = 'big.gguf', cache = {folder = 'a'}}"
    assert keys(planned(home, with_cache)) == keys(planned(home, with_cache.replace("'a'", "'b'")))
    assert keys(planned(home, with_cache))[DISTILL] != before[DISTILL]
    shutil.copytree(home, tmp_path / "elsewhere")
    assert keys(planned(tmp_path / "elsewhere", GGUF)) == before
    assert keys(planned(tmp_path / "elsewhere", CACHED)) == kept
    with (home / "big.gguf").open("ab") as file:
        file.write(b"\0")
    changed = keys(planned(home, GGUF))
    assert {name for name in before if changed[name] != before[name]} == {EVALUATE, DISTILL}
    about = next((home / "kept").rglob(ABOUT))
    about.write_text(about.read_text().replace('"key"', '"other"'))
    assert keys(planned(home, CACHED))[DISTILL] != kept[DISTILL]


def test_a_cache_lies_beside_the_run_file_wherever_that_is_called_from(home: Path) -> None:
    for table, name in (("{}", "teacher-cache"), ("{folder = 'a'}", "a")):
        found = teachers.of(planned(home, GGUF.replace("}", f", cache = {table}}}")).run)
        assert found is not None and found.config.cache.folder == str(home / name)


def test_what_a_teacher_costs_is_in_the_forecast(home: Path, tiny_llama: Path) -> None:
    costs = {name: forecast.forecast(planned(home, table))[DISTILL] for name, table in {
        "gguf": GGUF, "cached": CACHED, "local": f"{{kind = 'local', model = '{tiny_llama}'}}"}.items()}
    parameters = teachers.of(planned(home, GGUF).run).size.parameters  # type: ignore[union-attr]
    assert costs["gguf"].peak_bytes - costs["cached"].peak_bytes == (home / "big.gguf").stat().st_size
    assert costs["local"].peak_bytes - costs["cached"].peak_bytes == 4 * parameters


def test_a_teacher_that_is_asked_in_every_epoch_takes_longer(home: Path, tiny_llama: Path,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast.costs, "matrix_rate", lambda: 1e9)
    def size(**more: Any) -> Any:
        found = teachers.of(RunFile(teacher={"kind": "gguf", "model": str(home / "big.gguf"), **more}))
        assert found is not None
        return found.size

    assert size().asked_anew and not size(cache={}).asked_anew
    student, rows = forecast.costs.Cost(1.0, 10), forecast.costs.Lengths(1, 500, 500)
    often, once = (forecast.costs.taught(student, each, rows, 3.0, 1e9) for each in (size(), size(cache={})))
    assert often.seconds - 1.0 == pytest.approx(3 * (once.seconds - 1.0)) and once.seconds > 1.0
    local = {"kind": "local", "model": str(tiny_llama)}
    found, kept = (teachers.of(RunFile(teacher=table)) for table in (local, local | {"cache": {}}))
    assert found is not None and kept is not None and found.size is not None and kept.size is not None
    fitting = 2**30 // (4 * 64)  # places whose states of 64 numbers are a gigabyte
    assert [each.passes(fitting + more, 3.0) for each in (found.size, kept.size) for more in (0, 1)] == [1, 3, 1, 1]
    packed = teachers.of(RunFile(teacher=local | {"model": str(home / "big.gguf")}))
    assert packed is not None and packed.size is not None and packed.size.place_bytes == 4 * 64
    table = f"{{kind = 'local', model = '{tiny_llama}'}}"
    inside, outside = (forecast.forecast(planned(home, table, f"distill.losses=[{{kind = '{kind}'}}]",
                                                 "distill.epochs=200"))[DISTILL].seconds
                       for kind in ("hidden", "forward_kl"))
    assert inside > 1.2 * outside
    catalogue = teachers.of(RunFile(teacher={"kind": "local", "model": "smollm2-135m"}))
    unknown = teachers.of(RunFile(teacher={"kind": "local", "model": "owner/name"}))
    assert catalogue is not None and catalogue.size is not None and catalogue.size.parameters == 134_515_008
    assert unknown is not None and unknown.size is None


def test_a_packed_teacher_is_measured_as_its_float_model_is(home: Path, tiny_llama: Path,
                                                            packed_llama: dict[str, Path]) -> None:
    found = []
    for number, table in enumerate((GGUF, f"{{kind = 'gguf', model = '{packed_llama['gguf']}'}}",
                                    f"{{kind = 'local', model = '{tiny_llama}'}}")):
        plan = planned(home, table)
        path = home / str(number) / evaluation_file(TEACHER)
        next(stage for stage in plan.stages if stage.name == EVALUATE).work(path)
        found.append(Kept.read(path))
    bare, packed, whole = found
    assert bare.evaluation.answers == packed.evaluation.answers == whole.evaluation.answers
    assert bare.parameters == whole.parameters and bare.constrained is None  # which takes a tokenizer.json
    assert packed.constrained is not None and whole.constrained is not None
    assert packed.constrained.answers == whole.constrained.answers
    assert all("on" in json.loads(answer) for answer in packed.constrained.answers)
    assert bare.model_bytes == (home / "big.gguf").stat().st_size and bare.role == "teacher"


@pytest.mark.parametrize(("teacher", "overrides", "message"), [
    (CACHED, ["gates.minimum={ratio_to_teacher = 0.9}", "export=[{target = 'gguf:Q8_0'}]"],
     "ratio_to_teacher: there is no teacher to compare with, only what it said"),
    (CACHED, ["student.model="], "student.model: is empty, and a teacher of the kind 'cached'"),
    (CACHED, ["task.kind=classify"], "teacher: cached is for decoders, and task.kind is 'classify'"),
    (GGUF, ["task.kind=classify"], "teacher: gguf is for decoders, and task.kind is 'classify'"),
    ("{kind = 'local', model = 'm', cache = {}}", ["task.kind=classify"], "teacher: a cache is for decoders"),
])
def test_a_teacher_that_cannot_be_is_refused_before_anything_is_done(home: Path, teacher: str, overrides: list[str],
                                                                     message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve.read(home / "run.toml", [f"teacher={teacher}", *overrides])
