"""A GGUF file as a model to train or to export: a Hugging Face folder, made once, proven against llama.cpp and kept."""

from __future__ import annotations

import hashlib
import logging
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...models import files
from ...models.artifact import Tokenizer, is_artifact, seal
from ...models.errors import EdgestillError, MissingExtra, UsageError
from ...models.task import Task
from ...models.user_cache import user_cache
from ...runtime.files import gguf_header
from ...runtime.files.gguf_header import Header
from ...runtime.text.codec import Codec
from ..source.checkpoint import SINGLE, Checkpoint
from . import config, proof, weights
from .tokenizer import Vocabulary

VERSION = 1
"""Of what is made of a file: folders of an earlier one are made again."""
log = logging.getLogger(__name__)


def is_gguf(path: Path) -> bool:
    """Whether a model is named by a GGUF file."""
    return path.suffix == ".gguf" and path.is_file()


def unpacked(path: Path) -> Path:
    """The `folder_of` a GGUF file; any other path as it is."""
    return folder_of(path) if is_gguf(path) else path


def digest(path: Path) -> str:
    """The SHA-256 of a file; of one that is asked for again as it stands, from memory."""
    found = path.stat()
    return _digest(path.resolve(), found.st_size, found.st_mtime_ns)


@cache
def _digest(path: Path, _size: int, _changed: int) -> str:
    return files.sha256(path)


def write(path: Path, folder: Path) -> dict[str, Any]:
    """Write config, tokenizer and weights of a GGUF file into `folder`, and prove it; returns what was measured.

    Errors as of `folder_of`.
    """
    if find_spec("gguf") is None:
        raise MissingExtra("gguf", "export")
    header = gguf_header.read(path)
    config.family_of(path, header)
    if header.values.get("split.count", 0) > 1:
        raise UsageError(f"{path}: one of {header.values['split.count']} parts",
                         "join them first, with llama-gguf-split --merge")
    vocabulary = Vocabulary(path, header)
    checkpoint = config.write(path, header, weights.largest_divisor(path, header), vocabulary.ends, folder)
    vocabulary.write(folder, header.dimension("context_length"))
    weights.write(path, header, checkpoint, folder)
    return proof.prove(path, folder)


def folder_of(path: Path) -> Path:
    """The Hugging Face folder of a GGUF file in the user's cache, as an artifact that names the file among its parents.

    Weights are what the file's own stand for, in float32. Raises UsageError for a kind of model or tokenizer that is
    not read back, MissingExtra without the packages that exports need, ArtifactError for a damaged file and for a
    folder that is not what llama.cpp makes of the file.
    """
    header = gguf_header.read(path)
    found = digest(path)
    made = user_cache() / "unpacked" / f"{found[:16]}-{VERSION}" / path.stem
    if is_artifact(made):
        return made
    log.warning("%s: made a model to train, once, and held against llama.cpp; it is kept in %s", path, made)
    try:
        with files.new_folder(made) as folder:
            _seal(path, header, found, folder)
    except (EdgestillError, OSError):
        if not is_artifact(made):  # another process was sooner
            raise
    return made


def _seal(path: Path, header: Header, digest: str, folder: Path) -> None:
    checks = write(path, folder)
    checkpoint, codec = Checkpoint.open(folder), Codec.from_folder(folder)
    template = hashlib.sha256(codec.template.encode()).hexdigest() if codec.template else ""
    seal(folder, stage="unpack", task=Task(kind="generate"), family=checkpoint.family.name, scheme="hf",
         model_file=SINGLE, checks=checks,
         dimensions={"parameters": checkpoint.parameters(), "layers": header.dimension("block_count"),
                     "hidden": header.dimension("embedding_length"), "vocabulary": header.tokens,
                     "context": header.dimension("context_length")},
         tokenizer=Tokenizer(codec.bos_id, codec.eos_id, sorted(codec.stop_ids), codec.adds_bos, template),
         parents=[{"role": "gguf", "name": path.name, "sha256": digest}],
         licences={"model": str(header.values.get("general.license", "unknown"))})
