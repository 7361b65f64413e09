"""GGUF: one file for llama.cpp and everything built on it, written from a Hugging Face folder.

One tensor is in memory at a time. F32, F16, BF16, Q8_0 and Q4_0 are made here, all other types by llama.cpp's own
quantizers; in files of stock types it also says which tensor gets which type.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...models.errors import ArtifactError, MissingExtra, UsageError
from ...models.scheme import MIXED, Scheme
from ..grid.codes import Encode
from ..grid.scaled_grids import GRIDS
from ..source.checkpoint import Checkpoint
from . import llama_quantizer, metadata, mixed_types
from .tensors import PLAIN, Tensor, make, plan
from .tokenizer import write as gguf_tokenizer

if TYPE_CHECKING:
    from ..grid.calibration import Calibration
    from ..mixed.choose_types import Choose

FILE = "model.gguf"
ALIGNMENT = 32
"""What every tensor of the file starts at a multiple of."""
FILE_TYPES = {"F32": "ALL_F32", MIXED: "GUESSED"}
"""gguf's names for the whole file; of all other types it is MOSTLY_<type>."""
CALIBRATE = "calibrate this model, not another"
Importance = Mapping[str, NDArray[np.float32]]
"""Importance by Hugging Face weight name."""

log = logging.getLogger(__name__)


def write(source: Path, folder: Path, scheme: Scheme, encode: Encode, calibration: Calibration | None,
          choose: Choose | None = None) -> str:
    """Write the Hugging Face folder `source` as `folder`/model.gguf and return that file's name.

    `encode` makes the codes of a Q4_0 tensor from its Hugging Face name and weight [out, in]; `calibration` weights
    the errors of llama.cpp's types; `choose` deals out a mixed file's. Raises UsageError for a family or variation
    that GGUF does not carry, ArtifactError for a checkpoint or tokenizer that cannot be written, MissingExtra without
    the gguf package.
    """
    checkpoint = opened(source)
    stock = scheme.type in llama_quantizer.MIXTURES
    tensors, notes = plan(checkpoint, "F32" if stock else "Q8_0" if choose else scheme.type)
    if calibration and not any(tensor.source in calibration.importance for tensor in tensors):
        raise ArtifactError("the calibration holds none of this model's layers", CALIBRATE)
    coded = tuple(GRIDS) if choose else ("Q4_0",)
    diagonals: dict[str, NDArray[np.float32] | None] = {}

    def importance(tensor: Tensor, type_name: str) -> NDArray[np.float32] | None:
        # It costs a run over the rows, so it is read where types of llama.cpp's ask for it.
        if not calibration or type_name in (*coded, *PLAIN):
            return None
        if not choose:
            return importance_by_name([tensor], calibration.importance).get(tensor.name)
        if tensor.source not in diagonals:  # choosing asks for the whole moments anyway
            moments = calibration.gram(tensor.source)
            diagonals[tensor.source] = None if moments is None else np.diag(moments).copy()
        return diagonals[tensor.source]

    if stock:
        known = importance_by_name(tensors, calibration.importance if calibration else {})
        tensors = _mixture(checkpoint, tensors, scheme.type, known, folder)
    if choose:
        by_source = {tensor.source: tensor for tensor in tensors}
        parts = mixed_types.parts(tensors, checkpoint)
        header = header_bytes(checkpoint, tensors, folder) + ALIGNMENT * len(tensors)
        fixed = header + sum(tensor.bytes for tensor in tensors if tensor.type != "Q8_0")
        plain = header + sum(tensor.bytes for tensor in plan(checkpoint, "Q4_0")[0])
        types = choose(parts, fixed, plain, lambda name, type_name: mixed_types.restored(
            by_source[name], type_name, checkpoint, encode, importance(by_source[name], type_name)))
        tensors = [replace(tensor, type=types.get(tensor.source, tensor.type)) for tensor in tensors]
    with _opened(checkpoint, folder / FILE, scheme.type, tensors) as (writer, told):
        for tensor in tensors:
            writer.write_tensor_data(make(tensor, checkpoint, encode, importance(tensor, tensor.type), coded))
    for note in [*notes, *told]:
        log.warning("%s: %s", FILE, note)
    return FILE


def opened(source: Path) -> Checkpoint:
    """The checkpoint of a Hugging Face folder; UsageError for a family or variation that GGUF does not carry."""
    if importlib.util.find_spec("gguf") is None:
        raise MissingExtra("gguf", "export")
    checkpoint = Checkpoint.open(source)
    if checkpoint.family.gguf is None:
        raise UsageError(f"{source}: the {checkpoint.family.name} family has no GGUF form",
                         "export it to ONNX, such as onnx:int8")
    checkpoint.family.check(checkpoint.config, "gguf")
    return checkpoint


def importance_by_name(tensors: list[Tensor], importance: Importance) -> dict[str, NDArray[np.float32]]:
    """Importance by GGUF tensor name; reordered rows change nothing, since it stands for columns.

    Raises ArtifactError for an importance of another length than its tensor's rows.
    """
    found = {}
    for tensor in tensors:
        values = importance.get(tensor.source)
        if values is None:
            continue
        if tensor.shape[-1:] != values.shape:
            raise ArtifactError(f"the calibration has {values.size} values for {tensor.source}, whose rows have "
                                f"{tensor.shape[-1]}", CALIBRATE)
        found[tensor.name] = values
    return found


def _mixture(checkpoint: Checkpoint, tensors: list[Tensor], type_name: str, importance: Importance,
             folder: Path) -> list[Tensor]:
    """`tensors` in the types that llama.cpp deals out, from a file of nothing but their names and shapes."""
    with _header(checkpoint, tensors, folder) as header:
        os.truncate(header, header.stat().st_size + sum(tensor.bytes + ALIGNMENT for tensor in tensors))
        found = llama_quantizer.mixture(header, type_name, importance)
    return [replace(tensor, type=found.get(tensor.name, tensor.type)) for tensor in tensors]


def header_bytes(checkpoint: Checkpoint, tensors: list[Tensor], folder: Path) -> int:
    """The bytes before the first tensor: vocabulary and metadata, the same for all types."""
    with _header(checkpoint, tensors, folder) as header:
        return header.stat().st_size


@contextmanager
def _header(checkpoint: Checkpoint, tensors: list[Tensor], folder: Path) -> Iterator[Path]:
    """A file that ends where the first tensor would begin; it is gone when the block ends."""
    with tempfile.TemporaryDirectory(prefix=".gguf.", dir=folder) as aside:
        path = Path(aside) / "header.gguf"
        with _opened(checkpoint, path, "F32", tensors):
            pass
        yield path


@contextmanager
def _opened(checkpoint: Checkpoint, path: Path, type_name: str,
            tensors: list[Tensor]) -> Iterator[tuple[Any, list[str]]]:
    """A writer that has written everything but the tensors' bytes, which follow in their order; notes for the user."""
    import gguf

    assert checkpoint.family.gguf is not None
    vocabulary = gguf_tokenizer.read(checkpoint.folder, checkpoint.vocabulary_size)
    file_type = gguf.LlamaFileType[FILE_TYPES.get(type_name, f"MOSTLY_{type_name}")]
    writer = gguf.GGUFWriter(path, checkpoint.family.gguf.architecture)
    try:
        notes = metadata.add(writer, checkpoint, int(file_type))
        gguf_tokenizer.add(writer, vocabulary)
        for tensor in tensors:
            writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), tensor.bytes,
                                   gguf.GGMLQuantizationType[tensor.type])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        yield writer, [*notes, *vocabulary.notes]
    finally:
        writer.close()
