"""GGUF: one file for llama.cpp and everything built on it, written from a Hugging Face folder.

F32, F16, BF16, Q8_0 and Q4_0 are written here, one tensor in memory at a time. For K-quants an F32 file is written
aside and llama.cpp's quantizer makes the final one.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...models.errors import ArtifactError, MissingExtra, UsageError
from ...models.scheme import Scheme
from .. import gguf_metadata, gguf_tokenizer, llama_quantizer
from ..checkpoint import Checkpoint
from ..gguf_tensors import Encode, Tensor, make, plan

if TYPE_CHECKING:
    from ..calibration import Calibration

FILE = "model.gguf"
CALIBRATE = "calibrate this model, not another"
Importance = Mapping[str, NDArray[np.float32]]
"""Importance by Hugging Face weight name."""

log = logging.getLogger(__name__)


def write(source: Path, folder: Path, scheme: Scheme, encode: Encode, calibration: Calibration | None) -> str:
    """Write the Hugging Face folder `source` as `folder`/model.gguf and return that file's name.

    `encode` makes the codes of a Q4_0 tensor from its Hugging Face name and weight [out, in]; `calibration` weights
    the errors of K-quants. Raises UsageError for a family or variation that GGUF does not carry, ArtifactError for a
    checkpoint or tokenizer that cannot be written, MissingExtra without the gguf package.
    """
    checkpoint = Checkpoint.open(source)
    if checkpoint.family.gguf is None:
        raise UsageError(f"{source}: the {checkpoint.family.name} family has no GGUF form",
                         "export it to ONNX, such as onnx:int8")
    checkpoint.family.check(checkpoint.config)
    if scheme.type not in llama_quantizer.TYPES:
        _write(checkpoint, folder / FILE, scheme.type, encode)
        return FILE
    with tempfile.TemporaryDirectory(prefix=".gguf.", dir=folder) as aside:
        full = Path(aside) / "full.gguf"
        tensors = _write(checkpoint, full, "F32", encode)
        importance = importance_by_name(tensors, calibration.importance if calibration else {})
        if calibration and not importance:
            raise ArtifactError("the calibration holds none of this model's layers", CALIBRATE)
        llama_quantizer.quantize(full, folder / FILE, scheme.type, importance)
    return FILE


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


def _write(checkpoint: Checkpoint, path: Path, type_name: str, encode: Encode) -> list[Tensor]:
    try:
        import gguf
    except ImportError as error:
        raise MissingExtra("gguf", "export") from error

    assert checkpoint.family.gguf is not None
    tensors, notes = plan(checkpoint, type_name)
    vocabulary = gguf_tokenizer.read(checkpoint.folder, checkpoint.vocabulary_size)
    file_type = gguf.LlamaFileType["ALL_F32" if type_name == "F32" else f"MOSTLY_{type_name}"]
    writer = gguf.GGUFWriter(path, checkpoint.family.gguf.architecture)
    try:
        notes += gguf_metadata.add(writer, checkpoint, int(file_type))
        gguf_tokenizer.add(writer, vocabulary)
        for tensor in tensors:
            writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), tensor.bytes,
                                   gguf.GGMLQuantizationType[tensor.type])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor in tensors:
            writer.write_tensor_data(make(tensor, checkpoint, encode))
    finally:
        writer.close()
    for note in [*notes, *vocabulary.notes]:
        log.warning("%s: %s", path.name, note)
    return tensors
