"""Types of GGUF files, proven by llama.cpp: each agrees with torch as far as its bits go."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from edgestill.models.scheme import MIXED, TYPES
from edgestill.quantize.gguf import weight_changes
from edgestill.runtime.engines._gguf_context import GgufContext
from edgestill.runtime.engines._gguf_engine import GgufEngine

from ..decoders import IDS, Made, make
from ..gguf_files import fields, write
from ..onnx_models import LIMIT, distance


def engine_logits(path: Path) -> np.ndarray:
    engine = GgufEngine(GgufContext(path, 1, 0, "f32"))
    try:
        return engine.logits(IDS)
    finally:
        engine.close()


def test_without_the_reordering_of_rotated_rows_the_file_is_wrong(tmp_path: Path,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    source, expected = make(tmp_path / "hf", "llama", {})
    monkeypatch.setitem(weight_changes.ORDERS, "rotate", lambda rows, _heads: np.arange(rows))
    assert distance(engine_logits(write(source, tmp_path)), expected) > 100 * LIMIT


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A model with rows of 256 values: below that K-quants fall back to other types."""
    shape = {"hidden_size": 256, "intermediate_size": 512, "head_dim": 64, "num_hidden_layers": 2}
    return make(tmp_path_factory.mktemp("models") / "wide", "llama", shape)


BOUNDS = {"F32": (0, 1e-4, 0), "F16": (1e-4, 5e-3, 1), "BF16": (1e-3, 0.04, 32), "Q8_0": (2e-3, 0.05, 7),
          "Q6_K": (0.01, 0.15, 18), "Q5_K_M": (0.03, 0.25, 17), "Q4_K_M": (0.05, 0.5, 15), "Q4_K_S": (0.05, 0.5, 14),
          "IQ4_NL": (0.05, 0.5, 25), "IQ4_XS": (0.05, 0.5, 30), "Q4_0": (0.05, 0.6, 2)}
"""The error's share of the logits' spread, and the number that llama.cpp knows the type by."""


@pytest.mark.parametrize("type_name", [name for name in TYPES["gguf"] if name != MIXED])
def test_every_type_agrees_as_far_as_its_bits_go(wide: Made, tmp_path: Path, type_name: str) -> None:
    source, expected = wide
    path = write(source, tmp_path, type_name)
    found = engine_logits(path)
    error = float(np.sqrt(np.square(found - expected).mean()) / expected.std())
    low, high, number = BOUNDS[type_name]
    assert low <= error < high
    assert fields(path)["general.file_type"] == number
    again = write(source, tmp_path / "again", type_name)
    assert again.read_bytes() == path.read_bytes(), "the same model must give the same bytes"
    assert sorted(item.name for item in (tmp_path / "again").iterdir()) == ["model.gguf"]
