"""A teacher on this machine: any model of the catalogue, the hub or a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...models.strict import limited
from ..sources import Source, resolve


@dataclass(frozen=True)
class Config:
    """The [teacher] table."""

    model: str = limited()
    """A folder, a catalogue name or a hub name."""
    revision: str = ""
    """The hub's commit, branch or tag; empty: main, as it was downloaded last."""
    tune: bool = False
    """Fine-tune the teacher on the labels first, as [tune] says."""


def source(config: Config, base: Path) -> Source:
    """The teacher's folder; errors as of sources.resolve."""
    return resolve(config.model, config.revision, base, "teacher.model")
