"""A GGUF file's tensors as a safetensors file: each where transformers has it, as the float32 that it stands for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ...models import progress
from ...models.errors import ArtifactError
from ...runtime.files import gguf_header
from ...runtime.files.gguf_header import Header
from ..gguf.tensors import Tensor, as_in_checkpoint, plan, stored, wanted
from ..source.checkpoint import SINGLE, Checkpoint
from .config import FREQUENCIES, HINT

CLOSE = 1e-5
"""Rotary frequencies are computed, by every program in its own order."""


def write(path: Path, header: Header, checkpoint: Checkpoint, folder: Path) -> None:
    """Write model.safetensors, one tensor after the other: those that `checkpoint` lists, all in float32.

    Raises ArtifactError for a tensor that the file lacks, has in another shape, or has beside them, naming it.
    """
    found = _matched(path, header, plan(checkpoint, "F32")[0])
    tensors = {tensor.source: tensor for tensor in found if tensor.source}
    places, end = {}, 0
    for name in tensors:
        shape = checkpoint.entries[name].shape
        start, end = end, end + 4 * int(np.prod(shape))
        places[name] = {"dtype": "F32", "shape": shape, "data_offsets": (start, end)}
    head = json.dumps({"__metadata__": {"format": "pt"}, **places}).encode()
    head += b" " * (-len(head) % 8)
    with (folder / SINGLE).open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for index, (name, tensor) in enumerate(tensors.items()):
            progress.at(f"unpack {path.name}", index, len(tensors))
            values = as_in_checkpoint(tensor, stored(path, found[tensor]), checkpoint)
            file.write(np.ascontiguousarray(values, "<f4").reshape(checkpoint.entries[name].shape).tobytes())


def largest_divisor(path: Path, header: Header) -> float:
    """By how much the file slows its slowest rotary frequency; 0 where it says nothing of it."""
    found = next((tensor for tensor in header.tensors if tensor.name == FREQUENCIES), None)
    return 0.0 if found is None else float(stored(path, found).max())


def check(path: Path, header: Header, folder: Path) -> int:
    """Make the file's tensors of the folder's again: how many there are, each with the very bits of the file's.

    Raises ArtifactError naming one that differs, and for values that are not finite.
    """
    checkpoint = Checkpoint.open(folder)
    found = _matched(path, header, plan(checkpoint, "F32")[0])
    for index, (tensor, place) in enumerate(found.items()):
        progress.at(f"compare {path.name}", index, len(found))
        here, there = wanted(tensor, checkpoint), stored(path, place)
        same = np.allclose(here, there, rtol=CLOSE) if not tensor.source else np.array_equal(
            np.ascontiguousarray(here).view(np.uint32), there.view(np.uint32))
        if not same:
            raise ArtifactError(f"{path}: {tensor.name} is not {tensor.source or 'what its config makes'} again", HINT)
    return len(found)


def _matched(path: Path, header: Header, planned: list[Tensor]) -> dict[Tensor, gguf_header.Tensor]:
    found = {tensor.name: tensor for tensor in header.tensors}
    wanted = {tensor.name: tensor for tensor in planned}
    for name, tensor in wanted.items():
        if name not in found:
            raise ArtifactError(f"{path}: no tensor {name!r} in it ({tensor.source})", HINT)
        if found[name].shape != tensor.shape[::-1]:
            raise ArtifactError(f"{path}: {name} is {list(found[name].shape[::-1])}, by its metadata it would be "
                                f"{list(tensor.shape)}", HINT)
    if other := sorted(found.keys() - wanted.keys()):
        raise ArtifactError(f"{path}: {other[0]!r} has no place in a model of its architecture "
                            f"{header.architecture!r}", HINT)
    return {tensor: found[name] for name, tensor in wanted.items()}
