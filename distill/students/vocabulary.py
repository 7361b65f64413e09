"""A smaller vocabulary: only the tokens that the training and validation rows use, and what those are made of.

On covered text nothing changes. A byte-level BPE tokenizer applies the best-ranked merge that a word allows until
none is left; if every merge that was applied is kept, in the old order, the same ones are applied again. WordPiece
takes the longest piece that fits; a smaller vocabulary that holds this piece has no longer one. Unigram takes the cut
with the highest sum of scores; that one is left, and no other has got better, for what a character without a piece
costs hangs on the lowest score of all, which stays. On other text words fall apart into smaller pieces; bytes (BPE),
ASCII letters and the characters of what stays (Unigram) are always kept.
"""

from __future__ import annotations

import copy
import json
import string
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...models import files
from ...models.errors import UsageError
from ..loading import copy_tokenizer
from ._base import Context, Cut, make_greedy

_LONE_BYTES = {f"<0x{byte:02X}>" for byte in range(256)}
_ASCII = string.ascii_letters + string.digits + string.punctuation


@dataclass(frozen=True)
class Config:
    """No options."""


def apply(cut: Cut, config: Config, context: Context) -> dict[str, Any]:
    """Leave `cut.model` the tokens that the rows use; returns how many those are.

    Raises UsageError for a vocabulary that was trimmed before, and for what `kept_tokens` and `trim_model` refuse.
    """
    if cut.kept is not None:
        raise UsageError("vocabulary: it was trimmed to the rows before", "name this cut once")
    used = {token for split in context.tokens.values() for token in set(split.ids.tolist())}
    cut.kept = kept_tokens(json.loads(context.codec.tokenizer.to_str()), used)
    cut.model = trim_model(cut.model, cut.kept)
    return {"tokens": len(cut.kept)}


def kept_tokens(tokenizer: Mapping[str, Any], used: Collection[int]) -> list[int]:
    """The ids to keep, in rising order: those `used`, every special token, every byte and all that merges need.

    `tokenizer` is the content of tokenizer.json. Raises UsageError for a kind of tokenizer that cannot be cut.
    """
    model = tokenizer["model"]
    listed = model.get("vocab") or {}
    vocabulary: Mapping[str, int] = (listed if isinstance(listed, Mapping) else
                                     {token: index for index, (token, _) in enumerate(listed)})
    keep = {item["id"] for item in tokenizer["added_tokens"]} | set(used)
    if model["type"] == "BPE":
        # Byte-level alphabets spell a byte as one character; others hold bytes as <0x00> to <0xFF>.
        single = _LONE_BYTES | _byte_alphabet(tokenizer)
        keep |= {index for token, index in vocabulary.items() if token in single}
        parts: dict[str, list[str]] = {}
        for left, right in map(_pair, model["merges"]):
            parts.setdefault(left + right, []).extend((left, right))
        names = {index: token for token, index in vocabulary.items()}
        open_tokens = [names[index] for index in keep if index in names]
        while open_tokens:
            for part in parts.get(open_tokens.pop(), ()):
                if vocabulary[part] not in keep:
                    keep.add(vocabulary[part])
                    open_tokens.append(part)
    elif model["type"] == "WordPiece":
        continued = model.get("continuing_subword_prefix", "##")
        keep |= {vocabulary[token] for letter in _ASCII for token in (letter, continued + letter)
                 if token in vocabulary}
    elif model["type"] == "Unigram":
        signs = {*_ASCII, *(sign for token, index in vocabulary.items() if index in keep for sign in token)}
        keep |= {index for token, index in vocabulary.items() if token in signs or token in _LONE_BYTES}
        # tokenizers takes the lowest score of all, llama.cpp that of ordinary tokens.
        special = {item["id"] for item in tokenizer["added_tokens"]}
        for known in (range(len(listed)), [index for index in range(len(listed)) if index not in special]):
            keep.add(min(known, key=lambda index: float(listed[index][1])))
    else:
        raise UsageError(f"vocabulary: a tokenizer of type {model['type']} cannot be trimmed",
                         "BPE, WordPiece and Unigram can; keep the whole vocabulary")
    if model.get("unk_token") is not None:
        keep.add(vocabulary[model["unk_token"]])
    if model.get("unk_id") is not None:
        keep.add(model["unk_id"])
    return sorted(keep)


def trim_tokenizer(tokenizer: Mapping[str, Any], kept: Sequence[int]) -> dict[str, Any]:
    """The content of tokenizer.json with only the ids in `kept`, numbered anew in their old order."""
    new = {old: index for index, old in enumerate(kept)}
    result = copy.deepcopy({key: value for key, value in tokenizer.items() if key != "model"})
    model = dict(tokenizer["model"])
    if model["type"] == "Unigram":  # a list, where the place is the id
        model["vocab"] = [entry for old, entry in enumerate(model["vocab"]) if old in new]
        model["unk_id"] = None if model.get("unk_id") is None else new[model["unk_id"]]
    else:
        model["vocab"] = {token: new[old] for token, old in model["vocab"].items() if old in new}
    result["model"] = model
    if model["type"] == "BPE":
        words = model["vocab"]
        model["merges"] = [merge for merge in model["merges"]
                           if all(token in words for token in (*_pair(merge), "".join(_pair(merge))))]
    for item in result["added_tokens"]:
        item["id"] = new[item["id"]]
    for processor in _processors(result.get("post_processor")):
        if processor["type"] == "TemplateProcessing":
            for entry in processor["special_tokens"].values():
                entry["ids"] = [new[old] for old in entry["ids"]]
        for key in ("sep", "cls"):  # BertProcessing and RobertaProcessing: [token, id]
            if key in processor:
                processor[key] = [processor[key][0], new[processor[key][1]]]
    if result.get("padding"):
        result["padding"]["pad_id"] = new[result["padding"]["pad_id"]]
    return result


