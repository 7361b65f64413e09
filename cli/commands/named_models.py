"""Models by their names in the catalogue, for the verbs that take a folder."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from ...models import catalogue, hub
from ...models.errors import UsageError
from ...models.user_cache import user_cache
from .. import output, progress_lines, quiet
from ..pipeline import gguf_files

TARGET = "gguf:Q8_0"
"""What a catalogue model is packed as: the smallest type that loses next to nothing whatever the model's size."""


def source(path: Path) -> Path:
    """The Hugging Face folder of a catalogue name or of a GGUF file, which `tune` would start from too; any other path
    as it is.

    A model that is not in the hub's cache is downloaded. Raises what `sources.resolve` raises, and UsageError for what
    is nearly a catalogue name.
    """
    name = str(path)
    if path.exists() or name not in catalogue.names():
        _refuse_near(path)
        return gguf_files.folder(path)
    from ...distill.sources import resolve

    return resolve(name).folder


def model(path: Path) -> Path:
    """The packed file of a catalogue name, made and proven when it is first asked for; any other path as it is.

    Raises UsageError for a model that answers nothing before it is trained, and what `source` and `export` raise.
    """
    name = str(path)
    if path.exists() or name not in catalogue.names():
        _refuse_near(path)
        return path
    entry = catalogue.entry(name)
    if entry.task != "generate":
        raise UsageError(f"{name}: is a model to start from for {entry.task}, and answers nothing before it is trained",
                         f"edgestill init DATA --student {name}")
    known = hub.snapshot(entry.hub_id)
    folder = known or source(path)
    made = user_cache() / "models" / folder.name / name
    if not made.is_dir():
        from ...quantize import export

        output.note(f"{name}: packed as {TARGET} and proven, once; it is kept in {made}")
        with quiet.stdout_kept_clean(), progress_lines.shown():
            packed = export(folder, [TARGET], out=made.with_name(f"{name}.packing"))
        os.rename(packed[TARGET], made)
        made.with_name(f"{name}.packing").rmdir()
    return made


def _refuse_near(path: Path) -> None:
    """UsageError for a name that is no path here and nearly one of the catalogue's."""
    near = [] if path.exists() or len(path.parts) > 1 else difflib.get_close_matches(str(path), catalogue.names(), n=1)
    if near:
        raise UsageError(f"{path}: no file or folder, and no name of the catalogue", f"did you mean {near[0]!r}?")
