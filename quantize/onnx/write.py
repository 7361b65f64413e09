"""ONNX for onnxruntime: decoders from onnxruntime-genai's builder or, where it lacks a family, node by node;
encoders from transformers' exporter.

`fp32` is the graph as built. `int8` and `int4` are weights only for decoders, in blocks of 32 (MatMulNBits), because
quantized activations ruin generation; `q4f16` is int4 that computes in float16, for WebGPU. Encoders take `int8` with
dynamically quantized activations.
"""

from __future__ import annotations

import tempfile
from collections.abc import Container
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...models import files
from ...models.errors import UsageError
from ...models.scheme import HALF, MIXED, Scheme
from ..grid.codes import Encode
from ..layouts import transformers_js
from ..mixed.choose_types import Choose, Part
from ..source.checkpoint import Checkpoint
from . import builder, decoder, encoder, exporter, half, nibbles, plain, rotation, storage
from .blocks import dequantize, eight_bit, four_bit

BITS = {"int8": 8, "int4": 4, HALF: 4}
DEALT = ("int8", "int4")
"""What the layers of a mixed file are."""
DIRECT = "model_genai.onnx"
"""The graph that onnxruntime-genai and our runtime load, where it differs from transformers.js's."""


def write(source: Path, folder: Path, scheme: Scheme, encode: Encode, calibration: Any = None,
          choose: Choose | None = None) -> str:
    """Export the Hugging Face folder `source` into `folder`; returns the name of the file an engine loads.

    The graph lies where transformers.js looks for it, a decoder's weights beside it, in `<file>_data`; an encoder is
    one file. A decoder gets onnxruntime-genai's genai_config.json, and where its graph has blocks of 8 bits, which
    transformers.js 3 cannot multiply by, there are two graphs over those weights: DIRECT is the other one.
    `encode` turns a matrix [out, in] under its checkpoint name into 4-bit codes; importance is its caller's matter, so
    `calibration` is not looked at here; `choose` deals out a mixed file's types, int4 and int8. Raises UsageError for a
    family or a combination that is not carried.
    """
    checkpoint = Checkpoint.open(source)
    family = checkpoint.family
    family.check(checkpoint.config)
    if scheme.type == MIXED and family.onnx != "builder":
        raise UsageError(f"{scheme}: models of the {family.name} family get one type for the whole graph",
                         "take onnx:int8, or gguf:mixed for a decoder")
    if scheme.type == HALF and "state_dim" in family.keys:
        raise UsageError(f"{scheme}: linear attention, as in the {family.name} family, computes in float32",
                         "take onnx:int4")
    if family.onnx == "builder":
        return _decoder(checkpoint, folder, scheme, encode, choose)
    if family.onnx == "exporter":
        return _encoder(checkpoint, folder, scheme)
    if family.onnx == "plain":
        return _plain(checkpoint, folder, scheme, encode)
    raise UsageError(f"{scheme}: the {family.name} family has no ONNX export", "export it as gguf")


def _decoder(checkpoint: Checkpoint, folder: Path, scheme: Scheme, encode: Encode,
             choose: Choose | None) -> str:
    turned = rotation.read(checkpoint.folder)
    family = checkpoint.family
    window = checkpoint.config.get(family.keys.get("window", ""))
    with builder.built(checkpoint) as built:
        rotation.compute_tables(built.model, turned)
        decoder.unturn(built.model, checkpoint.config.get(family.builder.unturned, ()))
        decoder.bound_norms(built.model, int(family.of(checkpoint.config, "state_dim", 1)))
        decoder.unround_scale(built.model, int(family.of(checkpoint.config, "hidden")))
        shape = built.genai["model"]["decoder"]
        decoder.fix_cache_shapes(built.model, shape["num_key_value_heads"], shape["head_size"])
        if window:
            decoder.limit_window(built.model, int(window))
        narrow = _narrow(built.model, checkpoint, encode, choose, folder) if choose else None
        _compress(built.model, checkpoint, "int4" if choose else scheme.type, encode, narrow)
        model_file = _save(built.model, folder, scheme.type)
        files.write_json(folder / "genai_config.json", builder.genai_config(built.genai, model_file))
    return model_file


