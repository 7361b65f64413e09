"""Model families: which architectures are known, and what a writer must know about each.

One TOML file each in `families/`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from . import kinds
from .errors import ArtifactError, UsageError
from .strict import build, limited

PACKAGE = "models.families"


@dataclass(frozen=True)
class Gguf:
    """How a family's checkpoint becomes a GGUF file."""

    architecture: str
    """llama.cpp's name of the architecture, a value of gguf's MODEL_ARCH_NAMES."""
    permute: list[str] = field(default_factory=list)
    """Layers whose rows llama.cpp orders for rotation of neighbours instead of halves."""
    transpose: list[str] = field(default_factory=list)
    """Layers stored as [in, out]."""
    skip: list[str] = field(default_factory=list)
    """Stored buffers that are no weights."""


@dataclass(frozen=True)
class Family:
    """One family. Keys of a config stand in `keys`: layers, hidden, heads and so on → the config's own names."""

    name: str
    architectures: list[str]
    """Values of config.architectures that can be exported."""
    tasks: list[str]
    embedding: list[str]
    """Names that the token embedding may have in a checkpoint."""
    keys: dict[str, str]
    starts: list[str] = field(default_factory=list)
    """Further architectures that training may start from; they lack the head that an export needs."""
    requires: dict[str, list[Any]] = field(default_factory=dict)
    """Config values that the exporters carry; another value is refused, a missing key is not."""
    gguf: Gguf | None = None
    onnx: str | None = limited(None, choices=("builder", "exporter"))
    """How the family becomes ONNX: onnxruntime_genai's builder, transformers' exporter, or not at all."""

    def of(self, config: Mapping[str, Any], key: str, default: Any = None) -> Any:
        """The config's value for `key` of `keys`; ArtifactError when there is neither a value nor a default."""
        value = config.get(self.keys.get(key, ""))
        value = default if value is None else value
        if value is None:
            raise ArtifactError(f"config.json: {self.keys.get(key, key)!r} is missing, and the {self.name} family "
                                "needs it", "copy config.json again from where the model was made")
        return value

    def check(self, config: Mapping[str, Any]) -> None:
        """Raise UsageError for a config value that the exporters do not carry, such as another activation."""
        for key, allowed in self.requires.items():
            value = config.get(key)
            if value is not None and value not in allowed:
                raise UsageError(f"config.json: {key} is {value!r}, and exports of the {self.name} family carry only "
                                 f"{', '.join(map(repr, allowed))}", "choose a model without this variation")


def names() -> list[str]:
    """The known families, sorted."""
    return kinds.names(PACKAGE, ".toml")


@cache
def load(name: str) -> Family:
    """The family called `name`; UsageError with the nearest name when there is none."""
    if name not in names():
        raise kinds.unknown("family", name, names())
    text = (kinds.folder(PACKAGE) / f"{name}.toml").read_text(encoding="utf-8")
    return build(Family, {"name": name, **tomllib.loads(text)}, name)


def of_config(config: Mapping[str, Any], training: bool = False) -> Family:
    """The family of a Hugging Face config, by its first architecture; reads no weights.

    With `training`, also architectures that only training may start from. Raises UsageError with the list of known
    architectures for another one.
    """
    found = (config.get("architectures") or ["none"])[0]
    known: dict[str, str] = {}
    for name in names():
        member = load(name)
        known |= dict.fromkeys(member.architectures + (member.starts if training else []), name)
    if found not in known:
        starting = any(found in load(name).starts for name in names())
        hint = "train it for a task first: it has no head to export. " if starting else ""
        raise UsageError(f"architecture {found!r} is not one that can be {'trained' if training else 'exported'}",
                         f"{hint}known: {', '.join(sorted(known))}")
    return load(known[found])
