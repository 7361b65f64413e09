"""Headers of files made elsewhere: sound ones are read, hostile ones refused quickly and in little memory."""

from __future__ import annotations

import os
import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from edgestill.models.errors import ArtifactError, EdgestillError
from edgestill.runtime.files import gguf_header, onnx_header
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def gguf(packed_llama: dict[str, Path]) -> Path:
    return packed_llama["gguf"] / "model.gguf"


@pytest.fixture(scope="module")
def graph(packed_llama: dict[str, Path]) -> Path:
    return next(packed_llama["onnx"].rglob("*.onnx"))


def test_the_types_are_those_of_ggml() -> None:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    for number, (name, block, size) in gguf_header.TYPES.items():
        kind = GGMLQuantizationType(number)
        assert (kind.name, GGML_QUANT_SIZES[kind]) == (name, (block, size))


def test_a_sound_gguf_is_read_as_the_gguf_package_reads_it(gguf: Path) -> None:
    from gguf import GGUFReader

    found, reader = gguf_header.read(gguf), GGUFReader(gguf)
    assert found.values.keys() | found.lists.keys() == {name for name in reader.fields if not name.startswith("GGUF.")}
    for name, value in found.values.items():
        assert reader.fields[name].contents() == pytest.approx(value), name
    assert {tensor.name: (tensor.offset, tensor.bytes) for tensor in found.tensors} == {
        tensor.name: (tensor.data_offset, tensor.n_bytes) for tensor in reader.tensors}
    for key in found.lists:
        assert gguf_header.items(gguf, found, key) == pytest.approx(reader.fields[key].contents()), key
    assert gguf_header.items(gguf, found, "none") == []
    assert (found.architecture, found.dimension("block_count"), found.tokens) == ("llama", 3, 384)
    assert found.parameters == 135616 and found.dimension("none") == 0


def edited(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value):]


def after(data: bytes, key: str, ahead: int = 0) -> int:
    """Where the type of a key's value stands, and `ahead` bytes behind it."""
    return data.index(key.encode()) + len(key) + ahead


def first_key_twice(data: bytes) -> bytes:
    count = int.from_bytes(data[16:24], "little") + 1
    end = after(data, "general.architecture", 4 + 8 + len("llama"))
    return data[:16] + count.to_bytes(8, "little") + data[24:end] + data[24:]


HUGE = (2**63).to_bytes(8, "little")
SPOILT: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("0 bytes", lambda data: b""),
    ("begins with b'GGML'", lambda data: edited(data, 0, b"GGML")),
    ("GGUF version 9", lambda data: edited(data, 4, b"\x09")),
    ("GGUF version 50331648, of a big-endian machine", lambda data: edited(data, 4, b"\0\0\0\x03")),
    ("tensors, the limit is", lambda data: edited(data, 8, HUGE)),
    ("keys, the limit is", lambda data: edited(data, 16, HUGE)),
    ("bytes of a text, the limit is", lambda data: edited(data, 24, HUGE)),
    ("no UTF-8", lambda data: edited(data, 32, b"\xff")),
    ("of the unknown type 77", lambda data: edited(data, after(data, "general.architecture"), b"\x4d")),
    ("texts in lists, the limit is", lambda data: edited(data, after(data, "tokenizer.ggml.tokens", 8), HUGE)),
    ("goes beyond the end", lambda data: edited(data, after(data, "tokenizer.ggml.tokens", 8), b"\0\0\x10\0\0\0\0\0")),
    ("bytes are to follow", lambda data: edited(data, after(data, "tokenizer.ggml.token_type", 8), HUGE)),
    ("is of the unknown type 9", lambda data: edited(data, after(data, "tokenizer.ggml.token_type", 4), b"\x09")),
    ("384 items of type 4", lambda data: edited(data, after(data, "tokenizer.ggml.token_type", 4), b"\x04")),
    ("is of the unknown type 99", lambda data: edited(data, after(data, "token_embd.weight", 20), b"\x63")),
    ("which F32 cannot store", lambda data: edited(data, after(data, "token_embd.weight", 4), bytes(8))),
    ("which Q4_K cannot store", lambda data: edited(data, after(data, "token_embd.weight", 20), b"\x0c")),
    ("is said to take the bytes", lambda data: edited(data, after(data, "token_embd.weight", 24), b"\x20\xff")),
    ("the file at", lambda data: data[:-4]),
    ("bytes are to follow", lambda data: data[:600]),
    ("stands twice", lambda data: data.replace(b"blk.1.ffn_up.weight", b"blk.0.ffn_up.weight")),
    ("the key 'general.architecture' stands twice", first_key_twice),
    ("no general.architecture", lambda data: data.replace(b"general.architecture", b"general.architectura")),
    ("no tokenizer.ggml.tokens", lambda data: data.replace(b"tokenizer.ggml.tokens", b"tokenizer.ggml.tokenz")),
    ("eos_token_id is '0.0', no whole number", lambda data: edited(
        data, after(data, "tokenizer.ggml.eos_token_id"), b"\x06")),
    ("the embedding is missing", lambda data: data.replace(b"token_embd.weight", b"token_embx.weight")),
]


