"""Which artifacts were made here: whoever can write to a folder can write a manifest, so a manifest says it of none.

What is noted is the SHA-256 of a manifest, which lists every file with its own; the notes lie in the user's cache,
where no download puts anything. A copy or a moved folder keeps its origin; on another machine it is unverified.
"""

from __future__ import annotations

import logging
from pathlib import Path

from .files import sha256
from .user_cache import user_cache

log = logging.getLogger(__name__)


def note(manifest: Path) -> None:
    """Remember that an artifact was made here. Where nothing can be written it counts as anybody's."""
    place = _place(manifest)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    except OSError as error:
        log.warning("%s: cannot remember there that %s was made here: %s", place.parent, manifest.parent,
                    error.strerror or error)


def is_ours(manifest: Path) -> bool:
    """Whether an artifact was made here, by this user."""
    return _place(manifest).is_file()


def _place(manifest: Path) -> Path:
    return user_cache() / "made" / sha256(manifest)
