"""Every refusal of bad rows and files, and the ledger that lists what was left out."""

from __future__ import annotations

import gzip
import json
import os
import tempfile
import time
from pathlib import Path

import pytest
from edgestill.models.errors import DataError, UsageError
from edgestill.models.runfile import Data
from edgestill.runtime.data import formats
from edgestill.runtime.data.reader import Row, load_splits, read_rows, scan
from hypothesis import example, given, settings
from hypothesis import strategies as st

GOOD = b'{"text": "a", "label": "x"}\n'
TALK = '{"messages": [{"role": "user", "content": "q"}, %s]}\n'


def refused(path: Path, content: bytes, **columns: str) -> str:
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_rows(path, columns)
    assert caught.value.hint, "a refusal names the remedy"
    assert str(path) in caught.value.message
    return caught.value.message


@pytest.mark.parametrize(("line", "reason"), [
    (b'{"text": "caf\xe9", "label": "x"}', r"not UTF-8: byte 0xe9 at byte 41 of the file"),
    (b'{"text": "a\x00b", "label": "x"}', "NUL byte at byte 39 of the file"),
    (b'{"text": "a\\u0000b", "label": "x"}', "a text holds a NUL character"),
    (b'{"text": "a\\ud800b", "label": "x"}', "half of a surrogate pair"),
    (b'{"text": "a", "label": "x"', "broken JSON at column 27"),
    (b'{"text": "a", "label": NaN}', "NaN is not JSON"),
    (b'{"text": "a", "label": "x", "n": 1e999}', "the number 1e999 is too large"),
    (b'{"text": "a", "label": "x", "n": ' + b"9" * 5000 + b"}", "a number has too many digits"),
    (b'{"text": "a", "label": "x", "n": ' + b"[" * 100_000 + b"}", "nested too deeply"),
    (b'{"text": "a", "label": "x", "n": ' + b"[" * 200 + b"]" * 200 + b"}", "deeper than 100 levels"),
    (b'{"text": "a", "text": "b", "label": "x"}', "the JSON key 'text' stands twice"),
    (b'["a", "x"]', "a JSON object was expected, this is list"),
    (b'{"text": "a"}', "the column 'label' is missing; this row has: 'text'"),
    (b'{"messages": [], "text": "a", "label": "x", "prompt": "a", "completion": "b"}', "mixed schemas"),
    (b'{"text": "a", "label": 3}', "mixed schemas: 'label' holds one label (int)"),
    (b'{"text": "  ", "label": "x"}', "the column 'text' is empty"),
    (b'{"text": "a", "label": ""}', "the column 'label' is empty"),
    (b'{"text": null, "label": "x"}', "the column 'text' is null"),
    (b'{"text": 7, "label": "x"}', "the column 'text' holds int, not text"),
    (b'{"text": "a", "label": ["x", "y"]}', "mixed schemas: 'label' holds a list of labels"),
    (b'{"text": "a", "label": 1.5}', "mixed schemas: 'label' holds a number"),
    (b"", "the line is empty"),
])
def test_a_bad_line_is_named_or_left_out(tmp_path: Path, line: bytes, reason: str) -> None:
    path = tmp_path / "rows.jsonl"
    content = GOOD + line + b"\n" + GOOD
    message = refused(path, content)
    assert message.startswith(f"{path}:2: ") and reason in message
    ledger = tmp_path / "bad.jsonl"
    assert len(read_rows(path, skip_bad=True, ledger=ledger)) == 2
    entries = [json.loads(entry) for entry in ledger.read_text(encoding="utf-8").splitlines()]
    assert [(entry["file"], entry["line"]) for entry in entries] == [(str(path), 2)]
    assert reason in entries[0]["reason"] and entries[0]["remedy"]


@pytest.mark.parametrize(("messages", "reason"), [
    ('{"role": "user", "content": "again"}', "the last message is from 'user'"),
    ('{"role": "bot", "content": "a"}', "messages[1].role is 'bot'"),
    ('{"role": "assistant", "content": ["a"]}', "messages[1].content is list, not text"),
    ('{"role": "assistant", "content": " "}', "messages[1].content is empty"),
    ('"hello"', "messages[1] is str, not an object"),
    ('{"role": "assistant", "content": "", "tool_calls": [{"name": "x"}]}', "tool_calls must be a list of calls"),
    ('{"role": "assistant", "tool_calls": [{"function": {"name": "x", "arguments": [1]}}]}', "'x' are no object"),
    ('{"role": "assistant", "tool_calls": [{"function": {"name": "x", "arguments": "{"}}]}', "broken JSON"),
    ('{"role": "assistant", "content": "a"}], "tools": ["x"', "must hold a list of tools"),
])
def test_bad_conversations(tmp_path: Path, messages: str, reason: str) -> None:
    assert reason in refused(tmp_path / "rows.jsonl", (TALK % messages).encode())