@pytest.mark.parametrize(("message", "spoil"), SPOILT, ids=range(len(SPOILT)))
def test_a_spoilt_gguf_is_refused_with_what_is_wrong(message: str, spoil: Callable[[bytes], bytes], gguf: Path,
                                                     tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(spoil(gguf.read_bytes()))
    with pytest.raises(ArtifactError, match=message) as caught:
        gguf_header.read(path)
    assert str(path) in caught.value.message and caught.value.hint


def seconds_and_bytes(read: Callable[[Path], object], path: Path) -> tuple[float, int]:
    """Time and peak memory of a reading that may be refused, and in no other way."""
    tracemalloc.start()
    started = time.process_time()
    try:
        read(path)
    except EdgestillError as error:
        assert error.hint
    finally:
        seconds, peak = time.process_time() - started, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return seconds, peak


@settings(max_examples=150)
@given(changes=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=9)), min_size=1, max_size=4),
       length=st.floats(0.01, 1))
def test_no_change_of_a_header_breaks_the_gguf_reader(changes: list[tuple[float, bytes]], length: float, gguf: Path,
                                                      tmp_path_factory: pytest.TempPathFactory) -> None:
    data = bytearray(gguf.read_bytes())
    end = data.index(b"token_embd.weight") + 2000
    for place, value in changes:
        at = int(place * end)
        data[at : at + len(value)] = value
    path = tmp_path_factory.getbasetemp() / "changed.gguf"
    path.write_bytes(data[: int(len(data) * length)] if changes[0][0] < 0.2 else data)
    seconds, peak = seconds_and_bytes(gguf_header.read, path)
    assert seconds < 1 and peak < 20e6


@settings(max_examples=100)
@given(counts=st.tuples(*[st.integers(0, 2**64 - 1)] * 2), body=st.binary(max_size=600))
def test_no_bytes_behind_the_magic_break_the_gguf_reader(counts: tuple[int, int], body: bytes,
                                                         tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "random.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, *counts) + body)
    seconds, peak = seconds_and_bytes(gguf_header.read, path)
    assert seconds < 1 and peak < 20e6


def test_a_list_of_a_million_empty_texts_is_stepped_over_in_time(tmp_path: Path) -> None:
    """The slowest header there can be: as many texts as are allowed, of no bytes."""
    count = gguf_header.MAX_STRINGS
    key = struct.pack("<Q", 1) + b"a" + struct.pack("<IIQ", gguf_header.LIST, gguf_header.STRING, count)
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key + bytes(8 * count))
    started = time.process_time()
    with pytest.raises(ArtifactError, match="no general.architecture"):
        gguf_header.read(path)
    assert time.process_time() - started < 1


def test_a_sound_graph_is_read_as_onnx_reads_it(graph: Path) -> None:
    import onnx

    found, model = onnx_header.read(graph), onnx.load(graph, load_external_data=False)
    assert found.inputs == {item.name for item in model.graph.input}
    assert found.outputs == {item.name for item in model.graph.output}
    assert found.operators == {node.op_type for node in model.graph.node}
    outside = [tensor for tensor in model.graph.initializer if tensor.data_location == 1]
    assert len(found.places) == len(outside) > 0 and found.type == "fp32"


def tensor_outside(location: str, **more: str) -> bytes:
    """A model of one weight that lies elsewhere."""
    from onnx import GraphProto, ModelProto, TensorProto

    tensor = TensorProto(name="w", data_type=1, dims=[2], data_location=1)
    for key, value in {"location": location, **more}.items():
        tensor.external_data.add(key=key, value=value)
    return ModelProto(graph=GraphProto(initializer=[tensor])).SerializeToString()


@pytest.mark.parametrize("location", [
    "../secret", "/etc/passwd", "..\\secret", "link", "", "missing", "*/_ORT_MEM_ADDR_/*", ".", "a\0b", "x" * 3000])
