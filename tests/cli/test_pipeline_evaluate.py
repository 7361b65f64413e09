"""What the pipeline measures by itself: float models in torch, baselines, ratios; and the files it keeps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from edgestill.cli.pipeline import evaluate, gather
from edgestill.models.task import Task
from edgestill.runtime.data.reader import Row
from edgestill.runtime.text.codec import Codec

SCHEMA = {"type": "object", "properties": {"do": {"enum": ["on", "off"]}, "what": {"enum": ["light", "fan"]}},
          "required": ["do", "what"], "additionalProperties": False}


def asked(text: str, answer: str = '{"do":"on","what":"light"}') -> Row:
    """A prompt with its answer."""
    return Row(messages=({"role": "user", "content": text}, {"role": "assistant", "content": answer}))


@pytest.fixture
def schema_file(tmp_path: Path) -> Path:
    """SCHEMA as a file."""
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(SCHEMA))
    return path


def test_a_float_decoder_answers_freely_and_under_a_schema(tiny_llama: Path, schema_file: Path) -> None:
    subject = evaluate.FloatSubject(tiny_llama, Task(schema=str(schema_file), max_new_tokens=40))
    rows = [asked("turn on the light"), asked("x"), asked("turn off the fan in the kitchen please")]
    free = subject.evaluate(rows)
    assert not free.constrained and free.metrics["json_validity"].value < 1.0
    held = subject.evaluate(rows, constrain=True)
    assert held.constrained and held.metrics["json_validity"].value == 1.0
    assert all(json.loads(answer).keys() == {"do", "what"} for answer in held.answers)


def test_a_float_classifier_gives_its_own_labels(tiny_bert: Path) -> None:
    labels = ["light", "music", "weather"]
    subject = evaluate.FloatSubject(tiny_bert, Task(kind="classify", labels=labels))
    rows = [Row(text="turn off the kitchen light", label="light"), Row(text="play some music", label="music")]
    found = subject.evaluate(rows)
    ids = Codec.from_folder(tiny_bert).encode(rows[0].text, add_special_tokens=True)
    assert found.answers[0] == labels[int(subject.logits(ids).argmax())] and found.metrics["accuracy"].n == 2


def test_a_float_decoder_reads_plain_text(tiny_llama: Path) -> None:
    subject = evaluate.FloatSubject(tiny_llama, Task())
    found = subject.evaluate([Row(text="turn off the kitchen light in ten minutes"), Row(text="play some music")])
    assert found.metrics["bits_per_character"].value > 0 and subject.parameters > 50_000


def test_the_baseline_is_the_nearest_rows_answer() -> None:
    train = [asked("turn on the light", "A"), asked("play some music", "B")]
    kept = evaluate.baseline(train, [asked("please turn on the light", "A")], None)
    assert kept is not None and kept.role == "baseline" and kept.evaluation.answers == ["A"]
    assert evaluate.baseline([Row(text="some text")], [Row(text="other text")], None) is None


def test_an_evaluation_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    train = [asked("turn on the light", "A"), asked("play some music", "B")]
    kept = evaluate.baseline(train, train, None)
    assert kept is not None
    kept.write(tmp_path / "kept.json")
    assert evaluate.Kept.read(tmp_path / "kept.json") == kept


def test_the_ratio_is_of_means_over_the_same_rows() -> None:
    found = gather.ratio([1.0] * 45 + [0.0] * 55, [1.0] * 50 + [0.0] * 50)
    assert found is not None and found.value == pytest.approx(0.9) and found.low < 0.9 < found.high <= 1.0
    assert gather.ratio([1.0, 1.0], [1.0, 1.0]) == gather.Measure(1.0, 1.0, 1.0, 2)
    assert gather.ratio([1.0], [0.0]) is None
