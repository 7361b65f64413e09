"""A conversation is measured on every turn that was learned, not on its farewell alone."""

from __future__ import annotations

import json
from pathlib import Path

from edgestill.cli import inputs
from edgestill.cli.pipeline import resolve
from edgestill.cli.pipeline.plan import Plan
from edgestill.runtime.data.reader import questions
from edgestill.runtime.data.row import Row

CALL = {"type": "function", "function": {"name": "find", "arguments": {"city": "Köln"}}}
CHAT = Row(messages=(
    {"role": "user", "content": "food?"}, {"role": "assistant", "content": "Where?"},
    {"role": "user", "content": "Köln"}, {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "[]"}, {"role": "assistant", "content": "Nothing."}),
    where="rows.jsonl:7", unlearned=(1,))


def test_every_learned_turn_is_asked_with_all_before_it() -> None:
    call, words = CHAT.questions
    assert call.messages == CHAT.messages[:4] and words.messages == CHAT.messages
    assert json.loads(call.answer)[0]["name"] == "find" and words.answer == "Nothing."
    assert call.where == "rows.jsonl:7, message 4"
    assert call.prompt_messages == CHAT.messages[:3], "what was not learned is read"
    assert call.unlearned == (1,)


def test_a_row_of_one_answer_is_itself() -> None:
    row = Row(messages=CHAT.messages[:2])
    assert row.questions == (row,)
    assert Row(text="a", label="b").questions == (Row(text="a", label="b"),)


def test_only_test_rows_are_parted_and_only_where_all_turns_are_learned() -> None:
    splits = {"train": [CHAT], "validation": [CHAT], "test": [CHAT]}
    assert questions(splits, "all") == {"train": [CHAT], "validation": [CHAT], "test": list(CHAT.questions)}
    assert questions(splits, "last") == splits


def test_verbs_and_stages_ask_the_same(tiny_llama: Path, tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": f"{index} a"}, {"role": "assistant", "content": "1"},
                          {"role": "user", "content": "b"}, {"role": "assistant", "content": "2"}]}
            for index in range(20)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    path = tmp_path / "run.toml"
    path.write_text(f'[data]\ntrain = "rows.jsonl"\n[student]\nmodel = "{tiny_llama}"\n', encoding="utf-8")
    plan = Plan(resolve.read(path), tmp_path / "out", "", print)
    assert len(plan.rows["test"]) == 2 * len(plan.splits["test"]) == 4
    assert inputs.read_rows(path) == plan.rows["test"]
    assert inputs.read_rows(path, overrides=['data.learn="last"']) == plan.splits["test"]
    assert len(inputs.read_rows(tmp_path / "rows.jsonl")) == 40
    assert len(inputs.read_rows(tmp_path / "rows.jsonl", split="train")) == 20
