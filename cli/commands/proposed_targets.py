"""Which files `edgestill init` proposes to ship: the best that this machine packs and proves in good time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...models.runfile import Export
from ...models.scheme import MIXED
from ..pipeline import costs

if TYPE_CHECKING:
    from ...models.family import Family
    from ..pipeline.costs import Lengths, Shape

IN_GOOD_TIME = 45 * 60.0
"""Seconds that one file may take."""
PLAIN = {"gguf": "Q4_0", "onnx": "int4"}
"""The plain 4-bit type of a format."""
METHODS = ("gptq", "scale_search")
"""Best first."""
ENOUGH_TOKENS, LEAST_ROWS = 32_768, 16
"""What calibration reads of long rows: many times as many tokens as layers of such models have inputs."""


def propose(task: str, family: Family | None, shape: Shape | None, rows: Lengths) -> tuple[Export, ...]:
    """One file of every format that the family has; `rows` are those that calibrate.

    A family or a shape that is not known yet, of a model that is not on this machine, gets what all models can have.
    """
    if task == "classify":
        return (Export("onnx:int8"),)
    formats = [format for format, there in (("gguf", family is None or family.gguf is not None),
                                            ("onnx", family is None or family.onnx is not None)) if there]
    enough = max(LEAST_ROWS, ENOUGH_TOKENS * rows.rows // max(1, rows.tokens))
    return tuple(_best(format, family, shape, rows, min(Export.calibration_rows, enough)) for format in formats)


def lines(exports: Sequence[Export]) -> list[str]:
    """The [[export]] tables of a run file."""
    found = []
    for export in exports:
        format, _, type = export.target.partition(":")
        told = f"  # types dealt out to lose the least; a tenth more bytes than {format}:{PLAIN[format]}"
        found += ["", "[[export]]", f'target = "{export.target}"' + told * (type == MIXED)]
        if export.method["kind"] != METHODS[0]:
            found += [f'method = {{kind = "{export.method["kind"]}"}}  # {METHODS[0]} loses less and takes longer']
        if export.calibration_rows != Export.calibration_rows:
            found += [f"calibration_rows = {export.calibration_rows}  # about {ENOUGH_TOKENS:,} tokens of your rows"]
    return found


def _best(format: str, family: Family | None, shape: Shape | None, rows: Lengths, calibration_rows: int) -> Export:
    types = [(PLAIN[format], method) for method in METHODS]
    if family is not None and shape is not None and (format == "gguf" or family.onnx == "builder"):
        types.insert(0, (MIXED, METHODS[0]))
    choices = [Export(f"{format}:{type}", {"kind": method}, calibration_rows=calibration_rows)
               for type, method in types]
    if shape is None:
        return choices[0]
    rate = costs.matrix_rate()
    return next((choice for choice in choices if costs.packing(shape, choice, rows, rate).seconds <= IN_GOOD_TIME),
                choices[-1])
