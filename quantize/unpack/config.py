"""What a GGUF file says of its model, as config.json: the metadata that ours are written with, the other way round."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from ...models import family
from ...models.errors import ArtifactError, UsageError
from ...models.family import Family
from ...runtime.files.gguf_header import Header
from ...runtime.files.safetensors_header import Entry
from ..gguf import metadata
from ..gguf.weight_changes import REVERSIBLE
from ..source.checkpoint import Checkpoint
from ..source.float_model import made_by_transformers

SIZES = {"context": "context_length", "hidden": "embedding_length", "layers": "block_count",
         "feed_forward": "feed_forward_length", "heads": "attention.head_count", "heads_kv": "attention.head_count_kv",
         "head_dim": "attention.key_length"}
"""Keys of families and of files for the same counts."""
EPSILONS = {"rms": "attention.layer_norm_rms_epsilon", "layer": "attention.layer_norm_epsilon"}
LLAMA3_TURNS = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192}
"""Llama 3.1's slowed rotation. A file holds only the divisors that follow of it: they are compared with the file's."""
FREQUENCIES = "rope_freqs.weight"
HINT = "take the model's Hugging Face folder, or a file that was made of it in the usual way"


def readable(member: Family) -> bool:
    """Whether a family's file says all of its config, and its weights come back as they were."""
    rules = member.gguf
    return rules is not None and rules.positions == "rotary" and set(rules.changes.values()) <= REVERSIBLE and not (
        rules.values or rules.layers or rules.attends or rules.names or rules.equal)


def family_of(path: Path, header: Header) -> Family:
    """The family of a file; UsageError for one that is not read back, with those that are."""
    known: dict[str, Family] = {}
    for name in family.names():
        member = family.load(name)
        if member.gguf is not None and readable(member):
            known.setdefault(member.gguf.architecture, member)
    if header.architecture not in known:
        raise UsageError(f"{path}: a GGUF file of the architecture {header.architecture!r}, which is not turned back "
                         "into a model to train", f"those of {', '.join(sorted(known))} are; for others give the "
                         "Hugging Face folder")
    return known[header.architecture]


def write(path: Path, header: Header, turns: float, ends: dict[str, Any], folder: Path) -> Checkpoint:
    """Write config.json and generation_config.json of the file's model into `folder`.

    `turns` is the largest divisor of the rotary frequencies, 0 where the file has none; `ends` are the special ids.
    Returns the model's tensors by the names and shapes that transformers gives them, without weights. Raises
    ArtifactError for a file that lacks a size or says more than these configs hold, naming the key.
    """
    import torch
    import transformers

    member = family_of(path, header)
    table = _table(path, header, member, turns) | {key: value for key, value in ends.items() if value is not None}
    kind = getattr(transformers, member.architectures[0])
    with made_by_transformers(path), torch.device("meta"):
        config = kind.config_class(**table)
        shapes = {name: tuple(tensor.shape) for name, tensor in kind(config).state_dict().items()}
    config.architectures, config.dtype = [member.architectures[0]], "float32"
    config.save_pretrained(folder)
    transformers.GenerationConfig(**ends).save_pretrained(folder)
    if table["tie_word_embeddings"]:
        shapes.pop(member.head, None)
    stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    checkpoint = Checkpoint(folder, stored, member, {name: Entry(path, "F32", shape, 0)
                                                     for name, shape in shapes.items()})
    _compare(path, header, checkpoint)
    return checkpoint


def _table(path: Path, header: Header, member: Family, turns: float) -> dict[str, Any]:
    rules = member.gguf
    assert rules is not None, "only families with GGUF files are read"
    said = _Said(path, header)
    table: dict[str, Any] = {"vocab_size": header.tokens}
    for key, name in SIZES.items():
        if key in member.keys and (value := said.size(name, optional=key in ("heads_kv", "head_dim"))):
            table[member.keys[key]] = value
    blocks = {int(found[1]) for each in header.tensors if (found := re.match(r"blk\.(\d+)\.", each.name))}
    if blocks != set(range(said.size("block_count"))):
        raise ArtifactError(f"{path}: {header.architecture}.block_count is {said.size('block_count')}, and it holds "
                            f"tensors of {len(blocks)} layers", HINT)
    names = {tensor.name for tensor in header.tensors}
    table |= {"tie_word_embeddings": "output.weight" not in names, "hidden_act": "silu",
              member.keys["norm_epsilon"]: said.number(EPSILONS[rules.norm])}
    table |= {switch: tensor in names for switch, tensor in rules.switches.items()}
    heads = table[member.keys["heads"]]
    channels = table.get(member.keys.get("head_dim", ""), table[member.keys["hidden"]] // heads)
    if "heads_kv" in member.keys:
        table.setdefault(member.keys["heads_kv"], heads)
    if "head_dim" in member.keys:
        table.setdefault(member.keys["head_dim"], channels)
    table["rope_parameters"] = said.rope(turns)
    if "rotary_part" in member.keys:
        part = said.size("rope.dimension_count", optional=True) / channels or 1.0
        table["rope_parameters"][member.keys["rotary_part"]] = part
    return table


class _Said:
    """Values below the architecture's name."""

    def __init__(self, path: Path, header: Header) -> None:
        self._path, self._header, self._start = path, header, f"{header.architecture}."
        listed = next((key for key in header.lists if key.startswith(self._start)), None)
        if listed:
            raise ArtifactError(f"{path}: {listed} differs from layer to layer, which models of this kind do not", HINT)

    def size(self, name: str, optional: bool = False) -> int:
        value = self._header.values.get(self._start + name, 0 if optional else None)
        if not isinstance(value, int) or isinstance(value, bool) or value < (0 if optional else 1):
            raise ArtifactError(f"{self._path}: {self._start}{name} is {value!r}, a count was expected", HINT)
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self._header.values.get(self._start + name, default)
        if not isinstance(value, float) or not value > 0:
            raise ArtifactError(f"{self._path}: {self._start}{name} is {value!r}, a number above 0 was expected", HINT)
        return float(str(np.float32(value)))  # 1e-05, not 9.999999747378752e-06

    def rope(self, turns: float) -> dict[str, Any]:
        rope: dict[str, Any] = {"rope_theta": self.number("rope.freq_base", 10000.0), "rope_type": "default"}
        scaling = self._header.values.get(f"{self._start}rope.scaling.type", "none")
        if turns:
            return rope | LLAMA3_TURNS | {"factor": turns}
        if scaling in ("linear", "yarn"):
            rope |= {"rope_type": scaling, "factor": self.number("rope.scaling.factor")}
        if scaling == "yarn":
            rope["original_max_position_embeddings"] = self.size("rope.scaling.original_context_length")
        return rope


def _compare(path: Path, header: Header, checkpoint: Checkpoint) -> None:
    """Write the metadata again, from the config: what the file says beside it would be lost."""
    wanted, start = metadata.stated(checkpoint), f"{header.architecture}."
    for key, value in header.values.items():
        if not key.startswith(start) or key.endswith(metadata.FREE) or value in (0, False, "none"):
            continue
        if key not in wanted or not metadata.same(value, wanted[key]):
            other = f"and is written as {wanted[key]}" if key in wanted else "which is not known here"
            raise ArtifactError(f"{path}: {key} is {str(value)[:60]}, {other}: it would be lost", HINT)
