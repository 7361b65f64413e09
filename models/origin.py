"""Which artifacts were made here, and which of others' were tried here: whoever can write to a folder can write a
manifest, so a manifest says it of none.

What is noted is the SHA-256 of a manifest, which lists every file with its own; the notes lie in the user's cache,
where no download puts anything. A copy or a moved folder keeps its origin; on another machine it is unverified.
"""

from __future__ import annotations

from pathlib import Path

from .files import sha256
from .user_cache import user_cache

MADE, TRIED = "made", "tried"


def note(manifest: Path, what: str = MADE) -> None:
    """Remember that an artifact was made here, or tried. Where nothing can be written it counts as anybody's."""
    place = _place(manifest, what)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    except OSError as error:
        import logging  # costs 7 ms, and mostly there is nothing to say

        logging.getLogger(__name__).warning(
            "%s: cannot remember there that %s was %s here: %s", place.parent, manifest.parent, what,
            error.strerror or error)


def is_ours(manifest: Path) -> bool:
    """Whether an artifact was made here, by this user."""
    return _place(manifest, MADE).is_file()


def was_tried(manifest: Path) -> bool:
    """Whether somebody else's artifact, of these very bytes, has answered in a limited process here before."""
    return _place(manifest, TRIED).is_file()


def _place(manifest: Path, what: str) -> Path:
    return user_cache() / what / sha256(manifest)
