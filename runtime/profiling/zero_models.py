"""Decoders of any size whose weights are all zero: files of holes that take next to no disk, for measuring engines.

An engine's time does not depend on what its weights are, but on how many there are and how they are stored.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..files.gguf_header import MAGIC, STRING, TYPES

HEAD = 64
"""Channels of an attention head."""
_ALIGNED = 32
_FLOAT, _UINT8, _INT32, _INT64 = 1, 2, 6, 7
"""ONNX's numbers of types."""
_BLOCK = 32
"""Weights that share a scale in MatMulNBits."""


@dataclass(frozen=True)
class Decoder:
    """The shape of a Llama; as many heads of keys and values as of queries."""

    layers: int
    hidden: int
    inner: int
    vocabulary: int = 512
    context: int = 2048

    def matrices(self) -> dict[str, tuple[int, int]]:
        """What every layer multiplies with, as (outputs, inputs)."""
        return {"q": (self.hidden, self.hidden), "k": (self.hidden, self.hidden), "v": (self.hidden, self.hidden),
                "o": (self.hidden, self.hidden), "gate": (self.inner, self.hidden), "up": (self.inner, self.hidden),
                "down": (self.hidden, self.inner)}

    @property
    def weights(self) -> int:
        """Weights that a token is multiplied with."""
        return self.layers * sum(map(math.prod, self.matrices().values())) + self.vocabulary * self.hidden


