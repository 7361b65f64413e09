"""What a certificate allows, in one table.

A limit has two sides: sound files of every model must stay below it, planted faults above. Mean KL in nats, over
9,700 tokens of stories260K, 5,800 of TinyStories-656K, 2,100 of the demo's teacher and 990 of tiny random models,
whose flat distributions make them the worst case of all:

    sound, F32 or fp32              2e-12 .. 1.4e-6   llama.cpp keeps keys and values in float16
    sound, F16 and BF16             2e-6 .. 7.4e-5
    sound, Q8_0 and int8            8e-5 .. 8e-4      published for an 8B model: .0014
    sound, Q5_K_M and Q4_K_M        .009 and .013     published for an 8B model: .011 and .028
    sound, Q4_K_S, IQ4_NL, IQ4_XS   .0019 .. .0022    the demo's teacher alone; mixed files at those bytes: .0003
    sound, Q4_0 and int4            .0006 .. .099     .17 for a random model with its embedding in four bits too
    q and k exchanged, one layer    .84 .. 5.2        all layers: .84 .. 5.3
    rotation order wrong, one layer .46 .. 5.4        the mildest fault that was planted

So .3 for four bits keeps a factor of 1.7 to the worst sound file and 1.5 to the mildest fault; finer types keep five
or more on both sides. Against the float model with the packed codes as its weights, which an
export has at hand, sound Q4_0 and int4 files lie at 1.5e-4 .. 5.8e-4, so .01 keeps 17 and 46. Where sound models differ
least is the most likely token among near ties: it has no limit.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..models.scheme import bits_of


@dataclass(frozen=True)
class Limits:
    """The limits of one scheme."""

    kl_nats: float
    """Largest mean KL(float || packed)."""
    kl_p999_nats: float
    """Largest 99.9th percentile of it."""
    decisive_top1: float
    """Smallest share of the same most likely token, where the float model's first choice is twice as likely as its
    second."""
    cache_kl_nats: float
    """Largest mean KL between the packed file's prefill and its own cached decode."""
    metric_drop: float
    """Largest significant loss of the task metric, 0 to 1."""
    cosine_distance: float
    """Largest mean of 1 - cosine between an embedder's vectors and the float model's."""
    codes_kl_nats: float = 0.01
    """Largest mean KL(float model with the packed 4-bit codes as its weights || packed)."""


LOSSLESS = Limits(1e-5, 1e-3, 0.995, 1e-4, 0.01, 1e-5)
HALF = Limits(1e-3, 0.02, 0.98, 1e-3, 0.01, 1e-4)
EIGHT_BITS = Limits(0.02, 0.3, 0.93, 0.005, 0.02, 0.02)
SIX_BITS = Limits(0.03, 0.5, 0.9, 0.005, 0.03, 0.03)
FIVE_BITS = Limits(0.06, 1.0, 0.85, 0.005, 0.05, 0.04)
FOUR_BITS = Limits(0.3, 4.0, 0.6, 0.01, 0.1, 0.06)

FEW_BITS = Limits(0.8, 8.0, 0.4, 0.02, 0.2, 0.2)
"""Files of three bits and fewer are not made here; sound ones of small models were not measured."""
BY_BITS = ((3, FEW_BITS), (4, FOUR_BITS), (5, FIVE_BITS), (6, SIX_BITS), (8, EIGHT_BITS), (16, HALF), (64, LOSSLESS))

LIMITS = {
    "gguf:F32": LOSSLESS, "gguf:F16": HALF, "gguf:BF16": HALF, "gguf:Q8_0": EIGHT_BITS, "gguf:Q6_K": SIX_BITS,
    "gguf:Q5_K_M": FIVE_BITS, "gguf:Q4_K_M": FOUR_BITS, "gguf:Q4_K_S": FOUR_BITS, "gguf:IQ4_NL": FOUR_BITS,
    "gguf:IQ4_XS": FOUR_BITS, "gguf:Q4_0": FOUR_BITS, "gguf:mixed": FOUR_BITS,
    "onnx:fp32": LOSSLESS, "onnx:int8": EIGHT_BITS, "onnx:int4": FOUR_BITS,
    "onnx:q4f16": FOUR_BITS, "onnx:mixed": FOUR_BITS,
}


def of(target: str) -> Limits:
    """The limits of an export target, or of `format:type` of a file made elsewhere, by the bits of its weights."""
    bits = bits_of(target.partition(":")[2])
    return LIMITS.get(target) or next(found for most, found in BY_BITS if bits <= most)
