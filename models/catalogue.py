"""The catalogue: small models that users start from, one TOML file each in `catalog/`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass

from . import kinds
from .shape import Shape
from .strict import build, limited

PACKAGE = "models.catalog"


@dataclass(frozen=True)
class Entry:
    """What a user must know before starting from a model."""

    hub_id: str
    family: str
    """A file name of models/families: only what an exporter covers may stand here (tested)."""
    task: str = limited(choices=("generate", "classify"))
    parameters: int = limited(minimum=1)
    """Distinct parameters; a tied embedding counts once."""
    context: int = limited(minimum=1)
    licence: str = limited()
    commercial_use: bool = limited()
    learning_rate_full: float = limited(minimum=0.0)
    learning_rate_lora: float = limited(minimum=0.0)
    note: str = ""
    shape: Shape | None = None
    """Of a decoder whose layers are all attention, what `edgestill estimate` computes with."""


def names() -> list[str]:
    """The catalogue names, sorted."""
    return kinds.names(PACKAGE, ".toml")


def entry(name: str) -> Entry:
    """The entry called `name`; UsageError with the nearest name when there is none."""
    if name not in names():
        raise kinds.unknown("model", name, names())
    text = (kinds.folder(PACKAGE) / f"{name}.toml").read_text(encoding="utf-8")
    return build(Entry, tomllib.loads(text), name)
