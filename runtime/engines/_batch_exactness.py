"""How many tokens a pass may take before its numbers differ, in their last bits, from those of passes over one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ._base import Engine

_STEP = 7919
"""A prime, to spread the tokens that are tried over the vocabulary."""


def exact_rows(engine: Engine, most: int) -> int:
    """The most tokens, up to `most`, that passes over so many and fewer give the very logits of passes over each alone.

    It is measured: which kernels an engine takes depends on the file's types, the number of rows and the processor.
    llama.cpp's for Q4_0 and Q8_0 do not differ here, those for K types do from 4 or 8 rows, those for floats and all of
    onnxruntime's from 2. Empties the cache. Numbers of rows above 8 are tried in doublings.
    """
    most = min(most, engine.context_length)
    ids = [_STEP * (place + 1) % engine.vocabulary_size for place in range(most)]
    engine.truncate(0)
    alone = np.array([engine.decode(token).copy() for token in ids])
    found = 1
    for size in (size for size in range(2, most + 1) if size <= 8 or size.bit_count() == 1 or size == most):
        engine.truncate(0)
        if not np.array_equal(engine.extend(ids[:size]), alone[:size]):
            break
        found = size
    engine.truncate(0)
    return found
