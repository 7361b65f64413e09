"""The bytes of a file of rows, unpacked where its name ends in .gz or .zst."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from ...models.errors import DataError, MissingExtra


def chunks(path: Path) -> Iterator[bytes]:
    """Stream the unpacked bytes of a file. Raises DataError for damaged ones."""
    suffix = path.suffix.lower()
    try:
        if suffix == ".zst":
            yield from _zstd_chunks(path)
            return
        with gzip.open(path, "rb") if suffix == ".gz" else path.open("rb") as file:
            while chunk := file.read(1 << 20):
                yield chunk
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: damaged gzip data: {error}",
                        "copy or download the file again; without .gz in its name it is read as it is") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}", "check its permissions") from None


def _zstd_chunks(path: Path) -> Iterator[bytes]:
    try:
        import zstandard
    except ImportError:
        raise MissingExtra("zstandard", "train") from None
    decoder, inside = zstandard.ZstdDecompressor().decompressobj(), False
    damaged = DataError(f"{path}: damaged or truncated zstd data", "copy or download the file again")
    with path.open("rb") as file:
        while block := file.read(4096):  # small blocks bound what one of them can unfold to
            while block:
                try:
                    yield decoder.decompress(block)
                except zstandard.ZstdError:
                    raise damaged from None
                inside, block = not decoder.eof, decoder.unused_data if decoder.eof else b""
                if not inside:  # one file may hold several frames
                    decoder = zstandard.ZstdDecompressor().decompressobj()
    if inside:
        raise damaged
