"""A frozen classifier as a teacher: it is asked about each row once, and need not share the student's tokenizer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...models import outputs
from ...models.errors import UsageError
from ...models.task import Task
from ...runtime.data.learned_tokens import Learned
from ...runtime.text.codec import Codec
from .. import alignment
from ..data.batches import Batch, Schedule, whole_rows
from ..data.token_sets import TokenSet, token_set
from ..heads import class_logits
from ..loading import load_model, positions_of
from ..signals import Signal
from ._base import Wants

if TYPE_CHECKING:
    from torch import Tensor


class Classifier:
    """A classifier in memory, read in the order of the task's labels."""

    def __init__(self, folder: Path, wants: Wants, device: str) -> None:
        self.model, self.order = load(folder, wants.task)
        self.codec, self.device = Codec.from_folder(folder), device
        self.model.to(device)
        self.known: dict[TokenSet, Tensor] = {}

    def prepare(self, examples: Schedule, wants: Wants) -> None:
        """Ask about the text of every row, each cut to the teacher's context."""
        import torch

        if wants.inside:
            raise UsageError(f"{sorted(wants.inside)[0][0]}: classifiers are compared by what they say of whole rows",
                             "choose a loss of logits")
        limit = positions_of(self.model)
        ids = [self.codec.encode(examples.rows[place].text, add_special_tokens=True)[:limit]
               for place in examples.tokens.sources]
        tokens = token_set([Learned(one, []) for one in ids], [0] * len(ids), range(len(ids)))
        known = torch.zeros(len(ids), self.model.config.num_labels, device=self.device)
        with torch.no_grad():
            for batch in Schedule(tokens, 1, examples.micro_batch_tokens, 0, whole_rows, self.device,
                                  self.codec.pad_id or 0).all():
                known[batch.rows] = class_logits(self.model, batch, wants.precision)
        self.known[examples.tokens] = known[:, self.order]

    def signal(self, batch: Batch, wants: Wants) -> Signal:
        """Logits of the batch's rows."""
        return Signal(self.known[batch.of][batch.rows])


def load(folder: Path, task: Task) -> tuple[Any, list[int]]:
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
    order = alignment.of_labels(task.labels, theirs)
    model = load_model(folder, replace(task, labels=theirs, head=outputs.SOFTMAX))
    return model.eval().requires_grad_(False), order
