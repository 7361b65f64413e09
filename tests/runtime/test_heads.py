"""Classifiers of every head against torch: answers, batches, pairs of texts, files of labels, the server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from edgestill.cli.main import call
from edgestill.models.errors import ArtifactError, UsageError
from edgestill.models.task import Task
from edgestill.runtime import evaluate, load
from edgestill.runtime.data.reader import Row
from edgestill.runtime.encoders.bulk import classify_into
from edgestill.runtime.encoders.classifier import Classifier
from edgestill.runtime.encoders.head import Head
from edgestill.runtime.evaluation.cascade import Cascade
from edgestill.runtime.loading.foreign import open_model
from edgestill.runtime.loading.load import load_streams
from edgestill.runtime.server.fallback import Fallback
from edgestill.runtime.server.work_queue import Station

from .. import tiny
from ..heads import ONE, PAIR, TEXT, in_torch, variant
from ..serving import running

MULTI = {"problem_type": "multi_label_classification"}
UNNAMED = {"id2label": None, "label2id": None, "problem_type": None}


def opened(path: Path) -> Classifier:
    model = load(path, threads=1, check_hashes=False)
    assert isinstance(model, Classifier)
    return model


def sigmoid(logits: Any) -> Any:
    return 1 / (1 + np.exp(-logits))


@pytest.fixture(scope="module")
def multi(packed_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return variant(packed_bert, tmp_path_factory.mktemp("heads") / "multi", MULTI)


@pytest.fixture(scope="module")
def one(packed_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reranker: one logit, and no word of what it means."""
    return variant(packed_bert, tmp_path_factory.mktemp("heads") / "one", UNNAMED | {"num_labels": 1}, one_logit=True)


def test_any_number_of_labels_is_given_with_a_probability_each(multi: Path, tiny_bert: Path) -> None:
    with opened(multi) as model:
        for text in (TEXT, PAIR, *tiny.SENTENCES[:4]):
            found, wanted = model.classify(text), sigmoid(in_torch(tiny_bert, text))  # the temperature is a softmax's
            np.testing.assert_allclose(list(found.probabilities.values()), wanted, atol=1e-4)
            assert found.labels == tuple(name for name, share in zip(tiny.LABELS, wanted, strict=True) if share >= 0.5)
            assert json.loads(found.answer) == list(found.labels)
            with pytest.raises(UsageError, match="chooses no single label: its head is sigmoid"):
                _ = found.label
            with pytest.raises(UsageError, match="gives labels, not a score"):
                _ = found.score


def test_thresholds_decide_label_by_label(packed_bert: Path, tiny_bert: Path, tmp_path: Path) -> None:
    shares = sigmoid(in_torch(tiny_bert, TEXT))
    for place, name in enumerate(tiny.LABELS):
        for room, given in ((0.01, False), (-0.01, True)):
            folder = tmp_path / f"{name}{given}"
            with opened(variant(packed_bert, folder, MULTI, thresholds={name: float(shares[place] + room)})) as model:
                found = model.classify(TEXT).labels
            others = {other for index, other in enumerate(tiny.LABELS) if index != place and shares[index] >= 0.5}
            assert {*found} == others | ({name} if given else set())


def test_one_logit_is_a_score(packed_bert: Path, one: Path, tiny_bert: Path, tmp_path: Path) -> None:
    identity = {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}
    plain = variant(one, tmp_path / "plain", identity)
    for text in (TEXT, PAIR):
        logit = float(in_torch(tiny_bert, text)[ONE])
        for folder, wanted in ((one, sigmoid(logit)), (plain, logit)):
            with opened(folder) as model:
                found = model.classify(text)
            assert found.score == pytest.approx(wanted, abs=1e-4) and found.labels == ()
            assert float(found.answer) == pytest.approx(found.score, rel=1e-8)
            assert found.to_json() == {"score": found.score, "truncated": text == PAIR}  # longer than 24 tokens
            with pytest.raises(UsageError, match="gives scores, not probabilities"):
                _ = found.probabilities


def test_several_numbers_keep_their_names(packed_bert: Path, tiny_bert: Path, tmp_path: Path) -> None:
    with opened(variant(packed_bert, tmp_path / "model", {"problem_type": "regression"})) as model:
        found = model.classify(TEXT)
        np.testing.assert_allclose(list(found.values.values()), in_torch(tiny_bert, TEXT), atol=1e-4)
        assert json.loads(found.answer).keys() == set(tiny.LABELS) and "scores" in found.to_json()
        with pytest.raises(UsageError, match="gives 3 scores, not one"):
            _ = found.score
        with pytest.raises(UsageError, match="gives 3 scores a text"):
            evaluate(model, [Row(text=TEXT, score=1.0)])


