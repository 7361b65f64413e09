"""Planted duplicates, leaks, labels and lengths are found; clean rows raise nothing."""

from __future__ import annotations

import json
import random
import time
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from edgestill.models.errors import DataError
from edgestill.models.runfile import Data
from edgestill.runtime.data.checks import DataReport, check_data, check_splits
from edgestill.runtime.data.learned_tokens import training_ids
from edgestill.runtime.data.near_duplicates import near_pairs
from edgestill.runtime.data.reader import Row
from edgestill.runtime.data.token_checks import count
from edgestill.runtime.text.codec import Codec

WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in "lmnrst"]


def clean(count: int, seed: int, words: int = 8) -> list[Row]:
    draw = random.Random(seed)
    return [Row(text=" ".join(draw.choices(WORDS, k=words)), label=f"label {index % 4}", where=f"s{seed}:{index + 1}")
            for index in range(count)]


def found(report: DataReport) -> dict[str, list[str]]:
    return {f"{finding.split} {finding.check}": finding.examples for finding in report.findings}


def test_clean_rows_raise_nothing() -> None:
    report = check_splits({"train": clean(400, 1), "validation": clean(100, 2), "test": clean(100, 3)})
    assert report.findings == [] and not report.failed
    split = report.splits["train"]
    assert (split.rows, split.kind, split.exact_duplicates, split.near_duplicates) == (400, "label", 0, 0)
    assert split.labels == {f"label {index}": 100 for index in range(4)}
    assert split.tokens == {} and 0 < split.characters["p50"] <= split.characters["max"]


def test_a_leaked_row_is_caught_through_case_and_blanks() -> None:
    train, test = clean(200, 1), clean(50, 3)
    test[7] = replace(test[7], text=f"  {train[42].text.upper().replace(' ', '  ')} ")
    report = check_splits({"train": train, "test": test})
    assert found(report) == {"test leakage_exact": [f"s3:8 is s1:43: {test[7].text[:60]!r}"]}
    assert report.failed


@pytest.mark.parametrize("words", [10, 120])
def test_a_near_leak_is_caught_in_short_and_long_texts(words: int) -> None:
    train, test = clean(200, 1, words), clean(50, 3, words)
    test[7] = replace(test[7], text=train[42].text + " x")
    report = check_splits({"train": train, "test": test})
    assert list(found(report)) == ["test leakage_near"]
    assert found(report)["test leakage_near"][0].startswith("s3:8 is ") and not report.failed


def test_duplicates_and_contradictions() -> None:
    rows = clean(100, 1)
    rows[50] = replace(rows[50], text=rows[10].text.title(), label=rows[10].label)
    rows[60] = replace(rows[60], text=rows[20].text, label="label 3")
    rows[70] = replace(rows[70], text=rows[30].text + "!")
    report = check_splits({"train": rows})
    checks = found(report)
    assert set(checks) == {"train duplicates", "train contradictions", "train near_duplicates"}
    assert checks["train duplicates"] == ["s1:11 and s1:51", "s1:21 and s1:61"]
    assert checks["train contradictions"] == ["s1:21 and s1:61: 'label 0' and 'label 3'"]
    assert report.splits["train"].exact_duplicates == 2 and report.splits["train"].near_duplicates == 1
    assert not report.failed


def test_labels() -> None:
    rows = clean(400, 1)
    rows[0] = replace(rows[0], label="rare")
    report = check_splits({"train": rows, "test": [replace(clean(1, 3)[0], label="labell 1")]})
    assert found(report) == {"train label_balance": ["rare: 1"],
                             "test unknown_labels": ["labell 1: did you mean 'label 1'?"]}
    assert report.failed
    same = [replace(row, label="x") for row in rows]
    assert "train one_label" in found(check_splits({"train": same}))
    spelt = [replace(row, label=("x", "X ", "y")[place % 3]) for place, row in enumerate(rows)]
    assert found(check_splits({"train": spelt})) == {"train label_spelling": ["'x' and 'X '"]}


def test_empty_and_mixed_rows() -> None:
    rows = [*clean(10, 1), Row(text=" ", where="s:11"), Row(messages=(
        {"role": "user", "content": "hello there"}, {"role": "assistant", "content": ""}), where="s:12")]
    checks = found(check_splits({"train": rows}))
    assert checks["train empty"] == ["s:11", "s:12"] and "train mixed_kinds" in checks


