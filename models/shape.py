"""The shape of a decoder, which its bytes, its memory and its time follow from; no weight is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import UsageError
from .family import Family, of_config
from .strict import limited

_ATTENTION = ("full_attention", "sliding_attention")
_HINT = "estimates are made for decoders whose layers are all attention; measure other models with edgestill profile"


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder."""

    layers: int = limited(minimum=1)
    hidden: int = limited(minimum=1)
    inner: int = limited(minimum=1)
    """Channels of the feed-forward part."""
    heads: int = limited(minimum=1)
    heads_kv: int = limited(minimum=1)
    head_size: int = limited(minimum=1)
    vocabulary: int = limited(minimum=1)
    context: int = limited(minimum=1)
    """Most tokens that it was made for."""
    tied: bool = True
    """Whether the output layer is the embedding."""
    gated: bool = True
    """Whether the feed-forward part has a third matrix."""

    @property
    def attention_weights(self) -> int:
        """Of one layer's matrices for queries, keys, values and output."""
        return self.hidden * self.head_size * 2 * (self.heads + self.heads_kv)

    @property
    def layer_weights(self) -> int:
        """Of all layers' matrices."""
        return self.layers * (self.attention_weights + (2 + self.gated) * self.hidden * self.inner)

    @property
    def table_weights(self) -> int:
        """Of the embedding."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """About all of them: matrices and norms of the common kind."""
        return self.layer_weights + (2 - self.tied) * self.table_weights + (2 * self.layers + 1) * self.hidden


def shape_of(config: Mapping[str, Any]) -> Shape:
    """The shape that a Hugging Face config says. Raises UsageError for an architecture that is not known, that is no
    decoder, or that has layers of other kinds, and ArtifactError for a config that lacks a size."""
    family = of_config(config, training=True)
    others = set(config.get("layer_types") or family.layer_kinds) - {*_ATTENTION}
    if family.gguf is not None and family.gguf.attends:  # some of its layers have no keys, whatever the config lists
        others = others or {"convolution"}
    if "generate" not in family.tasks or others:
        what = f"has layers of the kind {', '.join(sorted(others))}" if others else "is an encoder"
        raise UsageError(f"the {family.name} family {what}", _HINT)
    layers = int(family.of(config, "layers"))
    hidden, heads = int(family.of(config, "hidden")), int(family.of(config, "heads"))
    return Shape(layers, hidden, int(family.of(config, "feed_forward", 4 * hidden)), heads,
                 int(family.of(config, "heads_kv", heads)), family.head_size(config), int(config["vocab_size"]),
                 family.context(config), bool(config.get("tie_word_embeddings", True)), _gated(family))


def _gated(family: Family) -> bool:
    """Families whose graphs are written node by node have two matrices, the others three."""
    return family.onnx != "plain"
