"""Trivial baselines on planted rows, and the known figures on real ones."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from edgestill.distill.data.baselines import linear_svm, majority, nearest_tfidf, trivial_answers
from edgestill.models.errors import DataError, MissingExtra
from edgestill.runtime.data.reader import Row, read_rows
from edgestill.runtime.evaluation.evaluate import compare, evaluate_answers

QUESTIONS = {"light": ["turn on the lamp", "lamp off please", "make the lamp brighter"],
             "music": ["play a song", "next song please", "play the song again", "stop the song"]}
LABELLED = [Row(text=text, label=label) for label, texts in QUESTIONS.items() for text in texts]
CHATS = [Row(messages=({"role": "user", "content": row.text}, {"role": "assistant", "content": f"{row.label}!"}))
         for row in LABELLED]
TEST = [Row(text="lamp brighter now", label="light"), Row(text="another song", label="music")]


def test_majority() -> None:
    assert majority(LABELLED, TEST) == ["music", "music"]
    assert majority([Row(text="x", label="b"), Row(text="y", label="a")], TEST[:1]) == ["a"]


def test_linear_svm_learns_the_words() -> None:
    assert linear_svm(LABELLED, TEST) == ["light", "music"]


def test_nearest_repeats_the_answer_of_the_nearest_question() -> None:
    asked = [Row(messages=({"role": "user", "content": "play a song?"}, {"role": "assistant", "content": "x"}))]
    assert nearest_tfidf(CHATS, asked) == ["music!"]
    assert nearest_tfidf(CHATS, CHATS) == [row.answer for row in CHATS]


def test_answers_go_through_the_paired_comparison() -> None:
    answers = trivial_answers(LABELLED, TEST)
    assert list(answers) == ["majority", "linear_svm"]
    assert list(trivial_answers(CHATS, CHATS[:2])) == ["majority", "nearest_tfidf"]
    assert trivial_answers([Row(text="a")], TEST) == {}
    evaluations = {name: evaluate_answers(found, TEST) for name, found in answers.items()}
    assert compare(evaluations["linear_svm"], evaluations["majority"]).differences["accuracy"].value == 0.5


def test_rows_that_no_baseline_takes() -> None:
    with pytest.raises(DataError, match="needs training rows, each with an answer"):
        majority([], TEST)
    with pytest.raises(DataError, match="the same label, 'light'"):
        linear_svm(LABELLED[:3], TEST)
    with pytest.raises(DataError, match="TF-IDF found no words"):
        nearest_tfidf([Row(text=" ", label="a"), Row(text=" ", label="b")], TEST)


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.feature_extraction.text", None)
    with pytest.raises(MissingExtra, match="scikit-learn is not installed"):
        nearest_tfidf(LABELLED, TEST)


def test_the_figure_to_beat_on_snips(shared: Path) -> None:
    folder = shared / "data" / "snips"
    known, asked = read_rows(folder / "train.jsonl.gz"), read_rows(folder / "test.jsonl")
    found = evaluate_answers(linear_svm(known, asked), asked)
    assert found.metrics["accuracy"].value == pytest.approx(0.986, abs=0.001)