class Words:
    """A codec of one token a word."""

    bos_id, eos_id, stop_ids = None, None, ()

    def plain_ids(self, text: str) -> list[int]:
        return list(range(len(text.split())))

    def decode(self, ids: list[int], skip: bool) -> str:
        return " ".join(map(str, ids))


def test_tokens_are_counted_with_a_codec() -> None:
    words: Any = Words()
    rows = [*clean(20, 1), *clean(1, 2, words=30)]
    report = check_splits({"train": rows}, words, max_tokens=16)
    assert report.splits["train"].tokens == {"p50": 8.0, "p95": 8.0, "max": 30.0, "over_limit": 1.0}
    assert found(report)["train over_long"] == ["s2:1"]
    assert "over_limit" not in check_splits({"train": rows}, words).splits["train"].tokens


def test_files_are_checked_with_their_bad_rows(tmp_path: Path) -> None:
    lines = [json.dumps({"text": row.text, "label": row.label}) for row in clean(40, 1)]
    (tmp_path / "train.jsonl").write_text("\n".join([*lines[:20], "{", '{"text": "a"', *lines[20:]]))
    (tmp_path / "test.jsonl").write_text(lines[0])
    report = check_data(Data(train="train.jsonl", test="test.jsonl"), tmp_path)
    checks = found(report)
    assert checks["train bad_rows"][-1].endswith("train.jsonl:22") and "test leakage_exact" in checks and report.failed
    assert report.splits["train"].bad_rows == 2 and report.splits["train"].rows == 40
    assert json.loads(json.dumps(report.to_json()))["failed"] is True
    text = "\n".join(report.lines())
    assert "train: 40 label rows, 2 bad" in text and "error: test: 1 of 1 rows stand in train too" in text


@pytest.mark.parametrize(("content", "message"), [("", "the file is empty"), ("{\n", "broken JSON")])
def test_files_without_a_row_cannot_be_checked(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "train.jsonl").write_text(content)
    with pytest.raises(DataError, match=message):
        check_data(Data(train="train.jsonl"), tmp_path)


def test_near_pairs_are_those_of_a_comparison_of_all() -> None:
    draw = random.Random(5)
    texts = [row.text for row in clean(150, 1, words=14)]
    for text in texts[:60]:  # variants around the threshold
        words = text.split()
        for _ in range(draw.randrange(1, 3)):
            words[draw.randrange(len(words))] += draw.choice("xyz")
        texts.append(" ".join(words))
    texts += ["a", "ab", ""]
    sets = [{text[i:i + 5] for i in range(max(1, len(text) - 4))} for text in texts]
    wanted = {(i, j) for i, j in combinations(range(len(texts)), 2)
              if len(sets[i] & sets[j]) >= 0.8 * len(sets[i] | sets[j])}
    assert len(wanted) > 20
    assert {(i, j) for i, j, _ in near_pairs(texts)} == wanted
    assert near_pairs([]) == [] and near_pairs(["one"]) == []


def test_many_texts_that_share_a_template_stay_fast() -> None:
    texts = [f"please set the alarm in the living room for {index // 50} {index % 50}" for index in range(3000)]
    started = time.monotonic()
    assert near_pairs(texts)
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(("name", "train", "leaks"), [
    ("banking77", "train.jsonl", 7), ("clinc150", "train.jsonl", 2), ("snips", "train.jsonl.gz", 11)])
def test_leaks_of_real_data(shared: Path, name: str, train: str, leaks: int) -> None:
    report = check_data(Data(dir=name, train=train, test="test.jsonl"), shared / "data")
    [leak] = [finding for finding in report.findings if finding.check == "leakage_exact"]
    assert leak.message == f"{leaks} of {report.splits['test'].rows} rows stand in train too"
    assert {finding.level for finding in report.findings
            if finding.check not in ("leakage_exact", "unread")} == {"warning"}


def test_a_row_of_just_the_most_tokens_is_not_too_long(tiny_llama: Path) -> None:
    codec = Codec.from_folder(tiny_llama)
    row = Row(messages=({"role": "user", "content": "hello"}, {"role": "assistant", "content": "there"}))
    most = len(training_ids(codec, row)[0])
    assert [len(count([row], codec, limit, "all").long) for limit in (most, most - 1, 0)] == [0, 1, 0]
