"""What an export target is: a format and how its weights are stored, such as `gguf:Q4_0`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from . import kinds

BLOCK_SIZE = 32
"""Weights that share one scale in Q4_0, Q8_0 and our MatMulNBits nodes."""

MIXED = "mixed"
"""A file with tensors of several types, as a budget of bytes and what each costs decide (quantize/mixed/knapsack)."""
HALF = "q4f16"
"""The codes of int4 in a graph that computes in float16, for WebGPU."""
TYPES: dict[str, tuple[str, ...]] = {
    "gguf": ("F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_K_S", "IQ4_NL", "IQ4_XS", "Q4_0", MIXED),
    "onnx": ("fp32", "int8", "int4", HALF, MIXED),
}
CODED = ("Q4_0", "int4", HALF)
"""Types whose layers hold 4-bit codes: what quantize/methods make, and what training on the grid trains."""


@dataclass(frozen=True)
class Scheme:
    """One export target. `format` is a key of TYPES, `type` one of its values."""

    format: str
    type: str

    @classmethod
    def parse(cls, text: str) -> Scheme:
        """Read `format:type`; UsageError with the nearest known target otherwise."""
        known = {f"{format}:{type}".lower(): (format, type) for format, types in TYPES.items() for type in types}
        if text.lower() not in known:
            raise kinds.unknown("export target", text, [f"{format}:{type}" for format, type in known.values()])
        return cls(*known[text.lower()])

    @property
    def folder_name(self) -> str:
        """The name of the artifact's folder, such as `gguf-Q4_0`."""
        return f"{self.format}-{self.type}"

    def __str__(self) -> str:
        return f"{self.format}:{self.type}"


def bits_of(type: str) -> int:
    """Bits of a weight stored as `type`, scales not counted: 4 of Q4_K or int4, 16 of BF16."""
    digits = re.search(r"\d+", type)
    return int(digits[0]) if digits else 32
