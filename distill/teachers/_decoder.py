"""A frozen decoder as a teacher; its hidden states are kept between epochs where they fit into memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...models import progress
from ...models.task import Task
from ...runtime.text.codec import Codec
from .. import alignment
from ..data.batches import Batch, Schedule
from ..data.token_sets import TokenSet
from ..heads import Head, at, autocast, head_of, hidden_states, inner_states
from ..loading import load_model
from ..signals import ATTENTION, Signal
from ._base import KEPT_BYTES, Wants
from ._shared_start import SharedStart

if TYPE_CHECKING:
    from torch import Tensor


class Decoder:
    """A decoder in memory, read in the student's tokens."""

    def __init__(self, folder: Path, codec: Codec, wants: Wants, device: str) -> None:
        import torch

        self.ids = torch.tensor(alignment.of_tokens(codec, Codec.from_folder(folder)), device=device)
        self.model = load_model(folder, Task()).to(device).eval().requires_grad_(False)
        self.device, self.precision = device, wants.precision
        self.dtype = torch.bfloat16 if wants.precision == "bf16" else torch.float32
        # Only real tokens are compared: rows behind them are padding of the embedding.
        head = head_of(self.model).rows(self.ids)
        bias = None if head.bias is None else head.bias.to(self.dtype)
        self.head = Head(head.weight.to(self.dtype), bias, head.scale, head.softcap)
        self.kept: dict[TokenSet, dict[int, Tensor]] = {}
        self.starts: dict[TokenSet, SharedStart] = {}

    def prepare(self, examples: Schedule, wants: Wants) -> None:
        """Keep what it says about rows that come again: without dropout it says the same in every epoch.

        It is asked in a fixed order, not as training goes along: batched otherwise its numbers would differ in the last
        bits after a restart.
        """
        import torch

        kept = self.kept[examples.tokens] = {}
        if any(what == ATTENTION for what, _ in wants.inside):
            self.model.set_attn_implementation("eager")
        if wants.own_ids:
            with torch.no_grad(), autocast(self.device, self.precision):
                self.starts[examples.tokens] = SharedStart(self.model, examples)
        numbers = int(examples.tokens.learned.sum()) * int(self.head.weight.shape[1])
        if not wants.repeated or wants.inside or numbers * self.dtype.itemsize > KEPT_BYTES:
            return
        for done, batch in enumerate(examples.all(), 1):
            states = self._hidden(batch).split(batch.counts)
            kept.update((row, part.clone()) for row, part in zip(batch.rows, states, strict=True))
            progress.at("teacher", len(kept), len(examples.tokens), f"batch {done}")

    def signal(self, batch: Batch, wants: Wants) -> Signal:
        """Logits at the batch's positions, and what is wanted of its inside."""
        import torch

        if wants.inside:
            with torch.no_grad(), autocast(self.device, self.precision):
                ids = batch.ids if wants.own_ids else self.ids[batch.ids]
                states, inner = inner_states(self.model, ids, wants.inside)
            hidden = states.flatten(0, 1)[batch.positions].to(self.dtype)
            return Signal(hidden, self._logits, at(batch.positions, inner))
        kept = self.kept[batch.of]
        states = torch.cat([kept[row] for row in batch.rows]) if kept else self._hidden(batch)
        return Signal(states, self._logits)

    def _hidden(self, batch: Batch) -> Tensor:
        """Hidden states [n, hidden] at the batch's positions."""
        import torch

        with torch.no_grad(), autocast(self.device, self.precision):
            if batch.of in self.starts:
                return self.starts[batch.of].states(batch).to(self.dtype)
            return hidden_states(self.model, self.ids[batch.ids]).flatten(0, 1)[batch.positions].to(self.dtype)

    def _logits(self, hidden: Tensor) -> Tensor:
        """Logits [c, v] in float32 over the student's tokens."""
        import torch

        with torch.no_grad():
            return self.head.logits(hidden, self.head.weight, self.head.bias)
