"""What a float model says of texts, kept for those who ask again: every target of an export does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEEP_BYTES = 512 * 2**20
READ_AT_ONCE = 4096
"""Tokens, padding included, of one pass over several texts."""
Key = tuple[int, ...]


class KeptLogits:
    """The logits of a module of transformers, which is given to each call: what is kept must not keep a model, too.

    Where logits are the product of its output layer (`output`; None where it has none), what entered that is kept: a
    hundredth of their size, and all that is slow of them.
    """

    def __init__(self) -> None:
        self._logits: dict[Key, NDArray[np.float32]] = {}
        self._states: dict[Key, Any] = {}
        """[1, ids, hidden]"""

    def of(self, key: Key, given: Mapping[str, Any], module: Any, output: Any) -> NDArray[np.float32]:
        """float32 logits of one input: [ids, vocabulary] of a decoder, [outputs] of a classifier. `key` stands for what
        is `given` to the module."""
        import torch

        if key in self._logits:
            return self._logits[key]
        with torch.inference_mode():
            if key in self._states:
                found = output(self._states[key])
            else:
                found, states = _forward(given, module, output)
                if states is not None and self._room(states.nbytes):
                    self._states[key] = states
            result: NDArray[np.float32] = found[0].float().cpu().numpy()
        if key not in self._states and self._room(result.nbytes):
            self._logits[key] = result
        return result

    def read(self, texts: Sequence[Sequence[int]], module: Any, output: Any, device: Any) -> None:
        """Read a decoder's texts in few passes, so that `of` has the output layer alone left to compute.

        For where a pass costs more than its arithmetic. A text is padded behind its end, which nothing in it sees; the
        first is read alone, too: a model that is not what its last hidden states say is read text by text.
        """
        import torch

        waiting = [key for key in sorted({tuple(text) for text in texts}, key=len) if key not in self._states]
        if len(waiting) < 3 or output is None:
            return
        first = waiting[0]
        self.of(first, {"input_ids": torch.tensor([first], device=device)}, module, output)
        if first not in self._states:
            return
        for batch in _batches(waiting):
            ids = torch.zeros(len(batch), len(batch[-1]), dtype=torch.long, device=device)
            for place, key in enumerate(batch):
                ids[place, :len(key)] = torch.tensor(key)
            with torch.inference_mode():
                states = module.base_model(input_ids=ids, use_cache=False).last_hidden_state
            if batch[0] == first and not torch.allclose(states[0, :len(first)], self._states[first][0], rtol=1e-3,
                                                        atol=1e-3):
                return
            for place, key in enumerate(batch):
                found = states[place:place + 1, :len(key)].clone()
                if key != first and self._room(found.nbytes):
                    self._states[key] = found

    def release(self) -> None:
        """Give back what takes much memory."""
        self._logits.clear()

    def _room(self, more: int) -> bool:
        kept = sum(int(one.nbytes) for one in (*self._logits.values(), *self._states.values()))
        return kept + more <= KEEP_BYTES


def _forward(given: Mapping[str, Any], module: Any, output: Any) -> tuple[Any, Any]:
    """The logits, and what entered the output layer where they are what came out of it."""
    import torch

    if output is None:
        return module(**given).logits, None
    seen: list[tuple[Any, Any]] = []
    hook = output.register_forward_hook(lambda _, states, logits: seen.append((states[0], logits)))
    try:
        logits = module(**given).logits
    finally:
        hook.remove()
    same = len(seen) == 1 and torch.equal(seen[0][1], logits)
    return logits, seen[0][0] if same else None


def _batches(keys: Sequence[Key]) -> list[list[Key]]:
    """Texts, in the order of their lengths, of at most READ_AT_ONCE padded tokens together."""
    batches: list[list[Key]] = [[]]
    for key in keys:
        if batches[-1] and (len(batches[-1]) + 1) * len(key) > READ_AT_ONCE:
            batches.append([])
        batches[-1].append(key)
    return batches
