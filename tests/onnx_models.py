"""What the tests of ONNX exports share: codes by the plain rule, sessions, the float model, distances."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from edgestill.quantize.grid import codes
from numpy.typing import NDArray

LIMIT = 5e-3
"""Of the logits' standard deviation."""


def encode(name: str, weight: NDArray[np.float32]) -> codes.Codes:
    grouped = codes.blocks_of(weight)
    scales = codes.full_scales(grouped)
    return codes.Codes(codes.choose(grouped, scales).reshape(weight.shape), codes.to_half(scales))


def graph_file(folder: Path) -> Path:
    """The ONNX graph of an exported folder that our runtime loads."""
    direct = folder / "onnx" / "model_genai.onnx"
    return direct if direct.is_file() else next((folder / "onnx").glob("*.onnx"))


def session(folder: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph_file(folder), options, providers=["CPUExecutionProvider"])


def in_torch(source: Path, change: Callable[[Any], None] = lambda model: None) -> Any:
    import torch
    import transformers

    name = json.loads((source / "config.json").read_text())["architectures"][0]
    model = getattr(transformers, name).from_pretrained(source, dtype=torch.float32).eval()
    with torch.no_grad():
        change(model)
    return model


def distance(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    assert found.shape == wanted.shape
    return float(np.abs(found - wanted).max() / wanted.std())
