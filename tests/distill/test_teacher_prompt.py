"""What [teacher] says that a teacher alone is told: read, resolved, hidden, and part of the key of its word."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from edgestill.distill import prepare
from edgestill.distill.teachers import _prompt, cached, gguf, local
from edgestill.distill.teachers._prompt import Told
from edgestill.models.errors import DataError, UsageError
from edgestill.models.runfile import Data, Distill, RunFile, with_private
from edgestill.models.task import Task
from edgestill.runtime.data.row import Row

from ..runtime.test_rows import jsonl


def message(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def row(name: str, **more: Any) -> Row:
    return Row(messages=(message("user", f"ask {name}"), message("assistant", f"say {name}")), where=name, **more)


TRAIN = [row(str(number), private=(("note", f"note {number}"),)) for number in range(20)]


def told(run: RunFile | None = None, base: Path = Path(), **given: Any) -> Told | None:
    return _prompt.read(local.Config("model", **given), run or RunFile(), base, TRAIN)


def test_a_row_is_asked_behind_system_and_examples_with_its_context() -> None:
    found = Told("Be kind.", (message("user", "a"), message("assistant", "b")), "note")
    many = Row(messages=(message("developer", "Be short."), message("user", "one"), message("assistant", "two"),
                         message("user", "three"), message("assistant", "four")), unlearned=(2,),
               private=(("note", "seen"), ("other", "never")))
    asked = found.row(many)
    assert [(one["role"], one["content"]) for one in asked.messages] == [
        ("system", "Be kind.\n\nBe short."), ("user", "a"), ("assistant", "b"), ("user", "one\n\nnote:\nseen"),
        ("assistant", "two"), ("user", "three"), ("assistant", "four")]
    assert asked.turns == (6,) and asked.answer == many.answer == "four"
    plain = found.row(replace(many, messages=many.messages[1:3], unlearned=(), private=(("note", ""),)))
    assert [one["content"] for one in plain.messages] == ["Be kind.", "a", "b", "one", "two"] and plain.turns == (4,)
    own = found.row(replace(many, messages=(message("system", "Be kind. Always."), *many.messages[1:])))
    assert own.messages[0] == message("system", "Be kind. Always.")  # says it already
    bare = Told("", found.examples, "").row(many)
    assert bare.messages[0]["content"] == "Be short." and bare.messages[3]["content"] == "one"


def test_system_is_a_text_or_a_text_file(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("\ufeffOne.\nTwo.\n", encoding="utf-8")
    assert told(base=tmp_path, system="long.txt").system == "One.\nTwo."  # type: ignore[union-attr]
    assert told(system=" Be kind. ").system == "Be kind."  # type: ignore[union-attr]
    assert told(system="Read\nthis.txt").system == "Read\nthis.txt"  # type: ignore[union-attr]
    table = {"kind": "local", "system": "long.txt", "examples": "a/b.jsonl", "context": "note"}
    assert _prompt.absolute(table, tmp_path) == table | {
        "system": str(tmp_path / "long.txt"), "examples": str(tmp_path / "a/b.jsonl")}
    assert _prompt.absolute({"system": "Be kind.", "examples": 3}, tmp_path) == {"system": "Be kind.", "examples": 3}


def test_examples_are_a_file_or_drawn_by_seed(tmp_path: Path) -> None:
    jsonl(tmp_path / "some.jsonl", [{"system": "s", "q": f"q{number}", "a": f"a{number}", "note": f"n{number}"}
                                    for number in range(2)])
    run = RunFile(data=Data(columns={"prompt": "q", "completion": "a", "system": "system"}, private=["note"]))
    found = told(run, tmp_path, examples="some.jsonl", context="note")
    assert found is not None and [one["content"] for one in found.examples] == [
        "q0\n\nnote:\nn0", "a0", "q1\n\nnote:\nn1", "a1"]
    drawn = [told(RunFile(distill=Distill(seed=seed)), examples=3) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2] and drawn[0] is not None
    asked = [one["content"] for one in drawn[0].examples]
    assert len({*asked}) == 6 and {*asked} <= {str(one["content"]) for one in TRAIN for one in one.messages}
    assert all(said.replace("ask", "say") == answer for said, answer in zip(asked[::2], asked[1::2], strict=True))


def test_nothing_more_is_said_where_nothing_is_named() -> None:
    assert told() is None and _prompt.read(cached.Config("folder"), RunFile(), Path(), TRAIN) is None
    assert told(examples=1) is not None and told(context="note") is not None


def test_the_key_holds_all_that_the_teacher_reads(tmp_path: Path) -> None:
    splits = {"train": TRAIN[:3], "validation": TRAIN[3:5]}
    base = Told("system", (message("user", "a"), message("assistant", "b")), "note")
    others = [replace(base, system="system "), replace(base, examples=base.examples[::-1]), replace(base, examples=()),
              replace(base, context="")]
    swapped = [replace(one, private=other.private) for one, other in zip(TRAIN[:3], TRAIN[1:4], strict=True)]
    keys = [base.key(splits), base.key({**splits, "train": swapped}), *(other.key(splits) for other in others),
            base.key({**splits, "validation": TRAIN[4:6]})]
    assert len({*keys}) == len(keys) and base.key(dict(splits)) == keys[0]
    without = replace(base, context="")
    assert without.key(splits) == without.key({**splits, "train": swapped})  # which it does not read


def test_the_hash_stands_for_it_where_a_run_file_is_written(tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_text("secret\n")
    jsonl(tmp_path / "e.jsonl", [{"prompt": "a", "completion": "b"}])
    table = {"kind": "gguf", "system": "s.txt", "examples": "e.jsonl", "context": "note", "cache": {"tokens": 3}}
    found = _prompt.hidden(table, tmp_path)
    assert found == table | {"system": f"sha256:{sha256(b'secret').hexdigest()}", "examples": "sha256:" + sha256(
        (tmp_path / "e.jsonl").read_bytes()).hexdigest()}
    assert _prompt.hidden(found, tmp_path) == found and _prompt.absolute(found, tmp_path) == found
    assert _prompt.hidden({"system": "secret", "examples": 2}, tmp_path) == {"system": found["system"], "examples": 2}
    for key in ("system", "examples"):
        with pytest.raises(UsageError, match=f"teacher.{key}: a hash"):
            told(**{key: found[key]})


@pytest.mark.parametrize(("given", "run", "expected"), [
    ({"system": "gone.txt"}, RunFile(), "teacher.system: gone.txt cannot be read"),
    ({"system": "  "}, RunFile(), "teacher.system: is blank"),
    ({"examples": 21}, RunFile(), "teacher.examples: 21, and 20 training rows have an answer"),
    ({"examples": -1}, RunFile(), "teacher.examples: -1 is below the limit 0"),
    ({"system": "s", "tune": True}, RunFile(), "teacher.tune: the teacher would be tuned on rows without"),
    ({"context": "note"}, RunFile(task=Task("classify")), "system, examples and context are for decoders"),
])
def test_what_cannot_be_is_refused(given: dict[str, Any], run: RunFile, expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        told(run, **given)


def test_an_example_without_an_answer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "e.jsonl").write_text(json.dumps({"text": "words"}))
    with pytest.raises(DataError, match="e.jsonl:1: an example for the teacher needs a question and an answer"):
        told(base=tmp_path, examples="e.jsonl")
    (tmp_path / "e.jsonl").write_text("{")
    with pytest.raises(DataError, match="e.jsonl:1: "):
        told(base=tmp_path, examples="e.jsonl")
    with pytest.raises(DataError, match="no such file"):
        told(base=tmp_path, examples="none.jsonl")


def test_a_folder_in_the_teachers_place_is_told_the_same(tmp_path: Path) -> None:
    run = RunFile(teacher={"kind": "gguf", "model": "m", "system": "s", "examples": 2, "context": "c", "cache": {}})
    entry, = prepare.teachers(run, tmp_path)
    assert entry.kind is local and entry.config == local.Config(str(tmp_path), cache=entry.config.cache, system="s",
                                                                examples=2, context="c")
    assert entry.kept and isinstance(prepare.teachers(run)[0].config, gguf.Config)
    assert prepare.teachers(replace(run, teacher={**run.teacher, "cache": None}))[0].provides(tmp_path) == {"logits"}
    assert with_private(run).data.private == ["c"] and with_private(with_private(run)).data.private == ["c"]
    two = replace(run, teacher=[{"kind": "gguf", "context": "a"}, {"kind": "gguf", "context": "b", "system": "s"}])
    assert with_private(replace(two, data=Data(private=["b", "x"]))).data.private == ["b", "x", "a"]
    shown = _prompt.hidden(two.teacher, tmp_path)
    assert isinstance(shown, list) and shown[0] == two.teacher[0] and shown[1]["system"].startswith("sha256:")
