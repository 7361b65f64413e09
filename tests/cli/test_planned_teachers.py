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
from edgestill.models.errors import DataError, UsageError
from edgestill.models.runfile import RunFile
from safetensors.numpy import load_file, save_file

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


def size_of(table: dict[str, Any]) -> Any:
    (found,) = teachers.of(RunFile(teacher=table))
    return found.size


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
        (found,) = teachers.of(planned(home, GGUF.replace("}", f", cache = {table}}}")).run)
        assert found.entry.config.cache.folder == str(home / name)


def test_what_a_teacher_costs_is_in_the_forecast(home: Path, tiny_llama: Path) -> None:
    costs = {name: forecast.forecast(planned(home, table))[DISTILL] for name, table in {
        "gguf": GGUF, "cached": CACHED, "local": f"{{kind = 'local', model = '{tiny_llama}'}}"}.items()}
    parameters = size_of({"kind": "gguf", "model": str(home / "big.gguf")}).parameters
    assert costs["gguf"].peak_bytes - costs["cached"].peak_bytes == (home / "big.gguf").stat().st_size
    assert costs["local"].peak_bytes - costs["cached"].peak_bytes == 4 * parameters


def test_what_a_teacher_alone_is_told_costs_its_tokens(home: Path, tiny_llama: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast.costs, "matrix_rate", lambda: 1e9)
    system = "answer as a lighthouse keeper would " * 40
    plain, told = (forecast.forecast(planned(home, f"{{kind = 'local', model = '{tiny_llama}'{more}}}"))
                   for more in ("", f", system = '{system}'"))
    for stage in (DISTILL, EVALUATE):
        assert told[stage].seconds > 2 * plain[stage].seconds
        assert told[stage].peak_bytes == plain[stage].peak_bytes


def test_a_teacher_that_is_asked_in_every_epoch_takes_longer(home: Path, tiny_llama: Path,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast.costs, "matrix_rate", lambda: 1e9)
    packed = {"kind": "gguf", "model": str(home / "big.gguf")}
    assert size_of(packed).asked_anew and not size_of(packed | {"cache": {}}).asked_anew
    student, rows = forecast.costs.Cost(1.0, 10), forecast.costs.Lengths(1, 500, 500)
    often, once = (forecast.costs.taught(student, size_of(each), rows, 3.0, 1e9)
                   for each in (packed, packed | {"cache": {}}))
    assert often.seconds - 1.0 == pytest.approx(3 * (once.seconds - 1.0)) and once.seconds > 1.0
    local = {"kind": "local", "model": str(tiny_llama)}
    found, kept = size_of(local), size_of(local | {"cache": {}})
    fitting = 2**30 // (4 * 64)  # places whose states of 64 numbers are a gigabyte
    assert [each.passes(fitting + more, 3.0) for each in (found, kept) for more in (0, 1)] == [1, 3, 1, 1]
    assert size_of(local | {"model": str(home / "big.gguf")}).place_bytes == 4 * 64
    table = f"{{kind = 'local', model = '{tiny_llama}'}}"
    inside, outside = (forecast.forecast(planned(home, table, f"distill.losses=[{{kind = '{kind}'}}]",
                                                 "distill.epochs=200"))[DISTILL].seconds
                       for kind in ("hidden", "forward_kl"))
    assert inside > 1.2 * outside
    assert size_of({"kind": "local", "model": "smollm2-135m"}).parameters == 134_515_008
    assert size_of({"kind": "local", "model": "owner/name"}) is None


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


SEVERAL = "[{kind = 'local', model = 'other', route = ['a']}, {kind = 'gguf', model = 'big.gguf', route = ['b', 'c']}]"
MIXED = "[{kind = 'local', model = 'other'}, {kind = 'gguf', model = 'big.gguf', weight = 3}]"


@pytest.fixture
def routed(home: Path, tiny_llama: Path) -> Path:
    """The same with rows of three kinds, and a second teacher."""
    shutil.copytree(tiny_llama, home / "other")
    weights = load_file(home / "other" / "model.safetensors")
    save_file({name: value * (3 if "mlp" in name else 1) for name, value in weights.items()},
              home / "other" / "model.safetensors", {"format": "pt"})
    jsonl(home / "rows.jsonl", [{"prompt": f"ask {row}", "completion": f"say {row}", "of": "abc"[row % 3]}
                                for row in range(20)])
    return home


