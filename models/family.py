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
    changes: dict[str, str] = field(default_factory=dict)
    """How a tensor is changed, by the end of its name without .weight or .bias: see quantize/gguf/weight_changes."""
    names: dict[str, str] = field(default_factory=dict)
    """Ends of names that gguf's name map does not know → ends that it knows."""
    skip: list[str] = field(default_factory=list)
    """Stored buffers that are no weights."""
    requires: dict[str, list[Any]] = field(default_factory=dict)
    """As the family's own, and for GGUF alone."""
    equal: dict[str, str] = field(default_factory=dict)
    """Pairs of config keys; a model where their values differ is refused."""
    switches: dict[str, str] = field(default_factory=dict)
    """Config keys that are true where a file has a tensor: key → the tensor's name in the first layer."""
    norm: str = limited("rms", choices=("rms", "layer"))
    positions: str = limited("rotary", choices=("rotary", "learned"))
    values: dict[str, Any] = field(default_factory=dict)
    """Further metadata: key below the architecture → name of a config value, a product `a * b` of such, or a constant
    that is no text."""
    layers: dict[str, str] = field(default_factory=dict)
    """Metadata with one truth for each layer: key → the kind of layer that it is true for."""
    attends: str = ""
    """The kind of layer that has keys and values, where llama.cpp tells layers apart by their number of heads."""


@dataclass(frozen=True)
class Builder:
    """What onnxruntime_genai's builder must be told about a family, and its graph's names for the family's layers."""

    architecture: str = ""
    """An architecture that it builds in the same way, where it does not know the family's own."""
    config: dict[str, Any] = field(default_factory=dict)
    """Config values that it reads and transformers does not write: a constant, or another value's name."""
    layers: dict[str, list[str]] = field(default_factory=dict)
    """Its graph's name of a layer → the checkpoint's, several one below the other. `name:1/2` is the second half of
    one's rows; an empty list leaves the layer in float."""
    unturned: str = ""
    """Config list with an entry for each layer: 0 for one without positions."""


@dataclass(frozen=True)
class Plain:
    """A checkpoint's names, behind what the embedding's begins with, for graphs that quantize/onnx/plain writes."""

    layers: str = ""
    attention_norm: str = ""
    attention: str = ""
    """Queries, keys and values in one."""
    attention_output: str = ""
    norm: str = ""
    """The second one of a layer."""
    up: str = ""
    down: str = ""
    last_norm: str = ""
    positions: str = ""
    """Table of learned positions; without one, positions are rotated."""
    turned: bool = False
    """Matrices are stored as [in, out]."""
    by_head: bool = False
    """Query, key and value of one head stand together."""
    gelu: str = limited("none", choices=("none", "tanh"))
    """How the activation is approximated."""
    parallel: str = ""
    """Config key, true where it is missing: attention and feed-forward read the same state."""


