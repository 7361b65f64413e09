"""The ids of rows, computed once for all runs that read them alike."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from ...models import files
from ...models.artifact import versions
from ...models.errors import DataError
from ...models.task import Task
from ...runtime.data.reader import Row, rows_digest
from ...runtime.text.codec import Codec
from ..data.token_sets import TokenSet
from ..tasks._base import kind_of

CACHE_VERSION = 3


def tokenize(rows: Sequence[Row], codec: Codec, task: Task, max_tokens: int, learn: str = "all",
             cache: Path | None = None) -> TokenSet:
    """The ids of `rows` as the task's kind reads them, from the folder `cache` where they were computed before.

    Raises what TaskKind.examples raises, and DataError when no row is left.
    """
    path = None if cache is None else cache / f"{_key(rows, codec, task, max_tokens, learn)}.npz"
    found = _read(path) if path is not None and path.is_file() else None
    if found is None:
        found = kind_of(task).examples(rows, codec, task, max_tokens, learn)
        if path is not None:
            _write(path, found)
    if not len(found):
        nothing = f", {found.unlearned} have nothing to learn" if found.unlearned else ""
        raise DataError(f"no row is left to train on: {found.left_out} of {len(rows)} are longer than max_tokens = "
                        f"{max_tokens}{nothing}", "raise [data] max_tokens, or shorten the rows")
    return found


def _key(rows: Sequence[Row], codec: Codec, task: Task, max_tokens: int, learn: str) -> str:
    digest = hashlib.sha256(rows_digest(rows).encode())
    for part in (codec.tokenizer.to_str(), codec.templates, codec.system, sorted(codec.options.items()),
                 sorted(codec.stop_ids), max_tokens, task.kind, list(task.labels), learn, CACHE_VERSION,
                 versions(("edgestill", "tokenizers", "jinja2"))):
        digest.update(repr(part).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:32]


def _write(path: Path, tokens: TokenSet) -> None:
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {item.name: np.asarray(getattr(tokens, item.name)) for item in fields(tokens)}
    np.savez(buffer, **arrays)
    files.write_bytes(path, buffer.getvalue())


def _read(path: Path) -> TokenSet | None:
    """The cached ids, or None for a file that is damaged: it is only a cache."""
    import zipfile

    try:
        with np.load(path, allow_pickle=False) as table:
            found = {item.name: table[item.name] for item in fields(TokenSet)}
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError, OSError):
        return None
    return TokenSet(**found | {name: int(found[name]) for name in ("left_out", "unlearned")})
