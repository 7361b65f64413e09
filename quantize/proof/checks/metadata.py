"""A GGUF file says of the model's shape, norms and rotation what the float model's config says."""

from __future__ import annotations

import math
from typing import Any

from ....runtime.files import gguf_header
from ...gguf import metadata
from ...source.checkpoint import Checkpoint
from ..certificate import Check
from ..packed_file import Subject

TASKS = ("generate", "embed")
CAUSE = "weights"
QUICK = False
NAME = "metadata"
FREE = ("context_length", "vocab_size")
"""How far it may be read is its maker's choice, and the tokens are counted elsewhere."""
SAME = 1e-5
"""Numbers are stored in float32."""


def check(subject: Subject) -> list[Check]:
    """Where the float model's folder is at hand. In coarse types a wrong one costs no more than the type itself does.

    Values that a file made elsewhere leaves out are llama.cpp's own choice.
    """
    if subject.format != "gguf" or subject.float_folder is None:
        return []
    header, wanted = gguf_header.read(subject.artifact.model_path), _wanted(Checkpoint.open(subject.float_folder))
    ours, start = subject.float_model is not None, f"{header.architecture}."
    found = {key: value for key, value in header.values.items() if key.startswith(start)}
    wrong = [f"{key} is {found.get(key, 'missing')}, the float model's is {value}" for key, value in wanted.items()
             if (key in found and not _same(found[key], value)) or (ours and key not in found)]
    wrong += [f"{key} = {value} was not planned" for key, value in found.items() if ours and key not in wanted
              and not key.endswith(FREE)]
    return [Check(NAME, not wrong, CAUSE, float(len(wrong)), 0.0, len(wanted), "; ".join(wrong[:3]))]


def _wanted(checkpoint: Checkpoint) -> dict[str, Any]:
    """What would be written of the architecture, but for lists, which a header is not read for."""
    import gguf

    rules = checkpoint.family.gguf
    assert rules is not None, "whoever has a GGUF file of a family has its rules"
    writer = gguf.GGUFWriter(None, rules.architecture)
    metadata.add(writer, checkpoint, 0)
    return {key: value.value for key, value in writer.kv_data[0].items()
            if key.startswith(f"{rules.architecture}.") and not key.endswith(FREE)
            and value.type is not gguf.GGUFValueType.ARRAY}


def _same(found: Any, wanted: Any) -> bool:
    if isinstance(found, str) or isinstance(wanted, str):
        return bool(found == wanted)
    return math.isclose(found, wanted, rel_tol=SAME)