@dataclass(frozen=True)
class FeedForward:
    """The part of a layer whose channels can be cut; names are those inside a layer."""

    wide: list[str] = field(default_factory=lambda: ["mlp.gate_proj", "mlp.up_proj"])
    """Matrices that make the channels; where several are stored in one, all have the same number of rows."""
    narrow: str = "mlp.down_proj"
    """The matrix that reads them."""
    size: str = "intermediate_size"
    """Config key of their number."""
    changes: dict[str, Any] = field(default_factory=dict)
    """Config values of a model whose channels were cut."""


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
    embeds: list[str] = field(default_factory=list)
    """Architectures without a head, exported as embedders; training may start from them too."""
    counts_from_padding: bool = False
    """Positions are numbered from the padding id + 1 on, as RoBERTa does: those before are never used."""
    optional: list[str] = field(default_factory=list)
    """Beginnings of tensor names that only some layers have."""
    requires: dict[str, list[Any]] = field(default_factory=dict)
    """Config values that the exporters carry; another value is refused, a missing key is not. A list has one entry for
    each layer and is compared with the allowed one repeated."""
    head: str = "lm_head.weight"
    """Name of the output layer in a checkpoint."""
    layer_kinds: list[str] = field(default_factory=list)
    """Kinds of layers, repeated, of a config without `layer_types`."""
    gguf: Gguf | None = None
    builder: Builder = field(default_factory=Builder)
    plain: Plain = field(default_factory=Plain)
    feed_forward: FeedForward = field(default_factory=FeedForward)
    attention: list[str] = field(default_factory=list)
    """Queries, keys, values and output inside a layer, where groups of heads can be cut: each is a matrix of its own,
    and neither the config nor llama.cpp lets the size of heads follow from their number."""
    onnx: str | None = limited(None, choices=("builder", "exporter", "plain"))
    """How the family becomes ONNX: onnxruntime_genai's builder, transformers' exporter, node by node, or not at all."""

    def of(self, config: Mapping[str, Any], key: str, default: Any = None) -> Any:
        """The config's value for `key` of `keys`; ArtifactError when there is neither a value nor a default."""
        name = self.keys.get(key, "")
        value = config.get(name, config.get("text_config", {}).get(name))  # in models that see pictures, it is a part
        value = default if value is None else value
        if value is None:
            raise ArtifactError(f"config.json: {self.keys.get(key, key)!r} is missing, and the {self.name} family "
                                "needs it", "copy config.json again from where the model was made")
        return value

    def context(self, config: Mapping[str, Any]) -> int:
        """The most tokens that an export can read at once; ArtifactError when the config does not say."""
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        if (rope.get("rope_type") or rope.get("type")) == "longrope":  # in longer texts every position turns otherwise
            return int(rope.get("original_max_position_embeddings") or config["original_max_position_embeddings"])
        return int(self.of(config, "context")) - self.unused_positions(config)

    def head_size(self, config: Mapping[str, Any]) -> int:
        """Channels of one attention head."""
        return int(self.of(config, "head_dim", self.of(config, "hidden") // self.of(config, "heads")))

    def unused_positions(self, config: Mapping[str, Any]) -> int:
        """Rows of the table of positions before the first one that a text uses."""
        return self.counts_from_padding * (int(config.get("pad_token_id") or 0) + 1)

    def check(self, config: Mapping[str, Any], format: str = "") -> None:
        """Raise UsageError for a config value that the exporters do not carry, such as another activation.

        With `format` "gguf" also for those that its files do not.
        """
        hint = "choose a model without this variation"
        gguf = self.gguf if format == "gguf" else None
        for key, allowed in (self.requires | (gguf.requires if gguf else {})).items():
            value = config.get(key)
            choices = [_repeated(each, len(value)) for each in allowed] if isinstance(value, list) else allowed
            if value is not None and value not in choices:
                raise UsageError(f"config.json: {key} is {value!r}, and exports of the {self.name} family carry only "
                                 f"{', '.join(map(repr, choices)) or 'none'}", hint)
        for key, other in (gguf.equal if gguf else {}).items():
            if config.get(key) != config.get(other):
                raise UsageError(f"config.json: {key} is {config.get(key)!r} and {other} is {config.get(other)!r}; "
                                 f"GGUF files of the {self.name} family carry only equal ones", hint)

    def kinds_of_layers(self, config: Mapping[str, Any]) -> list[str]:
        """What each layer is, such as "full_attention" or "conv", first to last.

        Raises ArtifactError when neither config nor family say it for every layer.
        """
        count = int(self.of(config, "layers"))
        kinds: list[str] = config.get("layer_types") or _repeated(self.layer_kinds, count)
        if len(kinds) != count:
            raise ArtifactError(f"config.json: layer_types lists {len(kinds)} layers of {count}",
                                "load the model with transformers 5 and save it again: that writes the whole list")
        return kinds


def _repeated(cycle: Any, count: int) -> Any:
    """A list repeated to `count` entries; anything else as it is."""
    return [cycle[index % len(cycle)] for index in range(count)] if isinstance(cycle, list) and cycle else cycle


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
        known |= dict.fromkeys(member.architectures + member.embeds + (member.starts if training else []), name)
    if found not in known:
        starting = any(found in load(name).starts for name in names())
        hint = "train it for a task first: it is not exported as it is. " if starting else ""
        raise UsageError(f"architecture {found!r} is not one that can be {'trained' if training else 'exported'}",
                         f"{hint}known: {', '.join(sorted(known))}")
    return load(known[found])
