"""From a weight to 4-bit codes: the method that the run file names, with what calibration knows of the layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models import kinds
from ..models.runfile import kind_config
from .calibration import Calibration
from .codes import Codes, exact

PACKAGE = "quantize.methods"
Encode = Callable[[str, NDArray[np.float32]], Codes]
"""Quantizes the weight [out, in] of a Hugging Face name."""


def encoder(method: Mapping[str, Any], calibration: Calibration | None) -> Encode:
    """The codes that `method` (a table with its `kind`) finds for a weight [out, in] of a Hugging Face name.

    Weights that stand on the grid already keep their codes, whatever the method: training put them there.
    """
    config = kind_config(PACKAGE, method, "export.method")
    module = kinds.load(PACKAGE, method["kind"])

    def encode(name: str, weight: NDArray[np.float32]) -> Codes:
        found = exact(weight)
        if found is not None:
            return found
        moments = None
        if calibration is not None:
            moments = calibration.gram(name) if module.GRAM else calibration.importance.get(name)
        codes: Codes = module.quantize(weight, moments, config)
        return codes
    return encode
