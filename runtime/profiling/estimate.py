"""What a decoder's file will take on a device, before it is made: bytes, memory, tokens a second, the largest context.

Arithmetic alone. Memory is that of the process which `edgestill profile` measures: Python, its libraries, tokenizer,
engine and model. Its terms were found with llama.cpp (0.3.36 of its binding) and onnxruntime 1.31 on Linux, x86-64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...models import kv_cache
from ...models.device import Device, Kernel, Rates
from ...models.errors import UsageError
from ...models.shape import Shape
from .machine_rates import bits
from .variants import Variant

Range = tuple[float, float]
PROCESS_BYTES = {"gguf": 40e6, "onnx": 76e6}
"""Python with numpy, tokenizers, our modules and the engine's library, as far as they are touched."""
TOKEN_BYTES = {"gguf": 325, "onnx": 0}
"""What the engine itself keeps of each token's text."""
BUCKET_BYTES = 310
"""What the tokenizer keeps of each place in its tables, which are powers of two and at most seven eighths full."""
LAYER_BYTES = {"gguf": 45e3, "onnx": 80e3}
"""Of the engine's graph."""
REPACKED = {"x86": ("Q4_0", "Q4_K", "IQ4_NL"), "wasm": (),
            "arm": ("Q4_0", "Q4_K", "IQ4_NL", "Q8_0", "Q5_K", "Q6_K"), "armv8.0": ("IQ4_NL",)}
"""Types that llama.cpp keeps a second time, in another order. x86 was measured; ARM is what its source says
(ggml-cpu/repack.cpp), where armv8.0 stands for processors without dot products, such as Cortex-A53 and A72."""
PASS = 512
"""Most tokens of a pass over a prompt."""
SCRATCH_BYTES = {"gguf": 1e6, "onnx": 7e6}
_ONNX_LOGITS = 64 * 2**20
_REQUESTS, _WINDOW = 12, 65_536
"""Requests that `edgestill profile` makes, and bytes that Linux maps together when one of them is touched."""
USABLE = 0.8
"""Of a device's memory; the rest is the system's."""
MEMORY_SPREAD, DECODE_SPREAD, PREFILL_SPREAD = 0.07, 0.2, 0.25
"""How far estimates may be off: of memory as four files have been; of speed, with measured rates, this is assumed."""
UNSAID_LAYER_S = 1e-4
"""Most that a layer of a step is taken to cost besides its weights, where a device's file does not say it."""
WEIGHTS, ATTENTION, LAYERS = "weights", "attention", "layers"
"""What a model's time goes into."""


@dataclass(frozen=True)
class Estimate:
    """Of one file on one device. Ranges are (low, high); None where the device's file does not say enough."""

    target: str
    file_bytes: int
    context: int
    memory_bytes: Range
    """The most that the process has in RAM with the context full."""
    memory_parts: dict[str, int]
    """What that is the sum of."""
    prefill_tokens_per_s: Range | None
    decode_tokens_per_s: Range | None
    largest_context: int
    """Tokens with which it fits; 0 where it does not fit at all."""
    fits: bool | None
    """Whether it does with `context`; None where the device's memory is not known."""


