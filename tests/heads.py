"""One packed classifier as a model of every head: the same graph under other words in config.json and task."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from edgestill.models.artifact import MANIFEST
from numpy.typing import NDArray

from . import packed

TEXT = "turn off the kitchen light"
PAIR = ("turn off the kitchen light", "what is the weather like today?")
ONE = 1
"""The output that a graph of one logit keeps."""


def variant(source: Path, folder: Path, config: dict[str, Any] | None = None, one_logit: bool = False,
            **task: Any) -> Path:
    """A copy of the packed classifier with these values in config.json (None removes one) and in the task, which names
    no labels of its own; `one_logit` leaves the graph its output ONE alone."""
    shutil.copytree(source, folder)
    table = json.loads((folder / "config.json").read_text()) | (config or {})
    (folder / "config.json").write_text(json.dumps({key: value for key, value in table.items() if value is not None}))
    if one_logit:
        _keep_one(folder / json.loads((folder / MANIFEST).read_text())["model_file"])
    return packed.resealed(folder, task={"kind": "classify"} | task)


def _keep_one(path: Path) -> None:
    import onnx
    from onnx import helper

    model = onnx.load(path)
    (output,) = model.graph.output
    for node in model.graph.node:
        node.output[:] = ["all" if name == "logits" else name for name in node.output]
    model.graph.initializer.append(helper.make_tensor("kept", onnx.TensorProto.INT64, [1], [ONE]))
    model.graph.node.append(helper.make_node("Gather", ["all", "kept"], ["logits"], axis=1))
    output.type.tensor_type.shape.dim[1].dim_value = 1
    onnx.save(model, path)


@cache
def in_torch(folder: Path, text: str | tuple[str, str]) -> NDArray[np.float64]:
    """The logits of the float model in transformers, with its own tokenizer."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    texts = (text,) if isinstance(text, str) else text
    inputs = AutoTokenizer.from_pretrained(folder)(*texts, return_tensors="pt", truncation=True, max_length=24)
    with torch.no_grad():
        result: NDArray[np.float64] = model(**inputs).logits[0].double().numpy()
    return result
