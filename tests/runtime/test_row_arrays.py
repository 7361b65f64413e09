"""Files as programs write them: one long line, arrays below a key, large cells; and the true place of a mistake."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest
from edgestill.models.errors import DataError
from edgestill.runtime.data import arrays, formats
from edgestill.runtime.data.reader import read_rows

ROWS = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]


def message(path: Path, content: str) -> str:
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_rows(path)
    assert caught.value.hint and str(path) in caught.value.message
    return caught.value.message


def test_an_array_of_one_line_may_be_longer_than_a_line_of_rows(tmp_path: Path) -> None:
    long = [{"text": "word " * 400_000, "label": "x"}, *ROWS] * 5
    text = json.dumps(long)
    assert len(text) > formats.LINE_LIMIT
    (tmp_path / "a.json").write_text(text)
    assert [row.label for row in read_rows(tmp_path / "a.json")] == ["x", "x", "y"] * 5
    (tmp_path / "b.json.gz").write_bytes(gzip.compress(text.encode(), 1))
    assert len(read_rows(tmp_path / "b.json.gz")) == 15


def test_a_file_too_large_to_hold_is_refused_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "LIMIT", 2**20)
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(b"[" + b" " * 9_000_000, mtime=0))
    with pytest.raises(DataError, match=r"longer than 1 MiB.*\n.*\.jsonl"):
        read_rows(tmp_path / "a.json.gz")


@pytest.mark.parametrize("content", [
    json.dumps({"data": ROWS}), json.dumps({"version": "1.0", "rows": ROWS}, indent=2),
    json.dumps(ROWS, indent=1).replace("\n", "\r\n"), "\n".join(map(json.dumps, ROWS)), f" \n{json.dumps(ROWS)}\n",
])
def test_rows_are_found_in_whatever_json_holds_them(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_bytes(content.encode())
    assert [(row.text, row.label) for row in read_rows(tmp_path / "a.json")] == [("a", "x"), ("b", "y")]


def test_one_object_is_one_row(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(ROWS[0], indent=2))
    assert [row.text for row in read_rows(tmp_path / "a.json")] == ["a"]


@pytest.mark.parametrize(("content", "reason"), [
    ('[{"text": "a", "label": "x"},\n {"text": "b" "label": "y"}]', "row 2: broken JSON at line 2, column 15"),
    ('[{"text": "a", "label": "x"},]', "row 2: broken JSON at line 1, column 30: Expecting value"),
    ('[{"text": "a", "label": "x"}\n {}]', "broken JSON at line 2, column 2: row 1 ends, and ',' or ']' was expected"),
    ('[{"text": "a", "label": "x"}]\n[]', "broken JSON at line 2, column 1: the array has ended before"),
    ('[{"text": "a", "label": "x"}', "broken JSON at line 1, column 29: row 1 ends"),
    ('[{"text": "a", "label": NaN}]', "row 1: NaN is not JSON"),
    ('{"data": [{"text": "a", "label": "x"}], "test": [{"text": "b"}]}', "'test' beside them, which would be lost"),
    ('{\n "data": [\n  {"text": "a" "label": "x"}]}', "broken JSON at line 3, column 16"),
    ('{"train": [{"text": "a"}], "test": [{"text": "b"}]}', "no column that can be used among: 'train', 'test'"),
    ('{"text": "a", "label": "x"},\n{"text": "b", "label": "y"}', "a.json:1: broken JSON at column 28: Extra data"),
    ('{"text": "a"\n{"text": "b"}', "a.json:1: broken JSON at column 13"),
])
def test_a_mistake_is_told_with_its_place(tmp_path: Path, content: str, reason: str) -> None:
    assert reason in message(tmp_path / "a.json", content)


def test_cells_may_be_large(tmp_path: Path) -> None:
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text", "label"], ["long\r\n" * 50_000, "x"], ["b", "y"]])
    assert [len(row.text) for row in read_rows(tmp_path / "a.csv")] == [300_000, 1]


def test_a_quote_that_is_never_closed_is_told_where_it_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "LINE_LIMIT", 2**20)
    rows = "c,d\n" * 300_000
    found = message(tmp_path / "a.csv", f'text,label\na,"b\n{rows}')
    assert "a.csv:2: broken CSV: a cell longer than 1 MiB" in found


def test_what_comes_after_packed_data_is_refused(tmp_path: Path) -> None:
    packed = gzip.compress(b'{"text": "a", "label": "x"}\n', mtime=0)
    (tmp_path / "a.jsonl.gz").write_bytes(packed + b"trailing")
    with pytest.raises(DataError, match="damaged gzip data"):
        read_rows(tmp_path / "a.jsonl.gz")
    (tmp_path / "a.jsonl.gz").write_bytes(packed + packed)  # as `cat a.gz b.gz` makes it
    assert len(read_rows(tmp_path / "a.jsonl.gz")) == 2


def test_whole_numbers_of_any_size_keep_their_digits(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "q", "completion": {"id": 12345678901234567890123}}\n')
    assert read_rows(tmp_path / "a.jsonl")[0].answer == '{"id":12345678901234567890123}'


TALK = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


def calling(arguments: str) -> str:
    """A conversation whose answer calls a tool, as a line of JSON; `arguments` as it stands in it."""
    call = f'{{"type": "function", "function": {{"name": "now", "arguments": {arguments}}}}}'
    return f'{{"messages": [{{"role": "user", "content": "q"}}, {{"role": "assistant", "tool_calls": [{call}]}}]}}\n'


@pytest.mark.parametrize("arguments", ['""', "null", "{}", '"{}"'])
def test_a_call_without_arguments_is_written_in_many_ways(tmp_path: Path, arguments: str) -> None:
    (tmp_path / "a.jsonl").write_text(calling(arguments))
    call, = read_rows(tmp_path / "a.jsonl")[0].messages[-1]["tool_calls"]
    assert call["function"]["arguments"] == {}


@pytest.mark.parametrize("arguments", ["0", "false", "[]", '"[]"'])
def test_arguments_that_are_none_are_refused(tmp_path: Path, arguments: str) -> None:
    assert "the arguments of 'now' are no object" in message(tmp_path / "a.jsonl", calling(arguments))


@pytest.mark.parametrize(("record", "reason"), [
    ({"messages": json.dumps(TALK)[:-1]}, "the column 'messages': broken JSON at character"),
    ({"messages": json.dumps(TALK).replace('"q"', '"q\\u0000"')}, "the column 'messages': a text holds a NUL"),
    ({"messages": json.dumps(TALK).replace('"q"', "NaN")}, "the column 'messages': NaN is not JSON"),
    ({"messages": TALK, "tools": '[{"name": "now",}]'}, "the column 'tools': broken JSON at character 17 of its text"),
])
def test_a_mistake_inside_a_text_column_is_told_with_the_column(
        tmp_path: Path, record: dict[str, object], reason: str) -> None:
    line = json.dumps({"messages": TALK}) + "\n"
    assert f"a.jsonl:2: {reason}" in message(tmp_path / "a.jsonl", line + json.dumps(record) + "\n")


def test_a_mistake_inside_arguments_is_told_with_the_message(tmp_path: Path) -> None:
    found = message(tmp_path / "a.jsonl", calling(json.dumps('{"a": 1')))
    assert "messages[1].tool_calls: the arguments of 'now': broken JSON at character 8 of its text" in found


def test_a_mistake_inside_a_cell_of_a_table_is_told_with_row_and_column(tmp_path: Path) -> None:
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["messages"], [json.dumps(TALK, indent=1)], ['[{"role": "user" "content": "q"}]']])
    with pytest.raises(DataError, match=r"a\.csv:12: the column 'messages': broken JSON at character 18"):
        read_rows(tmp_path / "a.csv")


@pytest.mark.parametrize(("name", "content", "reason"), [
    ("a.csv", "text,Label\na,x\n", "the column 'Label' is not read, and is 'label' but for"),
    ("a.csv", "text, label\na, x\n", "the column ' label' is not read, and is 'label' but for"),
    ("a.csv", "prompt,completion,System\nq,a,s\n", "the column 'System' is not read, and is 'system' but for"),
    ("a.csv", "text,label\ra,x\r", "a.csv:1: a line ends in CR alone"),
])
def test_what_a_program_wrote_a_little_otherwise(tmp_path: Path, name: str, content: str, reason: str) -> None:
    assert reason in message(tmp_path / name, content)


@pytest.mark.parametrize("content", ['[\n{"text": "a", "label": "x"}\n]\n', '[{"text": "a", "label": "x"}]'])
def test_an_array_under_the_name_of_json_lines_is_told_what_to_be_called(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(DataError, match=r"a\.jsonl:1: .*\n.*name the file \.json"):
        read_rows(tmp_path / "a.jsonl")


def test_columns_that_are_nothing_of_ours_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,completion,Category\nq,a,c\n")
    assert read_rows(tmp_path / "a.csv")[0].answer == "a"
    (tmp_path / "a.csv").write_text("text,Label\na,x\n")
    assert read_rows(tmp_path / "a.csv", {"text": "text", "label": "Label"})[0].label == "x"
