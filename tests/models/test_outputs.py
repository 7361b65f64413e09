"""What config.json says of a classifier's outputs: their names, and what the numbers mean."""

from __future__ import annotations

from typing import Any

import pytest
from edgestill.models import outputs
from edgestill.models.errors import ArtifactError, UsageError
from edgestill.models.task import Task
from edgestill.runtime.encoders.head import Head

THREE = {"0": "a", "1": "b", "2": "c"}


@pytest.mark.parametrize(("config", "count", "names"), [
    ({"id2label": THREE}, 3, ["a", "b", "c"]),
    ({"id2label": {"2": "c", "0": "a", "1": "b"}}, None, ["a", "b", "c"]),
    ({"id2label": {str(id): str(id) for id in (10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)}}, 11, [str(id) for id in range(11)]),
    ({"id2label": {"0": 1, "1": 2.5}}, 2, ["1", "2.5"]),
    ({"id2label": THREE, "label2id": {"c": 2, "b": 1, "a": 0}}, 3, ["a", "b", "c"]),
    ({"id2label": THREE, "label2id": {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}}, 3, ["a", "b", "c"]),
    ({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"no": 0, "yes": 1}}, 2, ["no", "yes"]),
    ({"label2id": {"yes": 1, "no": 0}}, 2, ["no", "yes"]),
    ({"num_labels": 3}, 3, ["LABEL_0", "LABEL_1", "LABEL_2"]),
    ({}, 2, ["LABEL_0", "LABEL_1"]),
    ({"id2label": {}, "label2id": {}}, None, ["LABEL_0", "LABEL_1"]),
])
def test_labels_stand_in_the_order_of_the_outputs(config: dict[str, Any], count: int | None, names: list[str]) -> None:
    assert outputs.labels(config, count) == names


@pytest.mark.parametrize(("config", "count", "why"), [
    ({"id2label": {"1": "a", "2": "b", "3": "c"}}, 3, "has the ids 1, 2, 3, and the 3 outputs .* are numbered 0 to 2"),
    ({"id2label": {"0": "a", "2": "c"}}, 2, "has the ids 0, 2"),
    ({"id2label": {"0": "a", "00": "b"}}, 2, "names the output 0 twice, 'a' and 'b'"),
    ({"id2label": {"0": "a", "1": "a"}}, 2, "the outputs 0 and 1 are both named 'a'"),
    ({"id2label": {"0": 1, "1": "1"}}, 2, "are both named '1'"),
    ({"id2label": {"0": "a", "1": None}}, 2, "names the output 1 None"),
    ({"id2label": {"0": "a", "1": ""}}, 2, "names the output 1 ''"),
    ({"id2label": THREE}, 4, "names 3 labels, the model has 4 outputs"),
    ({"id2label": {"0": "no", "1": "yes"}, "label2id": {"yes": 0, "no": 1}}, 2,
     "'no' is the label 0 by id2label, and 1 by label2id"),
    ({"label2id": {"a": 1, "b": 2}}, 2, "label2id has the ids 1, 2"),
    ({"label2id": {"a": 0, "b": "one"}}, 2, "has the id 'one'"),
    ({}, 3, "names no labels"),
])
def test_labels_that_say_two_things_are_refused(config: dict[str, Any], count: int, why: str) -> None:
    with pytest.raises(ArtifactError, match=why) as caught:
        outputs.labels(config, count)
    assert "[task] labels" in caught.value.hint
    assert Head.of(Task("classify", labels=[f"label {id}" for id in range(count)]), config, count).labels


IDENTITY, SIGMOID = "torch.nn.modules.linear.Identity", "torch.nn.modules.activation.Sigmoid"


@pytest.mark.parametrize(("config", "count", "head"), [
    ({}, 3, "softmax"), ({}, 1, "sigmoid_score"), ({"problem_type": None}, 1, "sigmoid_score"),
    ({"problem_type": "single_label_classification"}, 2, "softmax"),
    ({"problem_type": "multi_label_classification"}, 3, "sigmoid"),
    ({"problem_type": "multi_label_classification"}, 1, "sigmoid"),
    ({"problem_type": "regression"}, 1, "score"), ({"problem_type": "regression"}, 3, "score"),
    ({"sentence_transformers": {"activation_fn": IDENTITY}}, 1, "score"),
    ({"sentence_transformers": {"activation_fn": SIGMOID}}, 1, "sigmoid_score"),
    ({"sbert_ce_default_activation_function": IDENTITY}, 1, "score"),
    ({"sbert_ce_default_activation_function": IDENTITY, "sentence_transformers": {"activation_fn": SIGMOID}}, 1,
     "sigmoid_score"),
    ({"sentence_transformers": {"version": "5.2.0"}}, 1, "sigmoid_score"),
    ({"sentence_transformers": {"activation_fn": IDENTITY}}, 3, "softmax"),  # natural language inference
    ({"sentence_transformers": {"activation_fn": IDENTITY}, "problem_type": "multi_label_classification"}, 3,
     "sigmoid"),
    ({"sentence_transformers": {"activation_fn": SIGMOID}}, 3, "sigmoid"),
    ({"sentence_transformers": {"activation_fn": IDENTITY}, "problem_type": "regression"}, 1, "score"),
    ({"function_to_apply": "none"}, 1, "score"), ({"function_to_apply": "sigmoid"}, 3, "sigmoid"),
    ({"function_to_apply": "sigmoid", "problem_type": "regression"}, 1, "score"),
    ({"classifier_activation": "gelu"}, 3, "softmax"),  # ModernBERT's, inside the head
])
def test_the_config_says_what_outputs_mean(config: dict[str, Any], count: int, head: str) -> None:
    assert outputs.head(config, count) == head


@pytest.mark.parametrize(("config", "count", "why"), [
    ({"problem_type": "ranking"}, 1, "problem_type = 'ranking'"),
    ({"problem_type": "single_label_classification"}, 1, "a softmax of one output is 1"),
    ({"sbert_ce_default_activation_function": "torch.nn.modules.activation.Tanh"}, 1,
     "sbert_ce_default_activation_function = 'torch.nn.modules.activation.Tanh'"),
    ({"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Softmax"}}, 1, "softmax of one output"),
    ({"function_to_apply": "relu"}, 2, "function_to_apply = 'relu'"),
])
def test_a_meaning_that_is_not_known_is_refused(config: dict[str, Any], count: int, why: str) -> None:
    with pytest.raises(ArtifactError, match=why) as caught:
        outputs.head(config, count)
    assert "[task] head" in caught.value.hint
    assert Head.of(Task("classify", head="score"), config | {"num_labels": count}, count).kind == "score"


@pytest.mark.parametrize(("task", "why"), [
    (Task("classify", labels=["a", "a"]), "task.labels: the outputs 0 and 1 are both named 'a'"),
    (Task("classify", labels=["a"]), "2 labels, the task has 1"),
    (Task("classify", labels=["a", "b"], thresholds={"a": 0.3}), "task.thresholds: a softmax head"),
    (Task("classify", labels=["a", "b"], head="sigmoid", thresholds={"c": 0.3}), "task.thresholds: 'c' is not one"),
    (Task("classify", labels=["a", "b"], head="sigmoid", thresholds={"a": 1.5}), "1.5 is no probability"),
])
def test_a_task_that_does_not_fit_the_outputs_is_refused(task: Task, why: str) -> None:
    with pytest.raises((ArtifactError, UsageError), match=why):
        Head.of(task, {}, 2)
