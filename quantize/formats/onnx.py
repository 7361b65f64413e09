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
from ..checkpoint import Checkpoint
from ..graphs import builder, decoder, encoder, exporter, half, plain, rotation, storage
from ..graphs.blocks import dequantize, eight_bit, four_bit
from ..layouts import transformers_js
from ..mixing import Choose, Part

BITS = {"int8": 8, "int4": 4, HALF: 4}
DEALT = ("int8", "int4")
"""What the layers of a mixed file are."""


def write(source: Path, folder: Path, scheme: Scheme, encode: decoder.Encode, calibration: Any = None,
          choose: Choose | None = None) -> str:
    """Export the Hugging Face folder `source` into `folder`; returns the name of the file an engine loads.

    The file lies where transformers.js looks for it. A decoder's weights lie beside it, in `<file>_data`, and it gets
    onnxruntime-genai's genai_config.json; an encoder is one file.
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


def _decoder(checkpoint: Checkpoint, folder: Path, scheme: Scheme, encode: decoder.Encode,
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
        model_file = transformers_js.model_file(scheme.type)
        narrow = _narrow(built.model, checkpoint, encode, choose, folder / model_file) if choose else None
        _ship(built.model, checkpoint, folder / model_file, "int4" if choose else scheme.type, encode, narrow)
        files.write_json(folder / "genai_config.json", builder.genai_config(built.genai, model_file))
    return model_file


def _ship(model: Any, checkpoint: Checkpoint, path: Path, type: str, encode: decoder.Encode,
          narrow: Container[str] | None = None) -> None:
    """Write the built graph as `path` with layers of a type, or those in `narrow` of it, changing it in place."""
    if type in BITS:
        decoder.compress(model, checkpoint.family, checkpoint.tensor, BITS[type], encode, narrow)
    decoder.choose_logits(model)
    if type == HALF:
        half.halve(model)
    storage.save(model, path, external=True)


def _narrow(model: Any, checkpoint: Checkpoint, encode: decoder.Encode, choose: Choose, path: Path) -> set[str]:
    """The layers, by the checkpoint's names, that `choose` puts into 4 bits."""
    sizes: dict[tuple[str, ...], dict[str, int]] = {}
    for names, (rows, columns) in decoder.matrices(model, checkpoint.family):
        known = sizes.setdefault(names, dict.fromkeys(DEALT, 0))  # shares of one matrix count together
        for type in DEALT:
            known[type] += storage.room(rows * columns * BITS[type] // 8)
    parts = [Part(names, known) for names, known in sizes.items()]
    # A file in eight bits says what all the rest takes: scales, tables, and the graph, which only gets shorter.
    with tempfile.TemporaryDirectory(prefix=".onnx.", dir=path.parents[1]) as aside:
        _ship(model.clone(), checkpoint, Path(aside) / path.name, "int8", encode)
        whole = sum(file.stat().st_size for file in Path(aside).iterdir())
    fixed = whole + storage.ALIGNMENT - sum(part.sizes["int8"] for part in parts)
    types = choose(parts, fixed, lambda name, type: _restored(checkpoint.tensor(name), name, type, encode))
    return {name for name, type in types.items() if type == "int4"}


def _restored(weight: NDArray[np.float32], name: str, type: str, encode: decoder.Encode) -> NDArray[np.float32]:
    return dequantize(four_bit([encode(name, weight)]) if type == "int4" else eight_bit(weight))


def _plain(checkpoint: Checkpoint, folder: Path, scheme: Scheme, encode: decoder.Encode) -> str:
    model = plain.built(checkpoint, BITS.get(scheme.type, 32), encode)
    if scheme.type == HALF:
        half.halve(model)
    model_file = transformers_js.model_file(scheme.type)
    storage.save(model, folder / model_file, external=True)
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
    storage.save(model, folder / model_file, external=False)
    return model_file
