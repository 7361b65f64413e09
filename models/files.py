"""Files and folders that are whole or absent: write aside, fsync, rename."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from .errors import EdgestillError


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of `text` in UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one step: a reader sees the old content or the new, never a part.

    A device or a pipe, such as /dev/null and /dev/stdout, is written to: it must not become a file.
    """
    if path.exists() and (path.parent == Path("/dev") or not (path.is_file() or path.is_dir())):
        path.write_bytes(content)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """`write_text` of `value` as JSON with sorted keys; ValueError for NaN and infinity, which JSON does not have."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target` that takes its name when the block ends, and is removed if it fails.

    Raises EdgestillError when `target` stands and is not empty.
    """
    refuse_non_empty(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        os.chmod(temporary, 0o755)
        yield temporary
        for path in sorted(temporary.rglob("*")):
            if path.is_file():
                _sync_file(path)
            else:
                sync_folder(path)
        sync_folder(temporary)
        if target.exists():
            target.rmdir()
        os.rename(temporary, target)
        sync_folder(target.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def link(path: Path, name: Path) -> None:
    """Let the new `name` stand for the file or folder `path`: a link, or a copy where links are not to be had."""
    try:
        os.symlink(path, name, target_is_directory=path.is_dir())
    except OSError:  # file systems and users without links
        (shutil.copytree if path.is_dir() else shutil.copyfile)(path, name)


def refuse_non_empty(target: Path) -> None:
    """Raise EdgestillError when `target` is a file or a folder that holds anything."""
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise EdgestillError(f"{target}: exists and is not empty", "choose another -o/--out, or remove it first")


def sync_folder(path: Path) -> None:
    """Make renames inside `path` durable; Windows has no such call and needs none."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def lock(file: IO[bytes]) -> None:
    """Hold an open file until it is closed, or its process ends, however it ends. OSError where another holds it."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _sync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
