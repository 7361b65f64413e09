"""`edgestill profile --roofline`: what this machine could do with a model, beside what it did."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...models.errors import UsageError
from .. import output

if TYPE_CHECKING:
    from ...models.shape import Shape
    from ...runtime.profiling.targets._base import Target
    from ...runtime.profiling.variants import Variant

_SECONDS = 20.0
"""How long the machine is measured."""


def read(path: Path | None, targets: Sequence[Target]) -> tuple[Shape, Variant]:
    """What a model is made of, before it is measured. UsageError where it is not measured here, or is no decoder."""
    from ...runtime.profiling import model_shape
    from ...runtime.profiling.targets import local

    if path is None or [target.kind for target in targets] != [local]:
        raise UsageError("--roofline is of models on this machine", "leave --target out, or run it there")
    shape, variant = model_shape.read(path)
    if variant is None:
        raise UsageError(f"{path}: is not packed", f"edgestill export {path} --to gguf:Q4_0")
    return shape, variant


def explain(table: dict[str, Any], shape: Shape, variant: Variant) -> None:
    """Measure the machine and add to a profile's table what it could do: `roofline`, and its words to the verdict."""
    from ...runtime.profiling.machine_rates import measure_rates
    from ...runtime.profiling.roofline import roofline

    output.note(f"measuring for about {_SECONDS:g} seconds what this machine can do")
    table["roofline"] = roofline(table, shape, variant, measure_rates(table["threads"], _SECONDS))
    table["verdict"] += table["roofline"]["words"]
