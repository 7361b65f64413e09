"""Tiny models packed for the runtime, written by the project's own formats."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from edgestill.models import kinds
from edgestill.models.artifact import seal
from edgestill.models.runfile import Task
from edgestill.models.scheme import Scheme

BESIDE = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json", "config.json")


def pack(source: Path, folder: Path, target: str, task: Task | None = None, **manifest: Any) -> Path:
    """Write the Hugging Face folder `source` as an artifact of the export target `target`, unquantized types only."""
    scheme = Scheme.parse(target)
    folder.mkdir(parents=True)
    model_file = kinds.load("quantize.formats", scheme.format).write(source, folder, scheme, None, None)
    for name in BESIDE:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    seal(folder, stage="export", task=task or Task(max_new_tokens=24), scheme=target,
         model_file=model_file, **{"family": "llama", "dimensions": {"context": 256}} | manifest)
    return folder
