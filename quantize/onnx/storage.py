"""Lay an ONNX graph out on disk: the same graph gives the same bytes, and equal tensors are stored once."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

INLINE_BYTES = 1024
"""Smaller tensors stay in the graph: sizes and indices, which graph optimisers look at."""
INLINE_MODEL_BYTES = 1 << 30
"""A model without an external file must stay below protobuf's 2 GiB with room to spare."""
ALIGNMENT = 64
"""Tensors start at multiples of a cache line, as kernels that read the mapped file want."""


def room(nbytes: int) -> int:
    """The most that a tensor of `nbytes` adds to a model with external data, besides its name and place."""
    return nbytes if nbytes < INLINE_BYTES else -(-nbytes // ALIGNMENT) * ALIGNMENT


def initializer(graph: Any, name: str, array: NDArray[Any]) -> Any:
    """Add a constant to an onnx_ir graph, or return the one that stands under this name already."""
    import onnx_ir as ir

    if name in graph.initializers:
        return graph.initializers[name]
    value = ir.Value(name=name, const_value=ir.tensor(np.asarray(array, order="C"), name=name))
    value.dtype, value.shape = ir.DataType.from_numpy(array.dtype), ir.Shape(array.shape)
    graph.register_initializer(value)
    return value


def constant(value: Any) -> NDArray[Any] | None:
    """The array behind an onnx_ir value, or None where it is computed at run time."""
    if value is None or value.const_value is None:
        return None
    array: NDArray[Any] = value.const_value.numpy()
    return array


def let_go(value: Any) -> None:
    """Unmap the file behind an onnx_ir value whose array nobody holds any more: mapped pages count as memory in use."""
    if value.const_value is not None and hasattr(value.const_value, "release"):
        value.const_value.release()


def tidy(model: Any) -> None:
    """Drop what no engine reads: unused nodes and constants, stack traces, local paths, inferred shapes."""
    from onnx_ir.passes import common

    common.RemoveUnusedNodesPass()(model)
    model.graph.sort()
    common.ClearMetadataAndDocStringPass()(model)
    model.producer_name, model.producer_version, model.doc_string = "edgestill", "", None
    model.metadata_props.clear()
    model.graph.name = "main"
    for entry in (model.graph, *model.graph.all_nodes()):
        entry.metadata_props.clear()
    kept = {id(value) for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values())}
    for node in model.graph.all_nodes():
        for value in node.outputs:
            value.metadata_props.clear()
            if id(value) not in kept:
                value.shape = value.type = None


def data_file(path: Path) -> Path:
    """Where the weights of the graph `path` lie when they are not in it: where transformers.js looks for them."""
    return path.with_name(f"{path.name}_data")


def save(model: Any, path: Path, data: Path | None = None) -> None:
    """Write a tidied graph as `path`, making its folder.

    With `data`, weights go to that file beside it, which engines map instead of copying; tensors of equal bytes
    share one place there, whatever their shapes. Without, everything is in the one file as long as it fits.
    """
    import onnx_ir as ir

    tidy(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    total = sum(value.const_value.nbytes for value in model.graph.initializers.values())
    if data or total > INLINE_MODEL_BYTES:
        _move_out(model, data or data_file(path))
    else:
        for value in model.graph.initializers.values():
            value.const_value = ir.Tensor(value.const_value.numpy(), name=value.name)
    _write(model, path)


def save_beside(model: Any, path: Path) -> None:
    """Write another graph over weights that `save` has put into a file, in the same folder."""
    tidy(model)
    _write(model, path)


def _write(model: Any, path: Path) -> None:
    import onnx_ir as ir

    path.write_bytes(ir.to_proto(model).SerializeToString(deterministic=True))


def _move_out(model: Any, path: Path) -> None:
    import onnx_ir as ir

    places: dict[bytes, int] = {}
    with path.open("wb") as file:
        for name, value in model.graph.initializers.items():
            tensor = value.const_value
            if tensor.nbytes < INLINE_BYTES:
                value.const_value = ir.Tensor(tensor.numpy(), name=name)
                continue
            content = tensor.tobytes()
            key = hashlib.sha256(content).digest()
            if key not in places:
                file.write(b"\0" * (-file.tell() % ALIGNMENT))
                places[key] = file.tell()
                file.write(content)
            value.const_value = ir.ExternalTensor(
                path.name, places[key], len(content), tensor.dtype, shape=ir.Shape(tensor.shape), name=name)
