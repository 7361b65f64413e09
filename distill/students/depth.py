"""Fewer layers: those of the least influence go, or the ones that are named stay.

A layer's influence is how far it turns what it reads: 1 less the cosine between its input and its output, the mean over
the training rows' tokens (block influence, ShortGPT, arXiv 2403.03853). The first layer and the last turn most and stay
unless `ends` says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ...models.errors import UsageError
from ...models.strict import limited
from ._base import Context, Cut, layers_path, reshaped, run


@dataclass(frozen=True)
class Config:
    """Options of cutting layers; one of `keep` and `layers` is given."""

    keep: list[int] = field(default_factory=list)
    """The layers that stay, from 0, in rising order."""
    layers: int = limited(0, minimum=0)
    """How many stay: those of the most influence."""
    ends: bool = True
    """The first layer and the last stay whatever their influence."""
    rows: int = limited(128, minimum=1)
    """Training rows that influence is measured on."""


def apply(cut: Cut, config: Config, context: Context) -> dict[str, Any]:
    """Leave layers out of `cut.model`; returns which stay, and the influence of each where it was measured.

    Raises UsageError for layers that the model has not, more of them than it has, or neither of the two options.
    """
    if bool(config.keep) == bool(config.layers):
        raise UsageError("depth: one of keep and layers is needed, and "
                         f"{'both are' if config.keep else 'none is'} given",
                         "keep = [0, 5] names layers, layers = 2 says how many of the most influence stay")
    if config.keep:
        cut.model = keep_layers(cut.model, config.keep)
        return {"layers": list(config.keep)}
    count = cut.model.config.get_text_config().num_hidden_layers
    if config.layers > count:
        raise UsageError(f"depth: {config.layers} layers cannot be kept of {count}", f"give {count} or fewer")
    turned = influence(cut, context, config.rows)
    layers = most_influential(turned, config.layers, config.ends)
    cut.model = keep_layers(cut.model, layers)
    return {"layers": layers, "influence": [round(value, 4) for value in turned]}


def influence(cut: Cut, context: Context, rows: int) -> list[float]:
    """How far every layer turns what it reads, on `rows` training rows."""
    from torch.nn.functional import cosine_similarity

    layers = cut.model.get_submodule(layers_path(cut.model))
    sums = [0.0] * len(layers)

    def hook(place: int) -> Any:
        def add(module: Any, args: Any, named: Any, output: Any) -> None:
            read = args[0] if args else named["hidden_states"]
            written = output[0] if isinstance(output, tuple) else output
            sums[place] += float((1 - cosine_similarity(read, written, dim=-1)).sum())
        return add

    tokens = run(cut, context, rows, {layer: hook(place) for place, layer in enumerate(layers)})
    return [total / tokens for total in sums]


def most_influential(turned: Sequence[float], count: int, ends: bool) -> list[int]:
    """The `count` layers of the most influence, in rising order; with `ends` the first and the last among them."""
    outer = {0, len(turned) - 1} if ends and count > 1 else set()
    order = sorted(range(len(turned)), key=lambda layer: (layer not in outer, -turned[layer]))
    return sorted(order[:count])


def keep_layers(model: Any, layers: Sequence[int]) -> Any:
    """A new model of the same class with only `layers` (numbers from 0, in rising order) of `model`.

    The layers are numbered anew, and every list in the configuration with one entry a layer (such as layer_types) is
    cut alike. The weights are copies. Raises UsageError for numbers outside the model, doubled or not in order, and
    for a model whose layers cannot be told apart.
    """
    count = model.config.get_text_config().num_hidden_layers
    if list(layers) != sorted(set(layers)) or not layers or layers[0] < 0 or layers[-1] >= count:
        raise UsageError(f"depth: {list(layers)} cannot be kept of a model with layers 0 to {count - 1}",
                         f"give different numbers from 0 to {count - 1} in rising order")
    weights = cut_names(model.state_dict(), layers_path(model), layers)
    config = cut_config(model.config, layers)
    if other := sorted(weights.keys() ^ _shape_of(model, config).state_dict().keys()):
        raise UsageError(f"depth: {list(layers)}: {other[0]} is in a layer of one place and not of the other, "
                         "so the one cannot stand in for the other", "keep layer 0 and layers of one kind in its place")
    return reshaped(model, config, weights)


def _shape_of(model: Any, config: Any) -> Any:
    """A model of that configuration without weights."""
    import torch

    with torch.device("meta"):
        return type(model)(config)


def cut_names(state: dict[str, Any], prefix: str, layers: Sequence[int]) -> dict[str, Any]:
    """A state dict of the kept layers under their new numbers, all other entries as they are."""
    number = {str(old): str(new) for new, old in enumerate(layers)}
    result = {}
    for name, value in state.items():
        if name.startswith(f"{prefix}."):
            old, _, rest = name.removeprefix(f"{prefix}.").partition(".")
            if old not in number:
                continue
            name = f"{prefix}.{number[old]}.{rest}"
        result[name] = value
    return result


def cut_config(config: Any, layers: Sequence[int]) -> Any:
    """A copy of a configuration for the kept layers."""
    table = config.to_dict()
    count = config.num_hidden_layers
    for key, value in table.items():
        if isinstance(value, list) and len(value) == count and key != "architectures" and not key.endswith("_token_id"):
            table[key] = [value[layer] for layer in layers]
    # Layers from this number on slide their attention window in Qwen2; layer_types says so where it is given.
    if isinstance(table.get("max_window_layers"), int):
        table["max_window_layers"] = sum(layer < table["max_window_layers"] for layer in layers)
    table[config.attribute_map.get("num_hidden_layers", "num_hidden_layers")] = len(layers)
    return type(config).from_dict(table)
