"""Whether the parts of a stored reference fit together: anyone may have written one, and nothing proves nothing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...models.errors import ArtifactError
from .reference import ARRAYS, Reference


def check(stored: Reference, generates: bool) -> None:
    """ArtifactError unless there is something to compare, and every part is of the kind, shape and number that a
    decoder's (`generates`) or an encoder's proof reads."""
    for fault in _faults(stored, generates):
        raise ArtifactError(f"{ARRAYS}: {fault}", "copy the artifact again, or export it again")


def _faults(stored: Reference, generates: bool) -> Iterator[str]:
    texts, sequences = len(stored.fixtures.texts), len(stored.sequences)
    if not texts or not sequences or not all(map(len, stored.sequences)):
        yield "it holds no texts or no tokens to compare"
    if not len(stored.text_ids) == len(stored.special_ids) == texts:
        yield f"ids of {len(stored.text_ids)} and {len(stored.special_ids)} texts, fixtures.json has {texts}"
    listed = (stored.text_ids, stored.special_ids, stored.sequences, stored.types(), stored.beyond_ids)
    if any(part.ndim != 1 or part.dtype.kind not in "iu" for parts in listed for part in parts):
        yield "ids that are no lists of whole numbers"
    if [len(part) for part in stored.types()] != [len(part) for part in stored.sequences]:
        yield "types of other tokens than it holds"
    if not generates:
        if stored.outputs.ndim != 2 or len(stored.outputs) != sequences or not _finite(stored.outputs):
            yield f"outputs of the shape {stored.outputs.shape} for {sequences} sequences, or some that are no numbers"
        return
    groups = [(stored.sequences, stored.top_ids, stored.top_logprobs, stored.tails)]
    if stored.beyond_ids:  # of the long text its end alone
        ends = [ids[-min(map(len, stored.beyond_top_ids), default=1):] for ids in stored.beyond_ids]
        groups.append((ends, stored.beyond_top_ids, stored.beyond_top_logprobs, stored.beyond_tails))
    for parts in groups:
        if len({len(part) for part in parts}) != 1:
            yield f"{', '.join(str(len(part)) for part in parts)} sequences, likeliest tokens, probabilities and tails"
            return
        for ids, best, logprobs, tail in zip(*parts, strict=True):
            if not (best.ndim == 2 and best.shape == logprobs.shape and best.shape[1] > 1 and tail.ndim == 1
                    and len(ids) == len(best) == len(tail)):
                yield f"{len(ids)} tokens with likeliest ones of the shapes {best.shape} and {logprobs.shape}"
            elif best.dtype.kind not in "iu" or best.min() < 0 or not _finite(logprobs) or not _finite(tail):
                yield "likeliest tokens that are no ids, or probabilities that are no numbers"


def _finite(values: np.ndarray) -> bool:
    return values.dtype.kind == "f" and bool(np.isfinite(values).all())
