"""Rotary tables from the checkpoint's own rotation, as a formula that engines compute once while they load.

The builder's tables miss scalings that it does not know for a family (linear ones for llama), silently. And for a
context of 32,768 positions and heads of 64 they take 8 MB, more than the layers of a small student.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...models.errors import ArtifactError, UsageError
from .storage import initializer

FIXED = ("default", "linear", "llama3", "yarn", "longrope")
"""Kinds of rotation whose frequencies do not depend on the length of the text, as far as an export reads."""
PREFIX = "rotation"
"""What the names of these nodes and their constants begin with."""
KINDS = {"": "", "_global": "full_attention_", "_local": "sliding_attention_"}
"""Ends of the tables' names in a graph → beginnings of the attributes of transformers' rotary embedding."""


@dataclass(frozen=True)
class Rotation:
    """How far pairs of a head turn a position: `frequencies` float32 [pairs]; `factor` scales both tables."""

    frequencies: NDArray[np.float32]
    factor: np.float32


def read(source: Path) -> dict[str, Rotation]:
    """The rotations of a Hugging Face folder, as its own model class makes them from the config; reads no weights.

    One for each kind of layer, by the end of its tables' names in the graph: one of the name "", or several.

    Raises UsageError for a rotation that changes with the length of the text: no table can hold it.
    """
    import torch
    import transformers

    config = transformers.AutoConfig.from_pretrained(source, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        skeleton = transformers.AutoModelForCausalLM.from_config(config)
    module = type(skeleton.base_model.rotary_emb)(config=config)
    types = module.rope_type
    found = {types} if isinstance(types, str) else set(types.values())
    if not found <= set(FIXED):
        raise UsageError(f"{source}: positions are rotated in the way {min(found - set(FIXED))!r}, and ONNX exports "
                         f"carry only {', '.join(FIXED)}", "export it as gguf, or choose another model")
    return {end: Rotation(getattr(module, f"{kind}inv_freq").float().numpy(),
                          np.float32(getattr(module, f"{kind}attention_scaling")))
            for end, kind in KINDS.items() if hasattr(module, f"{kind}inv_freq")}


def compute_tables(model: Any, rotations: Mapping[str, Rotation]) -> None:
    """Replace the constants cos_cache and sin_cache [positions, pairs], of each kind of layer, by nodes that compute
    them."""
    for end, rotation in rotations.items():
        _compute(model.graph, end, rotation)


def _compute(graph: Any, end: str, rotation: Rotation) -> None:
    import onnx_ir as ir

    tables = {"Cos": graph.initializers[f"cos_cache{end}"], "Sin": graph.initializers[f"sin_cache{end}"]}
    positions, width = tables["Cos"].shape
    if width != len(rotation.frequencies):
        raise ArtifactError(f"the ONNX graph rotates {width} pairs of a head, the checkpoint "
                            f"{len(rotation.frequencies)}", "install the onnxruntime-genai version of constraints.txt")
    bounds = [initializer(graph, f"rotation.{name}", np.array(value, np.float32))
              for name, value in (("start", 0), ("positions", positions), ("step", 1))]
    steps = ir.node("Range", bounds, name=f"rotation{end}/Range")
    column = initializer(graph, "rotation.column", np.array([positions, 1], np.int64))
    rows = ir.node("Reshape", [steps.outputs[0], column], name=f"rotation{end}/Reshape")
    frequencies = initializer(graph, f"rotation{end}.frequencies", rotation.frequencies[None])
    angles = ir.node("Mul", [rows.outputs[0], frequencies], name=f"rotation{end}/Angles")
    nodes = [steps, rows, angles]
    for kind, table in tables.items():
        nodes.append(ir.node(kind, [angles.outputs[0]], name=f"rotation{end}/{kind}"))
        if rotation.factor != 1:
            scale = initializer(graph, f"rotation{end}.factor", np.asarray(rotation.factor))
            nodes.append(ir.node("Mul", [nodes[-1].outputs[0], scale], name=f"rotation{end}/{kind}/scaled"))
        ir.convenience.replace_all_uses_with(table, nodes[-1].outputs[0])
    graph.insert_before(graph[0], nodes)