def _compress(model: Any, checkpoint: Checkpoint, type: str, encode: Encode,
              narrow: Container[str] | None = None) -> None:
    """Give the layers of a built graph a type, or those in `narrow`, in place."""
    if type in BITS:
        decoder.compress(model, checkpoint.family, checkpoint.tensor, BITS[type], encode, narrow)
    decoder.choose_logits(model)
    if type == HALF:
        half.halve(model)


def _save(model: Any, folder: Path, type: str) -> str:
    """Write a decoder's graph or graphs; returns the name of the one that engines with 8-bit blocks load."""
    shared = transformers_js.model_file(type)
    two = nibbles.needed(model)
    model_file = Path(shared).with_name(DIRECT).as_posix() if two else shared
    storage.save(model, folder / model_file, storage.data_file(folder / shared))
    if two:
        storage.save_beside(nibbles.twin(model), folder / shared)
    return model_file


def _narrow(model: Any, checkpoint: Checkpoint, encode: Encode, choose: Choose, folder: Path) -> set[str]:
    """The layers, by the checkpoint's names, that `choose` puts into 4 bits."""
    sizes: dict[tuple[str, ...], dict[str, int]] = {}
    for names, (rows, columns) in decoder.matrices(model, checkpoint.family):
        known = sizes.setdefault(names, dict.fromkeys(DEALT, 0))  # shares of one matrix count together
        for type in DEALT:
            known[type] += storage.room(rows * columns * BITS[type] // 8)
    parts = [Part(names, known) for names, known in sizes.items()]
    # A file in eight bits says what all the rest takes: scales, tables, and the graph, which only gets shorter.
    whole = _bytes(model.clone(), checkpoint, encode, folder)
    fixed = whole + storage.ALIGNMENT - sum(part.sizes["int8"] for part in parts)
    plain = fixed + sum(part.sizes["int4"] for part in parts)
    types = choose(parts, fixed, plain, lambda name, type: _restored(checkpoint.tensor(name), name, type, encode))
    return {name for name, type in types.items() if type == "int4"}


def _bytes(model: Any, checkpoint: Checkpoint, encode: Encode, folder: Path) -> int:
    """Of a graph and its weights in eight bits."""
    with tempfile.TemporaryDirectory(prefix=".onnx.", dir=folder) as aside:
        _compress(model, checkpoint, "int8", encode)
        storage.save(model, Path(aside) / DIRECT, storage.data_file(Path(aside) / DIRECT))
        return sum(file.stat().st_size for file in Path(aside).iterdir())


def _restored(weight: NDArray[np.float32], name: str, type: str, encode: Encode) -> NDArray[np.float32]:
    return dequantize(four_bit([encode(name, weight)]) if type == "int4" else eight_bit(weight))


def _plain(checkpoint: Checkpoint, folder: Path, scheme: Scheme, encode: Encode) -> str:
    model = plain.built(checkpoint, BITS.get(scheme.type, 32), encode)
    if scheme.type == HALF:
        half.halve(model)
    model_file = _save(model, folder, scheme.type)
    files.write_json(folder / "genai_config.json", plain.genai_config(checkpoint, model_file))
    return model_file


def _encoder(checkpoint: Checkpoint, folder: Path, scheme: Scheme) -> str:
    if BITS.get(scheme.type) == 4:
        raise UsageError(f"{scheme}: 4-bit blocks make an encoder slower than int8 and no more exact",
                         "use onnx:int8 for classifiers")
    model = exporter.exported(checkpoint.folder)
    if scheme.type == "int8":
        encoder.compress(model)
    model_file = transformers_js.model_file(scheme.type)
    storage.save(model, folder / model_file)
    return model_file
