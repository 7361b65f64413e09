"""Saved profiles and sweeps, read for a page or a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...models import files
from ...models.errors import UsageError
from ...models.json_values import read_object
from ..report import profile_page, requests_csv
from . import compared_profiles

_WRITTEN = "give what profile -o wrote"


def write(items: Sequence[Path], out: Path) -> Path:
    """Write the page (.html) about the files `items`, or their requests (.csv), to `out`; UsageError for others."""
    profiles: dict[str, dict[str, Any]] = {}
    sweeps: dict[str, dict[str, Any]] = {}
    for item in items:
        table = read_object(item, UsageError, _WRITTEN)
        if table.get("kind") == "sweep":
            sweeps[_name(item, items)] = table
            continue
        for name, one in compared_profiles.by_target(_name(item, items), table).items():
            if "peak_rss_bytes" not in one and "raw" not in one:
                raise UsageError(f"{item}: no profile and no sweep", _WRITTEN)
            profiles[name] = one
    if out.suffix == ".csv":
        if not profiles:
            raise UsageError("sweeps alone: their cells are written by profile --csv", "give a profile, too")
        files.write_text(out, requests_csv.table(profiles))
    else:
        files.write_text(out, page(profiles, sweeps))
    return out


def page(profiles: dict[str, dict[str, Any]], sweeps: dict[str, dict[str, Any]]) -> str:
    """The page, with the models beside each other where there are several of one task."""
    models = [compared_profiles.Measured(name, table) for name, table in profiles.items()]
    alike = len(models) > 1 and len({one.profile.get("kind") for one in models}) == 1
    return profile_page.render(" · ".join([*profiles, *sweeps]), profiles, sweeps,
                               {"frontier": compared_profiles.frontier(models, ())} if alike else None)


def _name(item: Path, items: Sequence[Path]) -> str:
    """The file's name without its end where that tells it from the others."""
    return item.stem if sum(other.stem == item.stem for other in items) == 1 else str(item)