def test_other_bad_conversations(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    assert "must hold a list of messages" in refused(path, b'{"messages": "hello"}\n')
    assert "no user message" in refused(path, b'{"messages": [{"role": "assistant", "content": "a"}]}\n')


@pytest.mark.parametrize(("name", "content", "reason"), [
    ("a.jsonl", b"", "the file is empty"),
    ("a.jsonl", b"\n \n", "the file is empty"),
    ("a.csv", b"", "the file is empty"),
    ("a.csv", b"text,label\n", "the file is empty"),
    ("a.txt", b"\n\n", "the file is empty"),
    ("a.json", b"[]", "the file is empty"),
    ("a.jsonl", b'\xef\xbb\xbf{"text": "caf\xe9", "label": "x"}', "not UTF-8: byte 0xe9 at byte 16 of the file"),
    ("a.jsonl", b"\xef\xbb\xbf", "the file is empty"),
    ("a.jsonl", GOOD.decode().encode("utf-16"), "starts with a UTF-16 byte order mark"),
    ("a.jsonl", GOOD.decode().encode("utf-32"), "starts with a UTF-32 byte order mark"),
    ("a.jsonl", GOOD.decode().encode("utf-16-le"), "a.jsonl:1: NUL byte at byte 1"),
    ("a.jsonl.gz", b"no gzip", "damaged gzip data"),
    # mtime: the time would stand in the name of the test, and workers must collect the same names
    ("a.jsonl.gz", gzip.compress(GOOD * 100, mtime=0)[:-12], "damaged gzip data"),
    ("a.jsonl.zst", b"no zstd at all", "damaged or truncated zstd data"),
    ("a.json", b'[{"text": "a"', "broken JSON"),
    ("a.json", b'[{"text": "a"}, 7]', "a.json:2: a JSON object was expected"),
    ("a.csv", b'text,label\na,"b\nc,d\n', "a.csv:2: broken CSV"),
    ("a.csv", b'text,label\n"a"b,c\n', "a.csv:2: broken CSV"),
    ("a.csv", b"text,label\na,b\na\n", "a.csv:3: 1 cells, the header has 2 columns"),
    ("a.csv", b"text,label\na,b\n\na,b\n", "a.csv:3: the line is empty"),
    ("a.csv", b"text,text\na,b\n", "the column 'text' stands twice in the header"),
    ("a.csv", b"text;label\na;b\n", "the delimiter seems to be ';'"),
    ("a.csv", b'"text";"label"\n"a";"b"\n', "cells stand apart by commas in .csv"),
    ("a.csv", b"text,label\na,caf\xe9\n", "a.csv:2: not UTF-8: byte 0xe9 at byte 16"),
    ("a.csv", b"where is my card,card_arrival\nhello,greet\n", "no column that can be used"),
    ("a.csv", GOOD, "the header seems to be JSON"),
    ("a.csv", b'[{"text": "a"}]', "the header seems to be JSON"),
    ("a.csv", b"text,label\ra,b\r", "a.csv:1: a line ends in CR alone"),
    ("a.jsonl", GOOD.replace(b"\n", b"\r") * 2, "a.jsonl:1: a line ends in CR alone"),
    ("a.txt", b"one\r\rtwo\r", "a.txt:1: a line ends in CR alone"),
    ("a.jsonl", b"\n\n" + GOOD, "a.jsonl:1: the line is empty"),
    ("a.csv", b"text,label\n\n\na,b\n", "a.csv:2: the line is empty"),
    ("a.jsonl", gzip.compress(GOOD, mtime=0), "holds gzip data"),
    ("a.jsonl.gz", gzip.compress(gzip.compress(GOOD, mtime=0), mtime=0), "holds gzip data"),
    ("a.json", gzip.compress(GOOD, mtime=0), "holds gzip data"),
    ("a.csv", b"PK\x03\x04" + bytes(60), "holds a ZIP archive, as .xlsx"),
    ("a.csv", b"\xd0\xcf\x11\xe0" + bytes(60), "holds an Office file"),
    ("a.txt", b"PAR1" + bytes(60), "holds Parquet"),
    ("a.txt", b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "holds a pointer of Git LFS"),
    ("a.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "holds a pointer of Git LFS"),
    ("a.jsonl", b"{" + b",".join(b'"c%d": 1' % number for number in range(10_001)) + b"}", "10,001 columns, the limit"),
    ("a.txt", b"good\n\nb\xe4d\n", "a.txt:3: not UTF-8"),
    ("a.xml", b"<a/>", "'.xml' is not a format known here"),
    ("a", b"<a/>", "'a name without a suffix' is not a format"),
    ("a.jsonl", b'{"a": "x", "b": "y"}\n', "no column that can be used among: 'a', 'b'"),
    ("a.jsonl", b'{"text": "x", "intent": "y", "category": "z"}\n', "'intent' and 'category' could both be the label"),
])
def test_bad_files(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    assert reason in refused(tmp_path / name, content)


def test_truncated_zstd(tmp_path: Path) -> None:
    import zstandard

    packed = zstandard.ZstdCompressor().compress(GOOD * 1000)
    assert "damaged or truncated zstd" in refused(tmp_path / "a.jsonl.zst", packed[:-3])


def test_missing_files_and_columns(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        read_rows(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match=r"no such file or folder"):
        read_rows("missing/rows.jsonl")  # a path with a known suffix is never taken for a hub name
    message = refused(tmp_path / "a.jsonl", b'{"utterence": "a", "label": "x"}\n', text="utterance", label="label")
    assert "the column 'utterance' is missing" in message
    with pytest.raises(UsageError, match="did you mean 'prompt'"):
        read_rows(tmp_path / "a.jsonl", {"promt": "a"})


def test_a_line_without_end_is_refused_while_it_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "LINE_LIMIT", 1000)
    assert "rows.jsonl:2: the line is longer than" in refused(tmp_path / "rows.jsonl", GOOD + b"x" * 5000)
    assert "rows.jsonl.gz:1: the line" in refused(tmp_path / "rows.jsonl.gz", gzip.compress(b"x" * 5_000_000, mtime=0))


def test_text_without_an_empty_line_is_no_endless_paragraph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "LINE_LIMIT", 1000)
    assert "a.txt:3: a paragraph longer than" in refused(tmp_path / "a.txt", b"a\n\n" + b"word\n" * 201)
    (tmp_path / "a.txt").write_bytes((b"word\n" * 200 + b"\n") * 3)
    assert len(read_rows(tmp_path / "a.txt")) == 3


def test_a_column_that_stands_twice_is_found_among_many(tmp_path: Path) -> None:
    started = time.process_time()
    head = b",".join(b"c%d" % number for number in range(100_000))
    assert "the column 'c7' stands twice" in refused(tmp_path / "a.csv", head + b",c7\n")
    pairs = b",".join(b'"c%d": 1' % number for number in range(100_000))
    assert "the JSON key 'c7' stands twice" in refused(tmp_path / "a.jsonl", b"{" + pairs + b', "c7": 1}')
    assert time.process_time() - started < 5


def test_what_is_no_file_is_told_apart_from_what_is_not_there(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "zero.jsonl").symlink_to("/dev/zero")
    (tmp_path / "nowhere.jsonl").symlink_to("none")
    (tmp_path / "circle.jsonl").symlink_to("circle.jsonl")
    for name, reason in (("pipe", "a pipe or a device"), ("zero", "a pipe or a device"),
                         ("nowhere", "a link that leads nowhere"), ("circle", "a link that leads nowhere")):
        with pytest.raises(DataError, match=f"{name}.jsonl: {reason}"):
            read_rows(tmp_path / f"{name}.jsonl")


def test_nothing_left_is_refused_even_when_bad_rows_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"{\n{\n")
    with pytest.raises(DataError, match="all 2 rows are bad; line 1: broken JSON"):
        read_rows(tmp_path / "a.jsonl", skip_bad=True)


def test_without_a_ledger_the_loss_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jsonl").write_bytes(GOOD + b"{\n" + GOOD)
    assert len(read_rows(tmp_path / "a.jsonl", skip_bad=True)) == 2
    streams = capsys.readouterr()
    assert "1 bad rows left out" in streams.err and "a.jsonl:2" in streams.err and not streams.out


def test_one_ledger_for_all_splits(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(GOOD + b"{\n" + GOOD.replace(b'"x"', b'"y"'))
    (tmp_path / "test.jsonl").write_bytes(b"[]\n" + GOOD)
    data = Data(train="train.jsonl", test="test.jsonl", validation_share=0.0, skip_bad=True)
    load_splits(data, tmp_path, tmp_path / "bad.jsonl")
    entries = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(Path(entry["file"]).name, entry["line"]) for entry in entries] == [("train.jsonl", 2), ("test.jsonl", 1)]


_PIECES = st.sampled_from([b'{"text": "a", "label": "x"}', b"\n", b'"', b",", b"{", b"}", b"[", b"]", b"\\ud800", b"\0",
                           b"\xff", b"\xef\xbb\xbf", b"text,label", b"1e999", b"NaN", b"null", b"\r", b'"text":', b" ",
                           b'{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}]}'])


@settings(max_examples=300, deadline=None)
@example(b'{"text": "a"}\n{"text": "b", "label": []}')
@given(st.lists(st.one_of(_PIECES, st.binary(max_size=8)), max_size=12).map(b"".join))
def test_only_data_errors_escape_the_readers(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in ("a.jsonl", "a.json", "a.csv", "a.tsv", "a.txt", "a.jsonl.gz", "a.jsonl.zst"):
            path = Path(folder, name)
            path.write_bytes(content)
            try:
                rows = list(scan(path))
            except DataError:
                continue
            assert all(row.question if isinstance(row, Row) else row.reason and row.remedy for row in rows)
