"""A Hugging Face checkpoint, read lazily: names and shapes at once, weights one tensor at a time, without torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...models.errors import ArtifactError
from ...models.family import Family, of_config
from ...models.json_values import read_object
from ...runtime.files import safetensors_header
from ...runtime.files.model_files import check_folder, read_table
from ...runtime.files.safetensors_header import Entry
from ...runtime.text import unembedded
from ...runtime.text.codec import Codec
from . import folder_checks

MADE_BY = "give a folder that tune, distill or save_pretrained wrote"
INCOMPLETE = "the checkpoint is incomplete, or its tensors begin with another name: save it again"
HEADS = ("classifier.out_proj.weight", "classifier.weight")
"""The last layer of a classifier, in the families that there are."""
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
"""What is read as weights; numpy has no bfloat16, so those come as raw 16 bits."""


@dataclass(frozen=True)
class Checkpoint:
    """A checked folder. `config` is its config.json, `entries` its tensors by name."""

    folder: Path
    config: Mapping[str, Any]
    family: Family
    entries: Mapping[str, Entry]

    @classmethod
    def open(cls, folder: Path) -> Checkpoint:
        """Read config and headers, no weights.

        Raises UsageError for an unknown architecture, ArtifactError for a folder that is incomplete: no config or
        tokenizer, an adapter without its base, weights only as pickle, a missing or damaged shard, a layer that lacks
        a tensor, or a vocabulary larger than the embedding.
        """
        if not folder.is_dir():
            raise ArtifactError(f"{folder}: no such folder", MADE_BY)
        folder_checks.check_adapter(folder)
        if not (folder / "config.json").is_file():
            raise ArtifactError(f"{folder / 'config.json'}: no such file", "copy it from where the model was made")
        config = read_table(folder / "config.json")
        check_folder(folder)
        family = of_config(config)
        if not (folder / "tokenizer.json").is_file():
            raise ArtifactError(f"{folder}: no tokenizer.json in it",
                                "save the tokenizer there too (transformers: save_pretrained of a fast tokenizer)")
        found = cls(folder, config, family, stored(folder, config, family))
        _check_layers(folder, config, family, found.entries)
        found._check_vocabulary()
        return found

    @property
    def embedding(self) -> str:
        """The name of the token embedding [vocabulary, hidden]; ArtifactError when there is none."""
        for name in self.family.embedding:
            if name in self.entries:
                return name
        raise ArtifactError(f"{self.folder}: no token embedding; looked for {', '.join(self.family.embedding)}",
                            INCOMPLETE)

    @property
    def vocabulary_size(self) -> int:
        """Rows of the token embedding."""
        return self.entries[self.embedding].shape[0]

    @property
    def outputs(self) -> int | None:
        """How many numbers a classifier's head gives; None without such a head."""
        return next((self.entries[name].shape[0] for name in HEADS if name in self.entries), None)

    def parameters(self) -> int:
        """The number of stored weights."""
        return sum(int(np.prod(entry.shape)) for entry in self.entries.values() if entry.dtype in DTYPES)

    def tensor(self, name: str) -> NDArray[np.float32]:
        """One tensor as float32.

        Raises ArtifactError when there is none of that name, its type is no float, or a value is NaN or infinite.
        """
        if name not in self.entries:
            raise ArtifactError(f"{self.folder}: no tensor {name!r} in it", INCOMPLETE)
        entry = self.entries[name]
        if entry.dtype not in DTYPES:
            raise ArtifactError(f"{entry.file}: {name} is of type {entry.dtype}; only {', '.join(DTYPES)} are read",
                                "save the model in float32 or bfloat16 first")
        count = int(np.prod(entry.shape))
        stored = np.fromfile(entry.file, DTYPES[entry.dtype], count, offset=entry.start)
        if entry.dtype == "BF16":
            values = (stored.astype(np.uint32) << 16).view(np.float32)
        else:
            values = stored.astype(np.float32, copy=False)
        if not np.isfinite(values).all():
            count = int((~np.isfinite(values)).sum())
            raise ArtifactError(f"{entry.file}: {name} holds {count} values of {values.size} that are NaN or infinite",
                                "the training went wrong: take an earlier state of the model")
        return values.reshape(entry.shape)

    def _check_vocabulary(self) -> None:
        size = self.config.get("vocab_size")
        if size is not None and size != self.vocabulary_size:
            raise ArtifactError(f"{self.folder}: config.json says vocab_size = {size}, the embedding has "
                                f"{self.vocabulary_size} rows", "save config and weights together again")
        unembedded.check_ids(self.folder, Codec.from_folder(self.folder).tokenizer, self.vocabulary_size)


def stored(folder: Path, config: Mapping[str, Any], family: Family) -> dict[str, Entry]:
    """The tensors of a folder under the names that its family's decoder has for them; reads headers, no weights but
    those of an output layer beside a shared embedding.

    Raises ArtifactError for a missing or damaged shard, for code or packed weights, for more layers in config.json than
    there are tensors, and for an output layer that it says is another than the one that is there.
    """
    folder_checks.check_config(folder, config)
    entries: dict[str, Entry] = {}
    for file in _files(folder):
        found = safetensors_header.read(file)
        again = min(found.keys() & entries.keys(), default=None)
        if again is not None:
            raise ArtifactError(f"{file}: {again!r} stands in {entries[again].file.name}, too",
                                "copy the model again, every shard from the same version")
        entries |= found
    _check_index(folder, entries)
    for name, entry in entries.items():
        if "weight" in name.rpartition(".")[2] and len(entry.shape) > 1 and entry.dtype not in DTYPES:
            raise ArtifactError(f"{entry.file}: {name} is of type {entry.dtype}; only {', '.join(DTYPES)} are read",
                                "its weights are packed already: start from the model in bfloat16 or float32")
    entries = _whole_names(family, entries)
    layers = int(family.of(config, "layers", 0))
    if layers > len(entries):  # whoever makes the model would make them all first
        raise ArtifactError(f"{folder}: config.json says {family.keys['layers']} = {layers}, and there are "
                            f"{len(entries)} tensors in all", "save config and weights together again")
    if "generate" in family.tasks:
        _check_head(folder, config, family, entries)
    return entries


