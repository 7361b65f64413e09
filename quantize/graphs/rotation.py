"""Rotary tables from the checkpoint's own rotation, as a formula that engines compute once while they load.

The builder's tables miss scalings that it does not know for a family (linear ones for llama), silently. And for a
context of 32,768 positions and heads of 64 they take 8 MB, more than the layers of a small student.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...models.errors import ArtifactError, UsageError
from .storage import initializer

FIXED = ("default", "linear", "llama3", "yarn")
"""Kinds of rotation whose frequencies do not depend on the length of the text."""


@dataclass(frozen=True)
class Rotation:
    """How far pairs of a head turn a position: `frequencies` float32 [pairs]; `factor` scales both tables."""

    frequencies: NDArray[np.float32]
    factor: np.float32


def read(source: Path) -> Rotation:
    """The rotation of a Hugging Face folder, as its own model class makes it from the config; reads no weights.

    Raises UsageError for a rotation that changes with the length of the text: no table can hold it.
    """
    import torch
    import transformers

    config = transformers.AutoConfig.from_pretrained(source, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        skeleton = transformers.AutoModelForCausalLM.from_config(config)
    module = type(skeleton.model.rotary_emb)(config=config)
    if module.rope_type not in FIXED:
        raise UsageError(f"{source}: positions are rotated in the way {module.rope_type!r}, and ONNX exports "
                         f"carry only {', '.join(FIXED)}", "export it as gguf, or choose another model")
    return Rotation(module.inv_freq.float().numpy(), np.float32(module.attention_scaling))


def compute_tables(model: Any, rotation: Rotation) -> None:
    """Replace the constants cos_cache and sin_cache [positions, pairs] by nodes that compute them."""
    import onnx_ir as ir

    graph = model.graph
    tables = {"Cos": graph.initializers["cos_cache"], "Sin": graph.initializers["sin_cache"]}
    positions, width = tables["Cos"].shape
    if width != len(rotation.frequencies):
        raise ArtifactError(f"the ONNX graph rotates {width} pairs of a head, the checkpoint "
                            f"{len(rotation.frequencies)}", "install the onnxruntime-genai version of constraints.txt")
    bounds = [initializer(graph, f"rotation.{name}", np.array(value, np.float32))
              for name, value in (("start", 0), ("positions", positions), ("step", 1))]
    steps = ir.node("Range", bounds, name="rotation/Range")
    column = initializer(graph, "rotation.column", np.array([positions, 1], np.int64))
    rows = ir.node("Reshape", [steps.outputs[0], column], name="rotation/Reshape")
    frequencies = initializer(graph, "rotation.frequencies", rotation.frequencies[None])
    angles = ir.node("Mul", [rows.outputs[0], frequencies], name="rotation/Angles")
    nodes = [steps, rows, angles]
    for kind, table in tables.items():
        nodes.append(ir.node(kind, [angles.outputs[0]], name=f"rotation/{kind}"))
        if rotation.factor != 1:
            scale = initializer(graph, "rotation.factor", np.asarray(rotation.factor))
            nodes.append(ir.node("Mul", [nodes[-1].outputs[0], scale], name=f"rotation/{kind}/scaled"))
        ir.convenience.replace_all_uses_with(table, nodes[-1].outputs[0])
    graph.insert_before(graph[0], nodes)
