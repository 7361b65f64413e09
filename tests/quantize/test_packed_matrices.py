"""A graph of 4-bit blocks that another program packed: every matrix is held to the tensor that its name stands for."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from edgestill.models.artifact import Artifact, Manifest
from edgestill.models.errors import ArtifactError
from edgestill.models.task import Task
from edgestill.quantize.onnx import packed_matrices
from edgestill.quantize.proof.certificate import Check
from edgestill.quantize.proof.checks import tensors
from edgestill.quantize.source.checkpoint import Checkpoint

QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")


@dataclass
class Node:
    """One matrix as another program packs it: blocks along the rows, codes with the lowest bits first."""

    name: str
    codes: Any
    scales: Any
    zeros: Any
    bits: int
    columns: int
    block: int
    attributes: dict[str, int] = field(default_factory=dict)


def packed(name: str, weight: np.ndarray, bits: int = 4, block: int = 16, even: bool = True) -> Node:
    """Rounded to the nearest step, with the middle code for zero or (not `even`) a zero point of each block."""
    blocks = weight.reshape(len(weight), -1, block)
    most = 2**bits - 1
    if even:
        scales, zeros = np.abs(blocks).max(2) / (most // 2), None
        codes = np.rint(blocks / scales[..., None]) + (most + 1) // 2
    else:
        low, high = np.minimum(blocks.min(2), 0), np.maximum(blocks.max(2), 0)
        scales = (high - low) / most
        zeros = np.rint(-low / scales)
        codes = np.rint(blocks / scales[..., None]) + zeros[..., None]
    return Node(name, codes.clip(0, most).astype(np.uint8), scales.astype(np.float32),
                None if zeros is None else zeros.astype(np.uint8), bits, weight.shape[1], block)


def joined(codes: np.ndarray, bits: int) -> np.ndarray:
    """Numbers [..., n] in bytes, the lowest bits first."""
    if codes.shape[-1] * bits % 8:
        codes = np.concatenate([codes, np.zeros((*codes.shape[:-1], 1), np.uint8)], -1)
    parts = codes.reshape(*codes.shape[:-1], -1, 8 // bits).astype(np.uint16)
    return np.asarray((parts << np.arange(0, 8, bits)).sum(-1), np.uint8)


def write(folder: Path, nodes: list[Node]) -> Path:
    import onnx
    from onnx import helper, numpy_helper

    made, constants = [], []
    for index, node in enumerate(nodes):
        parts = [joined(node.codes, node.bits), node.scales.reshape(-1)]
        parts += [] if node.zeros is None else [joined(node.zeros, node.bits).reshape(-1)
                                                if node.zeros.dtype == np.uint8 else node.zeros]
        names = [f"w{index}.{place}" for place in range(len(parts))]
        constants += [numpy_helper.from_array(part, name) for part, name in zip(parts, names, strict=True)]
        sizes = {"N": len(node.codes), "K": node.columns, "bits": node.bits, "block_size": node.block}
        made.append(helper.make_node("MatMulNBits", ["x", *names], [f"y{index}"], node.name, domain="com.microsoft",
                                     **sizes | node.attributes))
    graph = helper.make_graph(made, "one", [], [], constants)
    onnx.save(helper.make_model(graph), folder / "model.onnx")
    return folder


@pytest.fixture(scope="module")
def checkpoint(tiny_llama: Path) -> Checkpoint:
    return Checkpoint.open(tiny_llama)


@pytest.fixture
def sound(checkpoint: Checkpoint) -> list[Node]:
    """Layers in the ways that programs pack them."""
    def read(layer: int, name: str) -> np.ndarray:
        return checkpoint.tensor(f"model.layers.{layer}.{name}.weight")
    return [node for layer in (0, 1) for node in (
        packed(f"/model/layers.{layer}/attn/qkv_proj/MatMul_Q4", np.concatenate([read(layer, name) for name in QKV])),
        packed(f"/model/layers.{layer}/mlp/down_proj/MatMul_Q4", read(layer, "mlp.down_proj"), block=128),
        packed(f"/model/layers.{layer}/mlp/up_proj/MatMul_Q4", read(layer, "mlp.up_proj"), even=False),
        packed(f"/model/layers.{layer}/mlp/gate_proj/MatMul_Q8", read(layer, "mlp.gate_proj"), bits=8),
    )] + [packed("/lm_head/MatMul_Q8", checkpoint.tensor("model.embed_tokens.weight"), bits=8, block=32)]


def judged(folder: Path, checkpoint: Checkpoint) -> Check:
    artifact = Artifact(folder, Manifest("export", Task(), "llama", "onnx:int4", "model.onnx"))
    subject: Any = SimpleNamespace(artifact=artifact, float_folder=checkpoint.folder, format="onnx", float_model=None,
                                   coded=None)
    (found,) = tensors.check(subject)
    return found


def test_sound_blocks_of_every_kind_pass(sound: list[Node], checkpoint: Checkpoint, tmp_path: Path) -> None:
    sound[2] = replace(sound[2], zeros=sound[2].zeros.astype(np.float32))
    found = judged(write(tmp_path, sound), checkpoint)
    assert found.passed and found.n == 9 and found.value is not None and found.value < 0.8, found
    for one in packed_matrices.each(tmp_path / "model.onnx"):
        wanted = packed_matrices.expected(packed_matrices.sources(one.name, checkpoint), checkpoint)
        assert abs(one.values - wanted).max() <= one.steps.max() * 0.51 and abs(one.bias(wanted)) < 0.1


def nibbles(node: Node) -> Node:
    return replace(node, codes=node.codes.reshape(*node.codes.shape[:-1], -1, 2)[..., ::-1].reshape(node.codes.shape))


FAULTS: dict[str, tuple[int, Callable[[Node], Node], str]] = {
    "scales": (5, lambda node: replace(node, scales=node.scales * np.float32(0.75)),
               "layers.1.mlp.down_proj.weight is 0.7"),
    "nibbles": (4, nibbles, "layers.1.self_attn.q_proj.weight .*v_proj.weight is "),
    "rows": (3, lambda node: replace(node, codes=node.codes[::-1], scales=node.scales[::-1]),
             "layers.0.mlp.gate_proj.weight is "),
    "zero points": (6, lambda node: replace(node, zeros=node.zeros + np.uint8(1)),
                    "layers.1.mlp.up_proj.weight (lies -[01].[09]. steps beside|is )"),
    "a middle of 7": (0, lambda node: replace(node, zeros=np.full(node.scales.shape, 7, np.uint8)),
                      "layers.0.self_attn.q_proj.weight .* (lies [01].[09]. steps beside|is )"),
    "zero points of 8 bits": (7, lambda node: replace(node, zeros=np.full(node.scales.shape, 129, np.uint8)),
                              "layers.1.mlp.gate_proj.weight (lies -[01].[09]. steps|is )"),
    "shape": (1, lambda node: replace(node, codes=node.codes[:-1], scales=node.scales[:-1]),
              r"layers.0.mlp.down_proj.weight is \[63, 128\], the float model's is \[64, 128\]"),
    "NaN": (8, lambda node: replace(node, scales=node.scales * np.float32(np.nan)), "embed_tokens.weight is nan"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_one_matrix_is_named(name: str, sound: list[Node], checkpoint: Checkpoint, tmp_path: Path) -> None:
    place, spoil, message = FAULTS[name]
    sound[place] = spoil(sound[place])
    found = judged(write(tmp_path, sound), checkpoint)
    assert found.passed is False and found.cause == "weights"
    assert re.search(message, found.detail), found.detail


def test_layers_in_each_other_s_place_are_named(sound: list[Node], checkpoint: Checkpoint, tmp_path: Path) -> None:
    sound[2], sound[6] = replace(sound[6], name=sound[2].name), replace(sound[2], name=sound[6].name)
    found = judged(write(tmp_path, sound), checkpoint)
    assert found.passed is False and "mlp.up_proj.weight is" in found.detail


def test_zero_points_beside_show_where_rounding_hides_them(checkpoint: Checkpoint) -> None:
    """A block's values all one step aside are within what 4 bits may differ by, and no rounding."""
    weight = checkpoint.tensor("model.layers.0.mlp.up_proj.weight")
    steps = np.full((len(weight), 4), np.abs(weight).max() / 7, np.float32)
    values = np.rint(weight / steps[0, 0]) * steps[0, 0]
    for step in (-1, 1):
        one = packed_matrices.Packed("a", 4, values + step * steps[0, 0], steps * step, 16)
        assert one.bias(weight) == pytest.approx(1, abs=0.1)
    assert abs(packed_matrices.Packed("a", 4, values, steps, 16).bias(weight)) < 0.1


def test_names_that_tell_nothing_are_counted_and_said(sound: list[Node], checkpoint: Checkpoint,
                                                      tmp_path: Path) -> None:
    found = judged(write(tmp_path, [*sound[:2], replace(sound[4], name="node_7")]), checkpoint)
    assert found.passed and found.n == 2 and "1 more are not compared" in found.detail
    found = judged(write(tmp_path, [replace(sound[4], name="node_7")]), checkpoint)
    assert found.passed is None and "node_7" in found.detail


@pytest.mark.parametrize("attributes", [{"block_size": 24}, {"bits": 3}, {"N": 7}, {"K": 10**6}, {"block_size": 0}])
def test_sizes_that_contradict_each_other_are_refused(attributes: dict[str, int], sound: list[Node],
                                                      tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"model.onnx: the sizes of '/model/layers.0/attn/qkv_proj/MatMul_Q4'"):
        list(packed_matrices.each(write(tmp_path, [replace(sound[0], attributes=attributes)]) / "model.onnx"))
