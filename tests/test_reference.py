"""What a packed file is compared with, stored and read again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from edgestill.quantize import reference


def test_conversations_keep_the_order_of_their_keys(tmp_path: Path) -> None:
    """Templates write tools and arguments as they stand: Qwen's would render them otherwise when verified."""
    tools = [{"type": "function", "function": {"name": "z", "description": "a", "arguments": {"b": 1, "a": 2}}}]
    messages = [{"role": "user", "content": "x"}]
    fixtures = reference.Fixtures(["a"], {}, [reference.Rendering(messages, tools, True, "0")], False, [0], {})
    ids = [np.zeros(1, np.int32)]
    reference.Reference(fixtures, ids, ids, ids, ids, [np.zeros(1, np.float16)], [np.zeros(1, np.float32)],
                        np.zeros((0, 0), np.float32)).write(tmp_path)
    read = reference.read(tmp_path).fixtures.renderings[0]
    assert json.dumps([read.messages, read.tools]) == json.dumps([messages, tools])