def trim_model(model: Any, kept: Sequence[int]) -> Any:
    """Cut the embedding, the head and all token ids of the configurations of `model` to `kept`, in place.

    Tied weights stay tied. Raises UsageError when the model has fewer embeddings than tokens.
    """
    import torch
    from torch import nn

    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    if kept[-1] >= inputs.num_embeddings:
        raise UsageError(f"token {kept[-1]} has no embedding: the model has {inputs.num_embeddings}",
                         "the tokenizer is not the one of this model")
    rows = torch.tensor(kept, device=inputs.weight.device)
    new = {old: index for index, old in enumerate(kept)}
    places = getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)
    padding = getattr(places, "padding_idx", None)  # RoBERTa numbers positions from it
    if padding is not None and new.get(padding) != padding:
        raise UsageError(f"vocabulary: the padding token {padding} would get another number, and with it all "
                         "positions another meaning", "keep the whole vocabulary")
    with torch.no_grad():
        tied = outputs is not None and outputs.weight is inputs.weight
        embedding = nn.Embedding.from_pretrained(inputs.weight[rows].clone(), freeze=False)
        if inputs.padding_idx is not None:
            embedding.padding_idx = new.get(inputs.padding_idx)
        model.set_input_embeddings(embedding)
        if outputs is not None:
            outputs.weight = embedding.weight if tied else nn.Parameter(outputs.weight[rows].clone())
            if getattr(outputs, "bias", None) is not None:
                outputs.bias = nn.Parameter(outputs.bias[rows].clone())
            outputs.out_features = len(kept)
    for config in (model.config, getattr(model, "generation_config", None)):
        if config is not None:
            for key, value in trim_ids(config.to_dict(), new).items():
                setattr(config, key, value)
    generation = getattr(model, "generation_config", None)
    if generation is not None:
        make_greedy(generation)
    model.config.get_text_config().vocab_size = len(kept)
    return model


def trim_ids(table: Mapping[str, Any], new: Mapping[int, int]) -> dict[str, Any]:
    """The entries of a configuration that hold token ids, in the new numbering: `*_token_id` (one or several), and what
    transformers never lets a model write, less what it can write no more."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        if not value and value != 0:
            continue
        if key.endswith("_token_id") or key in ("suppress_tokens", "begin_suppress_tokens"):
            listed = [new[item] for item in (value if isinstance(value, list) else [value]) if item in new]
            found[key] = listed if isinstance(value, list) else (listed[0] if listed else None)
        elif key == "bad_words_ids":
            found[key] = [[new[item] for item in word] for word in value if all(item in new for item in word)] or None
    return found


def trim_settings(settings: Mapping[str, Any], kept: Sequence[int]) -> dict[str, Any]:
    """The content of tokenizer_config.json in the new numbering."""
    new = {old: index for index, old in enumerate(kept)}
    result = dict(settings)
    if "added_tokens_decoder" in result:
        entries = result["added_tokens_decoder"].items()
        result["added_tokens_decoder"] = {str(new[int(old)]): item for old, item in entries if int(old) in new}
    return result


def write_trimmed_tokenizer(source: Path, folder: Path, kept: Sequence[int]) -> None:
    """Copy tokenizer and chat template of `source`, with only the ids in `kept`, numbered anew."""
    copy_tokenizer(source, folder)
    for name, cut in (("tokenizer.json", trim_tokenizer), ("tokenizer_config.json", trim_settings)):
        if (folder / name).is_file():
            table = json.loads((folder / name).read_text(encoding="utf-8"))
            # Keys in their old order: transformers and llama.cpp read a vocabulary in the order of the file.
            files.write_text(folder / name, json.dumps(cut(table, kept), ensure_ascii=False, indent=2) + "\n")


def _byte_alphabet(tokenizer: Mapping[str, Any]) -> set[str]:
    if "ByteLevel" not in json.dumps(tokenizer.get("pre_tokenizer")):
        return set()
    from tokenizers.pre_tokenizers import ByteLevel

    return set(ByteLevel.alphabet())


def _pair(merge: Any) -> tuple[str, str]:
    left, right = merge if isinstance(merge, list) else merge.split(" ", 1)
    return left, right


def _processors(processor: Mapping[str, Any] | None) -> list[Any]:
    if processor is None:
        return []
    return list(processor["processors"]) if processor["type"] == "Sequence" else [processor]
