"""Exports of tiny models, and ways to damage one so that only a certificate can tell."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from edgestill.models.artifact import Manifest, open_artifact, seal
from edgestill.quantize.proof import certificate
from edgestill.runtime.data.reader import Row

from . import tiny

LABELS = ("light", "music", "weather")


def chat_rows(texts: list[str]) -> list[Row]:
    """A user says the text, the assistant says it backwards."""
    return [Row(messages=({"role": "user", "content": text}, {"role": "assistant", "content": text[::-1]}))
            for text in texts]


def label_rows(texts: list[str]) -> list[Row]:
    """Texts with one of three labels."""
    return [Row(text=text, label=LABELS[index % 3]) for index, text in enumerate(texts)]


ROWS = chat_rows(tiny.SENTENCES[:8])
TEST_ROWS = chat_rows(tiny.SENTENCES[8:12])


def damaged(folder: Path, target: Path, change: Callable[[Path], None],
            manifest: Callable[[Manifest], Manifest] = lambda unchanged: unchanged) -> Path:
    """A copy of an artifact, changed and sealed again as if it had been made so: every hash is right."""
    shutil.copytree(folder, target)
    change(target)
    fields = manifest(open_artifact(folder).manifest)
    stored = replace(certificate.read(folder), manifest_sha256=certificate.manifest_hash(fields))
    stored.write(target)
    seal(target, **{key: value for key, value in vars(fields).items() if key not in ("files", "made_by", "schema")})
    return target


def edit_json(path: Path, change: Callable[[dict], None]) -> None:
    """Change a JSON file in place."""
    table = json.loads(path.read_text(encoding="utf-8"))
    change(table)
    path.write_text(json.dumps(table), encoding="utf-8")


def swapped_queries_and_keys(source: Path, target: Path) -> Path:
    """A copy of a Hugging Face folder whose first layer has its q and k projections exchanged."""
    shutil.copytree(source, target)
    exchange_queries_and_keys(target)
    return target


def exchange_queries_and_keys(folder: Path) -> None:
    """Exchange q and k of a Hugging Face folder's first layer."""
    from safetensors.numpy import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    query, key = (f"model.layers.0.self_attn.{name}_proj.weight" for name in "qk")
    weights[query], weights[key] = weights[key], weights[query]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
