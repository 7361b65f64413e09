"""What a classifier's config.json says of its outputs: their names, and what the numbers mean.

transformers has no key for the meaning as such: it follows from `problem_type`, from the number of outputs, and from
what sentence-transformers writes down for its cross-encoders.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .errors import ArtifactError

SOFTMAX, SIGMOID, SCORE, SIGMOID_SCORE = HEADS = ("softmax", "sigmoid", "score", "sigmoid_score")
"""One label of several; any number of labels; numbers as they are; numbers through a sigmoid, from 0 to 1."""
SCORES = (SCORE, SIGMOID_SCORE)
PROBLEMS = {"single_label_classification": SOFTMAX, "multi_label_classification": SIGMOID, "regression": SCORE}
FUNCTIONS = {"softmax": SOFTMAX, "sigmoid": SIGMOID, "none": SCORE}
"""Of `function_to_apply`, which transformers' pipelines know."""
CROSS_ENCODER = "sbert_ce_default_activation_function"
DEFAULT = 2
"""Outputs of a model whose config says nothing of them: transformers does not write this number down."""
_TASK_HEAD = 'say what the outputs mean in [task] head, such as head = "score"'
_TASK_LABELS = "correct config.json, or name the outputs in their order in [task] labels"


def labels(config: Mapping[str, Any], count: int | None = None) -> list[str]:
    """The names of a classifier's outputs in their order; `count` is their number, where the weights or the graph say
    it. A config that names none has transformers' own names, LABEL_0 and so on.

    Raises ArtifactError for names that are missing, that stand for several outputs, or whose ids are not 0, 1, 2 …
    """
    if config.get("id2label"):
        names = _in_order("id2label", list(config["id2label"].items()))
        told = {str(name): str(id) for name, id in (config.get("label2id") or {}).items()}
        places = {name: str(id) for id, name in enumerate(names)}
        if all(map(_is_default, names)) and sorted(told.values()) == sorted(places.values()):
            names = sorted(told, key=lambda name: int(told[name]))  # whoever named the outputs did so there alone
        elif other := [name for name in places if told.get(name, places[name]) != places[name]]:
            raise ArtifactError(f"config.json: {other[0]!r} is the label {places[other[0]]} by id2label, and "
                                f"{told[other[0]]} by label2id", _TASK_LABELS)
    elif config.get("label2id"):
        names = _in_order("label2id", [(id, name) for name, id in config["label2id"].items()])
    else:
        names = [f"LABEL_{id}" for id in range(int(config.get("num_labels") or DEFAULT))]
        if count is not None and count != len(names):
            raise ArtifactError(f"config.json: names no labels (id2label has no ids), and the model has {count} "
                                f"outputs", _TASK_LABELS)
    if count is not None and count != len(names):
        raise ArtifactError(f"config.json: id2label names {len(names)} labels, the model has {count} outputs",
                            _TASK_LABELS)
    return names


def check_names(names: list[str], key: str) -> None:
    """ArtifactError when two outputs have the same name: an answer could not tell them apart."""
    twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if twice is not None:
        first, second = [place for place, name in enumerate(names) if name == twice][:2]
        raise ArtifactError(f"{key}: the outputs {first} and {second} are both named {twice!r}", _TASK_LABELS)


def head(config: Mapping[str, Any], count: int) -> str:
    """What the numbers of `count` outputs mean: one of HEADS.

    sentence-transformers' activation counts first, then `problem_type`, then `function_to_apply`. Without any of them
    one output is a score through a sigmoid, as transformers' pipelines and sentence-transformers have it, and several
    are a softmax. Raises ArtifactError for a value that is not known.
    """
    activation, key = _activation(config)
    if activation is not None:
        name = str(activation).rpartition(".")[2].lower()
        if name not in ("identity", "sigmoid", "softmax"):
            raise ArtifactError(f"config.json: {key} = {activation!r}, and known are Identity, Sigmoid and Softmax",
                                _TASK_HEAD)
        # Identity leaves several outputs as they come, which says nothing of what they mean.
        if name != "identity" or count == 1:
            return _of_one(SCORE if name == "identity" else FUNCTIONS[name], count, name, config)
    problem = config.get("problem_type")
    if problem is not None:
        if problem not in PROBLEMS:
            raise ArtifactError(f"config.json: problem_type = {problem!r}, and known are {', '.join(PROBLEMS)}",
                                _TASK_HEAD)
        if problem == "multi_label_classification":
            return SIGMOID  # of one label, too
        return _of_one(PROBLEMS[problem], count, problem, config)
    function = config.get("function_to_apply")
    if function is not None:
        if function not in FUNCTIONS:
            raise ArtifactError(f"config.json: function_to_apply = {function!r}, and known are {', '.join(FUNCTIONS)}",
                                _TASK_HEAD)
        return _of_one(FUNCTIONS[function], count, function, config)
    return SIGMOID_SCORE if count == 1 else SOFTMAX


def reads_pairs(config: Mapping[str, Any]) -> bool:
    """Whether the config says that the model was made for pairs of texts: sentence-transformers' cross-encoders are."""
    return _activation(config)[0] is not None


def check_head(kind: str, count: int, key: str = "task.head") -> None:
    """ArtifactError for a softmax of one output, which says 1 to everything."""
    if kind == SOFTMAX and count == 1:
        raise ArtifactError(f"{key}: a softmax of one output is 1 for every text", _TASK_HEAD)


def _activation(config: Mapping[str, Any]) -> tuple[Any, str]:
    """A cross-encoder's activation, and the key it stands under."""
    own = config.get("sentence_transformers")
    given = own.get("activation_fn") if isinstance(own, Mapping) else None
    if given is not None:
        return given, "sentence_transformers.activation_fn"
    return config.get(CROSS_ENCODER), CROSS_ENCODER


def _of_one(kind: str, count: int, said: str, config: Mapping[str, Any]) -> str:
    check_head(kind, count, f"config.json says {said}")
    return SIGMOID_SCORE if kind == SIGMOID and count == 1 else kind


def _in_order(key: str, pairs: list[tuple[Any, Any]]) -> list[str]:
    """The names of (id, name) by their ids."""
    found: dict[int, str] = {}
    for id, name in pairs:
        if not re.fullmatch(r"[0-9]{1,9}", str(id)):
            raise ArtifactError(f"config.json: {key} has the id {id!r}, and ids are whole numbers from 0 on",
                                _TASK_LABELS)
        if isinstance(name, bool) or not isinstance(name, (str, int, float)) or name == "":
            raise ArtifactError(f"config.json: {key} names the output {id} {name!r}, which is no text", _TASK_LABELS)
        if int(id) in found:
            raise ArtifactError(f"config.json: {key} names the output {int(id)} twice, {found[int(id)]!r} and "
                                f"{name!r}", _TASK_LABELS)
        found[int(id)] = str(name)
    ids = sorted(found)
    if ids != list(range(len(ids))):
        shown = ", ".join(map(str, ids[:8])) + (" …" if len(ids) > 8 else "")
        raise ArtifactError(f"config.json: {key} has the ids {shown}, and the {len(ids)} outputs of such a model are "
                            f"numbered 0 to {len(ids) - 1}", _TASK_LABELS)
    names = [found[id] for id in ids]
    check_names(names, f"config.json: {key}")
    return names


def _is_default(name: str) -> bool:
    return re.fullmatch(r"LABEL_\d+", name) is not None
