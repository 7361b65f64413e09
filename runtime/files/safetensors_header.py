"""Where the tensors of a safetensors file stand, read without its weights. Anyone may have written such a header.

Source: the format's description (8 bytes with the header's length, the header as JSON, the tensors one behind the
other). What the description allows is read, all else is refused: a tensor that overlaps another or a gap between two
has no place in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...models.errors import ArtifactError
from ...models.json_values import object_in

MOST_HEADER = 32 * 2**20
"""Bytes; a model of 3B parameters has 50,000."""
MOST_DIMENSIONS = 16
BYTES = {**dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 1),
         **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2), **dict.fromkeys(("U32", "I32", "F32"), 4),
         **dict.fromkeys(("U64", "I64", "F64", "C64"), 8)}
"""Of one value."""
_HINT = "the file is cut short or damaged: copy it again"


@dataclass(frozen=True)
class Entry:
    """Where one tensor stands."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    """Offset of its first byte in the file."""


def read(path: Path) -> dict[str, Entry]:
    """The tensors of a file by name. ArtifactError, which says why, for what is no whole safetensors file."""
    if not path.is_file():
        raise _refused(path, "it is no plain file")
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(MOST_HEADER, size - 8):
            raise _refused(path, f"its header is to have {length:,} bytes, of {size:,} bytes of the file and "
                                 f"{MOST_HEADER:,} at most")
        table = object_in(file.read(length), f"{path}: cannot be read as safetensors", ArtifactError, _HINT)
    table.pop("__metadata__", None)
    first, found, places = 8 + length, {}, []
    for name, item in table.items():
        begin, end = _place(path, name, item)
        found[name] = Entry(path, item["dtype"], tuple(item["shape"]), first + begin)
        places.append((begin, end, name))
    reached = 0
    for begin, end, name in sorted(places):
        if begin != reached:
            raise _refused(path, f"{name!r:.80} begins at byte {begin:,}, those before end at {reached:,}")
        reached = end
    if first + reached != size:
        raise _refused(path, f"its tensors end at byte {first + reached:,}, the file at {size:,}")
    return found


def _place(path: Path, name: str, item: Any) -> tuple[int, int]:
    """First byte and end of a tensor behind the header."""
    told: dict[str, Any] = item if isinstance(item, dict) else {}
    dtype: Any = told.get("dtype")
    shape: Any = told.get("shape")
    offsets: Any = told.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in BYTES:
        raise _refused(path, f"{name!r:.80} is of the type {dtype!r:.40}, known are {', '.join(BYTES)}",
                       "save the model in float32 or bfloat16 first")
    if not _sizes(shape) or len(shape) > MOST_DIMENSIONS or not _sizes(offsets) or len(offsets) != 2:
        raise _refused(path, f"{name!r:.80} has the shape {shape!r:.60} and the place {offsets!r:.60}")
    begin, end = offsets
    if end - begin != math.prod(shape) * BYTES[dtype]:
        raise _refused(path, f"{name!r:.80}, {dtype} of the shape {shape!r:.60}, has {end - begin:,} bytes")
    return begin, end


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(each) is int and 0 <= each < 2**63 for each in value)


def _refused(path: Path, why: str, hint: str = _HINT) -> ArtifactError:
    return ArtifactError(f"{path}: cannot be read as safetensors: {why}", hint)