def write_gguf(path: Path, model: Decoder, type: str) -> None:
    """A GGUF file without a vocabulary's texts; `type` stores the matrices, such as Q4_0."""
    numbers = {name: number for number, (name, _, _) in TYPES.items()}
    heads = model.hidden // HEAD
    values = {"context_length": model.context, "embedding_length": model.hidden, "block_count": model.layers,
              "feed_forward_length": model.inner, "attention.head_count": heads, "attention.head_count_kv": heads,
              "rope.dimension_count": HEAD, "vocab_size": model.vocabulary}
    tensors = [("token_embd", (model.hidden, model.vocabulary), type), ("output_norm", (model.hidden,), "F32"),
               ("output", (model.hidden, model.vocabulary), type)]
    names = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output", "gate": "ffn_gate", "up": "ffn_up",
             "down": "ffn_down"}
    for layer in range(model.layers):
        tensors += [(f"blk.{layer}.{norm}", (model.hidden,), "F32") for norm in ("attn_norm", "ffn_norm")]
        tensors += [(f"blk.{layer}.{names[name]}", shape[::-1], type) for name, shape in model.matrices().items()]
    head = MAGIC + struct.pack("<IQQ", 3, len(tensors), len(values) + 3)
    head += _text("general.architecture") + struct.pack("<I", STRING) + _text("llama")
    head += _text("tokenizer.ggml.model") + struct.pack("<I", STRING) + _text("none")
    head += _text("llama.attention.layer_norm_rms_epsilon") + struct.pack("<If", 6, 1e-5)
    for key, value in values.items():
        head += _text(f"llama.{key}") + struct.pack("<II", 4, value)
    offset = 0
    for name, sizes, stored in tensors:
        _, block, size = TYPES[numbers[stored]]
        head += _text(f"{name}.weight") + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, numbers[stored], offset)
        offset += _up(math.prod(sizes) // block * size)
    _write(path, head + bytes(-len(head) % _ALIGNED), offset)


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def _up(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED


def _write(path: Path, head: bytes, rest: int, marks: Sequence[int] = ()) -> None:
    """`marks` are places behind the head where a number of its own stands."""
    with path.open("wb") as file:
        file.write(head)
        for number, place in enumerate(marks):
            file.seek(len(head) + place)
            file.write(struct.pack("<I", number))
        file.truncate(len(head) + rest)


def write_onnx(path: Path, model: Decoder, bits: int) -> None:
    """An ONNX graph as this project's own are, without rotation; its weights stand in a file beside it, `path`.data."""
    graph = _Graph(path.name + ".data", bits)
    heads = model.hidden // HEAD
    graph.input("input_ids", _INT64, "batch_size", "sequence_length")
    graph.input("attention_mask", _INT64, "batch_size", "total_sequence_length")
    graph.weight("embedding", _FLOAT, model.vocabulary, model.hidden)
    graph.values("axis", _INT64, struct.pack("<q", 1), 1)
    graph.values("one", _INT64, struct.pack("<q", 1))
    graph.node("ReduceSum", ["attention_mask", "axis"], ["tokens"], keepdims=0)
    graph.node("Sub", ["tokens", "one"], ["last"])
    graph.node("Cast", ["last"], ["before"], to=_INT32)
    graph.node("Shape", ["attention_mask"], ["mask_shape"])
    graph.node("Gather", ["mask_shape", "one"], ["length"], axis=0)
    graph.node("Cast", ["length"], ["total"], to=_INT32)
    graph.node("Gather", ["embedding", "input_ids"], ["state"])
    graph.weight("norm", _FLOAT, model.hidden)
    graph.node("SimplifiedLayerNormalization", ["state", "norm"], ["normed"])
    state, normed = "state", "normed"
    shapes = model.matrices()
    for layer in range(model.layers):
        past, present, own = f"past_key_values.{layer}", f"present.{layer}", f"layer.{layer}."
        for part in ("key", "value"):
            graph.input(f"{past}.{part}", _FLOAT, "batch_size", heads, "past_sequence_length", HEAD)
            graph.output(f"{present}.{part}", _FLOAT, "batch_size", heads, "total_sequence_length", HEAD)
        graph.product(own + "qkv", normed, 3 * model.hidden, model.hidden)
        graph.node("GroupQueryAttention",
                   [own + "qkv", "", "", f"{past}.key", f"{past}.value", "before", "total"],
                   [own + "attended", f"{present}.key", f"{present}.value"], num_heads=heads, kv_num_heads=heads)
        graph.product(own + "o", own + "attended", *shapes["o"])
        graph.skip_norm(state, own + "o", own + "middle")
        for part in ("gate", "up"):
            graph.product(own + part, own + "middle.normed", *shapes[part])
        graph.node("Sigmoid", [own + "gate"], [own + "sigmoid"])
        graph.node("Mul", [own + "gate", own + "sigmoid"], [own + "silu"])
        graph.node("Mul", [own + "silu", own + "up"], [own + "inner"])
        graph.product(own + "down", own + "inner", *shapes["down"])
        graph.skip_norm(own + "middle", own + "down", own + "end")
        state, normed = own + "end", own + "end.normed"
    graph.input("logits_from", _INT64, 1)  # an initializer that is an input, too, may be overridden
    graph.values("logits_from", _INT64, struct.pack("<q", -1), 1)
    graph.values("logits_to", _INT64, struct.pack("<q", 2**62), 1)
    graph.node("Slice", [normed, "logits_from", "logits_to", "axis"], ["sliced"])
    graph.product("logits", "sliced", model.vocabulary, model.hidden)
    graph.output("logits", _FLOAT, "batch_size", "rows", model.vocabulary)
    path.write_bytes(graph.model())
    # onnxruntime keeps one of tensors that are all the same. Codes may differ: their scales are zeros.
    _write(path.with_name(path.name + ".data"), b"", graph.bytes, graph.codes)


class _Graph:
    """What onnx.proto calls GraphProto, field by field; runtime is used where the onnx package is not."""

    def __init__(self, data: str, bits: int) -> None:
        self.data, self.bits, self.bytes = data, bits, 0
        self.codes: list[int] = []
        """Where matrices begin in the other file."""
        self.fields: list[tuple[int, int | bytes]] = [(2, b"zero")]

    def model(self) -> bytes:
        """The whole file: ModelProto."""
        sets = [(8, _message((2, 22))), (8, _message((1, b"com.microsoft"), (2, 1)))]
        return _message((1, 10), *sets, (7, _message(*self.fields)))

    def node(self, kind: str, inputs: list[str], outputs: list[str], **numbers: int) -> None:
        ours = kind in ("MatMulNBits", "GroupQueryAttention", "SkipSimplifiedLayerNormalization")
        named = [(5, _message((1, name.encode()), (3, value), (20, 2))) for name, value in numbers.items()]
        self.fields.append((1, _message(*((1, name.encode()) for name in inputs),
                                        *((2, name.encode()) for name in outputs), (4, kind.encode()), *named,
                                        *([(7, b"com.microsoft")] if ours else []))))

    def product(self, name: str, source: str, outputs: int, inputs: int) -> None:
        """`name` = source · weightᵀ."""
        blocks = -(-inputs // _BLOCK)
        self.codes.append(self.bytes)
        self.weight(name + ".codes", _UINT8, outputs, blocks, _BLOCK * self.bits // 8)
        self.weight(name + ".scales", _FLOAT, outputs, blocks)
        self.node("MatMulNBits", [source, name + ".codes", name + ".scales"], [name], K=inputs, N=outputs,
                  bits=self.bits, block_size=_BLOCK, accuracy_level=4)

    def skip_norm(self, state: str, added: str, name: str) -> None:
        """`name` = state + added, and `name`.normed of it."""
        self.node("SkipSimplifiedLayerNormalization", [state, added, "norm"], [name + ".normed", "", "", name])

    def weight(self, name: str, kind: int, *sizes: int) -> None:
        """A tensor of zeros in the other file."""
        size = math.prod(sizes) * (1 if kind == _UINT8 else 4)
        place = {"location": self.data, "offset": str(self.bytes), "length": str(size)}
        entries = [(13, _message((1, key.encode()), (2, value.encode()))) for key, value in place.items()]
        self.fields.append((5, _message(*((1, size) for size in sizes), (2, kind), (8, name.encode()), *entries,
                                        (14, 1))))
        self.bytes += _up(size)

    def values(self, name: str, kind: int, content: bytes, *sizes: int) -> None:
        """A tensor inside the graph."""
        self.fields.append((5, _message(*((1, size) for size in sizes), (2, kind), (8, name.encode()), (9, content))))

    def input(self, name: str, kind: int, *sizes: int | str) -> None:
        self.fields.append((11, _declared(name, kind, sizes)))

    def output(self, name: str, kind: int, *sizes: int | str) -> None:
        self.fields.append((12, _declared(name, kind, sizes)))


def _declared(name: str, kind: int, sizes: tuple[int | str, ...]) -> bytes:
    """ValueInfoProto."""
    shape = _message(*((1, _message((2, size.encode()) if isinstance(size, str) else (1, size))) for size in sizes))
    return _message((1, name.encode()), (2, _message((1, _message((1, kind), (2, shape))))))


def _message(*fields: tuple[int, int | bytes]) -> bytes:
    """A protobuf message of whole numbers and of texts or messages."""
    return b"".join(b"".join(_varint(number << 3) if isinstance(value, int) else _varint(number << 3 | 2))
                    + (b"".join(_varint(value)) if isinstance(value, int)
                       else b"".join(_varint(len(value))) + value) for number, value in fields)


def _varint(value: int) -> Iterator[bytes]:
    value %= 2**64
    while value > 127:
        yield bytes([value & 127 | 128])
        value >>= 7
    yield bytes([value])
