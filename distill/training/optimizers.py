"""AdamW, with its moments in float32 or in 8 bits; their state as plain tensors, for checkpoints."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ...models.errors import MissingExtra
from ...models.runfile import Loop

if TYPE_CHECKING:
    from torch import Tensor

EIGHT_BIT = "adamw_8bit"


def check(settings: Loop) -> None:
    """Raise MissingExtra where the optimizer's package is not installed."""
    if settings.optimizer == EIGHT_BIT and find_spec("bitsandbytes") is None:
        raise MissingExtra("bitsandbytes", "bitsandbytes")


def adamw(named: Mapping[str, Tensor], settings: Loop, tables: Collection[Tensor] = ()) -> Any:
    """AdamW over the parameters `named`; biases and norms (tensors of one dimension) are not decayed.

    In 8 bits moments are stored in blocks of 256 with a scale each (Dettmers and others 2021, arXiv 2110.02861). Those
    of embedding `tables` stay in float32, as that paper has it: rows that are seldom seen have gradients of all sizes.
    Raises MissingExtra.
    """
    import torch

    check(settings)
    of_tables = {id(table) for table in tables}
    groups = [{"params": [value for value in named.values() if (id(value) in of_tables, value.ndim > 1) == kind],
               "weight_decay": settings.weight_decay if kind[1] else 0.0, "optim_bits": 32 if kind[0] else 8}
              for kind in ((False, True), (True, True), (False, False))]
    groups = [group for group in groups if group["params"]]
    common: dict[str, Any] = {"lr": settings.learning_rate, "betas": (0.9, settings.beta2)}
    if settings.optimizer == EIGHT_BIT:
        return _eight_bit()(groups, **common)
    return torch.optim.AdamW([{key: group[key] for key in ("params", "weight_decay")} for group in groups], **common,
                             fused=True)


def moments(optimizer: Any, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The optimizer's state as tensors, `<what>:<parameter>`; tables of codes, which are always the same, are not in
    it."""
    import torch

    return {f"{what}:{name}": torch.as_tensor(value) for name, parameter in named.items()
            for what, value in optimizer.state.get(parameter, {}).items() if not what.startswith("qmap")}


def set_moments(optimizer: Any, named: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Take up what `moments` gave."""
    for key, value in found.items():
        what, _, name = key.partition(":")
        parameter = named[name]
        optimizer.state[parameter][what] = value.to(parameter.device)
    if hasattr(optimizer, "continued"):
        optimizer.continued()


@cache
def _eight_bit() -> Any:
    from bitsandbytes.optim import AdamW8bit

    class EightBit(AdamW8bit):  # type: ignore[misc]
        """bitsandbytes', whose bits are a group's choice: its own overrides hold for the whole process, by ids that are
        given anew to later tensors."""

        def get_config(self, gindex: int, pindex: int, group: Any) -> Any:
            return super().get_config(gindex, pindex, group) | {"optim_bits": group["optim_bits"]}

        def continued(self) -> None:
            """Add to a state of tensors what it has beside them."""
            for state in self.state.values():
                state["step"] = int(state["step"])
                if "absmax1" in state:
                    device = state["absmax1"].device
                    for what, table in (("qmap1", "dynamic"), ("qmap2", "udynamic")):
                        self.name2qmap[table] = state[what] = self.name2qmap[table].to(device)

    return EightBit
