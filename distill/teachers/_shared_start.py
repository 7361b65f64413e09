"""The beginning that all prompts of a teacher have in common, read once: its keys and values are those of every row."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.batches import Batch, Schedule
from ..data.token_sets import TokenSet
from ..heads import hidden_states

if TYPE_CHECKING:
    from torch import Tensor


class SharedStart:
    """Reads the rows of one set behind what they begin with."""

    def __init__(self, model: Any, examples: Schedule) -> None:
        """Read the beginning, where every layer of the model keeps the keys and values of all tokens."""
        import torch
        from transformers.cache_utils import DynamicCache, DynamicLayer

        self.model, self.tokens_at_once = model, examples.micro_batch_tokens
        cache = DynamicCache(config=model.config)
        self.size = shared(examples.tokens) if all(type(layer) is DynamicLayer for layer in cache.layers) else 0
        self._cache = cache
        if self.size:
            ids = torch.from_numpy(examples.tokens.row(0)[:self.size].astype(np.int64))[None].to(examples.device)
            model.base_model(input_ids=ids, past_key_values=cache, use_cache=True)

    def states(self, batch: Batch) -> Tensor:
        """Hidden states [n, hidden] at the batch's positions; so many rows at a time as the set's batches have."""
        import torch

        rows, length = batch.ids.shape
        row, column = batch.positions // length, batch.positions % length - self.size
        size, found = max(1, self.tokens_at_once // length), []
        for first in range(0, rows, size):
            here = (row >= first) & (row < first + size)
            states = self._read(batch.ids[first:first + size, self.size:])
            found.append(states[row[here] - first, column[here]])
        return torch.cat(found)

    def _read(self, ids: Tensor) -> Tensor:
        if not self.size:
            return hidden_states(self.model, ids)
        cache = deepcopy(self._cache)
        cache.batch_repeat_interleave(len(ids))
        states: Tensor = self.model.base_model(input_ids=ids, past_key_values=cache, use_cache=True).last_hidden_state
        return states


def shared(tokens: TokenSet) -> int:
    """How many ids all rows begin with alike; the place that the first learned token is predicted from is not among
    them."""
    size = min(int(np.argmax(tokens.learned[start:])) for start in tokens.offsets[:-1]) - 1
    first = tokens.row(0)
    for index in range(1, len(tokens)):
        other = np.flatnonzero(first[:size] != tokens.row(index)[:size])
        size = int(other[0]) if len(other) else size
    return size
