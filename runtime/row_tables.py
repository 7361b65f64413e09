"""Records of Parquet files, of folders written by `datasets`, and of data sets on the hub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..models.errors import DataError, MissingExtra
from .row_faults import BadRow, RowFault, check_strings
from .row_formats import Record

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_SPLIT = re.compile(r"(.+):([A-Za-z][\w.-]*)")


def split_name(path: str) -> tuple[str, str]:
    """`("folder or hub name", "split")`: "owner/name:test" names a split; without one it is ""."""
    match = _SPLIT.fullmatch(path)
    if match and len(match[1]) > 1:  # one letter before the colon is a Windows drive
        return match[1], match[2]
    return path, ""


def is_hub_name(name: str) -> bool:
    """Whether `name` can only mean a data set on the hub: owner/name, and no folder `owner` here."""
    return _HUB_NAME.fullmatch(name) is not None and not Path(name).parent.exists()


def read_parquet(path: Path) -> Iterator[tuple[int, Record]]:
    """Stream a Parquet file in batches. Raises DataError for a damaged file, MissingExtra without pyarrow."""
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise MissingExtra("pyarrow", "train") from None
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for values in batch.to_pylist():
                    number += 1
                    yield number, _checked(str(path), number, values)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: damaged or not Parquet, after row {number}: {str(error).splitlines()[0]}",
                        "write or download the file again") from None


def read_dataset(name: str, split: str) -> Iterator[tuple[int, Record]]:
    """Stream a folder written by `save_to_disk`, or a data set on the hub when `name` is no folder here.

    Class indices become the names of their classes. An empty `split` means the only one, or "train".
    Raises DataError for an unknown split or an unreadable source, MissingExtra without datasets.
    """
    try:
        import datasets
    except ImportError:
        raise MissingExtra("datasets", "train") from None
    folder = Path(name).is_dir()
    try:
        source = datasets.load_from_disk(name) if folder else datasets.load_dataset(name)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        hint = ("give a file in it, or a folder written by save_to_disk" if folder else
                "check the name, the network and your access to it; or download it and give the file")
        raise DataError(f"{name}: cannot be read by datasets: {str(error).splitlines()[0]}", hint) from None
    table = _choose(name, source, split)
    classes = {column: feature for column, feature in table.features.items()
               if isinstance(feature, datasets.ClassLabel)}
    for number, values in enumerate(table, 1):
        for column, feature in classes.items():
            index = values[column]
            values[column] = None if index is None or index < 0 else feature.int2str(index)
        yield number, _checked(name, number, values)


def _choose(name: str, source: Any, split: str) -> Any:
    if not isinstance(source, dict):
        if split:
            raise DataError(f"{name}: has no splits, {split!r} was asked for", f"give {name} alone")
        return source
    chosen = split or (next(iter(source)) if len(source) == 1 else "train")
    if chosen not in source:
        raise DataError(f"{name}: has no split {chosen!r}",
                        f"write one of: {', '.join(f'{name}:{known}' for known in source)}")
    return source[chosen]


def _checked(file: str, number: int, values: dict[str, Any]) -> Record:
    record = {column: _without_nulls(value) for column, value in values.items()}
    try:
        check_strings(record)
    except RowFault as fault:
        return BadRow(file, number, fault.reason, fault.remedy)
    return record


def _without_nulls(value: Any) -> Any:
    """Drop keys that are null inside a cell: Arrow gives every struct the keys of all structs in its column."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
