"""The file holds the tensors that were planned: their types, sizes and numbers are read back from it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ....models.artifact import Artifact, is_of_model
from ....models.scheme import MIXED, bits_of
from ....runtime.files import gguf_header, onnx_header
from ...gguf.llama_quantizer import MIXTURES
from ...gguf.tensors import FLOATS, Tensor, plan, stored, wanted
from ...grid.codes import dequantize
from ...grid.codes_in_torch import Coded
from ...source.checkpoint import Checkpoint
from ..certificate import Check, rounded
from ..limits import TENSOR_ERRORS
from ..packed_file import Subject

TASKS = ("generate", "classify", "embed")
CAUSE = "weights"
QUICK = False
TYPES, NUMBERS = "tensor_types", "tensor_scale"
MOST_BIAS = 0.25
"""Steps that the values of a matrix may lie above the float model's on average; zero points off by one give 1."""
MOST_FLOATS = 0.25
"""Share of the weights that a file of whole-number types may keep in floats: vectors, positions, tables of a graph."""


def check(subject: Subject) -> list[Check]:
    """Where the float model's folder is at hand; later a file's hash stands for all of it. Of a file made elsewhere
    only the numbers: its types are its maker's choice."""
    if subject.float_folder is None:
        return []
    artifact, checkpoint = subject.artifact, Checkpoint.open(subject.float_folder)
    if subject.format == "gguf":
        types = [] if subject.float_model is None else [_types(artifact, checkpoint)]
        return [*types, _numbers(artifact, checkpoint)] if all(each.passed for each in types) else types
    if subject.float_model is None:
        return _matrices(artifact, checkpoint)
    return [_graph(artifact, checkpoint), *_codes(subject.coded, checkpoint)]


def _types(artifact: Artifact, checkpoint: Checkpoint) -> Check:
    """Names, shapes and types against the plan, which is made anew; what llama.cpp deals out, against its rule."""
    header = gguf_header.read(artifact.model_path)
    scheme = artifact.manifest.scheme.partition(":")[2]
    expected = {tensor.name: tensor for tensor in _plan(artifact, checkpoint)}
    found = {tensor.name: tensor for tensor in header.tensors}
    bits = 8 * sum(tensor.bytes for tensor in header.tensors) / header.parameters
    counted = Counter(tensor.type for tensor in header.tensors)
    told = f"{', '.join(f'{type} × {n}' for type, n in counted.most_common())}; " \
           f"{sum(tensor.bytes for tensor in header.tensors):,} bytes of weights, {bits:.2f} bits each"
    wrong = [*(f"{name} is not there" for name in expected.keys() - found.keys()),
             *(f"{name} was not planned" for name in found.keys() - expected.keys())]
    for name in sorted(expected.keys() & found.keys()):
        here, there = found[name], expected[name]
        if here.shape != there.shape[::-1]:
            wrong.append(f"{name} is {list(here.shape)}, planned was {list(there.shape[::-1])}")
        elif here.type != there.type and not (scheme in MIXTURES and there.type not in FLOATS):
            wrong.append(f"{name} is {here.type}, planned was {there.type}")
        elif scheme in MIXTURES and there.type not in FLOATS and bits_of(here.type) < bits_of(scheme):
            wrong.append(f"{name} is {here.type}, coarser than {scheme}")
    if scheme in MIXTURES and not wrong:
        # What the plan would put into blocks: llama.cpp leaves a few small matrices in floats, never most of them.
        blocks = {name for name, tensor in expected.items() if tensor.type not in FLOATS}
        left = sum(math.prod(found[name].shape) for name in blocks if found[name].type in FLOATS)
        if left > MOST_FLOATS * sum(math.prod(found[name].shape) for name in blocks):
            wrong.append(f"{left:,} weights are floats, which a file of {scheme} holds in blocks")
    return Check(TYPES, not wrong, CAUSE, rounded(bits), None, len(found), "; ".join(wrong[:3]) or told)


def _plan(artifact: Artifact, checkpoint: Checkpoint) -> list[Tensor]:
    """The tensors of the file; of a mixture all that may be in blocks as Q8_0, of a mixed file as they were dealt."""
    type = artifact.manifest.scheme.partition(":")[2]
    tensors, _ = plan(checkpoint, "Q8_0" if type in (*MIXTURES, MIXED) else type)
    dealt = artifact.manifest.settings.get("allocation", {}).get("types", {})
    return [Tensor(tensor.name, tensor.source, tensor.shape, dealt.get(tensor.source, tensor.type), tensor.change)
            for tensor in tensors]


def _numbers(artifact: Artifact, checkpoint: Checkpoint) -> Check:
    """Every tensor, dequantized, against the float model's: how long it is along it, and how far beside it."""
    found = {tensor.name: tensor for tensor in gguf_header.read(artifact.model_path).tensors}
    worst, lacking = NONE, []
    # Ours end where LongRoPE's factors for long texts would begin; others' files hold those.
    planned = [tensor for tensor in _plan(artifact, checkpoint) if tensor.name != "rope_factors_long.weight"]
    for tensor in planned:
        here = found.get(tensor.name)
        if here is None or here.shape != tensor.shape[::-1]:
            lacking.append(f"{tensor.name} is {'not there' if here is None else list(here.shape)}, the float model's "
                           f"is {list(tensor.shape[::-1])}")
            continue
        values = stored(artifact.model_path, here)
        worst = max(worst, deviation(tensor.name, here.type, wanted(tensor, checkpoint), values), key=lambda d: d.share)
    if lacking:
        return Check(NUMBERS, False, CAUSE, None, 1.0, len(planned), "; ".join(lacking[:3]))
    return _judged(worst, len(planned))


