"""A GGUF file says of the model's shape, norms and rotation what the float model's config says."""

from __future__ import annotations

from ....runtime.files import gguf_header
from ...gguf import metadata
from ...source.checkpoint import Checkpoint
from ..certificate import Check
from ..packed_file import Subject

TASKS = ("generate", "embed")
CAUSE = "weights"
QUICK = False
NAME = "metadata"


def check(subject: Subject) -> list[Check]:
    """Where the float model's folder is at hand. In coarse types a wrong one costs no more than the type itself does.

    Values that a file made elsewhere leaves out are llama.cpp's own choice.
    """
    if subject.format != "gguf" or subject.float_folder is None:
        return []
    header = gguf_header.read(subject.artifact.model_path)
    wanted = metadata.stated(Checkpoint.open(subject.float_folder))
    ours, start = subject.float_model is not None, f"{header.architecture}."
    found = {key: value for key, value in header.values.items() if key.startswith(start)}
    wrong = [f"{key} is {found.get(key, 'missing')}, the float model's is {value}" for key, value in wanted.items()
             if (key in found and not metadata.same(found[key], value)) or (ours and key not in found)]
    wrong += [f"{key} = {value} was not planned" for key, value in found.items() if ours and key not in wanted
              and not key.endswith(metadata.FREE)]
    return [Check(NAME, not wrong, CAUSE, float(len(wrong)), 0.0, len(wanted), "; ".join(wrong[:3]))]
