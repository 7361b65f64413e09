"""What an ONNX graph asks for, read from its bytes without onnx or onnxruntime: operators, inputs, outside files.

Source: onnx.proto and the wire format of protocol buffers. Only the few fields that are needed are followed; tensors
are stepped over. A graph can name any file of the machine as the place of its weights, so the names are checked here.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ...models.errors import ArtifactError

MAX_FIELDS = 400_000
"""Fields that are looked at: a decoder of 30 layers whose attention is left in pieces has 100,000."""
MAX_DEPTH = 8
"""Graphs within graphs."""
MAX_DIMENSIONS, MAX_VALUES = 16, 2**40
"""Of a tensor: a terabyte of the smallest type is beyond any file that is read here."""
MAX_OUTSIDE = 16384
"""Files of weights beside a graph: some exporters write one for every tensor."""
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
FLOAT16, FLOAT, BFLOAT16 = 10, 1, 16
Value = int | tuple[int, int] | None
"""Of a field: a number, or for bytes their start and end; None for what is stepped over."""


@dataclass
class Header:
    """The parts of a graph that matter before it is loaded."""

    inputs: set[str] = field(default_factory=set)
    outputs: set[str] = field(default_factory=set)
    operators: set[str] = field(default_factory=set)
    bits: set[int] = field(default_factory=set)
    """Of the blockwise quantized weights."""
    float_types: dict[int, int] = field(default_factory=dict)
    """Number of a float type → values of that type in weights."""
    places: list[dict[str, str]] = field(default_factory=list)
    """location, offset and length of weights outside the file."""

    @property
    def type(self) -> str:
        """How the weights are stored, coarsest first: int4, int8, fp16 or fp32."""
        if self.bits:
            return f"int{min(self.bits)}"
        if any(name.startswith(("MatMulInteger", "DynamicQuantizeLinear", "QLinear", "DequantizeLinear"))
               for name in self.operators):
            return "int8"
        half = self.float_types.get(FLOAT16, 0) + self.float_types.get(BFLOAT16, 0)
        return "fp16" if half > self.float_types.get(FLOAT, 0) else "fp32"


def read(path: Path) -> Header:
    """Read `path` and check the files it names: they lie whole inside its folder. ArtifactError otherwise."""
    if not path.stat().st_size:
        raise _damaged(path, "it is empty")
    header = Header()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        _Reader(path, data, header).model()
    for name in {place.get("location", "") for place in header.places}:
        _check_file(path, name)
    for place in header.places:
        _check_extent(path, place)
    return header


class _Reader:
    def __init__(self, path: Path, data: mmap.mmap, header: Header) -> None:
        self.path, self.data, self.header = path, data, header
        self.left = MAX_FIELDS
        self.names: set[str] = set()

    def model(self) -> None:
        graphs = 0
        for number, value in self.fields(0, len(self.data)):
            if number == 7 and isinstance(value, tuple):
                graphs += 1
                self.graph(*value, 0)
            elif number == 25 and isinstance(value, tuple):  # a function of the model's own: nodes are its field 7
                for inner, node in self.fields(*value):
                    if inner == 7 and isinstance(node, tuple):
                        self.node(*node, 0)
        if graphs != 1:
            raise _damaged(self.path, f"it holds {graphs} graphs")

    def graph(self, start: int, end: int, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise _damaged(self.path, f"graphs within graphs, more than {MAX_DEPTH} deep")
        for number, value in self.fields(start, end):
            if not isinstance(value, tuple):
                continue
            if number == 1:
                self.node(*value, depth)
            elif number == 5:
                self.tensor(*value)
            elif number == 15:  # sparse: values and indices, each a tensor
                for _, part in self.fields(*value):
                    if isinstance(part, tuple):
                        self.tensor(*part)
            elif number in (11, 12) and depth == 0:
                names = self.header.inputs if number == 11 else self.header.outputs
                names.update(self.text(part) for inner, part in self.fields(*value) if inner == 1)

    def node(self, start: int, end: int, depth: int) -> None:
        for number, value in self.fields(start, end):
            if number == 4:
                self.header.operators.add(self.text(value))
            elif number == 5 and isinstance(value, tuple):
                self.attribute(*value, depth)

    def attribute(self, start: int, end: int, depth: int) -> None:
        name = ""
        for number, value in self.fields(start, end):
            if number == 1:
                name = self.text(value)
            elif number == 3 and name == "bits" and isinstance(value, int):
                self.header.bits.add(value)
            elif number in (5, 10) and isinstance(value, tuple):
                self.tensor(*value)
            elif number in (6, 11) and isinstance(value, tuple):
                self.graph(*value, depth + 1)

    def tensor(self, start: int, end: int) -> None:
        place: dict[str, str] = {}
        outside, kind, count, dimensions = False, 0, 1, 0
        for number, value in self.fields(start, end):
            if number == 1:  # one size, or several packed together
                for size in self.varints(*value) if isinstance(value, tuple) else [value or 0]:
                    dimensions += 1
                    if dimensions > MAX_DIMENSIONS or size > MAX_VALUES or count * size > MAX_VALUES:
                        raise _damaged(self.path, f"a tensor of more than {MAX_DIMENSIONS} dimensions or "
                                                  f"{MAX_VALUES:,} values")
                    count *= size
            elif number == 2 and isinstance(value, int):
                kind = value
            elif number == 13 and isinstance(value, tuple):
                pair = {inner: self.text(part) for inner, part in self.fields(*value) if inner in (1, 2)}
                place[pair.get(1, "")] = pair.get(2, "")
            elif number == 14:
                outside = value == 1
        if outside or place:
            self.header.places.append(place)
            self.names.add(place.get("location", ""))
            if len(self.names) > MAX_OUTSIDE:
                raise _damaged(self.path, f"its weights lie in more than {MAX_OUTSIDE:,} files")
        if kind in (FLOAT, FLOAT16, BFLOAT16):
            self.header.float_types[kind] = self.header.float_types.get(kind, 0) + count

    def fields(self, start: int, end: int) -> Iterator[tuple[int, Value]]:
        """The number and the value of each field of a message."""
        while start < end:
            self.left -= 1
            if self.left < 0:
                raise _damaged(self.path, f"more than {MAX_FIELDS:,} fields")
            key, start = self.varint(start, end)
            value: Value = None
            if key & 7 == VARINT:
                value, start = self.varint(start, end)
            elif key & 7 == BYTES:
                length, start = self.varint(start, end)
                value, start = (start, start + length), start + length
            elif key & 7 in (FIXED32, FIXED64):
                start += 4 if key & 7 == FIXED32 else 8
            else:
                raise _damaged(self.path, f"no field can begin at byte {start:,}")
            if start > end:
                raise _damaged(self.path, f"a field goes on to byte {start:,}, its message ends at {end:,}")
            yield key >> 3, value

    def varint(self, at: int, end: int) -> tuple[int, int]:
        result = 0
        for shift in range(0, 70, 7):
            if at >= end:
                break
            byte = self.data[at]
            at += 1
            result |= (byte & 127) << shift
            if byte < 128:
                return result, at
        raise _damaged(self.path, f"a number at byte {at:,} does not end")

    def varints(self, start: int, end: int) -> Iterator[int]:
        while start < end:
            value, start = self.varint(start, end)
            yield value

    def text(self, value: Value) -> str:
        if not isinstance(value, tuple) or value[1] - value[0] > 4096:
            raise _damaged(self.path, "a name that is none")
        return self.data[value[0] : value[1]].decode("utf-8", "replace")


def _check_file(path: Path, name: str) -> None:
    folder, file = path.parent.resolve(), path.parent / name
    if not name.isprintable() or not 0 < len(name.encode()) < 256 or Path(name).is_absolute() \
            or "\\" in name or not file.resolve().is_relative_to(folder) or not file.is_file():
        raise ArtifactError(f"{path}: its weights are to be read from {name!r}, which is no file in the same folder",
                            "copy every file of the model into one folder, as files and not as links")


def _check_extent(path: Path, place: dict[str, str]) -> None:
    name = place.get("location", "")
    numbers = [place.get(key, "0") for key in ("offset", "length")]
    size = (path.parent / name).stat().st_size
    if not all(number.isdecimal() and len(number) < 19 for number in numbers) or sum(map(int, numbers)) > size:
        raise ArtifactError(f"{path}: its weights go beyond the {size:,} bytes of {name}",
                            "the file was cut short, or is another model's: copy the model again")


def _damaged(path: Path, what: str) -> ArtifactError:
    return ArtifactError(f"{path}: no sound ONNX file: {what}",
                         "it is damaged, cut short or was never one: get it again")
