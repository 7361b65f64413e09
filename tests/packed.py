"""Tiny models packed for the runtime, written by the project's own formats."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from edgestill.models import kinds
from edgestill.models.artifact import MANIFEST, Artifact, Manifest, Tokenizer, seal
from edgestill.models.scheme import Scheme
from edgestill.models.strict import build
from edgestill.models.task import Task
from edgestill.quantize import layouts
from edgestill.quantize.onnx.decoder import Encode
from edgestill.runtime.text.codec import Codec

BESIDE = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json", "config.json")


def pack(source: Path, folder: Path, target: str, task: Task | None = None, encode: Encode | None = None,
         **manifest: Any) -> Path:
    """Write the Hugging Face folder `source` as an artifact of the export target `target`, without a certificate.

    `encode` makes the codes of 4-bit types; layouts complete the folder for other programs.
    """
    scheme = Scheme.parse(target)
    folder.mkdir(parents=True)
    model_file = kinds.load("quantize.formats", scheme.format).write(source, folder, scheme, encode, None)
    for name in BESIDE:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    codec = Codec.from_folder(folder)
    facts = Tokenizer(codec.bos_id, codec.eos_id, sorted(codec.stop_ids), codec.adds_bos)
    fields = {"stage": "export", "task": task or Task(max_new_tokens=24), "scheme": target, "model_file": model_file,
              "family": "llama", "dimensions": {"context": 256}, "tokenizer": facts} | manifest
    for layout in layouts.of(target):
        layout.write(Artifact(folder, Manifest(**fields)), codec)
    seal(folder, **fields)
    return folder


def resealed(folder: Path, **changes: Any) -> Path:
    """Seal a changed artifact again, with other fields in its manifest."""
    table = json.loads((folder / MANIFEST).read_text()) | changes
    fields = vars(build(Manifest, table, MANIFEST))
    seal(folder, **{key: value for key, value in fields.items() if key not in ("files", "made_by", "schema")})
    return folder
