"""Thinner layers: fewer channels between the two halves of the feed-forward part, fewer groups of attention heads.

What goes is what adds least to its layer's output, measured on the training rows: of a channel or a group the mean
square of what the output loses without it. The query heads that share keys and values are one group and go together.
Every layer keeps as many, each its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...models.errors import UsageError
from ...models.family import Family
from ...models.strict import limited
from ._base import Context, Cut, layers_path, reshaped, run

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Config:
    """Options of cutting channels and heads; one of `feed_forward` and `groups` is given, or both."""

    feed_forward: int = limited(0, minimum=0)
    """Feed-forward channels of a layer that stay, in 4-bit files a multiple of 32; 0: all."""
    groups: int = limited(0, minimum=0)
    """Groups of attention heads (heads of keys and values) that stay; 0: all."""
    rows: int = limited(128, minimum=1)
    """Training rows that are measured on."""


@dataclass(frozen=True)
class Units:
    """Channels or groups of heads: what a layer has `count` of, and makes and reads by matrices of these names."""

    name: str
    count: int
    makers: Sequence[str]
    reader: str
    together: bool
    """Rows of one unit stand together; otherwise every `count` rows are one of each."""

    def axes(self, layer: Any) -> dict[str, int]:
        """The axis that units lie along, by the names of weights and biases in a layer; none in a layer without them.

        A matrix's outputs lie along its first axis, in GPT-2, which stores them turned, along its second.
        """
        inside, found = dict(layer.named_modules()), dict[str, int]()
        for name in (*self.makers, self.reader) if self.reader in inside else ():
            made_along = 0 if hasattr(inside[name], "out_features") else 1
            found[f"{name}.weight"] = made_along ^ (name == self.reader)
            if name != self.reader and inside[name].bias is not None:
                found[f"{name}.bias"] = 0
        return found

    def chosen(self, matrix: Tensor, axis: int, units: Tensor) -> Tensor:
        """A matrix or bias with only `units` along `axis`."""
        rows = matrix.movedim(axis, 0)
        if self.together:
            rows = rows.unflatten(0, (self.count, -1))[units].flatten(0, 1)
        else:
            rows = rows.unflatten(0, (-1, self.count))[:, units].flatten(0, 1)
        return rows.movedim(0, axis).contiguous()


def apply(cut: Cut, config: Config, context: Context) -> dict[str, Any]:
    """Leave channels and groups out of every layer of `cut.model`; returns how many stay.

    Raises UsageError for more than there are, and for heads of a family whose config cannot say how few are left.
    """
    from huggingface_hub.errors import StrictDataclassError

    family, settings = context.family, cut.model.config.to_dict()
    wanted, changes = list[tuple[Units, int]](), dict[str, Any]()
    if config.feed_forward:
        wanted.append((channels(cut.model, family), config.feed_forward))
        changes |= {family.feed_forward.size: config.feed_forward} | family.feed_forward.changes
    if config.groups:
        if not family.attention:
            raise UsageError(f"width: groups = {config.groups}: attention heads of the {family.name} family cannot be "
                             "cut: they stand in one matrix, or their number gives their size, in llama.cpp at least",
                             "cut feed_forward alone")
        heads, groups = (int(family.of(settings, key)) for key in ("heads", "heads_kv"))
        wanted.append((Units("groups", groups, family.attention[:3], family.attention[3], together=True),
                       config.groups))
        changes |= {family.keys["heads"]: heads // groups * config.groups, family.keys["heads_kv"]: config.groups,
                    family.keys["head_dim"]: family.head_size(settings)}
    if not wanted:
        raise UsageError("width: neither feed_forward nor groups is given", "feed_forward = 512 keeps 512 channels")
    for units, left in wanted:
        if left > units.count:
            raise UsageError(f"width: {units.name} = {left:,}, and the model has {units.count:,}",
                             f"give {units.count:,} or fewer")
    weights, path = cut.model.state_dict(), layers_path(cut.model)
    layers = cut.model.get_submodule(path)
    for (units, left), losses in zip(wanted, _losses(cut, context, config.rows, [units for units, _ in wanted]),
                                     strict=True):
        for place, lost in losses.items():
            stay = lost.topk(left).indices.sort().values
            for name, axis in units.axes(layers[place]).items():
                full = f"{path}.{place}.{name}"
                weights[full] = units.chosen(weights[full], axis, stay)
    try:
        config_left = type(cut.model.config).from_dict(settings | changes)
    except StrictDataclassError as error:
        raise UsageError(f"width: groups = {config.groups}: no {family.name} model can be so: "
                         f"{' '.join(str(error).split())}", "keep another number of groups") from error
    cut.model = reshaped(cut.model, config_left, weights)
    return {units.name: left for units, left in wanted}


def channels(model: Any, family: Family) -> Units:
    """The feed-forward channels of a model's layers."""
    names = family.feed_forward
    reader = model.get_submodule(layers_path(model))[0].get_submodule(names.narrow)
    # The matrix that reads them is as wide as they are many, whichever way it is stored.
    count = reader.in_features if hasattr(reader, "in_features") else len(reader.weight)
    return Units("feed_forward", count, names.wide, names.narrow, together=False)


def _losses(cut: Cut, context: Context, rows: int, kinds: Sequence[Units]) -> list[dict[int, Tensor]]:
    """For each kind, by number of a layer, what its output loses without each unit [units], in sums of squares."""
    import torch

    found: list[dict[int, Tensor]] = [{} for _ in kinds]
    hooks: dict[Any, Callable[..., None]] = {}

    def hook(lost: Tensor, weight: Tensor) -> Callable[..., None]:
        def add(module: Any, args: Any, named: Any, output: Any) -> None:
            read = args[0].flatten(0, -2).unflatten(-1, (len(lost), -1))  # [tokens, units, width]
            if len(weight[0]) == 1:  # a channel adds its value times its column
                lost.add_(read[..., 0].double().square().sum(0) * weight[:, 0].double().square().sum(-1))
            else:
                lost.add_(torch.einsum("tuw,uwh->uth", read, weight).double().square().sum((1, 2)))
        return add

    for place, layer in enumerate(cut.model.get_submodule(layers_path(cut.model))):
        for units, losses in zip(kinds, found, strict=True):
            axis = units.axes(layer).get(f"{units.reader}.weight")
            if axis is not None:  # some families have attention in some layers alone
                reader = layer.get_submodule(units.reader)
                losses[place] = torch.zeros(units.count, dtype=torch.float64, device=cut.model.device)
                by_units = reader.weight.detach().movedim(axis, 0).unflatten(0, (units.count, -1))
                hooks[reader] = hook(losses[place], by_units)
    run(cut, context, rows, hooks)
    return found
