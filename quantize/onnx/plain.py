"""Decoder graphs for families that onnxruntime_genai's builder lacks, written node by node from a checkpoint.

What they share is gpt2's build: layer norms with bias, one matrix for queries, keys and values, two for the
feed-forward. Attention, rotation and cache are one GroupQueryAttention node a layer, as in the builder's graphs, so
every engine that drives those drives these.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...models.errors import UsageError
from ...models.family import Plain
from ..grid.codes import Encode, fits
from ..layouts import CACHE_LENGTH
from ..source.checkpoint import Checkpoint
from . import rotation
from .blocks import Blocks, eight_bit, four_bit
from .exporter import OPSET
from .rewrite import gather_blocks
from .storage import initializer

PAIRS = 8
"""GroupQueryAttention rotates a multiple of so many pairs of a head's channels."""


def built(checkpoint: Checkpoint, bits: int, encode: Encode) -> Any:
    """The graph (onnx_ir.Model) of a checkpoint, layers at `bits` (4, 8, or 32 for float), tables and head at 8.

    Inputs int64 [batch_size, …]: input_ids, attention_mask and, where the family learns positions, position_ids;
    past_key_values.{layer}.key and .value. Outputs: logits and present.{layer}.key and .value. `encode` gives the codes
    where `bits` is 4; a layer whose rows do not divide by 32 keeps 8 bits.
    """
    import onnx_ir as ir

    graph = ir.Graph([], [], nodes=[], opset_imports={"": OPSET, "com.microsoft": 1}, name="main")
    turned = None if checkpoint.family.plain.positions else rotation.read(checkpoint.folder)[""]
    _Writer(graph, checkpoint, bits, encode).write(0 if turned is None else len(turned.frequencies))
    model = ir.Model(graph, ir_version=10)
    if turned is not None:
        if turned.factor != 1:
            raise UsageError(f"{checkpoint.folder}: rotated channels are scaled, which ONNX exports of the "
                             f"{checkpoint.family.name} family do not carry", "choose a model with another rotation")
        still = _whole(len(turned.frequencies)) - len(turned.frequencies)
        rotation.compute_tables(model, {"": rotation.Rotation(np.pad(turned.frequencies, (0, still)), turned.factor)})
    return model


def genai_config(checkpoint: Checkpoint, model_file: str) -> dict[str, Any]:
    """onnxruntime-genai's configuration of the graph; its type `decoder` takes whatever has these inputs."""
    config, family = checkpoint.config, checkpoint.family
    heads, size = int(family.of(config, "heads")), family.head_size(config)
    context = family.context(config)
    # The program refuses a null. The ids that end an answer are its layout's to name.
    named = [config.get(f"{name}_token_id") for name in ("eos", "bos", "pad")]
    end = next((value for value in named if isinstance(value, int)), 0)
    ids = {f"{name}_token_id": value if isinstance(value, int) else end
           for name, value in zip(("eos", "bos", "pad"), named, strict=True)}
    inputs = ["input_ids", "attention_mask", *(["position_ids"] if family.plain.positions else [])]
    return {
        "model": {
            "type": "decoder", **ids, "vocab_size": checkpoint.vocabulary_size, "context_length": context,
            "decoder": {
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []}, "filename": model_file,
                "head_size": size, "hidden_size": heads * size, "num_attention_heads": heads,
                "num_key_value_heads": heads, "num_hidden_layers": int(family.of(config, "layers")),
                "inputs": {**{name: name for name in inputs}, "past_key_names": "past_key_values.%d.key",
                           "past_value_names": "past_key_values.%d.value"},
                "outputs": {"logits": "logits", "present_key_names": "present.%d.key",
                            "present_value_names": "present.%d.value"}}},
        "search": {"max_length": min(context, CACHE_LENGTH), "do_sample": False, "past_present_share_buffer": True}}


