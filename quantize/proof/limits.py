"""What a certificate allows and how it grades, in one place, fixed before a method is tuned to meet it.

Two questions, answered apart. *Is the file what it claims to be?* A no fails it. *How good is it?* gets a grade.

The first is asked of types of 8 bits and more with fixed limits: there sound files of every model, small or real, lie
close to the float model and planted faults far away. Of coarser types no fixed distance tells the two apart: sound
4-bit files of a real model of 135M lie .15 to .3 nats away, of a toy .0006, and a rotation in the wrong order in one
layer of a toy .46. So an export holds them to what it has at hand: their own codes (`codes_kl_nats`), plain rounding
(`rtn_kl_nats`), and the type of every tensor; later proofs are held to what the export measured (`kl_top64_nats`).
Their `kl_nats` is no more than what nobody has seen a sound file of such bits lose. Mean KL in nats:

    sound, F32 or fp32              2e-12 .. 1.4e-6   toys, with keys and values kept in float32
    sound, F16 and BF16             2e-6 .. 7.4e-5    toys; a real model of 135M has 5e-6
    sound, Q8_0 and int8            8e-5 .. .0056     toys, and a real model of 135M; .0014 published for an 8B model
    sound, Q5_K_M and Q4_K_M        .009 .. .033      toys, and a real model of 135M; .011 and .028 published
    sound, Q4_0 and int4            .0006 .. .31      toys; a real model of 135M has .15 to .3, fine-tuned .31
    q and k exchanged, one layer    .84 .. 5.2        toys

llama.cpp rounds what a layer reads to eight bits in blocks, so a file's own prefill and decode, through other kernels,
lie .003 apart at Q8_0 in the real model: the cache's limits leave ten times that, and a broken cache lies at nats.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...models.kv_cache import AUTO
from ...models.scheme import bits_of

TOKENS, LEAST_TOKENS = 10_000, 3_000
"""Rows are taken until there are this many tokens: at 10,000 the mean KL has a relative error of about 3 %, at 3,000 of
5 %."""
WHOLE = 500_000_000
"""Weights up to which TOKENS are read; larger models read fewer, for every target and proof reads them again."""


@dataclass(frozen=True)
class Limits:
    """The limits of one scheme: what a file that is what it claims to be stays below."""

    kl_nats: float
    """Largest mean KL(float || packed)."""
    cache_kl_nats: float
    """Largest mean KL between the packed file's prefill and its own cached decode."""
    cosine_distance: float
    """Largest mean of 1 - cosine between an embedder's vectors and the float model's."""
    kl_p999_nats: float | None = None
    """Largest 99.9th percentile of the KL; None where sound files of real models have single tokens far away."""
    decisive_top1: float | None = None
    """Smallest share of the same most likely token, where the float model's first choice is twice as likely as its
    second; None where it is a matter of the grade alone."""
    metric_loss: float | None = None
    """What the task's loss is held to, 0 to 1; None where it is a matter of the grade alone."""
    beyond_nats: float = 0.005
    """What it may lose beyond its window, whatever it loses in short texts: over thousands of keys in half precision
    fused attention loses .001 of toys; a wrong window or wrong position factors cost more than .01."""


LOSSLESS = Limits(1e-5, 1e-4, 1e-5, 1e-3, 0.995, 0.02, beyond_nats=1e-4)
HALF = Limits(1e-3, 1e-3, 1e-4, 0.02, 0.98, 0.02)
EIGHT_BITS = Limits(0.02, 0.02, 0.02, 0.3, 0.93, 0.03)
SIX_BITS = Limits(0.15, 0.03, 0.03)
FIVE_BITS = Limits(0.3, 0.03, 0.04)
FOUR_BITS = Limits(1.0, 0.03, 0.06)
FEW_BITS = Limits(2.0, 0.05, 0.2)
"""Files of three bits and fewer are not made here."""
BY_BITS = ((3, FEW_BITS), (4, FOUR_BITS), (5, FIVE_BITS), (6, SIX_BITS), (8, EIGHT_BITS), (16, HALF), (64, LOSSLESS))

SECOND_GRAPH_KL_NATS = 0.03
"""Largest mean KL between two graphs over the same weights, one of which rounds what layers read to eight bits: .009 of
a real model of 135M."""
CODES_KL_NATS = 0.02
"""Largest mean KL(float model with the packed weights as its own || packed). Sound files: 1.5e-4 to .001 of toys; of a
real model of 135M, whose inputs llama.cpp rounds to eight bits, .004 at Q4_0 and .007 at mixed types."""
KV_KL_NATS = {"q8_0": 0.02, "q4_0": 0.15}
"""By the type of keys and values: largest mean KL between the file with them in float16 and with them in that type. A
real model of 135M lost .005 and .052, one with large key biases .51 at q4_0."""
RTN_FACTOR, RTN_NATS = 1.25, 0.01
"""A 4-bit file may lie so many times as far from the float model as codes that are rounded to the nearest step, and as
much further as engines round. Methods are there to lie nearer; scales that are a quarter too small lie at nats."""
TENSOR_ERRORS = ((3, (0.15, 0.6)), (4, (0.06, 0.3)), (5, (0.04, 0.15)), (6, (0.02, 0.08)), (8, (0.01, 0.03)),
                 (16, (0.002, 0.005)), (64, (1e-6, 1e-6)))