def _check_layers(folder: Path, config: Mapping[str, Any], family: Family, entries: Mapping[str, Entry]) -> None:
    """Every layer has the tensors that its neighbours have, and there are as many as the config says."""
    layers: dict[str, dict[int, set[str]]] = {}
    for name in entries:
        match = re.fullmatch(r"(.*?)\.(\d{1,9})\.(.+)", name)
        if match:
            layers.setdefault(match[1], {}).setdefault(int(match[2]), set()).add(match[3])
    expected = int(family.of(config, "layers"))
    if not layers:
        raise ArtifactError(f"{folder}: no tensor of any layer in it", INCOMPLETE)
    for prefix, found in layers.items():
        if len(found) != expected or max(found) != expected - 1:
            raise ArtifactError(f"{folder}: tensors of {len(found)} layers at {prefix!r}, config.json says "
                                f"{family.keys['layers']} = {expected}", "save config and weights together again")
        every = set.union(*found.values())
        for index, names in found.items():
            lacking = [name for name in every - names if not name.startswith(tuple(family.optional))]
            if lacking:
                raise ArtifactError(f"{folder}: layer {index} lacks {prefix}.{index}.{min(lacking)}", INCOMPLETE)


def _check_head(folder: Path, config: Mapping[str, Any], family: Family, entries: Mapping[str, Entry]) -> None:
    """Whether config.json and weights agree on the output layer. Versions of transformers do not: up to 4 a shared one
    wins, from 5 on the one that is stored."""
    tied, head = config.get("tie_word_embeddings"), entries.get(family.head)
    embedding = next((entries[name] for name in family.embedding if name in entries), None)
    if tied is False and head is None and config["architectures"][0] in family.architectures:
        raise ArtifactError(f"{folder}: config.json says the output layer is its own, and there is no "
                            f"{family.head}", "set tie_word_embeddings = true if it is shared, or save the model again")
    if tied and head is not None and embedding is not None and not _same(head, embedding):
        raise ArtifactError(f"{folder}: config.json says tie_word_embeddings = true, and {family.head} is another "
                            "matrix than the embedding",
                            "set it to false if the model was trained with an output layer of its own; else remove "
                            "that tensor")


def _same(one: Entry, other: Entry) -> bool:
    """Whether two tensors hold the same bytes."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    left, right = (np.memmap(entry.file, DTYPES[entry.dtype], "r", entry.start, entry.shape) for entry in (one, other))
    return all(np.array_equal(left[start:start + 4096], right[start:start + 4096])
               for start in range(0, len(left), 4096))


def _check_index(folder: Path, entries: Mapping[str, Entry]) -> None:
    path = folder / INDEX
    if not path.is_file():
        return
    missing = sorted(set(_index(path)) - set(entries))
    if missing:
        raise ArtifactError(f"{path}: lists {missing[0]!r}, which is in none of the shards",
                            "copy the model again, every shard from the same version")


def _whole_names(family: Family, entries: dict[str, Entry]) -> dict[str, Entry]:
    """The tensors under the names that the family's decoder has for them, where only its body was saved.

    GPT-2 on the hub is such a body: transformers adds the beginning of the names too, and takes a second one away.
    """
    whole = family.embedding[0]
    start, _, bare = whole.partition(".")
    if whole in entries or "generate" not in family.tasks:
        return entries
    if bare in entries:
        return {name if name == family.head else f"{start}.{name}": entry for name, entry in entries.items()}
    if f"{start}.{whole}" in entries:
        return {name.removeprefix(f"{start}."): entry for name, entry in entries.items()}
    return entries


def _files(folder: Path) -> list[Path]:
    """The safetensors files of a folder: every shard of the index, or the single file."""
    if (folder / INDEX).is_file():
        files = sorted({folder / shard for shard in _index(folder / INDEX).values()})
        if (folder / SINGLE).is_file() and files != [folder / SINGLE]:  # transformers would read that one alone
            raise ArtifactError(f"{folder}: {SINGLE} and {INDEX} in it, two models", "remove the one that is not meant")
        for file in files:
            if not file.is_file():
                raise ArtifactError(f"{file}: a shard that {INDEX} lists and that is not there",
                                    "copy the model again, with every shard")
        return files
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    pickled = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in folder.glob(pattern))
    if pickled:
        raise ArtifactError(f"{folder}: weights only as {pickled[0]}, a pickle, which can run code when it is read",
                            f"convert it where it is trusted: save_pretrained writes {SINGLE}")
    raise ArtifactError(f"{folder}: no {SINGLE} in it", MADE_BY)


def _index(path: Path) -> dict[str, str]:
    shards = read_object(path, ArtifactError, "copy the model again").get("weight_map")
    if not isinstance(shards, dict) or any(
            not isinstance(shard, str) or Path(shard).name != shard for shard in shards.values()):
        raise ArtifactError(f"{path}: no valid weight_map in it", "copy the model again")
    return shards
