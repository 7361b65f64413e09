"""Choose the type of every tensor for a budget: measure what types cost, deal them out, measure the whole."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...models.errors import DataError
from ...models.runfile import Export
from ..grid.calibration import Calibration
from ..source.float_model import FloatModel
from .knapsack import Option, allocate
from .sensitivity import Sensitivity

log = logging.getLogger(__name__)

Floats = NDArray[np.float32]
Restore = Callable[[str, str], Floats]
"""The weight [out, in] of a Hugging Face name as an engine sees it, stored in a type."""


@dataclass(frozen=True)
class Part:
    """What gets one type: a matrix, or several that a graph multiplies by together."""

    names: tuple[str, ...]
    """Hugging Face names."""
    sizes: Mapping[str, int]
    """Bytes by type."""


Choose = Callable[[Sequence[Part], int, int, Restore], dict[str, str]]
"""From parts, the bytes of everything else in the file, those of the format's plain 4-bit file, and restored weights to
types by Hugging Face name."""
BEYOND_PLAIN = 1.1
"""A file without a budget is so many times as large as the plain 4-bit one: there is room to deal out, and most of what
four bits lose comes back."""


class Mixer:
    """A `Choose` for one export; `told` then says what was chosen and measured, for the manifest."""

    def __init__(self, model: FloatModel, sequences: Sequence[Sequence[int]], calibration: Calibration | None,
                 target: Export) -> None:
        """Raises DataError without sequences to measure on."""
        if calibration is None or not sequences:
            raise DataError(f"{target.target}: no rows to measure on what each type costs",
                            "give rows (--rows), and calibration_rows of 1 or more")
        self._model, self._sequences, self._calibration = model, sequences, calibration
        self._given = int(target.budget_mb * 1e6) or int(model.parameters * target.bits_per_weight / 8)
        self.told: dict[str, Any] = {}

    def __call__(self, parts: Sequence[Part], fixed: int, plain: int, restore: Restore) -> dict[str, str]:
        """Types by Hugging Face name. Raises UsageError for a budget below the smallest possible size."""
        budget = self._given or int(BEYOND_PLAIN * plain)
        # An impossible budget must not cost an hour of measuring first.
        unmeasured = {part.names[0]: [Option(type, size, 0) for type, size in part.sizes.items()] for part in parts}
        allocate(unmeasured, budget, fixed)
        sensitivity = Sensitivity(self._model, self._sequences)
        costs = sensitivity.costs()
        # Layer by layer: what lies outside, such as the head, comes first by name and last on the rows' way.
        ordered = sorted(parts, key=lambda part: not sensitivity.inside(part.names[0]))
        options = {part.names[0]: self._options(part, sensitivity, costs, restore) for part in ordered}
        chosen = allocate(options, budget, fixed)
        types = {name: chosen[part.names[0]].type for part in parts for name in part.names}
        joint = sensitivity.kl({name: restore(name, type) for name, type in types.items()})
        total = fixed + sum(option.bytes for option in chosen.values())
        added = sum(option.loss for option in chosen.values())
        log.info("%d bytes of %d: KL %.5f nats on %d tokens, %.5f as the sum of the parts", total, budget, joint,
                 sensitivity.tokens, added)
        self.told = {"budget_bytes": budget, "kl_nats": joint, "kl_nats_summed": added,
                     "tokens": sensitivity.tokens, "types": types}
        return types

    def _options(self, part: Part, sensitivity: Sensitivity, costs: Mapping[str, Floats],
                 restore: Restore) -> list[Option]:
        """Layers lose what the errors of their outputs cost, from one run of the model with gradients for all of them.

        For what is no layer, such as a table that is looked up, KL is measured at the type with the largest error,
        where it stands out from rounding most; the other types follow by the ratio of their squared errors.
        """
        losses = dict.fromkeys(part.sizes, 0.0)
        worst: dict[str, Floats] = {}
        layers = all(name in costs for name in part.names)
        for type in part.sizes:
            found = {name: restore(name, type) for name in part.names}
            for name, weight in found.items():
                lost = weight - sensitivity.weight(name)
                losses[type] += self._cost(name, lost, costs[name]) if layers else float(np.square(lost).sum())
            if losses[type] >= max(losses.values()):
                worst = found
        most = max(losses.values())
        if not layers and most:
            measured = sensitivity.kl(worst) / most
            losses = {type: loss * measured for type, loss in losses.items()}
        return [Option(type, size, losses[type]) for type, size in part.sizes.items()]

    def _cost(self, name: str, lost: Floats, costs: Floats) -> float:
        """KL in nats that weights [out, in] off by `lost` cost."""
        gram = self._calibration.gram(name)
        assert gram is not None, "what has costs is a layer"
        return float(np.einsum("r,rc,rc->", costs, lost @ gram, lost, dtype=np.float64))
