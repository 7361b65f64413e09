"""Rows of texts with several labels, with scores, and of pairs of texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from edgestill.models.errors import DataError
from edgestill.models.runfile import Data
from edgestill.runtime.data.reader import Row, load_splits, read_rows, row_key, rows_digest, split_rows


def read(folder: Path, *records: dict[str, Any], **columns: str) -> list[Row]:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return read_rows(path, columns)


@pytest.mark.parametrize(("record", "kind", "answer"), [
    ({"text": "t", "labels": ["b", "a"]}, "labels", '["b", "a"]'),
    ({"text": "t", "label": []}, "labels", "[]"),
    ({"text": "t", "label": [3, 0]}, "labels", '["3", "0"]'),
    ({"text": "t", "label": '["a", "b"]'}, "labels", '["a", "b"]'),
    ({"text": "t", "label": 2.5}, "score", "2.5"),
    ({"text": "t", "score": 4}, "score", "4.0"),
    ({"text": "t", "label": "[1 of 3]"}, "label", "[1 of 3]"),
    ({"text": "t", "label": "[other]"}, "label", "[other]"),
    ({"text": "t", "score": "0.25"}, "score", "0.25"),
    ({"text": "t", "label": "a", "score": 0.5}, "label", "a"),
])
def test_a_column_says_labels_or_a_score(record: dict[str, Any], kind: str, answer: str, tmp_path: Path) -> None:
    (row,) = read(tmp_path, record)
    assert (row.kind, row.answer, row.text) == (kind, answer, "t")


@pytest.mark.parametrize(("record", "columns"), [
    ({"text": "one", "text_pair": "two", "label": "x"}, {}),
    ({"premise": "one", "hypothesis": "two", "label": "x"}, {}),
    ({"sentence1": "one", "sentence2": "two", "label": "x"}, {}),
    ({"query": "one", "passage": "two", "label": "x"}, {}),
    ({"question": "one", "reply": "two", "gold": "x"}, {"text": "question", "pair": "reply", "label": "gold"}),
])
def test_two_texts_are_one_pair(record: dict[str, Any], columns: dict[str, str], tmp_path: Path) -> None:
    (row,) = read(tmp_path, record, **columns)
    assert (row.texts, row.label, row.kind) == (("one", "two"), "x", "label")
    assert row.question == "one\n\ntwo" and Row(text="one").texts == "one"


@pytest.mark.parametrize(("record", "reason"), [
    ({"text": "t", "labels": ["a", "a"]}, "lists the label 'a' twice"),
    ({"text": "t", "labels": [["a"]]}, "holds list, where a label was expected"),
    ({"text": "t", "labels": [""]}, "is empty"),
    ({"text": "t", "labels": None}, "'labels' is null"),
    ({"text": "t", "labels": [True, False]}, "lists true or false, which are no names.*\n.*names of the labels that"),
    ({"text": "t", "label": "['a', 'b']"}, "looks like a printed list and is no JSON"),
    ({"text": "t", "label": '["a" "b"]'}, "looks like a printed list"),
    ({"text": "t", "label": "[1. 0. 1.]"}, "looks like a printed list"),
    ({"text": "t", "score": True}, "holds True, where a number was expected"),
    ({"text": "t", "score": "high"}, "holds 'high', where a number was expected"),
    ({"text": "t", "text_pair": "", "label": "a"}, "'text_pair' is empty"),
    *[({"text": "t", "label": number}, f"holds '{number}', a number with a fraction.*\n.*data.columns.score = 'label'")
      for number in ("0.5", ".25", "-1.0", "1e-3", "2.5E2", "0,5")],
    ({"text": "t", "labels": ["a", "0.25"]}, "holds '0.25', a number with a fraction"),
    ({"text": "t", "score": 10**400}, "where a number was expected"),
])
def test_what_is_neither_is_refused(record: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=reason):
        read(tmp_path, record)


@pytest.mark.parametrize("name", ["3.11", "0.5"])
def test_numbers_with_fractions_are_what_one_says_they_are(name: str, tmp_path: Path) -> None:
    assert read(tmp_path, {"text": "t", "label": name}, label="label")[0].label == name
    assert read(tmp_path, {"text": "t", "label": name}, score="label")[0].score == float(name)


@pytest.mark.parametrize("name", ["3", "-1", "v3.5", "1.2.3", "E11.9", "e5", "50%", "1."])
def test_other_names_with_digits_are_names(name: str, tmp_path: Path) -> None:
    assert read(tmp_path, {"text": "t", "label": name})[0].label == name


def test_a_file_holds_one_kind_of_targets(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds one label \(str\), in the rows before it holds a list of labels"):
        read(tmp_path, {"text": "t", "label": ["a"]}, {"text": "t", "label": "a"})
    with pytest.raises(DataError, match="the column 'text_pair' is missing"):
        read(tmp_path, {"text": "t", "text_pair": "u", "label": "a"}, {"text": "t", "label": "a"})


def test_every_part_tells_rows_apart() -> None:
    rows = [Row(text="t", label="a"), Row(text="t", labels=("a",)), Row(text="t", labels=()), Row(text="t", score=0.0),
            Row(text="t", score=1.0), Row(text="t", pair="u", label="a"), Row(text="t")]
    assert len({rows_digest([row]) for row in rows}) == len(rows)
    assert row_key(rows[0]) == row_key(rows[1]) != row_key(rows[5])


def test_splits_keep_every_label_of_a_list_in_training(tmp_path: Path) -> None:
    rows = [Row(text=f"text {index}", labels=("common",) if index else ("common", "rare")) for index in range(20)]
    assert ("common", "rare") in [row.labels for row in split_rows(rows, 0.2, 0.2)["train"]]
    read(tmp_path, {"text": "t", "labels": ["a", "b"]}, {"text": "v", "labels": []})
    (tmp_path / "test.jsonl").write_text('{"text": "u", "labels": ["a", "bb"]}\n')
    with pytest.raises(DataError, match="no training row has the label 'bb'\n  did you mean 'b'"):
        load_splits(Data(train="rows.jsonl", test="test.jsonl", validation_share=0.0), tmp_path)


@pytest.mark.parametrize("labels", [[[0, 1], [1, 0]], [[], []], ["a", "a"], [["a"], ["a"]]])
def test_labels_that_are_the_same_for_every_row_teach_nothing(labels: list[Any], tmp_path: Path) -> None:
    read(tmp_path, *({"text": f"{number} {place}", "labels": label} for number in range(20)
                     for place, label in enumerate(labels)))
    with pytest.raises(DataError, match="every training row has the same label, ('0' and '1'|none at all|'a')\n"):
        load_splits(Data(train="rows.jsonl"), tmp_path)
    read(tmp_path, *({"text": f"{number} {place}", "labels": label} for number in range(20)
                     for place, label in enumerate([["a"], []])))
    assert load_splits(Data(train="rows.jsonl"), tmp_path)["train"]
