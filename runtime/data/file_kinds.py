"""Files that hold no rows, whatever their names say: told by their first bytes, or by what stands at their path."""

from __future__ import annotations

import codecs
import os
from pathlib import Path

from ...models.errors import DataError

_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"), (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"), (codecs.BOM_UTF16_BE, "UTF-16"),
)
_SPREADSHEET = "unpack it; in a spreadsheet, save as plain UTF-8 CSV"
_STARTS = (
    (b"\x1f\x8b", "gzip data", "let its name end in .gz"),
    (b"\x28\xb5\x2f\xfd", "zstd data", "let its name end in .zst"),
    (b"BZh", "bzip2 data", "unpack it first"),
    (b"\xfd7zXZ\0", "xz data", "unpack it first"),
    (b"PK\x03\x04", "a ZIP archive, as .xlsx and .ods are", _SPREADSHEET),
    (b"\xd0\xcf\x11\xe0", "an Office file of the old kind, as .xls", _SPREADSHEET),
    (b"PAR1", "Parquet", "let its name end in .parquet"),
    (b"ARROW1\0", "Arrow", "write it as Parquet"),
    (b"SQLite format 3\0", "an SQLite database", "export its table as CSV"),
    (b"version https://git-lfs.github.com/", "a pointer of Git LFS, and not the file", "fetch the file: git lfs pull"),
)


def refuse_other(path: Path, start: bytes) -> None:
    """DataError for a file whose first bytes, unpacked, are a byte order mark or those of another format than text."""
    for mark, name in _MARKS:
        if start.startswith(mark):
            raise DataError(f"{path}:1: the file starts with a {name} byte order mark",
                            f"convert it: iconv -f {name} -t UTF-8 FILE > NEW; in a spreadsheet, save as UTF-8")
    for mark, what, remedy in _STARTS:
        if start.startswith(mark):
            raise DataError(f"{path}: holds {what}", remedy)


def refuse_special(path: Path) -> None:
    """DataError for what stands at `path` and is neither a file nor a folder; nothing where there is nothing."""
    if not os.path.lexists(path):
        return
    if not path.exists():
        raise DataError(f"{path}: a link that leads nowhere, or in a circle", "give the file itself")
    raise DataError(f"{path}: a pipe or a device, and not a file", "write the rows to a file first: they are read more "
                    "than once")