def test_the_second_text_of_a_pair_is_told_apart(packed_bert: Path, tiny_bert: Path) -> None:
    """In a batch with single texts, too; the same ids without types mean something else."""
    with opened(packed_bert) as model:
        alone, both = model.classify_all([TEXT, PAIR], batch=2)
        encoding = model.codec.encoding(PAIR[0], pair=PAIR[1])
        mute = model.logits([encoding.ids])[0]
    for text, found in ((TEXT, alone), (PAIR, both)):
        wanted = np.exp(in_torch(tiny_bert, text) / 2.0)
        np.testing.assert_allclose(list(found.probabilities.values()), wanted / wanted.sum(), atol=1e-4)
    assert np.abs(mute - in_torch(tiny_bert, PAIR)).max() > 0.01


def test_a_graph_that_cannot_tell_texts_apart_reads_no_pair(packed_bert: Path) -> None:
    with opened(packed_bert) as model:
        model._deaf = True
        model.classify(TEXT)
        with pytest.raises(ArtifactError, match="has no input token_type_ids"):
            model.classify(PAIR)


@pytest.mark.parametrize(("config", "task", "why"), [
    ({"id2label": {"1": "a", "2": "b", "3": "c"}}, {}, "has the ids 1, 2, 3"),
    ({"problem_type": "ranking"}, {}, "problem_type = 'ranking'"),
    ({}, {"head": "sigmoid", "thresholds": {"lamp": 0.2}}, "'lamp' is not one of the 3 labels"),
])
def test_a_head_that_cannot_be_read_is_no_model(config: dict[str, Any], task: dict[str, Any], why: str,
                                                packed_bert: Path, tmp_path: Path) -> None:
    with pytest.raises((ArtifactError, UsageError), match=why):
        load(variant(packed_bert, tmp_path / "model", config, **task), check_hashes=False)


def test_extreme_logits_overflow_nothing() -> None:
    logits = np.array([[-1e4, 0.0, 1e4]])
    with np.errstate(over="raise", invalid="raise"):
        shares = Head.of(Task("classify", labels=["a", "b", "c"], head="sigmoid"), {}).values(logits)
    assert shares.tolist() == [[0.0, 0.5, 1.0]]


@pytest.mark.parametrize(("name", "why"), [
    ("BertForTokenClassification", "heads of that kind are not run"), ("BertForMaskedLM", "of that kind"),
    ("BertForQuestionAnswering", "of that kind")])
def test_heads_of_other_kinds_are_refused_by_name(name: str, why: str, packed_bert: Path, tmp_path: Path) -> None:
    folder = variant(packed_bert, tmp_path / "model", {"architectures": [name]})
    for beside in ("manifest.json", "certificate.json"):
        (folder / beside).unlink(missing_ok=True)
    with pytest.raises(UsageError, match=f"says {name}, and {why}" if "heads" in why else name):
        open_model(folder)


def test_a_foreign_folder_says_what_its_head_means(multi: Path, tmp_path: Path) -> None:
    folder = variant(multi, tmp_path / "model", MULTI)
    (folder / "manifest.json").unlink()
    task = open_model(folder).manifest.task
    assert (task.kind, task.head, task.labels) == ("classify", "sigmoid", list(tiny.LABELS))


def test_rows_are_measured_as_the_head_answers(multi: Path, one: Path, packed_bert: Path) -> None:
    with opened(multi) as model:
        given = model.classify(TEXT).labels
        found = evaluate(model, [Row(text=TEXT, labels=given[::-1]), Row(text=TEXT, labels=("none",))])
        assert found.metrics["exact_match"].value == 0.5
        assert found.metrics["micro_f1"].value == pytest.approx(2 * len(given) / (3 * len(given) + 1))
        single = evaluate(model, [Row(text=TEXT, label=name) for name in tiny.LABELS])
        assert single.scores["exact_match"] == [float(given == (name,)) for name in tiny.LABELS]
        with pytest.raises(UsageError, match=r"holds a score, and the model gives any number of labels \(its head is"):
            evaluate(model, [Row(text=TEXT, score=1.0)])
    with opened(one) as model:
        score = model.classify(PAIR).score
        found = evaluate(model, [Row(text=PAIR[0], pair=PAIR[1], score=0.0), Row(text=TEXT, label="1")])
        errors = [score, 1 - model.classify(TEXT).score]
        assert found.metrics["mean_absolute_error"].value == pytest.approx(np.mean(errors), abs=1e-6)
        with pytest.raises(UsageError, match="holds the label 'light', and the model gives 1 score a text"):
            evaluate(model, [Row(text=TEXT, label="light")])
    with opened(packed_bert) as model, pytest.raises(UsageError, match="a list of labels, and the model chooses one"):
        evaluate(model, [Row(text=TEXT, labels=("light",))])


def test_what_needs_one_label_refuses_other_heads(multi: Path, one: Path, tmp_path: Path) -> None:
    for path, head in ((multi, "sigmoid"), (one, "sigmoid_score")):
        with opened(path) as model:
            with pytest.raises(UsageError, match=f"a cascade: needs a model that chooses one label.* head is {head}"):
                Cascade(model, lambda messages: "", 0.5)
            with pytest.raises(UsageError, match="--abstain: needs a model that chooses one label"):
                classify_into(tmp_path / "out.jsonl", model, [TEXT], abstain=0.5)
        with pytest.raises(UsageError, match="--fallback: needs"), running(
                [Station("small", load_streams(path, 1, 1, check_hashes=False), 8)],
                fallback=Fallback(lambda messages: "", 0.5)):
            pass


