"""What a teacher said, where it was kept: for machines that the teacher itself is not on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ...models.errors import UsageError
from ...models.strict import build, limited
from ._cache import ABOUT, VERSION, About, CachedTeacher

TASKS = ("generate",)


@dataclass(frozen=True)
class Config:
    """The [teacher] table."""

    folder: str = limited()
    """The folder of another run's [teacher] cache."""


def provides(config: Config, base: Path) -> frozenset[str]:
    """See Teacher; errors as of `open`."""
    return frozenset({_about(config, base).keep})


def key(config: Config, base: Path) -> str:
    """What stands in it; errors as of `open`."""
    return _about(config, base).key


def open(config: Config, base: Path, device: str) -> CachedTeacher:
    """The teacher; UsageError for a folder without what one teacher says."""
    return CachedTeacher(base / config.folder, _about(config, base), None)


def _about(config: Config, base: Path) -> About:
    read = [_read(path) for path in sorted((base / config.folder).glob(f"*/{ABOUT}"))]
    found = {about.key: about for about in read if about.version == VERSION}
    if len(found) != 1:
        raise UsageError(f"teacher.folder: {config.folder} holds what {len(found)} teachers say, and one is learned "
                         "from", "fill it with edgestill distill --cache-only, where the teacher is; each teacher, and "
                         "each way to keep what it says, takes a folder of its own")
    return next(iter(found.values()))


def _read(path: Path) -> About:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path}: damaged: {error}", "copy the whole folder again, or fill it again") from error
    return build(About, table, str(path))
