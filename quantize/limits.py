"""What a certificate allows, in one table.

A limit has two sides: a sound file must stay below it on every model, and a planted fault above it. The numbers
were set on real models (see the margins in tests/test_certify.py): …
"""

from __future__ import annotations

from dataclasses import dataclass

from ..models.scheme import Scheme


@dataclass(frozen=True)
class Limits:
    """The limits of one scheme."""

    kl_nats: float
    """Largest mean KL(float || packed)."""
    kl_p999_nats: float
    """Largest 99.9th percentile of it."""
    decisive_top1: float
    """Smallest share of the same most likely token, where the float model's first choice is twice as likely as its second."""
    cache_kl_nats: float
    """Largest mean KL between the packed file's prefill and its own cached decode."""
    metric_drop: float
    """Largest significant loss of the task metric, 0 to 1."""


LOSSLESS = Limits(1e-5, 1e-3, 0.995, 1e-4, 0.01)
HALF = Limits(1e-3, 0.02, 0.98, 1e-3, 0.01)
EIGHT_BITS = Limits(0.02, 0.3, 0.93, 0.005, 0.02)
SIX_BITS = Limits(0.03, 0.5, 0.9, 0.005, 0.03)
FIVE_BITS = Limits(0.06, 1.0, 0.85, 0.005, 0.05)
FOUR_BITS = Limits(0.3, 4.0, 0.6, 0.01, 0.1)

LIMITS = {
    "gguf:F32": LOSSLESS, "gguf:F16": HALF, "gguf:BF16": HALF, "gguf:Q8_0": EIGHT_BITS, "gguf:Q6_K": SIX_BITS,
    "gguf:Q5_K_M": FIVE_BITS, "gguf:Q4_K_M": FOUR_BITS, "gguf:Q4_0": FOUR_BITS,
    "onnx:fp32": LOSSLESS, "onnx:int8": EIGHT_BITS, "onnx:int4": FOUR_BITS,
}


def of(scheme: Scheme) -> Limits:
    """The limits of an export target."""
    return LIMITS[str(scheme)]