def test_files_of_labels_and_scores(multi: Path, one: Path, tmp_path: Path) -> None:
    texts = [TEXT, PAIR, *tiny.SENTENCES[:3]]
    for name, path in (("multi", multi), ("one", one)):
        with opened(path) as model:
            summary = classify_into(tmp_path / name, model, texts, top=3)
            lines = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
            for text, line, alone in zip(texts, lines, model.classify_all(texts), strict=True):
                assert (line["text"], line.get("text_pair")) == (text if isinstance(text, tuple) else (text, None))
                if name == "one":
                    assert line["score"] == alone.score
                else:
                    assert line["labels"] == list(alone.labels) and len(line["top"]) == 3
            again = classify_into(tmp_path / name, model, texts, top=3)
        named = [label for line in lines for label in line.get("labels", [])]
        assert summary.labels == again.labels == {label: named.count(label) for label in summary.labels}
        assert bool(named) == (name == "multi") and again.resumed_at == len(texts) and summary.abstained == 0


def test_the_server_answers_as_the_head_means(multi: Path, one: Path, tiny_bert: Path) -> None:
    stations = [Station(name, load_streams(path, 1, 1, check_hashes=False), 8)
                for name, path in (("multi", multi), ("one", one))]
    shares, score = sigmoid(in_torch(tiny_bert, TEXT)), float(sigmoid(in_torch(tiny_bert, PAIR)[ONE]))
    labels = [name for name, share in zip(tiny.LABELS, shares, strict=True) if share >= 0.5]

    def schema(type: str) -> dict[str, Any]:
        return {"type": "json_schema", "json_schema": {"name": "x", "schema": {"properties": {"said": {"type": type}}}}}

    with running(stations) as server:
        status, found, _ = server.ask("POST", "/classify", {"model": "multi", "text": TEXT, "top_k": 2})
        assert status == 200 and found["results"][0]["labels"] == labels
        assert list(found["results"][0]["probabilities"].values()) == pytest.approx(sorted(shares)[:0:-1], abs=1e-4)
        asked = {"model": "one", "text": PAIR[0], "text_pair": [PAIR[1], "Köln"]}
        status, found, _ = server.ask("POST", "/classify", asked)
        assert found["results"][0] == {"score": pytest.approx(score, abs=1e-4), "truncated": True}
        assert len(found["results"]) == 2 and found["results"][1]["score"] != found["results"][0]["score"]
        asked = {"model": "one", "text": ["a", "b"], "text_pair": ["c"]}
        status, found, _ = server.ask("POST", "/classify", asked)
        assert status == 400 and "text_pair: 1 second texts for 2 first ones" in json.dumps(found)
        client, chat = server.client(), [{"role": "user", "content": TEXT}]
        answer = client.chat.completions.create(model="multi", messages=chat).choices[0].message.content
        assert json.loads(answer) == labels
        bound = client.chat.completions.create(model="multi", messages=chat, response_format=schema("array"))
        assert json.loads(bound.choices[0].message.content) == {"said": labels}
        number = client.chat.completions.create(model="one", messages=chat).choices[0].message.content
        assert float(number) == pytest.approx(float(sigmoid(in_torch(tiny_bert, TEXT)[ONE])), abs=1e-4)
        for model in ("multi", "one"):
            with pytest.raises(openai.BadRequestError, match="'said' is of type 'string', and this classifier answers"):
                client.chat.completions.create(model=model, messages=chat, response_format=schema("string"))


def test_the_command_shows_labels_and_scores(multi: Path, one: Path, capsys: pytest.CaptureFixture[str],
                                             tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgestill.runtime.loading.load.load.__defaults__", (0, 0, False))
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"text": PAIR[0], "text_pair": PAIR[1]}) + "\n")
    assert call(["classify", str(one), str(tmp_path / "pairs.jsonl"), "--json"]) == 0
    (by_file,) = json.loads(capsys.readouterr().out)
    assert call(["classify", str(one), PAIR[0], "--pair", PAIR[1], "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [by_file]
    with opened(one) as model:
        assert by_file["score"] == model.classify(PAIR).score
    assert call(["classify", str(one), TEXT]) == 0
    assert "score" in capsys.readouterr().out
    assert call(["classify", str(multi), TEXT, "--top", "3"]) == 0
    shown = capsys.readouterr().out
    with opened(multi) as model:
        given = model.classify(TEXT).labels
    assert all((f"no: {name}" in shown) == (name not in given) for name in tiny.LABELS)
    assert call(["classify", str(one), str(tmp_path / "pairs.jsonl"), "--pair", "x"]) == 2
    assert "holds pairs of texts already" in capsys.readouterr().err