def estimate(shape: Shape, variant: Variant, device: Device, context: int = 0, prompt_tokens: int = 128,
             new_tokens: int = 64, kv: str = "") -> Estimate:
    """Foretell one file. `context` 0 means what engines take by default; times are those of a prompt of
    `prompt_tokens` and an answer of `new_tokens`, and `kv` is the type of keys and values ("" the engine's own).

    Raises UsageError for a context beyond the model's, and for a type of keys and values that the engine has not.
    """
    from ..engines._base import chosen_context

    if kv and variant.format == "onnx":
        raise UsageError(f"kv: {kv!r}, and onnxruntime keeps keys and values in f32", "leave --kv out, or take gguf")
    if kv:
        kv_cache.check(kv, shape.head_size)
    context = chosen_context(context, shape.context)
    parts = memory(shape, variant, device, context, prompt_tokens, new_tokens, kv)
    whole = sum(parts.values())
    low, high = whole * (1 - MEMORY_SPREAD), whole * (1 + MEMORY_SPREAD)
    usable = device.memory_bytes.low * USABLE if device.memory_bytes else None
    largest = shape.context
    if usable is not None:
        free = usable / (1 + MEMORY_SPREAD) - (whole - parts["keys and values"])
        largest = max(0, min(largest, int(free / (parts["keys and values"] / context))))
    return Estimate(variant.target, variant.file_bytes, context, (low, high), parts,
                    _rates(prefill_s(shape, variant, device, prompt_tokens), prompt_tokens),
                    _rates(step_s(shape, variant, device, prompt_tokens + new_tokens // 2), 1), largest,
                    None if usable is None else high <= usable)


def memory(shape: Shape, variant: Variant, device: Device, context: int, prompt_tokens: int, new_tokens: int,
           kv: str = "") -> dict[str, int]:
    """Bytes of RAM by what they are for, when the context is full."""
    format, read = variant.format, variant.read_bytes
    kv = kv or ("f32" if format == "onnx" or {*variant.layers} & {"F32", "F16", "BF16"} else "f16")
    rows = 2 * shape.layers * shape.heads_kv * shape.head_size
    # llama.cpp rounds the cache up.
    tokens = -(-context // 256) * 256 if format == "gguf" else context
    wide = max(shape.hidden, shape.heads * shape.head_size)
    if format == "gguf":
        weights = variant.file_bytes + sum(size for type, size in read.items() if type in REPACKED[device.architecture])
        held = min(prompt_tokens, PASS)
        buffers = held * 4 * (3 * shape.inner + 4 * wide) + 6 * held * min(context, -(-prompt_tokens // 256) * 256)
        buffers += 8 * shape.vocabulary
        peak = 0.0
    else:
        scales = sum(variant.weights.values()) / 8  # a second time, as floats
        seen = _REQUESTS * (prompt_tokens + new_tokens)
        table = sum(_touched(share * variant.table_bytes, seen) for share in (8 / 9, 1 / 9))  # numbers, scales
        weights = sum(read.values()) + scales + table
        held = min(prompt_tokens, max(32, min(PASS, _ONNX_LOGITS // (4 * shape.vocabulary))))
        buffers = held * 12 * (shape.inner + wide) + 4 * shape.heads * held * prompt_tokens
        # While a matrix is put in the engine's order it is there twice, and the table is not touched yet.
        peak = variant.widest - table
    places = 1 << (shape.vocabulary * 8 // 7).bit_length()
    run = rows * tokens * kv_cache.BYTES[kv] + buffers
    return {"process": round(PROCESS_BYTES[format] + SCRATCH_BYTES[format] + LAYER_BYTES[format] * shape.layers),
            "tokenizer": round(BUCKET_BYTES * places + TOKEN_BYTES[format] * shape.vocabulary),
            "weights": round(weights), "keys and values": round(rows * tokens * kv_cache.BYTES[kv]),
            "buffers": round(buffers + max(0.0, peak - run))}


def step_parts(shape: Shape, variant: Variant, rates: Rates, held: int) -> dict[str, float]:
    """Seconds of a step with `held` tokens before it by what they go into, at an engine's measured rates."""
    products = 2 * shape.layers * shape.heads * shape.head_size * held
    weights = sum(size / kernel(rates, type).read_bytes_per_s for type, size in variant.read_bytes.items())
    return {WEIGHTS: weights, ATTENTION: products / rates.attention_multiply_adds_per_s,
            LAYERS: rates.step_s + shape.layers * rates.layer_s}


def prompt_parts(shape: Shape, variant: Variant, rates: Rates, tokens: int) -> dict[str, float]:
    """The same of a prompt, whose last token alone meets the output layer."""
    products = shape.layers * shape.heads * shape.head_size * tokens**2
    weights = sum(tokens * count / kernel(rates, type).multiply_adds_per_s for type, count in variant.layers.items())
    weights += sum(count * bits(type) / 8 / kernel(rates, type).read_bytes_per_s
                   for type, count in variant.head.items())
    return {WEIGHTS: weights, ATTENTION: products / rates.prompt_attention_multiply_adds_per_s,
            LAYERS: -(-tokens // PASS) * (rates.step_s + shape.layers * rates.layer_s)}


def step_s(shape: Shape, variant: Variant, device: Device, held: int) -> Range | None:
    """Seconds of a step with `held` tokens before it."""
    rates = device.engines.get(variant.format)
    if rates is not None:
        seconds = sum(step_parts(shape, variant, rates, held).values())
        return seconds * (1 - DECODE_SPREAD), seconds * (1 + DECODE_SPREAD)
    reading = device.read_bytes_per_s
    if reading is None:
        return None
    cache = 2 * shape.layers * shape.heads_kv * shape.head_size * held * (4 if variant.format == "onnx" else 2)
    size = sum(variant.read_bytes.values()) + cache
    return size / reading.high, size / reading.low + shape.layers * UNSAID_LAYER_S


def prefill_s(shape: Shape, variant: Variant, device: Device, tokens: int) -> Range | None:
    """Seconds until a prompt is read."""
    rates = device.engines.get(variant.format)
    if rates is not None:
        seconds = sum(prompt_parts(shape, variant, rates, tokens).values())
        return seconds * (1 - PREFILL_SPREAD), seconds * (1 + PREFILL_SPREAD)
    figures = device.multiply_adds_per_s
    if any(type not in figures and "any" not in figures for type in variant.layers):
        return None
    products = shape.layers * shape.heads * shape.head_size * tokens**2
    low = high = 0.0
    for type, count in variant.layers.items():
        figure = figures.get(type) or figures["any"]
        low += (tokens * count + products * count / sum(variant.layers.values())) / figure.high
        high += (tokens * count + products * count / sum(variant.layers.values())) / figure.low
    return low, high + -(-tokens // PASS) * shape.layers * UNSAID_LAYER_S


def kernel(rates: Rates, type: str) -> Kernel:
    """The rates of a type, or of the measured one with the most alike number of bits."""
    return rates.kernels.get(type) or rates.kernels[min(rates.kernels, key=lambda name: abs(bits(name) - bits(type)))]


def _touched(size: float, tokens: int) -> float:
    """Bytes of a mapped table that so many tokens' rows bring into RAM."""
    return size * -math.expm1(-tokens * _WINDOW / max(size, 1.0))


def _rates(seconds: Range | None, tokens: int) -> Range | None:
    return None if seconds is None else (tokens / seconds[1], tokens / seconds[0])
