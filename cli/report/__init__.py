"""One self-contained HTML page about a run: no script, no font, no picture from anywhere else."""

from __future__ import annotations

from pathlib import Path

from .page import render
from .summary import Summary, read_summary

__all__ = ["render", "write"]


def write(folder: Path, path: Path) -> Path:
    """Write the page about the pipeline's output in `folder` to `path`; ArtifactError when no run finished there."""
    from ...models import files

    files.write_text(path, render(read_summary(folder)))
    return path


def write_summary(summary: Summary, path: Path) -> Path:
    """Write the page about `summary` to `path`."""
    from ...models import files

    files.write_text(path, render(summary))
    return path
