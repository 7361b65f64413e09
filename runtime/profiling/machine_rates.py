"""How fast this machine reads memory and how fast its engines multiply, measured in some seconds on decoders of zeros.

What is measured is what every model's time is made of: bytes of weights (a step), multiply-adds (a prompt), attention,
and what each layer and each step cost besides. So a model that was never run here can be foretold, and the time of one
that was can be taken apart.
"""

from __future__ import annotations

import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...models.device import Device, Figure, Kernel, Rates
from ...models.errors import MissingExtra
from ..files.gguf_header import TYPES
from ..machine.cores import allowed_cores
from ..machine.processor import processor
from .machine import features, memory_bytes
from .zero_models import Decoder, write_gguf, write_onnx

if TYPE_CHECKING:
    from ..engines._base import Engine

KERNELS = {"gguf": ("Q4_0", "Q8_0", "Q6_K", "Q4_K", "Q5_K", "IQ4_NL", "IQ4_XS", "Q5_0", "F16"),
           "onnx": ("int4", "int8")}
"""What each engine is measured with: llama.cpp's types of tensors, and the bits of onnxruntime's matrices."""
BITS = {"int4": 5.0, "int8": 9.0}
"""Bits of a weight in a graph, its share of a float32 scale included."""
_WIDE = Decoder(layers=3, hidden=1024, inner=3072)
"""Its weights, 24 to 85 MB, do not fit a core's caches."""
_SHALLOW, _DEEP = Decoder(layers=2, hidden=64, inner=64), Decoder(layers=22, hidden=64, inner=64)
"""Their steps are all overhead."""
_LONG = Decoder(layers=4, hidden=256, inner=256)
_START, _PROMPT, _FAR = 16, 256, 1024
"""Tokens."""
_READ_BYTES = 128 * 2**20
_MOST_REPEATS = 40


@dataclass(frozen=True)
class MachineRates:
    """What was measured with `threads` threads."""

    threads: int
    read_bytes_per_s: float
    """Plain reading of memory that no cache holds."""
    read_bytes_per_s_by_threads: dict[str, float]
    engines: dict[str, Rates]
    """By format, gguf and onnx; an engine that is not installed is missing."""


