"""Writing and reading GGUF files in tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from edgestill.models.scheme import Scheme
from edgestill.quantize.gguf import write as gguf_format
from edgestill.quantize.grid.calibration import Calibration
from edgestill.quantize.grid.codes import Codes
from edgestill.quantize.grid.scaled_grids import Q4_0, Grid
from edgestill.quantize.methods import rtn


def encode(_name: str, weight: np.ndarray, grid: Grid = Q4_0) -> Codes:
    return rtn.quantize(weight, None, rtn.Config(), grid)


def write(source: Path, folder: Path, type_name: str = "F32", calibration: Calibration | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder / gguf_format.write(source, folder, Scheme("gguf", type_name), encode, calibration)


def fields(path: Path) -> dict[str, Any]:
    from gguf import GGUFReader

    return {name: field.contents() for name, field in GGUFReader(path).fields.items()}
