"""What a teacher that classifies says about rows, each asked once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models import outputs
from ..models.errors import UsageError
from ..models.task import Task
from ..runtime.data.learned_tokens import Learned
from ..runtime.data.reader import Row
from ..runtime.text.codec import Codec
from .batches import Schedule, token_set
from .loading import load_model, positions_of
from .objectives import class_logits


def load_teacher(folder: Path, task: Task, seed: int = 0) -> tuple[Any, list[int]]:
    """A classifier and, for each of the task's labels, its place among the teacher's.

    Raises UsageError for a model without a trained head, with a head of another kind, or one that lacks a label.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    hint = "set teacher.tune = true to fine-tune it on the labels first"
    if not any("ForSequenceClassification" in name for name in config.get("architectures") or []):
        raise UsageError(f"teacher.model: {folder} has no classification head, so it has nothing to teach", hint)
    theirs = outputs.labels(config)
    if outputs.head(config, len(theirs)) != outputs.SOFTMAX:
        raise UsageError(f"teacher.model: {folder} chooses no single label: its head is "
                         f"{outputs.head(config, len(theirs))}", hint)
    missing = [label for label in task.labels if label not in theirs]
    if missing:
        raise UsageError(f"teacher.model: {folder} does not know the label {missing[0]!r} "
                         f"({len(missing)} of {len(task.labels)} are missing)", hint)
    model = load_model(folder, replace(task, labels=theirs, head=outputs.SOFTMAX), seed)
    return model.eval().requires_grad_(False), [theirs.index(label) for label in task.labels]


def ask(model: Any, codec: Codec, rows: Sequence[Row], precision: str, micro_batch_tokens: int) -> NDArray[np.float32]:
    """The teacher's logits [rows, its labels] for the texts of `rows`, each cut to the teacher's context."""
    import torch

    limit = positions_of(model)
    ids = [codec.encode(row.text, add_special_tokens=True)[:limit] for row in rows]
    tokens = token_set([Learned(one, []) for one in ids], [0] * len(ids), range(len(ids)))
    device = next(model.parameters()).device.type
    result = np.zeros((len(ids), model.config.num_labels), dtype=np.float32)
    with torch.no_grad():
        for batch in Schedule(tokens, 1, micro_batch_tokens, 0, True, device, codec.pad_id or 0).all():
            result[batch.rows] = class_logits(model, batch, precision).cpu().numpy()
    return result
