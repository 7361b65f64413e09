"""A student of at most a given size: its vocabulary first, which costs nothing, then layers and channels alike.

After the vocabulary is trimmed to the rows, the model keeps the same share of its layers and of their feed-forward
channels, as nearly as whole layers and blocks of 32 channels allow: of two sizes that fit, the one where both shares
are closest. Heads stay: they are few, and bear it worst.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from ...models.errors import UsageError
from ...models.scheme import Scheme
from ...quantize.gguf.tensors import PLAIN, plan
from ...quantize.gguf.write import ALIGNMENT, header_bytes
from ...quantize.source.checkpoint import Checkpoint
from ...runtime.files.safetensors_header import Entry
from . import depth, vocabulary, width
from ._base import Context, Cut, layers_path

UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}
BYTES = {"kb": 10**3, "mb": 10**6, "gb": 10**9}
BLOCK = 32
"""Channels that 4-bit files store together."""
THINNEST = 8
"""No layer is cut to less than this part of its channels."""
SIZED = tuple(f"gguf:{type}" for type in (*PLAIN, "Q4_0"))
Step = tuple[str, Any]
"""A kind of cut, and its config."""
Size = Callable[[list[int], int], int]
"""What a model has with only some layers and so many channels: parameters, or bytes of a file."""
Check = Callable[[Mapping[str, Any]], None]
"""Raises UsageError for the configuration of a model that could not be exported."""


def read(to: str, format: str) -> int:
    """The number in `to`, of parameters (40M, 1.5B) or of bytes (26 MB); UsageError for what is neither, for bytes
    without the `format` of the file, and for a format whose size is not known before it is written."""
    match = re.fullmatch(r"([\d.]+)\s*([a-z]*)", to.strip().lower())
    known = UNITS | BYTES
    if match is None or match[2] not in known or match[1].count(".") > 1 or not match[1].strip("."):
        raise UsageError(f"student.to: {to!r} is no size", "write parameters such as 40M, or bytes such as 26 MB")
    if (match[2] in BYTES) != bool(format):
        raise UsageError(f"student.to: {to!r}, and student.format is {format!r}",
                         "bytes need the format of the file, such as gguf:Q4_0; parameters have none")
    if format and str(Scheme.parse(format)) not in SIZED:
        raise UsageError(f"student.format: {format}: how large such a file will be is not known before it is written",
                         f"give one of {', '.join(SIZED)}, or a number of parameters in student.to")
    return int(float(match[1]) * known[match[2]])


def reach(cut: Cut, context: Context, to: str, format: str, apply: Callable[[Step], None], check: Check) -> None:
    """Cut until `to` is reached, each step by `apply`; a model that is small enough is left as it is. Layers stay that
    `check` lets pass, such as every fourth without positions where the format has that built in.

    Raises UsageError for a size that cannot be read, and for one below the least that can be reached.
    """
    limit = read(to, format)
    with tempfile.TemporaryDirectory() as aside:
        if _sizer(cut, context, format, Path(aside))(*_whole(cut, context)) <= limit:
            return
        if cut.kept is None:
            apply(("vocabulary", vocabulary.Config()))
        size = _sizer(cut, context, format, Path(aside))
        layers, channels = _whole(cut, context)
        if size(layers, channels) <= limit:
            return
        turned = depth.influence(cut, context, depth.Config().rows)
        keeps = [depth.most_influential(turned, count, ends=True)
                 for count in range(len(turned), min(2, len(turned)) - 1, -1)]
        keeps = [keep for keep in keeps if _passes(check, depth.cut_config(cut.model.config, keep).to_dict())] or keeps
        keep, left = _choose(keeps, len(layers), channels, limit, size, to, "bytes" if format else "parameters")
    if len(keep) < len(layers):
        apply(("depth", depth.Config(keep=keep)))
    if left < channels:
        apply(("width", width.Config(feed_forward=left)))


def _whole(cut: Cut, context: Context) -> tuple[list[int], int]:
    layers = cut.model.get_submodule(layers_path(cut.model))
    return list(range(len(layers))), width.channels(cut.model, context.family).count


def _passes(check: Check, config: Mapping[str, Any]) -> bool:
    try:
        check(config)
    except UsageError:
        return False
    return True


def _choose(keeps: Sequence[list[int]], layers: int, channels: int, limit: int, size: Size, to: str,
            what: str) -> tuple[list[int], int]:
    """The layers, one of `keeps` from the most to the fewest, and the number of channels that stay, of so many."""
    least = -(-channels // THINNEST // BLOCK) * BLOCK if channels >= BLOCK else channels
    steps = [*range(least, channels, BLOCK), channels]
    found: list[tuple[float, list[int], int]] = []
    for keep in keeps:
        fitting = _last_fitting(steps, lambda left, keep=keep: size(keep, left) <= limit)  # type: ignore[misc]
        if fitting is not None:
            found.append((abs(len(keep) / layers - fitting / channels), keep, fitting))
    if not found:
        raise UsageError(f"student.to: {to} cannot be reached: the rows' vocabulary, {len(keeps[-1])} of {layers} "
                         f"layers and {least:,} of {channels:,} channels are {size(keeps[-1], least):,} {what}",
                         "give that many or more, or start from a smaller model")
    return min(found, key=lambda one: one[0])[1:]


def _last_fitting(steps: Sequence[int], fits: Callable[[int], bool]) -> int | None:
    """The last of rising `steps` that fits; None where none does."""
    low, high = 0, len(steps)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if fits(steps[middle]) else (low, middle)
    return steps[low - 1] if low else None


def _sizer(cut: Cut, context: Context, format: str, aside: Path) -> Size:
    """The size of `cut` by the layers and channels that stay: parameters, or bytes of a file of `format`."""
    path, units = layers_path(cut.model), width.channels(cut.model, context.family)
    whole = {name: tuple(value.shape) for name, value in cut.model.named_parameters()}
    axes = {f"{path}.{place}.{name}": axis for place, layer in enumerate(cut.model.get_submodule(path))
            for name, axis in units.axes(layer).items()}

    def shapes(layers: list[int], left: int) -> dict[str, tuple[int, ...]]:
        found = dict(whole)
        for name, axis in axes.items():
            shape = whole[name]
            found[name] = (*shape[:axis], shape[axis] // units.count * left, *shape[axis + 1:])
        return depth.cut_names(found, path, layers)

    if not format:
        return lambda layers, left: sum(map(prod, shapes(layers, left).values()))
    return _file_sizer(cut, context, Scheme.parse(format).type, aside, shapes)


def _file_sizer(cut: Cut, context: Context, type_name: str, aside: Path,
                shapes: Callable[[list[int], int], dict[str, tuple[int, ...]]]) -> Size:
    """Bytes of a GGUF file, at most: its header is that of all layers."""
    family, folder = context.family, context.folder
    if family.gguf is None:
        raise UsageError(f"student.format: gguf:{type_name}: the {family.name} family has no GGUF form",
                         "give a number of parameters in student.to")
    if cut.kept is not None:
        folder = Path(tempfile.mkdtemp(dir=aside))
        vocabulary.write_trimmed_tokenizer(context.folder, folder, cut.kept)

    def checkpoint(layers: list[int], left: int) -> Checkpoint:
        entries = {name: Entry(aside, "F32", shape, 0) for name, shape in shapes(layers, left).items()}
        return Checkpoint(folder, depth.cut_config(cut.model.config, layers).to_dict(), family, entries)

    whole = checkpoint(*_whole(cut, context))
    family.check(whole.config, "gguf")
    header = header_bytes(whole, plan(whole, type_name)[0], aside)
    return lambda layers, left: header + sum(tensor.bytes + ALIGNMENT
                                             for tensor in plan(checkpoint(layers, left), type_name)[0])
