"""What this machine computes with: threads and number types."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ...models.errors import UsageError
from ...models.family import of_config
from ...runtime.machine.cores import allowed_cores

ACTIVATION_BYTES, GPU_ACTIVATION_BYTES = 10**9, 8 * 10**9
MOST_TOKENS = 8192


def device() -> str:
    """Where models are trained, and teachers asked: cuda where there is one, else cpu."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def threads() -> int:
    """Threads for torch: OMP_NUM_THREADS where it is set, else the physical cores this process may use."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() and int(given) > 0 else allowed_cores()


@contextmanager
def use_threads(count: int) -> Iterator[None]:
    """Let torch compute with `count` threads inside the block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def resolve_precision(wanted: str, device: str) -> str:
    """`auto` as fp32 or bf16 for this machine.

    The choice follows the processor's instructions and no measurement: a measurement can change its mind on a busy
    machine, and a resumed run must compute as it began. With bfloat16 dot products (AVX512_BF16, AMX, Ampere and
    later GPUs) a matrix product runs about three times faster; without them it is emulated, slower than fp32.
    Raises UsageError where bf16 is asked for and the device cannot compute it at all.
    """
    import torch

    if device.startswith("cuda"):
        fast = possible = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        fast, possible = any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16")), device == "cpu"
    if wanted == "bf16" and not possible:
        raise UsageError(f"precision: bf16 cannot be computed on {device}", "set precision to auto or fp32")
    return ("bf16" if fast else "fp32") if wanted == "auto" else wanted


def micro_batch_tokens(config: Mapping[str, Any], device: str = "cpu") -> int:
    """Padded tokens of a forward pass whose activations take about ACTIVATION_BYTES, from a model's config.json.

    What the backward pass needs of a layer was measured on SmolLM2-135M in float32, with adapters and without: 28,000
    numbers a token, some 24 hidden states and 9 of the feed-forward's. More tokens gain nothing on a processor: the
    matrices are read once for all of them.
    """
    family = of_config(config, training=True)
    layers, hidden = int(family.of(config, "layers")), int(family.of(config, "hidden"))
    wide = int(family.of(config, "feed_forward", 4 * hidden))
    room = GPU_ACTIVATION_BYTES if device.startswith("cuda") else ACTIVATION_BYTES
    return max(16, min(MOST_TOKENS, room // (4 * layers * (24 * hidden + 9 * wide))))


def recompute_layers(model: Any, longest: int, micro_batch_tokens: int) -> None:
    """Where the longest row alone is more than a micro-batch, keep only what enters each layer of a Hugging Face model,
    and compute the rest again on the way back (Chen and others 2016, arXiv 1604.06174): the same gradients, bit for
    bit. A row of 1,600 tokens took SmolLM2-135M 3.6 GB without, and 2.0 GB in no more time.
    """
    if longest > micro_batch_tokens and model.supports_gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Let the C library reuse large blocks inside of the `with`, not give them back and fetch zeroed pages again.

    A training step frees and asks for the same few blocks; with glibc's defaults every one above 32 MiB is new memory
    each time. Measured on a 22.7M-parameter encoder: 12 % of a step, at the same peak. At the end all that is free goes
    back: what a run does next would need as much again. Other C libraries stay as they are.
    """
    import ctypes
    import gc
    import platform

    if platform.libc_ver()[0] != "glibc":
        yield
        return
    library, trim_threshold, mmap_threshold = ctypes.CDLL(None), -1, -3  # of malloc.h
    library.mallopt(mmap_threshold, 2**30)
    library.mallopt(trim_threshold, 2**31 - 1)
    try:
        yield
    finally:
        gc.collect()
        library.mallopt(mmap_threshold, 2**25)  # where glibc's own moving thresholds end
        library.mallopt(trim_threshold, 2**26)
        library.malloc_trim(0)
