"""Records of Parquet files, of folders written by `datasets`, and of data sets on the hub."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...models.errors import DataError, MissingExtra
from .faults import BadRow, RowFault, check_strings, twice
from .file_kinds import refuse_other
from .formats import LINE_LIMIT, Described, Record

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
MAGIC = b"PAR1"
BATCH = 64
"""Rows of a Parquet file that are unfolded at once."""
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
    with path.open("rb") as file:
        if (start := file.read(64))[:4] != MAGIC:
            refuse_other(path, start)
    try:
        with parquet.ParquetFile(path) as file:
            classes = _classes(file.schema_arrow.metadata or {})
            again = twice(file.schema_arrow.names)
            if again is not None:
                raise DataError(f"{path}: the column {again!r} stands twice", "rename one of the two columns")
            for batch in file.iter_batches(batch_size=BATCH):
                for values in _values(path, number, batch):
                    number += 1
                    yield number, _checked(str(path), number, values, classes)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: damaged or not Parquet, after row {number}: {str(error).splitlines()[0]}",
                        "write or download the file again") from None


def _values(path: Path, number: int, batch: Any) -> list[dict[str, Any]]:
    """The rows of a batch, the first of which is `number` + 1. DataError for a row too long to be one, and for values
    that Python has none for, such as a year 30,000."""
    if batch.nbytes > LINE_LIMIT:  # a small file may unfold to gigabytes
        for place in range(len(batch)):
            if batch.slice(place, 1).nbytes > LINE_LIMIT:
                raise DataError(f"{path}: row {number + place + 1} is longer than {LINE_LIMIT // 2**20} MiB",
                                "split the text of that row, or leave the row out")
    found: dict[str, list[Any]] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            found[name] = column.to_pylist()
        except (ValueError, OverflowError) as error:
            raise DataError(f"{path}: the column {name!r} of type {str(column.type)[:60]} cannot be read: "
                            f"{str(error).splitlines()[0]}", "write it as text, or leave the column out") from None
    return [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]


def read_dataset(name: str, split: str) -> Iterator[tuple[int, Record]]:
    """Stream a folder written by `save_to_disk`, or a data set on the hub when `name` is no folder here.

    Class indices become the names of their classes. An empty `split` means the only one, or "train".
    Raises DataError for an unknown split or an unreadable source, MissingExtra without datasets.
    """
    folder = Path(name).is_dir()
    if folder and not any((Path(name) / file).is_file() for file in ("state.json", "dataset_dict.json")):
        raise DataError(f"{name}: a folder that save_to_disk of datasets did not write",
                        "give a file in it, or a folder written by save_to_disk")
    try:
        import datasets
    except ImportError:
        raise MissingExtra("datasets", "train") from None
    try:
        source = datasets.load_from_disk(name) if folder else datasets.load_dataset(name)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        hint = ("give a file in it, or a folder written by save_to_disk" if folder else
                "check the name, the network and your access to it; or download it and give the file")
        raise DataError(f"{name}: cannot be read by datasets: {str(error).splitlines()[0]}", hint) from None
    table = _choose(name, source, split)
    classes = table.features.to_dict()
    for number, values in enumerate(table, 1):
        yield number, _checked(name, number, values, classes)


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


def _classes(metadata: Mapping[bytes, bytes]) -> Mapping[str, Any]:
    """What `datasets` wrote beside the columns of a Parquet file about what they mean; nothing for other writers."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, LookupError, TypeError):
        return {}
    return features if isinstance(features, dict) else {}


def _of_classes(feature: Any) -> bool:
    """Whether a column holds classes, or lists of them."""
    if isinstance(feature, list):
        return bool(feature) and _of_classes(feature[0])
    return isinstance(feature, dict) and (feature.get("_type") == "ClassLabel" or _of_classes(feature.get("feature")))


def _named(value: Any, feature: Any) -> Any:
    """A value with the names of classes in place of their numbers; RowFault for a number without a name. A number below
    0 means that there is no label."""
    if value is None or not isinstance(feature, (dict, list)):
        return value
    if isinstance(feature, list) or "feature" in feature:  # a list of one kind, in older and newer writing
        inner = feature[0] if isinstance(feature, list) else feature["feature"]
        return [_named(item, inner) for item in value] if isinstance(value, list) else value
    names = feature.get("names")
    if feature.get("_type") == "ClassLabel" and isinstance(names, list) and isinstance(value, int):
        if value >= len(names):
            raise RowFault(f"the label {value} has no name: the file names {len(names)} classes",
                           "write the file again with the names of all its classes")
        return None if value < 0 else names[value]
    if isinstance(value, dict):
        return {key: _named(item, feature.get(key)) for key, item in value.items()}
    return value


def _checked(file: str, number: int, values: dict[str, Any], classes: Mapping[str, Any]) -> Record:
    record = Described()
    record.classes = frozenset(column for column in values if _of_classes(classes.get(column)))
    try:
        for column, value in values.items():
            record[column] = _without_nulls(_named(value, classes.get(column)))
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
