"""Rows of every format and shape, splits and digests."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from edgestill.models.errors import DataError, UsageError
from edgestill.models.runfile import Data
from edgestill.runtime.data.reader import Row, load_splits, read_rows, rows_digest, split_rows
from edgestill.runtime.data.targets import FRACTION
from hypothesis import given
from hypothesis import strategies as st

LABELLED = [{"text": "turn it on", "label": "light"}, {"text": "wie wird's, Köln?", "label": "weather"}]


def jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def one(tmp_path: Path, record: dict[str, Any], **columns: str) -> Row:
    return read_rows(jsonl(tmp_path / "one.jsonl", [record]), columns)[0]


def test_every_text_format_gives_the_same_rows(tmp_path: Path) -> None:
    import zstandard

    plain = jsonl(tmp_path / "rows.jsonl", LABELLED)
    content = plain.read_bytes()
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress(content))
    half = content.index(b"\n") + 1
    frames = [zstandard.ZstdCompressor().compress(part) for part in (content[:half], content[half:])]
    (tmp_path / "packed.jsonl.zst").write_bytes(b"".join(frames))
    (tmp_path / "array.json").write_text(json.dumps(LABELLED, indent=1), encoding="utf-8")
    (tmp_path / "lines.json").write_bytes(content)
    (tmp_path / "crlf.jsonl").write_bytes(content.replace(b"\n", b"\r\n") + b"\r\n \n")
    for name, delimiter in (("cells.csv", ","), ("cells.tsv", "\t")):
        with (tmp_path / name).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["text", "label"], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(LABELLED)
    for name in ("rows.jsonl", "array.json", "lines.json", "cells.csv", "cells.tsv"):  # as spreadsheets write them
        (tmp_path / f"marked-{name}").write_bytes(codecs.BOM_UTF8 + (tmp_path / name).read_bytes())
    digests = {path.name: rows_digest(read_rows(path)) for path in tmp_path.iterdir()}
    assert len(digests) == 13
    assert len(set(digests.values())) == 1, digests


def test_where_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('text,label\n"two\nlines",a\nb,c\n', encoding="utf-8")
    assert [row.where for row in read_rows(path)] == ["a.csv:2", "a.csv:4"]
    assert read_rows(path)[0].text == "two\nlines"


def test_plain_text_is_split_at_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text("\nfirst\nparagraph\n \n\nsecond", encoding="utf-8")
    rows = read_rows(path)
    assert [(row.text, row.where, row.kind) for row in rows] == [
        ("first\nparagraph", "book.txt:2", "text"), ("second", "book.txt:6", "text")]


@pytest.mark.parametrize(("record", "question", "answer"), [
    ({"prompt": "q", "completion": "a"}, "q", "a"),
    ({"question": "q", "answer": "a"}, "q", "a"),
    ({"instruction": "q", "response": "a", "intent": "i", "category": "c"}, "q", "a"),
    ({"instruction": "q", "input": "more", "output": "a"}, "q\n\nmore", "a"),
    ({"instruction": "q", "input": "", "output": "a"}, "q", "a"),
    ({"input": "q", "output": "a"}, "q", "a"),
    ({"prompt": "q", "completion": {"intent": "on", "n": 1}}, "q", '{"intent":"on","n":1}'),
    ({"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}]}, "q", "a"),
    ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}, "q", "a"),
    ({"messages": '[{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]'}, "q", "a"),
    ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, "q", "a"),
    ({"text": "q", "label": "a", "slots": []}, "q", "a"),
    ({"text": "q", "label": 3}, "q", "3"),
    ({"text": "q", "label": True}, "q", "true"),
    ({"utterance": "q", "intent": "a"}, "q", "a"),
    ({"sentence": "q", "category": "a"}, "q", "a"),
    ({"text": "q", "label": 0, "label_text": "a"}, "q", "a"),
    ({"text": "q", "label": -1, "label_name": "a"}, "q", "a"),
])
def test_common_columns_need_no_mapping(tmp_path: Path, record: dict[str, Any], question: str, answer: str) -> None:
    row = one(tmp_path, record)
    assert (row.question, row.answer) == (question, answer)
    assert row.kind == ("chat" if row.messages else "label")


def test_columns_name_the_rest(tmp_path: Path) -> None:
    record = {"frage": "q", "antwort": "a", "label": "l", "text": "t", "body": "b"}
    assert one(tmp_path, record, prompt="frage", completion="antwort").answer == "a"
    assert one(tmp_path, record, text="body").kind == "text"  # a mapping of text alone reads text
    assert one(tmp_path, record, label="antwort") == Row(text="t", label="a", where="one.jsonl:1")


def test_tool_calls_are_kept_with_their_arguments_as_objects(tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "on", "arguments": '{"room": "hall"}'}}
    record = {"tools": '[{"type": "function", "function": {"name": "on"}}]', "messages": [
        {"role": "user", "content": "light"}, {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "name": "on", "content": ""}, {"role": "assistant", "content": "done", "tool_calls": None}]}
    row = one(tmp_path, record)
    assert row.tools == ({"type": "function", "function": {"name": "on"}},)
    assert row.messages[1]["content"] == ""
    assert row.messages[1]["tool_calls"][0]["function"]["arguments"] == {"room": "hall"}
    assert row.answer == "done" and row.prompt_messages == row.messages[:3]
    record["messages"] = record["messages"][:2]
    assert one(tmp_path, record).answer == '[{"name":"on","arguments":{"room":"hall"}}]'


def test_digest_sees_content_and_order_only(tmp_path: Path) -> None:
    rows = read_rows(jsonl(tmp_path / "a.jsonl", LABELLED))
    assert rows_digest(rows) == rows_digest(read_rows(jsonl(tmp_path / "b.jsonl", LABELLED)))
    assert rows_digest(rows) != rows_digest(rows[::-1])
    assert len(rows_digest([])) == 64


def test_split_keeps_duplicates_together_and_is_deterministic() -> None:
    rows = [Row(text=f"Text  {index % 100}" if index % 2 else f"text {index % 100}".upper(), label=str(index % 3))
            for index in range(300)]
    parts = split_rows(rows, 0.1, 0.2)
    assert sum(map(len, parts.values())) == 300
    texts = {name: {row.text.casefold().replace("  ", " ") for row in part} for name, part in parts.items()}
    assert not texts["train"] & texts["test"] and not texts["train"] & texts["validation"]
    assert 60 <= len(parts["test"]) <= 66 and 30 <= len(parts["validation"]) <= 36
    assert parts == split_rows(rows, 0.1, 0.2)
    assert parts != split_rows(rows, 0.1, 0.2, seed=1)
    backwards = split_rows(rows[::-1], 0.1, 0.2)
    assert {row.text for row in backwards["test"]} == {row.text for row in parts["test"]}


def test_split_leaves_every_label_in_training() -> None:
    rows = [Row(text=f"text {index}", label="common") for index in range(20)]
    rows += [Row(text=f"other {index}", label=f"rare {index}") for index in range(20)]
    parts = split_rows(rows, 0.2, 0.2)
    assert {row.label for row in parts["train"]} == {row.label for row in rows}
    assert parts["test"] and parts["validation"]


def test_a_conversation_is_grouped_by_all_that_precedes_the_answer() -> None:
    def talk(first: str) -> Row:
        return Row(messages=({"role": "user", "content": first}, {"role": "assistant", "content": "?"},
                             {"role": "user", "content": "yes"}, {"role": "assistant", "content": "done"}))

    parts = split_rows([talk(f"first {index}") for index in range(40)], 0.0, 0.25)
    assert len(parts["test"]) == 10 and not parts["validation"]


def test_too_few_rows_to_split() -> None:
    with pytest.raises(DataError, match="too few to split"):
        split_rows([Row(text="same")] * 10, 0.1, 0.1)


def test_load_splits_takes_files_where_given_and_shares_otherwise(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    rows = [{"text": f"text {index}", "label": "ab"[index % 2]} for index in range(40)]
    jsonl(tmp_path / "data" / "train.jsonl", rows)
    jsonl(tmp_path / "data" / "test.jsonl", [{"text": "new", "label": "a"}])
    parts = load_splits(Data(dir="data", train="train.jsonl", test="test.jsonl", validation_share=0.25), tmp_path)
    assert {name: len(rows) for name, rows in parts.items()} == {"train": 30, "validation": 10, "test": 1}
    parts = load_splits(Data(dir="data", train="train.jsonl", validation_share=0.0, test_share=0.0), tmp_path)
    assert {name: len(rows) for name, rows in parts.items()} == {"train": 40, "validation": 0, "test": 0}


@pytest.mark.parametrize(("train", "test", "message"), [
    ([{"text": "a", "label": "x"}, {"text": "b", "label": "x"}], [], "every training row has the same label, 'x'"),
    (LABELLED, [{"text": "a"}], "mixed schemas: a text row"),
    (LABELLED, [{"text": "a", "label": "wether"}], "no training row has the label 'wether'\n  did you mean 'weather'"),
])
def test_splits_that_do_not_fit_together(tmp_path: Path, train: list[Any], test: list[Any], message: str) -> None:
    jsonl(tmp_path / "train.jsonl", train)
    if test:
        jsonl(tmp_path / "test.jsonl", test)
    data = Data(train="train.jsonl", test="test.jsonl" if test else "", validation_share=0.0, test_share=0.0)
    with pytest.raises(DataError, match=message):
        load_splits(data, tmp_path)


def test_load_splits_without_training_rows() -> None:
    with pytest.raises(UsageError, match=r"data\.train: is required"):
        load_splits(Data(), Path())


_CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0\r")).filter(str.strip)
_LABELS = _CELLS.filter(lambda label: not FRACTION.fullmatch(label.strip()))  # such as 0E0, which is a score


@given(st.lists(st.tuples(_CELLS, _LABELS), min_size=1))
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[str, str]]) -> None:
    folder = tmp_path_factory.mktemp("round")
    jsonl(folder / "a.jsonl", [{"text": text, "label": label} for text, label in cells])
    table = io.StringIO(newline="")
    csv.writer(table, lineterminator="\n").writerows([("text", "label"), *cells])
    (folder / "a.csv").write_bytes(table.getvalue().encode("utf-8"))
    for name in ("a.jsonl", "a.csv"):
        assert [(row.text, row.label) for row in read_rows(folder / name)] == cells


@pytest.mark.parametrize(("name", "count", "kind"), [
    ("banking77/train.jsonl", 10003, "label"), ("clinc150/train.jsonl", 15000, "label"),
    ("snips/train.jsonl.gz", 13784, "label"), ("bitext_support/all.jsonl.gz", 4514, "chat"),
    ("sgd/dev.chat.jsonl.gz", 128, "chat"), ("gsm8k/test.jsonl", 1319, "chat"),
    ("tinystories/train.jsonl.gz", 2316, "text"), ("wikitext2/valid.txt", 1160, "text"),
])
def test_real_files_read_without_a_mapping(shared: Path, name: str, count: int, kind: str) -> None:
    rows = read_rows(shared / "data" / name)
    assert len(rows) == count and {row.kind for row in rows} == {kind}
