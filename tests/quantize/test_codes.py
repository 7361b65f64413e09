"""The shared 4-bit grid: golden bytes, agreement with gguf's own quantizer, and round trips."""

from __future__ import annotations

import numpy as np
import pytest
from edgestill.models.errors import ArtifactError
from edgestill.quantize.grid import codes
from edgestill.quantize.methods import rtn
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy


def test_golden_block() -> None:
    # -8, -7 … 7 twice over: the scale is exactly 1, and element j shares its byte with element j + 16.
    weight = np.tile(np.arange(-8, 8, dtype=np.float32), 2)[None]
    found = codes.to_bytes(rtn.quantize(weight, None, rtn.Config()))
    assert found.tobytes().hex() == "003c" + "".join(f"{code:x}{code:x}" for code in range(16))


def test_a_block_whose_largest_value_is_positive_has_a_negative_scale() -> None:
    weight = np.zeros((1, 32), np.float32)
    weight[0, 5], weight[0, 20] = 4.0, -2.0
    found = rtn.quantize(weight, None, rtn.Config())
    assert found.scales[0, 0] == np.float16(-0.5)
    assert codes.dequantize(found)[0, [5, 20, 0]].tolist() == [4.0, -2.0, 0.0]


def test_same_bytes_as_the_gguf_package() -> None:
    from gguf import GGMLQuantizationType, quants

    random = np.random.default_rng(0)
    weight = (random.standard_normal((300, 256)) * random.lognormal(0, 2, (300, 1))).astype(np.float32)
    weight[7] = 0
    found = codes.to_bytes(rtn.quantize(weight, None, rtn.Config()))
    assert np.array_equal(found, quants.quantize(weight, GGMLQuantizationType.Q4_0))
    assert np.array_equal(codes.dequantize(codes.from_bytes(found)),
                          quants.dequantize(found, GGMLQuantizationType.Q4_0))


@settings(deadline=None, max_examples=60)
@given(numpy.arrays(np.uint8, st.tuples(st.integers(1, 5), st.integers(1, 4).map(lambda n: 18 * n))))
def test_any_bytes_survive_unpacking_and_packing(data: np.ndarray) -> None:
    assert np.array_equal(codes.to_bytes(codes.from_bytes(data)), data)


def test_rows_can_be_reordered() -> None:
    weight = np.random.default_rng(1).standard_normal((6, 64)).astype(np.float32)
    order = np.array([5, 0, 3, 1, 4, 2])
    made = rtn.quantize(weight, None, rtn.Config())
    expected = rtn.quantize(weight[order], None, rtn.Config())
    assert np.array_equal(codes.dequantize(made.take(order)), codes.dequantize(expected))


def test_rows_that_are_no_whole_number_of_blocks_are_refused() -> None:
    with pytest.raises(ArtifactError, match="rows of 48 values"):
        rtn.quantize(np.ones((2, 48), np.float32), None, rtn.Config())
    with pytest.raises(ArtifactError, match="row of 19 bytes"):
        codes.from_bytes(np.zeros((1, 19), np.uint8))
    with pytest.raises(ValueError, match="one scale for 32"):
        codes.Codes(np.zeros((2, 64), np.uint8), np.zeros((2, 1), np.float16))


def test_a_scale_above_the_limit_of_float16_is_refused() -> None:
    with pytest.raises(ArtifactError, match="above float16's limit"):
        rtn.quantize(np.full((1, 32), 1e6, np.float32), None, rtn.Config())


def test_row_chunks_cover_every_row_once() -> None:
    for rows, columns in ((1, 32), (70_000, 32), (3, 1 << 20), (0, 64)):
        parts = list(codes.row_chunks(rows, columns))
        assert [row for part in parts for row in range(rows)[part]] == list(range(rows))