def _codes(coded: Coded | None, checkpoint: Checkpoint) -> list[Check]:
    """The same of the codes that went into a graph, by their names in the checkpoint; halves of a layer have none."""
    worst, count = NONE, 0
    for name, codes, turned in coded.each() if coded is not None else ():
        if name in checkpoint.entries:
            weight = checkpoint.tensor(name)
            worst = max(worst, deviation(name, "int4", weight.T if turned else weight, dequantize(codes)),
                        key=lambda d: d.share)
            count += 1
    return [_judged(worst, count)] if count else []


def _matrices(artifact: Artifact, checkpoint: Checkpoint) -> list[Check]:
    """The same of the blocks of a graph that was made elsewhere, as far as their names say what they stand for."""
    try:
        from ...onnx import packed_matrices
    except ModuleNotFoundError as error:
        return [Check(NUMBERS, None, detail=f"{error.name} is not installed")]
    worst, count, wrong, unknown = NONE, 0, list[str](), list[str]()
    for packed in packed_matrices.each(artifact.model_path):
        names = packed_matrices.sources(packed.name, checkpoint)
        if not names:
            unknown.append(packed.name)
            continue
        weight, count = packed_matrices.expected(names, checkpoint), count + 1
        told = " + ".join(names)
        if weight.shape != packed.values.shape:
            wrong.append(f"{told} is {list(packed.values.shape)}, the float model's is {list(weight.shape)}")
            continue
        found = deviation(told, f"int{packed.bits}", weight, packed.values)
        bias = packed.bias(weight)
        if abs(bias) > MOST_BIAS and found.share <= 1:
            wrong.append(f"{told} lies {bias:.2f} steps beside the float model's: its zero points are others")
        worst = max(worst, found, key=lambda d: d.share)
    if not count and not unknown:
        return []
    left = f"; {len(unknown)} more are not compared, since their names tell no layer, such as {unknown[0][:80]}" \
        if unknown else ""
    if not count:
        return [Check(NUMBERS, None, detail=left.removeprefix("; "))]
    found_check = Check(NUMBERS, False, CAUSE, None, 1.0, count, "; ".join(wrong[:3])) if wrong and worst.share <= 1 \
        else _judged(worst, count)
    return [replace(found_check, detail=found_check.detail + left)]


def _judged(worst: Deviation, n: int) -> Check:
    told = f"{worst.name} is {worst.scale:.4f} times as long as the float model's and {worst.error:.4f} beside it"
    return Check(NUMBERS, worst.share <= 1, CAUSE, rounded(worst.share), 1.0, n, told)


@dataclass(frozen=True)
class Deviation:
    """How one tensor differs from what it stands for."""

    name: str
    share: float
    """Of what its type may: above 1 it is something else."""
    scale: float
    error: float


NONE = Deviation("", -1.0, 0.0, 0.0)


def deviation(name: str, type: str, expected: NDArray[np.float32], found: NDArray[np.floating]) -> Deviation:
    """Compare a dequantized tensor with the float one of as many values."""
    x, y = (each.reshape(-1) for each in (expected, found))
    length = float(np.vdot(x, x))
    if not length:
        return Deviation(name, 0.0 if not np.any(y) else 2.0, 1.0, 0.0)
    scale = float(np.vdot(x, y)) / length
    rest = y - np.float32(scale) * x
    error = float(np.sqrt(np.vdot(rest, rest) / length))
    most_scale, most_error = next(limits for bits, limits in TENSOR_ERRORS if bits_of(type) <= bits)
    share = max(abs(scale - 1) / most_scale, error / most_error)
    return Deviation(name, share if np.isfinite(share) else float("inf"), scale, error)


def _graph(artifact: Artifact, checkpoint: Checkpoint) -> Check:
    """Of a graph: the type of its weights, and how many of them are floats all the same."""
    header = onnx_header.read(artifact.model_path)
    type = artifact.manifest.scheme.partition(":")[2]
    allowed = {"q4f16": ("int4",), MIXED: ("int4", "int8")}.get(type, (type,))
    floats, size = sum(header.float_types.values()), sum(
        path.stat().st_size for path in artifact.folder.rglob("*")
        if is_of_model(path.relative_to(artifact.folder).as_posix(), artifact.manifest.model_file))
    share = floats / checkpoint.parameters()
    wrong = header.type not in allowed or (type != "fp32" and share > MOST_FLOATS)
    told = f"{header.type}; {floats:,} of {checkpoint.parameters():,} weights are floats; {size:,} bytes"
    return Check(TYPES, not wrong, CAUSE, rounded(share), None if type == "fp32" else MOST_FLOATS, 1, told)
