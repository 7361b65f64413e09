"""Parquet files, folders that `datasets` wrote, and names on the hub."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from edgestill.models.errors import DataError, MissingExtra
from edgestill.runtime.data import tables
from edgestill.runtime.data.reader import locate, read_rows

CALL = {"function": {"name": "on", "arguments": {"room": "hall"}}}
TALK = [{"role": "user", "content": "light"}, {"role": "assistant", "content": "", "tool_calls": [CALL]}]


def parquet(path: Path, columns: dict[str, list[Any]]) -> Path:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def saved(folder: Path, labels: bool = True, splits: tuple[str, ...] = ()) -> Path:
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    table = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features if labels else None)
    source = datasets.DatasetDict(dict.fromkeys(splits, table)) if splits else table
    source.save_to_disk(folder)
    return folder


def test_parquet_rows(tmp_path: Path) -> None:
    rows = read_rows(parquet(tmp_path / "a.parquet", {"text": ["a", "b"], "label": ["x", "y"]}))
    assert [(row.text, row.label, row.where) for row in rows] == [("a", "x", "a.parquet:1"), ("b", "y", "a.parquet:2")]


def test_nulls_that_arrow_adds_to_structs_are_dropped(tmp_path: Path) -> None:
    rows = read_rows(parquet(tmp_path / "a.parquet", {"messages": [TALK]}))
    assert rows[0].messages == ({"role": "user", "content": "light"}, TALK[1])


@pytest.mark.parametrize(("columns", "reason"), [
    ({"text": ["a", None], "label": ["x", "y"]}, r"a\.parquet:2: the column 'text' is null"),
    ({"text": ["a", "b\0"], "label": ["x", "y"]}, r"a\.parquet:2: a text holds a NUL"),
    ({"a": ["b"]}, r"a\.parquet:1: no column that can be used"),
    ({"text": [], "label": []}, "the file is empty"),
])
def test_bad_parquet_rows(tmp_path: Path, columns: dict[str, list[Any]], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        read_rows(parquet(tmp_path / "a.parquet", columns))


def test_damaged_parquet(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", {"text": ["a"] * 100})
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="damaged or not Parquet"):
        read_rows(path)


def test_what_a_table_holds_more_than_rows_of_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow
    import pyarrow.parquet

    two = pyarrow.array(["a", "b"])
    path = tmp_path / "a.parquet"
    for columns, names, reason in (
            ([two, two, two], ["text", "label", "text"], "the column 'text' stands twice"),
            ([two, two, pyarrow.array([5, 10**15], pyarrow.timestamp("ms"))], ["text", "label", "at"],
             r"the column 'at' of type timestamp\[ms\] cannot be read"),
            ([two, two, pyarrow.StructArray.from_arrays([two, two], ["k", "k"])], ["text", "label", "twice"],
             "the column 'twice' of type struct")):
        pyarrow.parquet.write_table(pyarrow.table(columns, names=names), path)
        with pytest.raises(DataError, match=rf"a\.parquet: {reason}"):
            read_rows(path)
    monkeypatch.setattr(tables, "LINE_LIMIT", 1000)
    texts = ["a" * 40] * 100  # together longer than a row may be, and each short
    assert len(read_rows(parquet(path, {"text": texts, "label": ["x", "y"] * 50}))) == 100
    with pytest.raises(DataError, match=r"a\.parquet: row 71 is longer than") as caught:
        read_rows(parquet(path, {"text": [*texts[:70], "a" * 1001], "label": ["x"] * 71}))
    assert caught.value.hint


def test_a_folder_of_datasets_gives_class_names(tmp_path: Path) -> None:
    rows = read_rows(saved(tmp_path / "set"))
    assert [(row.text, row.label, row.where) for row in rows] == [("a", "yes", "set:1"), ("b", "no", "set:2")]


def test_parquet_written_by_datasets_gives_class_names(tmp_path: Path) -> None:
    import datasets

    names = datasets.ClassLabel(names=["no", "yes"])
    features = datasets.Features({"text": datasets.Value("string"), "label": names,
                                  "prompt": datasets.Value("string"), "completion": {"say": datasets.List(names)}})
    table = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0], "prompt": ["q", "r"], "completion": [
        {"say": [1, 0]}, {"say": []}]}, features=features)
    path = tmp_path / "a.parquet"
    table.to_parquet(path)
    assert [row.label for row in read_rows(path, {"text": "text", "label": "label"})] == ["yes", "no"]
    chats = read_rows(path, {"prompt": "prompt", "completion": "completion"})
    assert [row.answer for row in chats] == ['{"say":["yes","no"]}', '{"say":[]}']


@pytest.mark.parametrize("several", [False, True])
def test_classes_beside_a_text_are_read_or_refused(several: bool, tmp_path: Path) -> None:
    """They were named as not read, and the rows trained as plain text."""
    import datasets

    names = datasets.ClassLabel(names=["no", "yes"])
    features = datasets.Features({"text": datasets.Value("string"), "id": datasets.Value("int64"),
                                  "coarse": datasets.List(names) if several else names})
    table = datasets.Dataset.from_dict({"text": ["a", "b"], "id": [1, 2], "coarse": [[1], [0]] if several else [1, 0]},
                                       features=features)
    path = tmp_path / "a.parquet"
    table.to_parquet(path)
    table.save_to_disk(tmp_path / "set")
    for source in (path, tmp_path / "set"):
        with pytest.raises(DataError, match="'coarse' holds names of classes.*\n.*data.columns.label = 'coarse'"):
            read_rows(source)
        assert [row.named for row in read_rows(source, {"label": "coarse"})] == [("yes",), ("no",)]
        assert [row.kind for row in read_rows(source, {"text": "text"})] == ["text", "text"]


@pytest.mark.parametrize(("label", "reason"), [(2, "the label 2 has no name: the file names 2"),
                                               (-1, "the column 'label' is null")])
def test_labels_without_a_name_are_refused(label: int, reason: str, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    features = {"label": {"names": ["no", "yes"], "_type": "ClassLabel"}}
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    for metadata, wanted in ((about, reason), ({"huggingface": "damaged"}, "")):
        table = pyarrow.table({"text": ["a", "b"], "label": [0, label]}).replace_schema_metadata(metadata)
        pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
        if wanted:
            with pytest.raises(DataError, match=rf"a\.parquet:2: {wanted}"):
                read_rows(tmp_path / "a.parquet")
        else:
            assert [row.label for row in read_rows(tmp_path / "a.parquet")] == ["0", str(label)]


def test_splits_of_a_folder(tmp_path: Path) -> None:
    folder = saved(tmp_path / "set", splits=("train", "dev"))
    assert len(read_rows(folder)) == 2  # train, when nothing else is said
    assert len(read_rows(f"{folder}:dev")) == 2
    with pytest.raises(DataError, match=r"has no split 'test'\n  write one of: .*set:train, .*set:dev"):
        read_rows(f"{folder}:test")
    single = saved(tmp_path / "single")
    with pytest.raises(DataError, match="has no splits, 'dev' was asked for"):
        read_rows(f"{single}:dev")


def test_a_folder_that_datasets_did_not_write(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a folder that save_to_disk of datasets did not write") as caught:
        read_rows(tmp_path)
    assert "save_to_disk" in caught.value.hint
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read by datasets") as caught:
        read_rows(tmp_path)
    assert "save_to_disk" in caught.value.hint


def test_what_counts_as_a_hub_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    assert tables.is_hub_name("PolyAI/banking77")
    assert not tables.is_hub_name("data/banking77")  # the folder stands here: a path that is missing
    assert not tables.is_hub_name("banking77") and not tables.is_hub_name("/a/b")
    assert tables.split_name("owner/name:test") == ("owner/name", "test")
    assert tables.split_name("C:data") == ("C:data", "")
    assert locate("owner/name:test", tmp_path) == "owner/name:test"
    assert locate("owner/name.jsonl", tmp_path) == str(tmp_path / "owner/name.jsonl")
    assert locate("data/rows", tmp_path) == str(tmp_path / "data/rows")


def test_a_hub_name_asks_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.chdir(tmp_path)
    table = datasets.Dataset.from_dict({"prompt": ["q"], "completion": ["a"]})
    monkeypatch.setattr(datasets, "load_dataset", lambda name: datasets.DatasetDict({"test": table}))
    assert read_rows("owner/name:test")[0].where == "name:test:1"

    def offline(name: str) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(DataError, match="owner/name: cannot be read by datasets: no network"):
        read_rows("owner/name")


@pytest.mark.parametrize(("package", "name"), [
    ("pyarrow", "a.parquet"), ("zstandard", "a.jsonl.zst"), ("datasets", "set")])
def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, name: str) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "state.json").write_text("{}")
    (tmp_path / "a.parquet").write_bytes(b"x")
    (tmp_path / "a.jsonl.zst").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=f"{package} is not installed") as caught:
        read_rows(tmp_path / name)
    assert caught.value.hint == "pip install 'edgestill[train]'"
