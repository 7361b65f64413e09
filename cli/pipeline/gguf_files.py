"""Models named by a GGUF file, where a folder is looked at."""

from __future__ import annotations

from pathlib import Path

from .. import progress_lines, quiet


def folder(path: Path) -> Path:
    """The folder that is made of a GGUF file, once; any other path as it is. Raises what `unpack.folder_of` raises."""
    if path.suffix != ".gguf" or not path.is_file():
        return path
    from ...quantize.unpack.folder import folder_of

    with quiet.stdout_kept_clean(), progress_lines.shown():
        return folder_of(path)
