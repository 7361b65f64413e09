"""Headers of safetensors files that anyone may have written: read whole, or refused by name."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgestill.models.errors import ArtifactError
from edgestill.runtime.files import safetensors_header
from edgestill.runtime.files.model_files import stored_parameters

Table = dict[str, Any]
SOUND: Table = {"b": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [8, 20]},
                "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
                "empty": {"dtype": "F8_E4M3", "shape": [0, 5], "data_offsets": [8, 8]},
                "__metadata__": {"format": "pt"}}


def written(path: Path, header: bytes, length: int | None = None, content: bytes = bytes(20)) -> Path:
    path.write_bytes((len(header) if length is None else length).to_bytes(8, "little") + header + content)
    return path


def changed(name: str, **values: Any) -> bytes:
    return json.dumps(SOUND | {name: SOUND.get(name, SOUND["a"]) | values}).encode()


def test_a_sound_header_says_where_tensors_stand(tmp_path: Path) -> None:
    from safetensors.numpy import load, save_file

    path = written(tmp_path / "model.safetensors", json.dumps(SOUND).encode())
    found = safetensors_header.read(path)
    assert {name: (entry.dtype, entry.shape) for name, entry in found.items()} == {
        "a": ("F32", (2,)), "b": ("BF16", (2, 3)), "empty": ("F8_E4M3", (0, 5))}
    assert found["b"].start == found["a"].start + 8 == path.stat().st_size - 12
    assert stored_parameters(tmp_path) == 8
    save_file({"x": np.arange(6, dtype=np.int16).reshape(2, 3), "y": np.ones(3, np.float64)}, path)
    entries, values = safetensors_header.read(path), load(path.read_bytes())
    for name, entry in entries.items():
        stored = np.fromfile(path, values[name].dtype, values[name].size, offset=entry.start)
        assert (stored.reshape(entry.shape) == values[name]).all()


WHOLE = json.dumps(SOUND).encode()
BAD: dict[str, tuple[bytes, int | None, bytes]] = {
    "its header is to have 9,223,372,036,854,775,808 bytes": (WHOLE, 2**63, bytes(20)),
    "its header is to have 0 bytes": (WHOLE, 0, bytes(20)),
    "its header is to have 33,554,433 bytes": (WHOLE, 2**25 + 1, bytes(2**25 + 20)),
    "no valid JSON": (b"[" * 10**5, None, b""),
    "a JSON object was expected": (b"[]", None, b""),
    "'a' is of the type 'F33'": (changed("a", dtype="F33"), None, bytes(20)),
    "'a' is of the type 'F4'": (changed("a", dtype="F4"), None, bytes(20)),
    "'a' is of the type None": (json.dumps(SOUND | {"a": []}).encode(), None, bytes(20)),
    "'a' is of the type \\[": (changed("a", dtype=["F32"]), None, bytes(20)),
    "'a' has the shape 'ab'": (changed("a", shape="ab"), None, bytes(20)),
    "'a' has the shape .-2": (changed("a", shape=[-2]), None, bytes(20)),
    "'a' has the shape .True": (changed("a", shape=[True, 2]), None, bytes(20)),
    "'a' has the shape .1.0": (changed("a", shape=[1.0, 2]), None, bytes(20)),
    "'a' has the shape .2, 1, 1": (changed("a", shape=[2] + [1] * 16), None, bytes(20)),
    "'a' has the shape .* and the place .0, 8, 9": (changed("a", data_offsets=[0, 8, 9]), None, bytes(20)),
    "'a', F32 of the shape .1099511627776": (changed("a", shape=[2**40, 2**40]), None, bytes(20)),
    "'a' begins at byte 1,": (changed("a", data_offsets=[1, 9]), None, bytes(20)),
    "'b' begins at byte 0, those before end at 8": (changed("b", data_offsets=[0, 12]), None, bytes(20)),
    "'b' begins at byte 12,": (changed("b", data_offsets=[12, 24]), None, bytes(24)),
    "its tensors end at byte .*, the file at": (WHOLE, None, bytes(21)),
    "its tensors end at byte .*, the file": (WHOLE, None, bytes(19)),
    "'empty' begins at byte 8, those before end at 0": (  # of a name that stands twice, one has no place
        WHOLE[:-1] + b', "a": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}', None, bytes(20)),
}


@pytest.mark.parametrize("message", BAD)
def test_a_header_that_is_none_is_refused(message: str, tmp_path: Path) -> None:
    path = written(tmp_path / "model.safetensors", *BAD[message])
    tracemalloc.start()
    started = time.process_time()
    with pytest.raises(ArtifactError, match=f"model.safetensors: cannot be read as safetensors.*{message}") as caught:
        safetensors_header.read(path)
    assert ("save the model in" if "of the type" in message else "copy it again") in caught.value.hint
    assert time.process_time() - started < 2 and tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: path.symlink_to("/dev/zero"),
                                  lambda path: path.write_bytes(b"1234567"), lambda path: path.write_bytes(b"")])
def test_what_is_no_file_is_refused(make: Callable[[Path], object], tmp_path: Path) -> None:
    make(tmp_path / "model.safetensors")
    with pytest.raises(ArtifactError, match="cannot be read as safetensors: it"):
        stored_parameters(tmp_path)
