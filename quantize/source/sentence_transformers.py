"""What sentence-transformers' files beside a model say: how its vectors are pooled, and how long texts may be."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...models.errors import ArtifactError, UsageError
from ...models.task import Task

FILES = ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json", "1_Pooling/config.json")
POOLING = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
CARRIED = ("Transformer", "Pooling", "Normalize")


def complete(task: Task, folder: Path) -> Task:
    """The task with its pooling settled: as given, or where that is "auto" as the files say, or the mean.

    Raises UsageError for a step that is not carried, such as a dense layer or the maximum of all states.
    """
    if task.pooling != "auto":
        return task
    modules = _read(folder / "modules.json", list)
    if not modules:
        return replace(task, pooling="mean")
    kinds = [str(module.get("type")).rpartition(".")[2] for module in modules]
    if other := [kind for kind in kinds if kind not in CARRIED]:
        raise UsageError(f"{folder / 'modules.json'}: a step {other[0]!r}; embedders are exported with "
                         f"{', '.join(CARRIED)}", 'leave the step out with task.pooling = "mean" or "cls"')
    pooling = "mean"
    if "Pooling" in kinds:
        path = folder / str(modules[kinds.index("Pooling")].get("path")) / "config.json"
        asked = [key for key, value in _read(path, dict).items() if key.startswith("pooling_mode") and value is True]
        if len(asked) != 1 or asked[0] not in POOLING:
            raise UsageError(f"{path}: {' and '.join(asked) or 'no pooling mode'}; embedders are exported with one of "
                             f"{', '.join(POOLING)}", "choose a model that pools by one of these")
        pooling = POOLING[asked[0]]
    return replace(task, pooling=pooling, normalise="Normalize" in kinds)


def longest_text(folder: Path) -> int | None:
    """The most tokens of a text that the model was made for, where the files say less than its positions allow."""
    length = _read(folder / "sentence_bert_config.json", dict).get("max_seq_length")
    return int(length) if length else None


def _read(path: Path, kind: type[Any]) -> Any:
    if not path.is_file():
        return kind()
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtifactError(f"{path}: no valid JSON: {error}", "copy the model folder again") from error
    if not isinstance(found, kind):
        raise ArtifactError(f"{path}: a JSON {kind.__name__} was expected, found {type(found).__name__}",
                            "copy the model folder again")
    return found