"""By bits of its type: how much longer or shorter than the float model's a tensor may be, and how far beside it, as
shares of its length. Sound 4-bit tensors are .99 times as long and .1 beside; scales a quarter too small show."""
BEYOND_FACTOR = 3.0
"""Beyond its window a file may lose so many times what it loses in short texts, and the limit of its type besides."""
AGAIN_FACTOR, AGAIN_NATS = 0.15, 2e-4
"""What a later proof may differ from the export's in: this share of the KL, and this much besides. The file is the same
and so are the tokens; processors differ in their last bits."""


@dataclass(frozen=True)
class Border:
    """What a file needs for one grade."""

    name: str
    agree: float
    """Smallest share of decisive tokens or labels, whose first choice is twice as likely as the next, that agree."""
    cosine_distance: float
    """Of an embedder: largest mean of 1 - cosine."""
    score_error: float
    """Of a scorer: largest distance of scores as a share of their spread."""
    loss: float
    """Largest upper 95 % bound of the task's loss, float minus packed, over the same rows."""
    words: str


GRADES = (
    # One changed token in a hundred sure ones: an answer of 50 tokens is mostly the same text.
    Border("excellent", 0.99, 0.002, 0.05, 0.02, "answers as the float model does"),
    # Both asked for together: the user's task loses at most 2 points in 100, and text rarely turns another way.
    Border("good", 0.95, 0.01, 0.15, 0.02, "the same for nearly all uses"),
    # Stock 4-bit files of small real models: of ten sure tokens one is another.
    Border("noticeable", 0.85, 0.05, 0.5, 0.10, "its answers differ visibly from the float model's"),
    Border("poor", 0.0, 2.0, 1e9, 1.0, "another model than the one that was trained"),
)
"""Best first; a file has the first whose borders it keeps. 2 points are what 160 rows can show: with fewer than 149
even answers without one difference leave more doubt (.98^149 is .05). The same for the two best, lest a file lose a
grade to being asked."""
GOOD = 1
"""The index of the last grade that needs no better target."""
LEAST_ROWS = 149
"""Below, no loss of 2 points can be excluded, and the grade rests on tokens alone."""
LEAST_SURE = 59
"""Decisive tokens or labels below which even full agreement leaves doubt whether 95 % agree (.95^59 is .05)."""
LEAST_RIGHT = 30
"""Rows that the float model must have right: what it cannot do cannot be lost."""

LIMITS = {
    "gguf:F32": LOSSLESS, "gguf:F16": HALF, "gguf:BF16": HALF, "gguf:Q8_0": EIGHT_BITS, "gguf:Q6_K": SIX_BITS,
    "gguf:Q5_K_M": FIVE_BITS, "gguf:Q4_K_M": FOUR_BITS, "gguf:Q4_K_S": FOUR_BITS, "gguf:IQ4_NL": FOUR_BITS,
    "gguf:IQ4_XS": FOUR_BITS, "gguf:Q4_0": FOUR_BITS, "gguf:mixed": FOUR_BITS,
    "onnx:fp32": LOSSLESS, "onnx:int8": EIGHT_BITS, "onnx:int4": FOUR_BITS,
    "onnx:q4f16": FOUR_BITS, "onnx:mixed": FOUR_BITS,
}


def of(target: str, kv: str = AUTO) -> Limits:
    """The limits of an export target, or of `format:type` of a file made elsewhere, by the bits of its weights.

    A file that keeps keys and values in the type `kv` may lie as much farther away as that may cost.
    """
    bits = bits_of(target.partition(":")[2])
    found = LIMITS.get(target) or next(found for most, found in BY_BITS if bits <= most)
    if kv == AUTO:
        return found
    more = KV_KL_NATS[kv]
    return replace(found, kl_nats=found.kl_nats + more, cache_kl_nats=found.cache_kl_nats + more,
                   beyond_nats=found.beyond_nats + more, kl_p999_nats=None, decisive_top1=None)


def tokens_of(parameters: int) -> int:
    """Tokens that a model of so many weights is judged on."""
    return max(LEAST_TOKENS, TOKENS * WHOLE // max(parameters, WHOLE))
