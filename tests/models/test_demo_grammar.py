"""The demo's rows: reproducible, leak-free, novel enough, and valid under the schema that ships with them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from edgestill.models.demo import grammar

DEMO = Path(grammar.__file__).parent
COUNT = 2000


@pytest.fixture(scope="module")
def held_out_rows() -> list[dict]:
    return list(grammar.rows("test", COUNT))


@pytest.fixture(scope="module")
def train_rows() -> list[dict]:
    return list(grammar.rows("train", 4 * COUNT))


def test_the_same_seed_gives_the_same_rows_in_another_process(held_out_rows):
    code = "import json; from edgestill.models.demo import grammar; print(json.dumps(list(grammar.rows('test', 50))))"
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == held_out_rows[:50]


def test_a_longer_request_starts_with_the_same_rows(train_rows):
    assert list(grammar.rows("train", 100)) == train_rows[:100]


def test_another_seed_gives_other_rows(train_rows):
    other = {row["prompt"] for row in grammar.rows("train", 100, seed=1)}
    assert other != {row["prompt"] for row in train_rows[:100]}


def test_no_prompt_stands_in_two_splits_whatever_the_seed(held_out_rows):
    held = {row["prompt"] for row in held_out_rows}
    for split, seed in (("train", 0), ("train", 7), ("validation", 0), ("validation", 3)):
        assert not held & {row["prompt"] for row in grammar.rows(split, COUNT, seed)}


def test_prompts_are_distinct(held_out_rows):
    assert len({row["prompt"] for row in held_out_rows}) == COUNT


def test_a_quarter_of_the_test_rows_are_novel_and_the_mark_is_true(held_out_rows, train_rows):
    assert sum(row["novel"] for row in held_out_rows) >= COUNT / 4
    trained = [call for row in train_rows for call in json.loads(row["completion"])["calls"]]
    pairs = {(call["what"], call[key]) for call in trained for key in ("where", "do")}
    for row in held_out_rows:
        calls = json.loads(row["completion"])["calls"]
        assert any(grammar.is_held_out(call) for call in calls) == row["novel"]
        if row["novel"]:
            assert any((call["what"], call[key]) not in pairs for call in calls for key in ("where", "do"))


@pytest.mark.parametrize("split", ["train", "validation"])
def test_what_is_held_out_never_shows_before_the_test(split):
    for row in grammar.rows(split, COUNT):
        assert not row["novel"]
        assert not any(grammar.is_held_out(call) for call in json.loads(row["completion"])["calls"])


def test_every_completion_is_compact_ordered_and_valid(held_out_rows, train_rows):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((DEMO / "schema.json").read_text(encoding="utf-8"))
    check = jsonschema.Draft202012Validator(schema)
    order = list(schema["properties"]["calls"]["items"]["properties"])
    for row in held_out_rows + train_rows:
        answer = json.loads(row["completion"])
        assert check.is_valid(answer), row
        assert " " not in row["completion"]
        assert bool(answer["calls"]) != ("refuse" in answer)
        for call in answer["calls"]:
            places = [order.index(key) for key in call]
            assert all(left < right for left, right in pairwise(places)), row


def test_every_reason_and_every_word_of_the_lexicon_is_used(train_rows):
    answers = [json.loads(row["completion"]) for row in train_rows]
    calls = [call for answer in answers for call in answer["calls"]]
    assert any(len(answer["calls"]) == 2 for answer in answers)
    schema = json.loads((DEMO / "schema.json").read_text(encoding="utf-8"))
    reasons = {answer["refuse"] for answer in answers if not answer["calls"]}
    assert reasons == set(schema["properties"]["refuse"]["enum"])
    fields = schema["properties"]["calls"]["items"]["properties"]
    for key in ("do", "what", "where", "colour"):
        assert {call[key] for call in calls if key in call} == set(fields[key]["enum"])


def test_an_unknown_split_is_refused_by_name():
    with pytest.raises(ValueError, match="'dev'.*train, validation, test"):
        next(grammar.rows("dev", 1))


def test_the_teachers_tokenizer_knows_every_prompt(held_out_rows):
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(DEMO / "teacher" / "tokenizer.json"))
    for row in held_out_rows:
        for text in (row["prompt"], row["completion"]):
            assert tokenizer.decode(tokenizer.encode(text).ids) == text
