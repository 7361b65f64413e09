"""What a packed file is compared with, stored and read again."""

from __future__ import annotations

import contextlib
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from edgestill.models.errors import ArtifactError
from edgestill.quantize.proof import reference


def test_conversations_keep_the_order_of_their_keys(tmp_path: Path) -> None:
    """Templates write tools and arguments as they stand: Qwen's would render them otherwise when verified."""
    tools = [{"type": "function", "function": {"name": "z", "description": "a", "arguments": {"b": 1, "a": 2}}}]
    messages = [{"role": "user", "content": "x"}]
    small(reference.Rendering(messages, tools, True, "0")).write(tmp_path)
    read = reference.read(tmp_path).fixtures.renderings[0]
    assert json.dumps([read.messages, read.tools]) == json.dumps([messages, tools])


def small(*renderings: reference.Rendering) -> reference.Reference:
    ids = [np.zeros(1, np.int32)]
    return reference.Reference(reference.Fixtures(["a"], {}, list(renderings), False, [0], {}), ids, ids, ids, ids,
                               [np.zeros(1, np.float16)], [np.zeros(1, np.float32)], np.zeros((0, 0), np.float32))


def test_an_archive_that_unfolds_beyond_all_measure_is_not_unfolded(tmp_path: Path) -> None:
    small().write(tmp_path)
    assert reference.read(tmp_path).tokens == 1
    with zipfile.ZipFile(tmp_path / reference.ARRAYS, "a", zipfile.ZIP_DEFLATED) as archive, \
            archive.open("bomb.npy", "w") as part:
        for _ in range(17):
            part.write(bytes(2**24))
    with pytest.raises(ArtifactError, match="unfolds to 285,.* bytes, the limit is 268,435,456"):
        reference.read(tmp_path)


def test_a_damaged_archive_is_an_error_of_the_artifact(tmp_path: Path) -> None:
    small().write(tmp_path)
    sound = (tmp_path / reference.ARRAYS).read_bytes()
    for place in range(0, len(sound), 37):
        (tmp_path / reference.ARRAYS).write_bytes(sound[:place] + bytes([sound[place] ^ 255]) + sound[place + 1:])
        with contextlib.suppress(ArtifactError):
            reference.read(tmp_path)