def test_weights_outside_the_folder_are_refused(location: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(64))
    folder = tmp_path / "model"
    folder.mkdir()
    os.symlink(tmp_path / "secret", folder / "link")
    (folder / "model.onnx").write_bytes(tensor_outside(location))
    with pytest.raises(ArtifactError, match="which is no file in the same folder"):
        onnx_header.read(folder / "model.onnx")


@pytest.mark.parametrize(("more", "sound"), [
    ({}, True), ({"offset": "56", "length": "8"}, True), ({"offset": "64", "length": "8"}, False),
    ({"offset": "-8"}, False), ({"length": "1" * 30}, False), ({"length": "x"}, False)])
def test_weights_beyond_the_end_of_their_file_are_refused(more: dict[str, str], sound: bool, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(bytes(64))
    (tmp_path / "model.onnx").write_bytes(tensor_outside("data", **more))
    if sound:
        assert onnx_header.read(tmp_path / "model.onnx").places == [{"location": "data", **more}]
    else:
        with pytest.raises(ArtifactError, match="beyond the 64 bytes"):
            onnx_header.read(tmp_path / "model.onnx")


@pytest.mark.parametrize(("data", "message"), [
    (b"", "is empty"), (b"\x08\x07", "holds 0 graphs"), (b"\x3a\x7f", "goes on to byte"),
    (b"\xff" * 12, "does not end"), (b"\x3b", "no field can begin"),
    (b"\x08\x01" * (onnx_header.MAX_FIELDS + 1), "more than")])
def test_what_is_no_graph_is_refused(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(data)
    with pytest.raises(ArtifactError, match=message):
        onnx_header.read(tmp_path / "model.onnx")


@pytest.mark.parametrize("dims", [[2**62] * 40_000, [2] * 17, [2**20, 2**20, 2], [-1], [2**41]])
def test_the_sizes_of_a_tensor_are_capped_before_they_are_multiplied(dims: list[int], tmp_path: Path) -> None:
    from onnx import GraphProto, ModelProto, TensorProto

    tensor = TensorProto(name="w", data_type=1, dims=dims)
    path = tmp_path / "model.onnx"
    path.write_bytes(ModelProto(graph=GraphProto(initializer=[tensor])).SerializeToString())
    with pytest.raises(ArtifactError, match="more than 16 dimensions or"):
        onnx_header.read(path)
    tensor = TensorProto(name="w", data_type=10, dims=[2**20, 2**20, 1, 0])
    path.write_bytes(ModelProto(graph=GraphProto(initializer=[tensor])).SerializeToString())
    assert onnx_header.read(path).float_types == {10: 0}


def test_files_of_weights_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnx import GraphProto, ModelProto, TensorProto

    tensors = [TensorProto(name="w", data_type=1, dims=[2], data_location=1) for _ in range(4)]
    for index, tensor in enumerate(tensors):
        (tmp_path / str(index)).write_bytes(bytes(8))
        tensor.external_data.add(key="location", value=str(index))
    (tmp_path / "model.onnx").write_bytes(ModelProto(graph=GraphProto(initializer=tensors)).SerializeToString())
    assert len(onnx_header.read(tmp_path / "model.onnx").places) == 4
    monkeypatch.setattr(onnx_header, "MAX_OUTSIDE", 3)
    with pytest.raises(ArtifactError, match="more than 3 files"):
        onnx_header.read(tmp_path / "model.onnx")


def test_graphs_within_graphs_have_an_end(tmp_path: Path) -> None:
    from onnx import AttributeProto, GraphProto, ModelProto, NodeProto

    graph = GraphProto()
    for _ in range(12):
        attribute = AttributeProto(name="body", type=AttributeProto.GRAPH, g=graph)
        graph = GraphProto(node=[NodeProto(op_type="If", attribute=[attribute])])
    (tmp_path / "model.onnx").write_bytes(ModelProto(graph=graph).SerializeToString())
    with pytest.raises(ArtifactError, match="more than 8 deep"):
        onnx_header.read(tmp_path / "model.onnx")


@settings(max_examples=80)
@given(changes=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=6)), min_size=1, max_size=4))
def test_no_change_of_a_graph_breaks_the_onnx_reader(changes: list[tuple[float, bytes]], graph: Path) -> None:
    data = bytearray(graph.read_bytes())
    for place, value in changes:
        at = int(place * len(data))
        data[at : at + len(value)] = value
    path = graph.parent / "changed.onnx"
    path.write_bytes(data)
    try:
        seconds, peak = seconds_and_bytes(onnx_header.read, path)
    finally:
        path.unlink()
    assert seconds < 1 and peak < 20e6