def _whole(pairs: int) -> int:
    """`pairs` filled up with pairs that stand still: the node rotates multiples of 8."""
    return -(-pairs // PAIRS) * PAIRS


class _Writer:
    """Writes nodes into a graph, one after the other as they run."""

    def __init__(self, graph: Any, checkpoint: Checkpoint, bits: int, encode: Encode) -> None:
        self.graph, self.checkpoint, self.bits, self.encode = graph, checkpoint, bits, encode
        self.names: Plain = checkpoint.family.plain
        config, family = checkpoint.config, checkpoint.family
        self.heads, self.size = int(family.of(config, "heads")), family.head_size(config)
        self.epsilon = float(family.of(config, "norm_epsilon", 1e-5))
        self.parallel = bool(config.get(self.names.parallel, True)) if self.names.parallel else False
        # Of "transformer.wte.weight"; early gpt2 files have it without the first part.
        self.prefix = "".join(f"{part}." for part in checkpoint.embedding.split(".")[:-2])

    def write(self, pairs: int) -> None:
        """The whole graph; `pairs` of channels of a head are rotated, the tables of cosines and sines still empty."""
        self.pairs = pairs
        positions = self.checkpoint.family.context(self.checkpoint.config)
        tables = [self.constant(name, np.zeros((positions, _whole(pairs)), np.float32))
                  for name in ("cos_cache", "sin_cache") if pairs]
        names, prefix = self.names, self.prefix
        ids = self.input("input_ids", "sequence_length")
        mask = self.input("attention_mask", "total_sequence_length")
        table = self.constant("embedding", self.checkpoint.tensor(self.checkpoint.embedding))
        lookup = self.add("Gather", [table, ids], "embedding")
        state = lookup
        if names.positions:
            learned = self.constant("positions", self.checkpoint.tensor(prefix + names.positions))
            places = self.input("position_ids", "sequence_length")
            state = self.add("Add", [state, self.add("Gather", [learned, places], "positions")], "embedded")
        shared = [*self.lengths(mask), *tables]
        for layer in range(int(self.checkpoint.family.of(self.checkpoint.config, "layers"))):
            state = self.layer(state, layer, shared)
        state = self.norm(state, prefix + names.last_norm)
        logits = self.head(state, table)
        self.output(logits, "logits", ["batch_size", "sequence_length", self.checkpoint.vocabulary_size])
        if self.bits < 32:
            gather_blocks(self.graph, lookup.producer(), "embedding", self.checkpoint.tensor(self.checkpoint.embedding))

    def layer(self, state: Any, layer: int, shared: list[Any]) -> Any:
        names, stem = self.names, f"{self.prefix}{self.names.layers}.{layer}."
        attended = self.attention(self.norm(state, stem + names.attention_norm), layer, stem, shared)
        after = self.add("Add", [state, attended], f"{stem}attended")
        wide = self.linear(self.norm(state if self.parallel else after, stem + names.norm), stem + names.up)
        wide = self.add("Gelu", [wide], f"{stem}gelu", approximate=names.gelu)
        return self.add("Add", [after, self.linear(wide, stem + names.down)], f"{stem}end")

    def attention(self, state: Any, layer: int, stem: str, shared: list[Any]) -> Any:
        packed = self.linear(state, stem + self.names.attention, self.order())
        past = [self.cache(f"past_key_values.{layer}.{part}") for part in ("key", "value")]
        found, *present = self.add(
            "GroupQueryAttention", [packed, None, None, *past, *shared], f"{stem}GroupQueryAttention", 3,
            "com.microsoft", num_heads=self.heads, kv_num_heads=self.heads, scale=float(self.size**-0.5),
            do_rotary=int(self.pairs > 0), local_window_size=-1)
        for part, value in zip(("key", "value"), present, strict=True):
            self.output(value, f"present.{layer}.{part}",
                        ["batch_size", self.heads, "total_sequence_length", self.size])
        return self.linear(found, stem + self.names.attention_output)

    def lengths(self, mask: Any) -> list[Any]:
        """Tokens before the last one of each row, and of the longest row: int32 [batch_size] and scalar."""
        import onnx_ir as ir

        one, axis = self.constant("one", np.array([1], np.int64)), self.constant("axis", np.array(1, np.int64))
        count = self.add("ReduceSum", [mask, one], "lengths/sum", keepdims=0)
        before = self.add("Sub", [count, one], "lengths/before")
        total = self.add("Gather", [self.add("Shape", [mask], "lengths/shape"), axis], "lengths/total")
        return [self.add("Cast", [value], f"{value.name}/int32", to=ir.DataType.INT32.value)
                for value in (before, total)]

    def order(self) -> NDArray[np.intp]:
        """Rows of the attention's matrix as the node wants them: all queries, all keys, all values.

        The channels of queries and keys that pairs which stand still need go between the halves that are rotated.
        """
        shape = (self.heads, 3, self.size) if self.names.by_head else (3, self.heads, self.size)
        rows = np.arange(3 * self.heads * self.size).reshape(shape)
        rows = rows.swapaxes(0, 1) if self.names.by_head else rows
        first, second, rest = np.split(np.arange(self.size), [self.pairs, 2 * self.pairs])
        still = _whole(self.pairs) - self.pairs
        channels = np.concatenate([first, rest[:still], second, rest[still:]])
        return np.concatenate([rows[:2][:, :, channels].reshape(-1), rows[2].reshape(-1)])

    def head(self, state: Any, table: Any) -> Any:
        family = self.checkpoint.family
        if self.checkpoint.config.get("tie_word_embeddings", family.head not in self.checkpoint.entries):
            if self.bits == 32:
                turned = self.add("Transpose", [table], "head/turned", perm=[1, 0])
                return self.add("MatMul", [state, turned], "head")
            return self.multiply(state, "head", eight_bit(self.checkpoint.tensor(self.checkpoint.embedding)))
        weight = self.checkpoint.tensor(family.head)
        if self.bits == 32:
            return self.add("MatMul", [state, self.constant("head.weight", weight.T)], "head")
        return self.multiply(state, "head", eight_bit(weight))

    def linear(self, state: Any, name: str, order: NDArray[np.intp] | None = None) -> Any:
        """`state` through the layer `name`, its outputs in `order`, and its bias."""
        stored = self.checkpoint.tensor(f"{name}.weight")
        weight = np.ascontiguousarray(stored.T) if self.names.turned else stored
        rows = np.arange(len(weight)) if order is None else order
        if self.bits == 32:
            found = self.add("MatMul", [state, self.constant(f"{name}.weight", weight[rows].T)], name)
        elif self.bits == 4 and fits(weight.shape[1]):
            found = self.multiply(state, name, four_bit([self.encode(f"{name}.weight", weight).take(rows)]))
        else:
            found = self.multiply(state, name, eight_bit(weight[rows]))
        bias = self.constant(f"{name}.bias", self.checkpoint.tensor(f"{name}.bias")[rows])
        return self.add("Add", [found, bias], f"{name}/biased")

    def multiply(self, state: Any, name: str, blocks: Blocks) -> Any:
        parts = [self.constant(f"{name}.codes", blocks.packed), self.constant(f"{name}.scales", blocks.scales)]
        return self.add("MatMulNBits", [state, *parts], name, domain="com.microsoft", **blocks.attributes())

    def norm(self, state: Any, name: str) -> Any:
        parts = [self.constant(f"{name}.{kind}", self.checkpoint.tensor(f"{name}.{kind}"))
                 for kind in ("weight", "bias")]
        return self.add("LayerNormalization", [state, *parts], name, axis=-1, epsilon=self.epsilon)

    def add(self, kind: str, inputs: list[Any], name: str, outputs: int = 1, domain: str = "",
            **attributes: Any) -> Any:
        """Append a node; its output, or all of them where there are several."""
        import onnx_ir as ir

        node = ir.node(kind, inputs, attributes=attributes, domain=domain, num_outputs=outputs, name=name)
        for index, value in enumerate(node.outputs):
            value.name = f"{name}/{index}"
        self.graph.append(node)
        return node.outputs[0] if outputs == 1 else node.outputs

    def constant(self, name: str, array: NDArray[Any]) -> Any:
        return initializer(self.graph, name, array)

    def input(self, name: str, axis: str) -> Any:
        import onnx_ir as ir

        return self.declare(name, ir.DataType.INT64, ["batch_size", axis])

    def cache(self, name: str) -> Any:
        import onnx_ir as ir

        return self.declare(name, ir.DataType.FLOAT, ["batch_size", self.heads, "past_sequence_length", self.size])

    def declare(self, name: str, kind: Any, shape: list[str | int]) -> Any:
        import onnx_ir as ir

        value = ir.Value(name=name, type=ir.TensorType(kind), shape=ir.Shape(shape))
        self.graph.inputs.append(value)
        return value

    def output(self, value: Any, name: str, shape: list[str | int]) -> None:
        import onnx_ir as ir

        value.name, value.type, value.shape = name, ir.TensorType(ir.DataType.FLOAT), ir.Shape(shape)
        self.graph.outputs.append(value)
