"""What cuts share: the model on its way to a student, what they may read, and how a model gets another shape."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...models.errors import UsageError
from ...models.family import Family
from ...models.task import Task
from ...runtime.data.reader import Row
from ...runtime.text.codec import Codec
from ..data.token_sets import TokenSet
from ..loading import positions_of
from ..tasks._base import kind_of

if TYPE_CHECKING:
    from torch import Tensor

LONGEST = 512
"""Tokens of a row that are measured on."""
_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
"""What nobody reads of a generation config that says greedy, and what transformers then refuses to save anew."""


@dataclass
class Cut:
    """A model that is being cut; every cut changes it in turn."""

    model: Any
    kept: list[int] | None = None
    """The ids of its first vocabulary that are left, in rising order; None: all of them."""


class Context:
    """What a cut may read: the model's family and tokenizer, the task, and the rows that the student is made for."""

    def __init__(self, family: Family, folder: Path, task: Task, splits: Mapping[str, Sequence[Row]]) -> None:
        """`folder` holds the tokenizer as it was before any cut; `splits` are training and validation rows."""
        self.family, self.folder = family, folder
        self._task, self._splits = task, splits
        self.codec = Codec.from_folder(folder, task)

    @cached_property
    def tokens(self) -> dict[str, TokenSet]:
        """The rows by split as ids of the numbering before any cut; none of a split without rows."""
        return {name: kind_of(self._task).examples(rows, self.codec, self._task, sys.maxsize, "all")
                for name in ("train", "validation") if (rows := self._splits[name])}

    def measured(self, cut: Cut, count: int) -> Iterator[Tensor]:
        """About `count` training rows, spread over all of them, as ids [1, length] for the model as it is now."""
        import torch

        train, longest = self.tokens["train"], min(LONGEST, positions_of(cut.model))
        # A plain text may be one long row of all of them.
        parts = [train.row(row)[start:start + longest] for row in range(len(train))
                 for start in range(0, train.lengths[row], longest)]
        new = None if cut.kept is None else {old: place for place, old in enumerate(cut.kept)}
        for ids in parts[::-(-len(parts) // count)]:
            yield torch.tensor([[int(token) if new is None else new[int(token)] for token in ids]],
                               device=cut.model.device)


def run(cut: Cut, context: Context, rows: int, hooks: Mapping[Any, Callable[..., None]]) -> int:
    """Read `rows` training rows with a forward hook `(module, args, kwargs, output)` at each module of `hooks`; returns
    how many tokens were read."""
    import torch

    handles = [module.register_forward_hook(hook, with_kwargs=True) for module, hook in hooks.items()]
    training, tokens = cut.model.training, 0
    cut.model.eval()
    try:
        with torch.no_grad():
            for ids in context.measured(cut, rows):
                cut.model.base_model(input_ids=ids)
                tokens += ids.numel()
    finally:
        cut.model.train(training)
        for handle in handles:
            handle.remove()
    return tokens


def reshaped(model: Any, config: Any, weights: Mapping[str, Any]) -> Any:
    """A new model of the same class for `config`, with copies of `weights`, its whole state, and the old one's ways to
    generate."""
    import torch

    with torch.random.fork_rng(devices=[]):  # what the new model is filled with at first does not matter
        student = type(model)(config).to(model.device, model.dtype)
    student.load_state_dict(weights)
    if getattr(model, "generation_config", None) is not None:
        student.generation_config = copy.deepcopy(model.generation_config)
        make_greedy(student.generation_config)
    return student.train(model.training)


def make_greedy(generation: Any) -> None:
    """Take what belongs to sampling out of a generation config that says greedy: transformers would not save it."""
    if not generation.do_sample:
        for key in _SAMPLING:
            setattr(generation, key, None)


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


def parts(model: Any, family: Family) -> dict[str, int]:
    """The parameters of a model by what they are for: its embedding (and output layer), the feed-forward part of its
    layers, all else in its layers, and what lies outside. Shared ones count once."""
    prefix = f"{layers_path(model)}."
    tables = {id(part.weight) for part in (model.get_input_embeddings(), model.get_output_embeddings())
              if part is not None}
    inside = tuple(f"{name}." for name in (*family.feed_forward.wide, family.feed_forward.narrow))
    found = {"embedding": 0, "feed_forward": 0, "attention": 0, "other": 0}
    for name, parameter in model.named_parameters():
        kind = "embedding" if id(parameter) in tables else "other"
        if name.startswith(prefix):
            rest = name.removeprefix(prefix).partition(".")[2]
            kind = "feed_forward" if rest.startswith(inside) else "attention"
        found[kind] += parameter.numel()
    return found