def measure_rates(threads: int, seconds: float = 20.0) -> MachineRates:
    """Measure for about `seconds` in this process, which should have nothing else to do.

    What else the machine does can only slow a step down, so the faster ones count.
    """
    reading = {str(count): read_rate(count, seconds / 40) for count in sorted({1, 2, threads // 2 or 1, threads})
               if count <= threads}
    models = sum(map(len, KERNELS.values())) + 3 * len(KERNELS)
    engines = {}
    with tempfile.TemporaryDirectory(prefix="edgestill-rates-") as folder:
        for format in KERNELS:
            try:
                engines[format] = _engine_rates(format, Path(folder), threads, seconds * 0.9 / models)
            except MissingExtra:
                continue
    return MachineRates(threads, reading[str(threads)], reading, engines)


def this_device(threads: int = 0, seconds: float = 20.0) -> Device:
    """This machine as a device, measured for about so many seconds; `threads` 0 means the cores that this process may
    use. Raises MissingExtra where no engine is installed."""
    rates = measure_rates(threads or allowed_cores(), seconds)
    if not rates.engines:
        raise MissingExtra("llama-cpp-python or onnxruntime", "gguf")
    memory = memory_bytes()
    today, source = time.strftime("%Y-%m"), "edgestill estimate --calibrate"
    return Device(processor(), architecture(platform.machine().lower(), features()), rates.threads,
                  Figure(memory, memory, "measured", source, today),
                  Figure(rates.read_bytes_per_s, rates.read_bytes_per_s, "measured", source, today),
                  engines=rates.engines)


def architecture(machine: str, has: Sequence[str]) -> str:
    """As a device's file has it; `has` is empty where the system does not tell its instructions."""
    if not machine.startswith(("arm", "aarch")):
        return "x86"
    return "arm" if "asimddp" in has or not has else "armv8.0"


def read_rate(threads: int, seconds: float) -> float:
    """Bytes/s that so many threads read together of an array larger than caches: the fastest round."""
    import numpy as np

    parts = np.array_split(np.ones(_READ_BYTES, np.uint8), threads)
    with ThreadPoolExecutor(threads) as pool:
        return _READ_BYTES / _fastest(lambda: list(pool.map(np.max, parts)), seconds)


def _engine_rates(format: str, folder: Path, threads: int, seconds: float) -> Rates:
    """Measure one engine, each of its models for some `seconds`; MissingExtra where it is not installed."""
    first = KERNELS[format][0]
    shallow, deep = (_step(format, folder, model, first, threads, seconds) for model in (_SHALLOW, _DEEP))
    layer = max(0.0, (deep - shallow) / (_DEEP.layers - _SHALLOW.layers))
    step = max(0.0, shallow - _SHALLOW.layers * layer)
    near, far, prompts = _with_attention(format, folder, first, threads, seconds)
    products = 2 * _LONG.layers * _LONG.hidden  # multiply-adds of a token with each that came before
    # A prompt's time is a·n + b·n², and b is attention's: on average a token has half of the others before it.
    square = (prompts[_FAR] / _FAR - prompts[_PROMPT] / _PROMPT) / (_FAR - _PROMPT)
    prompt_attention = products / 2 / max(square, 1e-15)
    found = Rates({}, layer, step, products * (_FAR - _PROMPT) / max(far - near, 1e-9), prompt_attention)
    for type in KERNELS[format]:
        found.kernels[type] = _kernel(format, folder, type, threads, seconds, found)
    return found


def _kernel(format: str, folder: Path, type: str, threads: int, seconds: float, known: Rates) -> Kernel:
    engine = _opened(format, folder, _WIDE, type, threads)
    prompt = _fastest(lambda: _read(engine, _PROMPT), seconds / 2)
    prompt -= _WIDE.layers * _WIDE.hidden * _PROMPT**2 / known.prompt_attention_multiply_adds_per_s
    _read(engine, _START)
    step = _fastest(lambda: engine.decode(0), seconds / 2, 0.25) - known.step_s - _WIDE.layers * known.layer_s
    engine.close()
    return Kernel(_WIDE.weights * bits(type) / 8 / max(step, 1e-6), _WIDE.weights * _PROMPT / max(prompt, 1e-6))


def bits(type: str) -> float:
    """Stored bits of a weight of this type."""
    if type in BITS:
        return BITS[type]
    block, size = next((block, size) for name, block, size in TYPES.values() if name == type)
    return 8 * size / block


def _step(format: str, folder: Path, model: Decoder, type: str, threads: int, seconds: float) -> float:
    """Seconds of a step near the context's start."""
    engine = _opened(format, folder, model, type, threads)
    _read(engine, _START)
    found = _fastest(lambda: engine.decode(0), seconds, 0.25)
    engine.close()
    return found


def _with_attention(format: str, folder: Path, type: str, threads: int,
                    seconds: float) -> tuple[float, float, dict[int, float]]:
    """Seconds of a step after few tokens and after many, and of reading so many."""
    engine = _opened(format, folder, _LONG, type, threads)
    prompts, steps = {}, []
    for count in (_PROMPT, _FAR):
        prompts[count] = _fastest(lambda count=count: _read(engine, count), seconds / 4)  # type: ignore[misc]
        steps.append(_fastest(lambda: engine.decode(0), seconds / 4, 0.25))
    engine.close()
    return steps[0], steps[1], prompts


def _read(engine: Engine, count: int) -> None:
    engine.truncate(0)
    engine.prefill([0] * count)


def _opened(format: str, folder: Path, model: Decoder, type: str, threads: int) -> Engine:
    path = folder / f"zero.{format}"
    if format == "gguf":
        from ..engines._gguf_context import GgufContext
        from ..engines._gguf_engine import GgufEngine

        write_gguf(path, model, type)
        return GgufEngine(GgufContext(path, threads, model.context, "f16"))
    from ..engines._onnx_engine import OnnxEngine

    write_onnx(path, model, 4 if type == "int4" else 8)
    engine = OnnxEngine(path, folder, threads, model.context)
    engine.reserve(model.context)
    return engine


def _fastest(call: Callable[[], object], seconds: float, part: float = 0.0) -> float:
    """Seconds that `call` takes at its best, or at that `part` of its times; the first, which warms up, is none."""
    call()
    times: list[float] = []
    until = time.perf_counter() + seconds
    while len(times) < 2 or (time.perf_counter() < until and len(times) < _MOST_REPEATS):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.quantiles(times, n=4, method="inclusive")[0] if part else min(times)
