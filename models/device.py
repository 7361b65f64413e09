"""Devices that models are estimated for: one TOML file each in `devices/`, and those that users measure themselves."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import kinds
from .errors import UsageError
from .strict import build, limited

PACKAGE = "models.devices"
FIGURES = ("memory_bytes", "read_bytes_per_s", "multiply_adds_per_s")


@dataclass(frozen=True)
class Figure:
    """A number, or what it lies between, and how it is known."""

    low: float = limited(minimum=0.0)
    high: float = limited(minimum=0.0)
    basis: str = limited(choices=("measured", "published", "derived"))
    """Measured with edgestill, published as it stands here, or computed from what was published."""
    source: str = limited()
    date: str = limited()
    """Year and month of the source; where it bears none, of when it was read."""


@dataclass(frozen=True)
class Kernel:
    """How fast an engine multiplies with matrices of one type; as in runtime/profiling/machine_rates."""

    read_bytes_per_s: float = limited(minimum=1.0)
    multiply_adds_per_s: float = limited(minimum=1.0)


@dataclass(frozen=True)
class Rates:
    """What was measured of one engine; as in runtime/profiling/machine_rates."""

    kernels: dict[str, Kernel]
    layer_s: float = limited(minimum=0.0)
    step_s: float = limited(minimum=0.0)
    attention_multiply_adds_per_s: float = limited(minimum=1.0)
    prompt_attention_multiply_adds_per_s: float = limited(minimum=1.0)


@dataclass(frozen=True)
class Device:
    """What is known of a device."""

    title: str
    architecture: str = limited(choices=("arm", "armv8.0", "x86", "wasm"))
    """armv8.0 is ARM without instructions for dot products: engines do without their fast kernels there."""
    threads: int = limited(1, minimum=1)
    """Cores that a model should have."""
    memory_bytes: Figure | None = None
    read_bytes_per_s: Figure | None = None
    """Of weights, as engines read them while they answer."""
    multiply_adds_per_s: dict[str, Figure] = field(default_factory=dict)
    """Of a prompt's tokens, by the type of the weights; `any` stands for all other types."""
    engines: dict[str, Rates] = field(default_factory=dict)
    """What `edgestill estimate --calibrate` measured, by format: gguf, onnx."""
    unknown: list[str] = field(default_factory=list)
    """FIGURES that nobody measured or published, as far as is known here: they are left out, never guessed."""
    note: str = ""


def names() -> list[str]:
    """The devices that come with edgestill, sorted."""
    return kinds.names(PACKAGE, ".toml")


def device(name: str) -> Device:
    """The device called `name`, or the one in the file `name`, which ends in .toml. UsageError for an unknown name,
    and for a file that is none, with the key that is wrong."""
    if name.endswith(".toml"):
        try:
            return _read(Path(name).read_text(encoding="utf-8"), name)
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{name}: cannot be read: {error}", "edgestill estimate --calibrate -o FILE.toml writes "
                             "one") from error
    if name not in names():
        raise kinds.unknown("device", name, [*names(), "here"])
    return _read((kinds.folder(PACKAGE) / f"{name}.toml").read_text(encoding="utf-8"), name)


def _read(text: str, name: str) -> Device:
    try:
        table: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{name}: is not TOML: {error}", "correct the line") from error
    found = build(Device, table, name)
    said = {key for key in FIGURES if getattr(found, key)}
    if not found.engines and (missing := [key for key in FIGURES if key not in said and key not in found.unknown]):
        raise UsageError(f"{name}: {missing[0]} is neither given nor named in `unknown`", "give it with its source, or "
                         "say that it is not known")
    if twice := said & set(found.unknown):
        raise UsageError(f"{name}: {min(twice)} is given and named in `unknown`", "do one of them")
    for key, figure in [(f"multiply_adds_per_s.{type}", one) for type, one in found.multiply_adds_per_s.items()] + [
            (key, getattr(found, key)) for key in FIGURES[:2]]:
        if figure is not None and figure.low > figure.high:
            raise UsageError(f"{name}.{key}: low is {figure.low:g}, above high, {figure.high:g}", "exchange them")
    return found
