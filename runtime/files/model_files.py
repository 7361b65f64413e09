"""The JSON files of a model folder, which anyone may have written."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ...models import config_values
from ...models.errors import ArtifactError
from ...models.json_values import checked_object, read_object
from . import safetensors_header

MOST = 16 * 2**20
"""Bytes of a file of settings; one that lists a vocabulary's added tokens has a million."""
_HINT = "copy the model folder again"


def read_table(path: Path, *keys: str) -> dict[str, Any]:
    """The JSON object in a file, or the one that stands in it under `keys`; empty where there is none.

    Raises ArtifactError for a file that is no JSON or longer than MOST, for anything but an object in an object's
    place, and for a value that its key cannot have.
    """
    if not path.is_file():
        return {}
    if path.stat().st_size > MOST:
        raise ArtifactError(f"{path}: {path.stat().st_size:,} bytes, the limit is {MOST:,}", _HINT)
    found = read_object(path, ArtifactError, _HINT)
    config_values.check(path, found)
    for key in keys:
        inner = found.get(key)
        found = {} if inner is None else checked_object(inner, f"{path}: {key}", ArtifactError, _HINT)
    return found


def check_folder(folder: Path) -> None:
    """Read every file of a model folder whose values are known, before any weight: ArtifactError as `read_table`."""
    for name in config_values.RULES:
        read_table(folder / name)


def classifier_config(folder: Path) -> dict[str, Any]:
    """config.json with what sentence-transformers says of a cross-encoder's output, which may stand in a file of its
    own."""
    config = read_table(folder / "config.json")
    activation = read_table(folder / "config_sentence_transformers.json").get("activation_fn")
    return config if activation is None else {"sentence_transformers": {"activation_fn": activation}} | config


def head_size(folder: Path) -> int:
    """The size of an attention head, for graphs that leave it symbolic."""
    decoder = read_table(folder / "genai_config.json", "model", "decoder")
    config = read_table(folder / "config.json")
    heads = config.get("num_attention_heads")
    size = decoder.get("head_size") or config.get("head_dim") or (heads and config.get("hidden_size", 0) // heads)
    if not size:
        raise ArtifactError(f"{folder}: the graph does not say the size of an attention head",
                            "put genai_config.json or config.json beside the graph")
    return int(size)


def context_of(folder: Path) -> int:
    """The model's own context length, 0 when no file says it."""
    table = read_table(folder / "genai_config.json", "model")
    return int(table.get("context_length") or read_table(folder / "config.json").get("max_position_embeddings") or 0)


def stored_parameters(folder: Path) -> int:
    """Weights in the safetensors files of a folder, by their headers; ArtifactError for a damaged one."""
    return sum(math.prod(entry.shape) for path in sorted(folder.glob("*.safetensors"))
               for entry in safetensors_header.read(path).values())
