"""Which student and format `edgestill init --device` proposes, and why: what is foretold of them on the device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...models import catalogue, device
from ...models.errors import UsageError
from ...runtime.profiling import estimate, model_shape, variants
from .. import output
from .starting import DEFAULT_STUDENT

if TYPE_CHECKING:
    from ...models.shape import Shape
    from ...runtime.profiling.estimate import Estimate

TARGETS = ("gguf:Q4_0", "onnx:int4")
"""One of each format: what a larger file takes, and how fast it is, is in proportion."""
LEAST_PER_S = 10.0
"""Tokens/s at the slow end that a student should write: faster than people read."""


@dataclass(frozen=True)
class Proposal:
    """A student for a device."""

    student: str
    format: str
    """gguf or onnx."""
    reasons: tuple[str, ...]
    """Comment lines of a run file."""
    gates: tuple[str, ...]
    """The same: limits that what is foretold lies within."""


def propose(name: str, student: str | None, classified: bool) -> Proposal:
    """The student and the format for the device `name`: the largest of the default student's series that fits and
    writes LEAST_PER_S tokens/s, or the student that is asked for; the format that writes faster.

    Raises UsageError for rows of a classifier, for a model whose shape is not known here, and where nothing fits.
    """
    if classified:
        raise UsageError("--device: what is foretold is of generators, and these rows are a classifier's",
                         "leave it out, and measure the file with edgestill profile")
    machine = device.device(name)
    series = DEFAULT_STUDENT["generate"].rpartition("-")[0]
    names = [student] if student else sorted((key for key in catalogue.names() if key.rpartition("-")[0] == series),
                                             key=lambda key: catalogue.entry(key).parameters)
    found = {key: _best(_shape(key), machine) for key in names}
    fitting = {key: best for key, best in found.items() if best.fits is not False}
    if not fitting:
        least = next(iter(found.values()))
        raise UsageError(f"{names[0]}: takes about {output.size(round(least.memory_bytes[1]))} of memory, which does "
                         f"not fit {machine.title}", "choose a smaller student, or another device")
    fast = [key for key, best in fitting.items() if (best.decode_tokens_per_s or (0.0,))[0] >= LEAST_PER_S]
    chosen = fast[-1] if fast else next(iter(fitting))
    best = fitting[chosen]
    told, gates = _told(best), []
    reasons = [f"# For {machine.title}: {chosen} as {best.target} takes {told}."]
    if not student:
        why = "the smallest" if not fast else "the largest"
        reasons.append(f"# It is {why} of the {series} series that fits{_speed(best, bool(fast))}.")
    if best.decode_tokens_per_s:
        gates.append(f"# decode_tokens_per_s >= {best.decode_tokens_per_s[0]:.0f}")
    gates.append(f"# peak_rss_bytes <= {best.memory_bytes[1]:.0f}")
    return Proposal(chosen, best.target.partition(":")[0], tuple(reasons),
                    (f"# On {machine.title} the file should hold, for edgestill profile --gate:", *gates))


def _shape(name: str) -> Shape:
    if name not in catalogue.names():
        if not Path(name).exists():
            raise UsageError(f"--device: the shape of {name} is not known before it is downloaded",
                             "give its folder, or a name that edgestill models lists")
        return model_shape.read(Path(name))[0]
    shape = catalogue.entry(name).shape
    if shape is None:
        raise UsageError(f"--device: {name} is no decoder whose layers are all attention", "choose another student")
    return shape


def _best(shape: Shape, machine: device.Device) -> Estimate:
    """The file that writes fastest; where no rate is known, the one that takes least memory."""
    found = [estimate.estimate(shape, variants.planned(shape, target), machine) for target in TARGETS]
    return max(found, key=lambda one: (one.fits is not False, (one.decode_tokens_per_s or (0.0,))[0],
                                       -one.memory_bytes[1]))


def _speed(best: Estimate, fast: bool) -> str:
    if best.decode_tokens_per_s is None:
        return "; how fast this device writes is not known"
    return f" and writes {LEAST_PER_S:.0f} tokens/s" if fast else f"; none writes {LEAST_PER_S:.0f} tokens/s"


def _told(best: Estimate) -> str:
    rate = f" and writes {best.decode_tokens_per_s[0]:.0f} to {best.decode_tokens_per_s[1]:.0f} tokens/s" \
        if best.decode_tokens_per_s else ""
    return f"{output.size(round(best.memory_bytes[0]))} to {output.size(round(best.memory_bytes[1]))} of memory{rate}"
