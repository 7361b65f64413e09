"""Some of what a classifier was asked and said, kept for `edgestill drift`: only where the user wants it, without what
looks personal, in a file that nobody else can read."""

from __future__ import annotations

import json
import logging
import os
import random
import threading
from datetime import UTC, datetime
from pathlib import Path

from ...models.errors import UsageError
from ..data.personal import redacted
from ..encoders.bulk import record
from ..encoders.encoder import Text
from ..encoders.head import Classification

MOST_BYTES = 2**30
"""A log that is this large takes no more."""
_LONGEST = 2**26
"""Bytes of a line at most."""
_SAYS = logging.getLogger("edgestill.server")


class AnswerLog:
    """JSON lines as `classify -o` writes them, each with `at` (UTC) and `model`."""

    def __init__(self, path: Path, share: float = 1.0) -> None:
        """Begin the file, or go on with it; `share` of the texts are kept, drawn by chance. UsageError where it cannot
        be written, or others can read it."""
        self._path, self._share, self._lock = path, share, threading.Lock()
        self._drawn, self._full = random.Random(), False
        try:
            path.touch(0o600)
            self._file = path.open("a+b", buffering=0)
        except OSError as error:
            raise UsageError(f"--log {path}: {error.strerror}",
                             "name a file in a folder that may be written") from error
        if os.name == "posix" and (mode := path.stat().st_mode & 0o777) & 0o077:
            self._file.close()
            raise UsageError(f"--log {path}: others may read it (mode {mode:o}), and it will hold what users write",
                             f"chmod 600 {path}, or name a new file")
        self._cut_torn_line()

    def add(self, model: str, text: Text, found: Classification) -> None:
        """Keep an answer, if it is drawn. A disk that is full costs the line and is told, and never the answer."""
        if self._drawn.random() >= self._share:
            return
        clean: Text = redacted(text) if isinstance(text, str) else (redacted(text[0]), redacted(text[1]))
        told = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "model": model, **record(clean, found)}
        line = json.dumps(told, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        with self._lock:
            size = self._file.seek(0, os.SEEK_END)
            try:
                if size + len(line) > MOST_BYTES:
                    raise OSError(0, f"it has reached {MOST_BYTES:,} bytes")
                if self._file.write(line) < len(line):
                    raise OSError(0, "the disk is full")
                self._full = False
            except OSError as error:
                self._file.truncate(size)
                if not self._full:
                    _SAYS.warning("%s: answers are not logged any more: %s", self._path, error.strerror)
                self._full = True

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _cut_torn_line(self) -> None:
        size = self._file.seek(0, os.SEEK_END)
        start = self._file.seek(max(0, size - _LONGEST))
        self._file.truncate(start + self._file.read().rfind(b"\n") + 1)
