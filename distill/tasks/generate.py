"""Texts that a decoder writes: the tokens of completions, or of plain texts, each from those before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...models.task import Task
from ...runtime.data import learned_tokens
from ...runtime.data.learned_tokens import Learned
from ...runtime.data.reader import Row
from ...runtime.text.codec import Codec
from ..data.batches import Batch, next_tokens
from ..data.token_sets import TokenSet, token_set
from ..heads import at, autocast, head_of, inner_states, summed_loss
from ..signals import Signal
from ._base import Losses, TaskKind, Told

if TYPE_CHECKING:
    from torch import Tensor


class Kind(TaskKind):
    """See TaskKind."""

    rows = frozenset({"chat", "text"})
    columns = "messages, prompt and completion, or text"
    hub_task = "text-generation"
    collate = staticmethod(next_tokens)

    def settle_on(self, task: Task, codec: Codec, rows: Sequence[Row]) -> Task:
        """See TaskKind: options of the chat template."""
        return replace(task, template_options=learned_tokens.settled(codec, rows))

    def examples(self, rows: Sequence[Row], codec: Codec, task: Task, max_tokens: int, learn: str) -> TokenSet:
        """See TaskKind. Plain texts are joined and cut into blocks of `max_tokens`; of a chat every turn of the
        assistant's is learned, or the "last" one."""
        sequences: list[Learned] = []
        sources: list[int] = []
        left_out = unlearned = 0
        stream: list[int] = []
        for place, row in enumerate(rows):
            if row.kind == "text":
                stream += learned_tokens.training_ids(codec, row)[0]
                continue
            found = learned_tokens.sequences(codec, row, learn)
            fitting = [one for one in found if len(one.ids) <= max_tokens]
            left_out += len(fitting) < len(found)
            unlearned += not found
            sequences += fitting
            sources += [place] * len(fitting)
        # Each block begins with the last token of the one before, so that every token but the first is predicted once.
        for start in range(0, len(stream) - 1, max_tokens - 1):
            ids = stream[start:start + max_tokens]
            sequences.append(Learned(ids, [(1, len(ids))]))
            sources.append(-1)
        return token_set(sequences, [0] * len(sequences), sources, left_out, unlearned)

    def objective(self, model: Any, losses: Losses, told: Told | None, precision: str, task: Task) -> TextObjective:
        """See TaskKind."""
        return TextObjective(model, losses, told, precision)


class TextObjective:
    """Losses of a decoder at the positions that predict a completion's tokens."""

    measures = ("loss",)

    def __init__(self, student: Any, losses: Losses, told: Told | None = None, precision: str = "fp32") -> None:
        import torch

        self.student, self.losses, self.told = student, losses, told
        self.head = head_of(student)
        self.device = self.head.weight.device.type
        self.precision = precision
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32

    def __call__(self, batch: Batch) -> Tensor:
        """See Objective; counts completion tokens."""
        with autocast(self.device, self.precision):
            states, inner = inner_states(self.student, batch.ids, self.losses.reads)
        hidden = states.flatten(0, 1)[batch.positions]
        known = None if self.told is None else self.told(batch)

        def place_loss(logits: Tensor, part: slice) -> Tensor:
            return self.losses(Signal(logits), None if known is None else known[part], batch.labels[part])

        parts = []
        if self.losses.of_logits:
            parts.append(summed_loss(hidden, self.head, place_loss, self.dtype, self.losses.parameters_of_logits))
        if inner:
            ours = Signal(hidden, inside=at(batch.positions, inner))
            parts.append(self.losses.inside(ours, known, batch.labels).sum())
        return sum(parts[1:], parts[0])

    def measure(self, batch: Batch) -> Mapping[str, float]:
        """See Objective."""
        return {"loss": float(self(batch))}