def test_several_teachers_are_in_keys_and_costs(routed: Path) -> None:
    of = "data.route=of"
    divided, mixed, one = planned(routed, SEVERAL, of), planned(routed, MIXED), planned(routed, GGUF)
    assert EVALUATE in keys(divided) and EVALUATE not in keys(mixed)
    other = planned(routed, MIXED.replace("3", "2"))
    assert keys(other)[DISTILL] != keys(mixed)[DISTILL] != keys(one)[DISTILL]
    assert keys(planned(routed, SEVERAL.replace("'c'", "'d', 'c'"), of))[DISTILL] != keys(divided)[DISTILL]
    (routed / "other").rename(routed / "elsewhere")
    assert keys(planned(routed, SEVERAL.replace("other", "elsewhere"), of)) == keys(divided)
    (routed / "elsewhere").rename(routed / "other")
    with (routed / "big.gguf").open("ab") as file:
        file.write(b"\0")
    assert {name for name, key in keys(planned(routed, SEVERAL, of)).items() if key != keys(divided)[name]} == {
        EVALUATE, DISTILL}
    costs = [forecast.forecast(plan)[DISTILL] for plan in (divided, mixed, one, planned(routed, CACHED))]
    local, packed = (size_of({"kind": kind, "model": str(routed / model)})
                     for kind, model in (("local", "other"), ("gguf", "big.gguf")))
    assert [cost.peak_bytes - costs[3].peak_bytes for cost in costs[:3]] == [
        local.bytes + packed.bytes, local.bytes + packed.bytes, packed.bytes]
    places = [teacher.places(divided.rows["train"]) for teacher in divided.teachers]
    assert sorted(places[0] + places[1]) == [*range(len(divided.rows["train"]))]
    assert {divided.rows["train"][place].route for place in places[0]} == {"a"}


def test_with_routes_each_test_row_is_answered_by_its_teacher(routed: Path) -> None:
    plan = planned(routed, SEVERAL, "data.route=of", "task.schema=")
    rows = plan.rows["test"]
    assert {row.route for row in rows} > {"a"}
    next(stage for stage in plan.stages if stage.name == EVALUATE).work(routed / "both.json")
    both = Kept.read(routed / "both.json")
    alone = []
    for table in ("{kind = 'local', model = 'other'}", GGUF):
        single = planned(routed, table, "task.schema=")
        next(stage for stage in single.stages if stage.name == EVALUATE).work(routed / "one.json")
        alone.append(Kept.read(routed / "one.json"))
    wanted = [alone[row.route != "a"].evaluation.answers[place] for place, row in enumerate(rows)]
    assert both.evaluation.answers == wanted != alone[1].evaluation.answers
    assert both.role == "teacher" and len(both.evaluation.scores["exact_match"]) == len(rows)
    assert both.parameters == sum(each.parameters or 0 for each in alone)


@pytest.mark.parametrize(("teacher", "overrides", "message"), [
    (MIXED, ["gates.minimum={ratio_to_teacher = 0.9}", "export=[{target = 'gguf:Q8_0'}]"],
     "ratio_to_teacher: 2 teachers that are mixed give no answer together"),
    (MIXED, ["student.model="], "student.model: is empty, and there are 2 teachers"),
    (MIXED, ["distill.losses=[{kind = 'attention'}]"], "compares what is inside of two models, and there are 2"),
    (f"[{GGUF}, {CACHED}]", ["distill.losses=[{kind = 'jsd'}]"],
     r"jsd needs likeliest of teacher\[1\], which provides drawn"),
    (MIXED, ["task.kind=classify"], r"teacher\[1\]: gguf is for decoders"),
])
def test_several_that_cannot_be_are_refused_before_anything_is_done(routed: Path, teacher: str, overrides: list[str],
                                                                    message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve.read(routed / "run.toml", [f"teacher={teacher}", *overrides])


def test_a_row_of_no_route_is_refused_before_anything_is_done(routed: Path) -> None:
    with pytest.raises(DataError, match="rows.jsonl:\\d+: of is 'c', and no teacher's route takes it"):
        planned(routed, SEVERAL.replace(", 'c'", ""), "data.route=of")
