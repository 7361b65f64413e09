"""Every role, key and column of a row is taken, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from edgestill.cli import main
from edgestill.models.errors import DataError, UsageError
from edgestill.models.runfile import Data
from edgestill.runtime.data import learned_tokens
from edgestill.runtime.data.reader import load_splits, read_rows, rows_digest
from edgestill.runtime.data.row import Row

from .test_rows import jsonl, one

USER, SAID = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
CALL = {"type": "function", "function": {"name": "on", "arguments": {"room": "hall"}}}


TOOL = {"type": "function", "function": {"name": "on", "parameters": {}}}


def talk(*messages: dict[str, Any], **columns: Any) -> dict[str, Any]:
    return {"messages": list(messages), **columns}


@pytest.mark.parametrize(("record", "unlearned"), [
    (talk(USER, SAID | {"weight": 0}, USER, SAID | {"weight": 1}), (1,)),
    (talk(USER, SAID | {"train": False}, USER, SAID | {"train": True}), (1,)),
    (talk(USER, SAID | {"weight": 1.0}), ()),
    (talk(USER, SAID | {"weight": 1, "train": False}), (1,)),
    (talk(USER | {"weight": 0}, SAID), ()),
    (talk(USER, SAID, weight=0), (1,)),
    (talk(USER, SAID, train=False), (1,)),
    (talk(USER, SAID, train=True), ()),
    (talk(USER, SAID | {"weight": 0}, USER, SAID, system="s"), (2,)),
    ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a", "weight": 0}]}, (1,)),
    ({"prompt": [USER, SAID, USER], "completion": [SAID]}, (1,)),
])
def test_weights_say_what_is_learned(record: dict[str, Any], unlearned: tuple[int, ...], tmp_path: Path) -> None:
    row = one(tmp_path, record)
    assert row.unlearned == unlearned
    assert not any({"weight", "train"} & message.keys() for message in row.messages)
    learned = [place for place, message in enumerate(row.messages)
               if message["role"] == "assistant" and place not in unlearned]
    assert row.turns == tuple(learned) and row.answer == ("a" if learned else "")
    assert rows_digest([row]) != rows_digest([Row(messages=row.messages)]) or not unlearned


def test_the_answer_is_the_last_turn_that_is_learned() -> None:
    messages = (USER, SAID, USER | {"content": "and then"}, SAID | {"content": "read alone"})
    row = Row(messages=messages, unlearned=(3,))
    assert (row.place, row.question, row.answer, row.prompt_messages) == (1, "q", "a", messages[:1])
    nothing = Row(messages=messages, unlearned=(1, 3))
    assert (nothing.place, nothing.answer, nothing.prompt_messages) == (3, "", messages[:3])


@pytest.mark.parametrize(("record", "messages"), [
    ({"conversations": [{"from": "human", "value": "q"}, {"from": "function_call", "value": json.dumps(
        CALL["function"])}, {"from": "observation", "value": "21"}, {"from": "gpt", "value": "a"}]},
     [USER, {"role": "assistant", "content": "", "tool_calls": [CALL]}, {"role": "tool", "content": "21"}, SAID]),
    (talk(USER, {"role": "assistant", "content": None,
                 "function_call": {"name": "on", "arguments": '{"room": "hall"}'}},
          {"role": "function", "name": "on", "content": "ok"}, SAID),
     [USER, {"role": "assistant", "content": "", "tool_calls": [CALL]}, {"role": "tool", "name": "on", "content": "ok"},
      SAID]),
    (talk({"role": "user", "content": [{"type": "text", "text": "q"}, {"type": "text", "text": "r"}]}, SAID),
     [{"role": "user", "content": "q\nr"}, SAID]),
    (talk({"role": "developer", "content": "d"}, USER, SAID), [{"role": "developer", "content": "d"}, USER, SAID]),
    (talk(USER, SAID, system="s"), [{"role": "system", "content": "s"}, USER, SAID]),
    (talk(USER, SAID, system=None), [USER, SAID]),
    ({"instruction": "q", "input": "i", "output": "a", "system": "s", "history": [["h", "x"]]},
     [{"role": "system", "content": "s"}, {"role": "user", "content": "h"}, {"role": "assistant", "content": "x"},
      {"role": "user", "content": "q\n\ni"}, SAID]),
    ({"question": "q", "context": "c", "answer": "a", "reasoning": "r"},
     [{"role": "user", "content": "q\n\nc"}, SAID | {"reasoning_content": "r"}]),
    (talk(USER, {"role": "assistant", "content": "", "tool_calls": json.dumps([{
        "name": "on", "arguments": {"room": "hall"}}])}),
     [USER, {"role": "assistant", "content": "", "tool_calls": [CALL]}]),
    ({"conversations": [{"from": "human", "value": "q"}, {"from": "chatgpt", "value": "a"}]}, [USER, SAID]),
    (talk(USER, {"role": "model", "content": "a"}), [USER, SAID]),
    (talk({"role": "user", "content": [{"type": "input_text", "text": "q"}]},
          {"role": "assistant", "content": [{"type": "output_text", "text": "a"}]}), [USER, SAID]),
    ({"query": "q", "response": "a"}, [USER, SAID]),
    ({"prompt": json.dumps([USER]), "completion": json.dumps([SAID])}, [USER, SAID]),
    ({"prompt": '[{"id": 1}]', "completion": "a"}, [USER | {"content": '[{"id": 1}]'}, SAID]),
    ({"prompt": "[q] or [{", "completion": "[1, 2]"}, [USER | {"content": "[q] or [{"}, SAID | {"content": "[1, 2]"}]),
])
def test_what_other_formats_write_becomes_a_conversation(record: dict[str, Any], messages: list[dict[str, Any]],
                                                         tmp_path: Path) -> None:
    assert list(one(tmp_path, record).messages) == messages


def test_functions_are_tools(tmp_path: Path) -> None:
    for given in ({"name": "on", "parameters": {}}, {"type": "function", "name": "on", "parameters": {}}, TOOL):
        assert one(tmp_path, talk(USER, SAID, functions=[given])).tools == (TOOL,)


@pytest.mark.parametrize(("record", "message"), [
    (talk(USER, SAID | {"weight": 0.5}), r"messages\[1\]\.weight is 0\.5: .* learned \(1\) or read alone \(0\)"),
    (talk(USER, SAID | {"train": "no"}), r"messages\[1\]\.train is 'no'"),
    (talk(USER | {"train": True}, SAID), r"messages\[0\] is of 'user' and is to be learned"),
    (talk(USER, SAID, weight=2), "the column 'weight' is 2"),
    (talk({"role": "system", "content": "a"}, USER, SAID, system="b"), "'system' stands beside a system message"),
    (talk({"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, SAID),
     r"messages\[0\]\.content\[0\] is a part of the type 'image_url'"),
    (talk(USER | {"tool_calls": [CALL]}, SAID), "is of 'user' and calls tools"),
    (talk(USER, SAID | {"function_call": CALL["function"], "tool_calls": [CALL]}), "both function_call and tool_calls"),
    (talk(USER, SAID, images=["x.png"]), "the column 'images' is not read, and would change what the row says"),
    ({"prompt": "q", "completion": "a", "rejected": "b"}, "the column 'rejected' is not read"),
    ({"text": "q", "label": "a", "system": "s"}, "the column 'system' is not read.*\n.*has no system message"),
    ({"instruction": "q", "output": "a", "history": ["h"]}, "'history' is no list of pairs"),
    ({"prompt": [USER], "completion": [SAID], "input": "i"}, "'input' stands beside messages"),
    ({"prompt": "q", "completion": "a", "label": False}, "'label' is not read.*\n.*keep the rows whose label is true"),
    ({"prompt": "q", "completion": "a", "label": "True"}, "the column 'label' is not read"),
    ({"prompt": "q", "completion": "a", "loss_weight": 0.5}, "the column 'loss_weight' is not read"),
    ({"prompt": "q", "completion": "a", "weight": 1, "train": False}, "'train' is not read.*\n.*'weight' is read as"),
    ({"prompt": "q", "completion": "a", "system": "s", "system_prompt": "t"}, "the column 'system_prompt' is not read"),
    (talk(USER, SAID, reasoning_content="r"), "'reasoning_content' is not read.*\n.*into the message"),
    ({"prompt": "q", "completion": [USER, SAID]}, "'completion' holds messages, 'prompt' holds none"),
    ({"prompt": json.dumps([USER]), "completion": "a"}, "'prompt' holds messages, 'completion' holds none"),
    ({"prompt": "q", "chosen": "a", "rejected": "b"}, "no column that can be used.*\n.*map the better answer"),
    ({"text": "q", "label": "a", "weight": 0}, "the column 'weight' is not read.*\n.*every label row is learned"),
    ({"text": "q", "label": "a", "system_prompt": "s"}, "the column 'system_prompt' is not read"),
    ({"sentence": "s", "question": "q", "label": 1}, "the column 'question' is not read"),
    ({"text": "q", "response": "a"}, "the column 'response' is not read"),
    (talk(USER, {"role": "assistant", "tool_calls": [{"function": {"name": "on", "parameters": {"room": "hall"}}}]}),
     r"messages\[1\]\.tool_calls: 'parameters' of the call of 'on' is not read"),
    (talk(USER, {"role": "assistant", "tool_calls": [CALL | {"result": "lit"}]}), "'result' of the call of 'on'"),
    (talk(USER, {"role": "assistant", "tool_calls": [CALL | {"type": "custom"}]}), "the type 'custom' of the call"),
    (talk(USER, SAID | {"thinking": "r", "reasoning": "s"}), "has its reasoning twice: in thinking and in reasoning"),
    (talk(USER, {"role": "assistant", "content": "<think>r</think>a", "reasoning": "r"}), "twice: in reasoning and"),
    (talk(USER | {"reasoning": "r"}, SAID), r"messages\[0\]\.reasoning: a message of 'user' has no reasoning"),
    (talk(USER, SAID | {"thinking": ["r"]}), r"messages\[1\]\.thinking is list, not text"),
    (talk(USER, {"role": "assistant", "refusal": "no", "content": None}), r"\[1\] has no content: it has refusal"),
    ({"prompt": str([USER]), "completion": str([SAID])}, "'prompt' holds messages as Python prints them"),
    (talk(USER, SAID, tools=[{"name": "on", "input_schema": {}}]), r"tools\[0\]: 'input_schema' of 'on' is not read"),
    (talk(USER, SAID, tools=[TOOL, {"type": "web_search"}]), r"tools\[1\] is no function with a name"),
    (talk(USER, SAID, tools=[{"function": {"description": "d"}}]), r"tools\[0\] is no function with a name"),
])
def test_what_cannot_be_taken_is_refused_by_name(record: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        one(tmp_path, record)


def test_thoughts_under_two_names_that_say_the_same_are_one(tmp_path: Path) -> None:
    assert one(tmp_path, talk(USER | {"thinking": ""}, SAID | {"thinking": "r", "reasoning": "r"})).reasoning == "r"


@pytest.mark.parametrize(("cell", "unlearned"), [("0", (1,)), ("False", (1,)), ("1.0", ()), ("", ())])
def test_tables_hold_weights_as_text(cell: str, unlearned: tuple[int, ...], tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f"prompt,completion,weight\nq,a,{cell}\n")
    assert read_rows(path)[0].unlearned == unlearned
    path.write_text("prompt,completion,weight\nq,a,half\n")
    with pytest.raises(DataError, match="the column 'weight' is 'half'"):
        read_rows(path)


def test_other_columns_are_said_and_a_mapping_may_leave_one_out(tmp_path: Path, capsys: Any) -> None:
    record = {"prompt": "q", "completion": "a", "input": "i", "rejected": "b", "id": 7, "empty": None}
    rows = read_rows(jsonl(tmp_path / "a.jsonl", [record]), {"prompt": "prompt", "completion": "completion",
                                                             "input": ""})
    assert rows[0].question == "q"
    assert capsys.readouterr().err.endswith("a.jsonl: columns that are not read: input, rejected, id\n")


def test_a_mapped_column_that_no_row_has_is_refused(tmp_path: Path, capsys: Any) -> None:
    paths = [jsonl(tmp_path / f"{name}.jsonl", [{"q": f"{name} {row}", "a": "a", **more} for row in range(9)])
             for name, more in (("train", {"s": "s"}), ("test", {}))]
    columns = {"prompt": "q", "completion": "a", "system": "s"}
    assert len(load_splits(Data(train="train.jsonl", test="test.jsonl", columns=columns), tmp_path)["test"]) == 9
    assert len(read_rows(paths[0], columns)[0].messages) == 3
    with pytest.raises(UsageError, match=r"data\.columns\.system: no row has the column 'sys'"):
        load_splits(Data(train="train.jsonl", columns=columns | {"system": "sys"}), tmp_path)
    with pytest.raises(UsageError, match="no row has the column 's'"):
        read_rows(paths[1], columns)
    found = [f"--column={ours}={theirs}" for ours, theirs in (columns | {"system": "sys"}).items()]
    assert main.call(["data", "check", str(paths[0]), *found]) == 2
    assert "no row has the column 'sys'" in capsys.readouterr().err


def test_two_names_for_one_column_are_refused(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [{"text": "q", "label": "a"}])
    with pytest.raises(UsageError, match="data.columns: text and label are both read from 'text'"):
        read_rows(path, {"text": "text", "label": "text"})
    jsonl(path, [{"prompt": "q", "completion": "a"}])
    assert read_rows(path, {"prompt": "prompt", "completion": "completion", "system": "", "input": ""})


def test_what_stands_beside_a_conversation_may_be_in_some_rows_alone(tmp_path: Path) -> None:
    rows = read_rows(jsonl(tmp_path / "a.jsonl", [talk(USER, SAID), talk(USER, SAID, system="s")]))
    assert [len(row.messages) for row in rows] == [2, 3]


def data(capsys: Any, *arguments: str) -> tuple[int, Any]:
    code = main.call(["data", *arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_data_show_marks_what_is_learned(tmp_path: Path, tiny_llama: Path, capsys: Any) -> None:
    jsonl(tmp_path / "rows.jsonl", [talk(USER, SAID | {"weight": 0}, USER, SAID), talk(USER, SAID | {"weight": 0})])
    (tmp_path / "run.toml").write_text(f"[data]\ntrain = 'rows.jsonl'\nvalidation_share = 0\ntest_share = 0\n"
                                       f"[student]\nmodel = '{tiny_llama}'\n")
    code, found = data(capsys, "show", str(tmp_path / "run.toml"))
    read = "<|user|>q<|end|><|assistant|>a<|end|><|user|>q<|end|><|assistant|>"
    assert code == 0 and [[(part["text"], part["learned"]) for part in one["parts"]] for one in found["sequences"]] == [
        [(read, False), ("a<|end|>", True)], [("<|user|>q<|end|><|assistant|>a<|end|>", False)]]
    assert main.call(["data", "show", str(tmp_path / "run.toml"), "--rows", "1"]) == 0
    assert capsys.readouterr().out == f"--- rows.jsonl:1: 12 tokens, 2 learned\n{read}⟦a<|end|>⟧\n"
    assert main.call(["data", "show", str(tmp_path / "rows.jsonl")]) == 2
    assert "--tokenizer FOLDER" in capsys.readouterr().err


@pytest.mark.parametrize(("record", "head"), [
    ({"text": "red", "label": "a"}, "label 'a'"), ({"text": "red", "labels": ["a", "b"]}, """labels '["a", "b"]'"""),
    ({"text": "red", "text_pair": "blue", "score": 0.5}, "score '0.5'")])
def test_data_show_tells_what_a_text_is_to_be(record: dict[str, Any], head: str, tmp_path: Path, tiny_bert: Path,
                                              capsys: Any) -> None:
    other = {"label": "c"} if "label" in record else {"labels": ["a"]} if "labels" in record else {}
    path = jsonl(tmp_path / "rows.jsonl", [record, record | {"text": "green"} | other])
    assert main.call(["data", "show", str(path), "--rows", "1", "--tokenizer", str(tiny_bert)]) == 0
    first, text = capsys.readouterr().out.splitlines()
    assert first.endswith(f"0 learned, {head}") and "⟦" not in text and ("blue" in text) is ("text_pair" in record)


def test_data_check_proves_that_all_of_a_row_reaches_the_ids(tmp_path: Path, tiny_llama: Path, capsys: Any) -> None:
    path = jsonl(tmp_path / "rows.jsonl", [talk(USER, SAID), talk(USER | {"content": "r"}, SAID | {
        "reasoning_content": "because"}), talk(USER | {"content": "s"}, SAID | {"weight": 0})])
    code, found = data(capsys, "check", str(path), "--tokenizer", str(tiny_llama))
    findings = {finding["check"]: finding for finding in found["findings"]}
    assert code == 3 and findings["lost"]["level"] == "error" and findings["lost"]["examples"] == ["rows.jsonl:2"]
    assert findings["lost"]["message"].endswith("messages[1]: the chat template does not write its reasoning")
    assert findings["unlearned"]["examples"] == ["rows.jsonl:3"]
    assert data(capsys, "check", str(jsonl(tmp_path / "sound.jsonl", [talk(USER, SAID, id=3)])), "--tokenizer",
                str(tiny_llama))[1]["findings"] == [{
                    "level": "note", "check": "unread", "split": "train", "message": "columns that are not read: id",
                    "examples": []}]


def test_init_counts_tools_and_template_in_the_students_tokens(tmp_path: Path, tiny_llama: Path) -> None:
    from edgestill.cli.commands import starting
    from edgestill.runtime.text.codec import Codec

    path = jsonl(tmp_path / "rows.jsonl", [talk(USER | {"content": "x " * count}, SAID | {"content": "y" * 90})
                                           for count in (1, 60)])
    rows = read_rows(path)
    codec = Codec.from_folder(tiny_llama)
    counts = [len(learned_tokens.training_ids(codec, row)[0]) for row in rows]
    start = starting.describe(rows, starting.model(str(tiny_llama)), None)
    assert start.counted and start.max_tokens == -(-counts[1] // 32) * 32 and start.max_new_tokens == 96
    guessed = starting.describe(rows, starting.model("smollm2-135m"), None)
    assert not guessed.counted and guessed.max_tokens == 128
    tool = {"type": "function", "function": {"name": "on", "description": "z" * 3000}}
    with_tools = [Row(row.messages, (tool,)) for row in rows]
    assert starting.describe(with_tools, starting.model("smollm2-135m"), None).max_tokens > 1000
    run = starting.run_file(start, path, None, {}, tmp_path / "run.toml")
    assert "99 of 100 rows, counted in the student's tokens" in run
