"""Choose the type of every tensor for a budget: measure what types cost, deal them out, measure the whole."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.errors import DataError
from ..models.runfile import Export
from .allocate import Option, allocate
from .calibration import Calibration
from .float_model import FloatModel
from .sensitivity import Sensitivity

log = logging.getLogger(__name__)

Restore = Callable[[str, str], NDArray[np.float32]]
"""The weight [out, in] of a Hugging Face name as an engine sees it, stored in a type."""


@dataclass(frozen=True)
class Part:
    """What gets one type: a matrix, or several that a graph multiplies by together."""

    names: tuple[str, ...]
    """Hugging Face names."""
    sizes: Mapping[str, int]
    """Bytes by type."""


Choose = Callable[[Sequence[Part], int, Restore], dict[str, str]]
"""From parts, the bytes of everything else in the file, and their restored weights to types by Hugging Face name."""


class Mixer:
    """A `Choose` for one export; `told` then says what was chosen and measured, for the manifest."""

    def __init__(self, model: FloatModel, sequences: Sequence[Sequence[int]], calibration: Calibration | None,
                 target: Export) -> None:
        """Raises DataError without sequences to measure on."""
        if calibration is None or not sequences:
            raise DataError(f"{target.target}: no rows to measure on what each type costs",
                            "give rows (--rows), and calibration_rows of 1 or more")
        self._model, self._sequences, self._calibration = model, sequences, calibration
        self._budget = int(target.budget_mb * 1e6) or int(model.parameters * target.bits_per_weight / 8)
        self.told: dict[str, Any] = {}

    def __call__(self, parts: Sequence[Part], fixed: int, restore: Restore) -> dict[str, str]:
        """Types by Hugging Face name. Raises UsageError for a budget below the smallest possible size."""
        # An impossible budget must not cost an hour of measuring first.
        unmeasured = {part.names[0]: [Option(type, size, 0) for type, size in part.sizes.items()] for part in parts}
        allocate(unmeasured, self._budget, fixed)
        sensitivity = Sensitivity(self._model, self._sequences)
        options = {part.names[0]: self._options(part, sensitivity, restore) for part in parts}
        chosen = allocate(options, self._budget, fixed)
        types = {name: chosen[part.names[0]].type for part in parts for name in part.names}
        joint = sensitivity.kl({name: restore(name, type) for name, type in types.items()})
        total = fixed + sum(option.bytes for option in chosen.values())
        added = sum(option.loss for option in chosen.values())
        log.info("%d bytes of %d: KL %.5f nats on %d tokens, %.5f as the sum of the parts", total, self._budget, joint,
                 sensitivity.tokens, added)
        self.told = {"budget_bytes": self._budget, "kl_nats": joint, "kl_nats_summed": added,
                     "tokens": sensitivity.tokens, "types": types}
        return types

    def _options(self, part: Part, sensitivity: Sensitivity, restore: Restore) -> list[Option]:
        """KL is measured at the type with the largest error, where it stands out from rounding most.

        For small errors KL grows with the square of a layer's output error, so the other types follow by the ratio of
        theirs: one run of the model for a part, not one for each of its types.
        """
        errors = dict.fromkeys(part.sizes, 0.0)
        worst: dict[str, NDArray[np.float32]] = {}
        for type in part.sizes:
            found = {name: restore(name, type) for name in part.names}
            errors[type] = sum(self._error(name, weight - sensitivity.weight(name)) for name, weight in found.items())
            if errors[type] >= max(errors.values()):
                worst = found
        most = max(errors.values())
        loss = sensitivity.kl(worst) / most if most else 0.0
        return [Option(type, size, loss * errors[type]) for type, size in part.sizes.items()]

    def _error(self, name: str, lost: NDArray[np.float32]) -> float:
        """The expected squared error of the layer's output; of the weights, for what is no layer."""
        gram = self._calibration.gram(name)
        if gram is None:
            return float(np.square(lost).sum(dtype=np.float64))
        return float(np.einsum("rc,rc->", lost @ gram, lost, dtype=np.float64))
