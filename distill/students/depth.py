"""A student with fewer layers: whole layers of the model it starts from.

Evenly spread layers keep more than the first ones alone, and the last layer matters most to what follows it; see
Minitron (arXiv 2407.14679) for measured importance. Which layers stay is the run file's choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...models.errors import UsageError


def keep_layers(model: Any, layers: Sequence[int]) -> Any:
    """A new model of the same class with only `layers` (numbers from 0, in rising order) of `model`.

    The layers are numbered anew, and every list in the configuration with one entry a layer (such as layer_types) is
    cut alike. The weights are copies. Raises UsageError for numbers outside the model, doubled or not in order, and
    for a model whose layers cannot be told apart.
    """
    import torch

    count = model.config.get_text_config().num_hidden_layers
    if list(layers) != sorted(set(layers)) or not layers or layers[0] < 0 or layers[-1] >= count:
        raise UsageError(f"student.layers: {list(layers)} cannot be kept of a model with layers 0 to {count - 1}",
                         f"give different numbers from 0 to {count - 1} in rising order")
    prefix = layers_path(model)
    config = cut_config(model.config, layers)
    with torch.random.fork_rng(devices=[]):  # what the new model is filled with at first does not matter
        student = type(model)(config).to(model.dtype)
    weights = cut_names(model.state_dict(), prefix, layers)
    if other := sorted(set(weights) ^ set(student.state_dict())):
        raise UsageError(f"student.layers: {list(layers)}: {other[0]} is in a layer of one place and not of the other, "
                         "so the one cannot stand in for the other", "keep layer 0 and layers of one kind in its place")
    student.load_state_dict(weights)
    return student.train(model.training)


def layers_path(model: Any) -> str:
    """The name of the list that holds the model's layers, such as `model.layers`.

    Raises UsageError when there is not exactly one list of that length.
    """
    from torch.nn import ModuleList

    count = model.config.get_text_config().num_hidden_layers
    found = [name for name, module in model.named_modules() if isinstance(module, ModuleList) and len(module) == count]
    outermost = [name for name in found if not any(name.startswith(f"{other}.") for other in found)]
    if len(outermost) != 1:
        raise UsageError(f"{type(model).__name__}: {len(outermost)} lists of {count} layers were found, 1 was expected",
                         "keep all layers of this model")
    return str(outermost[0])


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
