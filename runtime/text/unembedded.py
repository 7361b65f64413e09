"""Tokens that a tokenizer holds behind the last row of the embedding, such as Gemma 3's token for pictures.

The model can neither read nor write them. They are left out of the tokenizer, so that their text is plain text, as
llama.cpp has it; a tokenizer that needs one is refused.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...models import files
from ...models.errors import ArtifactError, DataError
from ..files.model_files import read_table

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
"""Where such a token is named."""
HINT = "resize the embedding and train it, or use the tokenizer the model was trained with"


def rows_of(folder: Path) -> int | None:
    """Rows of the embedding as config.json says; None where it does not."""
    config = read_table(folder / "config.json")
    found = config.get("vocab_size") or (config.get("text_config") or {}).get("vocab_size")
    return None if found is None else int(found)


def behind(folder: Path, tokenizer: Tokenizer) -> dict[int, str]:
    """The added tokens of a folder's tokenizer that have no row, by id; mostly none."""
    rows = rows_of(folder)
    added = {index: token.content for index, token in tokenizer.get_added_tokens_decoder().items()}
    if rows is None:
        return {}
    return {index: text for index, text in added.items() if index >= rows}


def check_ids(folder: Path, tokenizer: Any, rows: int) -> None:
    """Whether every id of tokenizer.json is one of the embedding's `rows`, another token's is not, and is the one that
    its token gets: an added token behind a gap would be numbered anew without a word.

    `tokenizer` is the folder's. Raises ArtifactError naming token and id.
    """
    table = read_table(folder / "tokenizer.json")
    vocabulary = (table.get("model") or {}).get("vocab") or {}
    known: dict[str, int] = vocabulary if isinstance(vocabulary, dict) else {
        item[0]: index for index, item in enumerate(vocabulary)}
    added = {item["content"]: int(item["id"]) for item in table.get("added_tokens") or []}
    used = tokenizer.get_vocab(with_added_tokens=True)
    kept = {text: index for text, index in (known | added).items() if index < rows or text in used}
    if max(kept.values(), default=-1) >= rows:
        raise refused(folder, max(kept.values()), rows)
    texts: dict[int, str] = {}
    for text, index in kept.items():
        if used.get(text) != index:
            raise ArtifactError(f"{folder / 'tokenizer.json'}: the token {text!r} has the id {index} there, and gets "
                                f"{used.get(text)}: the ids before it leave a gap, or it stands at two",
                                "give it the next free id, or put it into the model's vocab under its own")
        if texts.setdefault(index, text) != text:
            raise ArtifactError(f"{folder / 'tokenizer.json'}: the id {index} is {texts[index]!r} and {text!r}",
                                "save the tokenizer again: every token needs an id of its own")


def refused(folder: Path, largest: int, rows: int) -> ArtifactError:
    """The error for a tokenizer that is larger than the embedding."""
    return ArtifactError(f"{folder}: the tokenizer has ids up to {largest}, the embedding only {rows} rows", HINT)


def needed(folder: Path, text: str, rows: int, why: str) -> ArtifactError:
    """The error for a token without a row that is used."""
    return ArtifactError(f"{folder}: {why} the token {text!r}, which has no row in the embedding of {rows} rows", HINT)


def without(table: Mapping[str, Any], texts: Collection[str]) -> dict[str, Any]:
    """The content of tokenizer.json without the added tokens `texts`."""
    result = {**table, "added_tokens": [item for item in table["added_tokens"] if item["content"] not in texts]}
    vocabulary = table["model"].get("vocab")
    if isinstance(vocabulary, Mapping) and any(text in vocabulary for text in texts):
        kept = {text: index for text, index in vocabulary.items() if text not in texts}
        result["model"] = {**table["model"], "vocab": kept}
    return result


def load(folder: Path) -> tuple[Tokenizer, dict[int, str]]:
    """The tokenizer of a folder with its tokenizer.json, and what was left out of it.

    Raises ArtifactError for a post-processor that adds such a token, and when ids are unused between the last row and
    such tokens, which then were not made for this model.
    """
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    left_out = behind(folder, tokenizer)
    if not left_out:
        return tokenizer, left_out
    table, rows = json.loads(path.read_text(encoding="utf-8")), min(left_out)
    ids = sorted(int(item["id"]) for item in table["added_tokens"] if item["content"] in left_out.values())
    if ids != list(range(rows, rows + len(ids))):
        raise refused(folder, ids[-1], rows)
    for text in _of_post_processor(table.get("post_processor")):
        if text in left_out.values():
            raise needed(folder, text, rows, "its post-processor adds")
    return Tokenizer.from_str(json.dumps(without(table, left_out.values()))), left_out


def check_unused(folder: Path, render: Callable[..., str] | None, left_out: Mapping[int, str],
                 named: Mapping[str, str]) -> None:
    """ArtifactError when a token that has no row begins or ends texts, or the chat template writes it, as `render`
    shows (None without a template); `named` are the special tokens by name."""
    chat: list[dict[str, str]] = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    try:
        example = render(chat) if render else ""
    except DataError:
        example = ""  # a template for other conversations than chats
    for text in left_out.values():
        for name in ("bos_token", "eos_token"):
            if named.get(name) == text:
                raise needed(folder, text, min(left_out), f"its {name} is")
        if text in example:
            raise needed(folder, text, min(left_out), "its chat template writes")


def copy_files(source: Path, folder: Path, names: Iterable[str]) -> None:
    """Copy those of `names` that are in `source`; tokenizers without the tokens that have no row."""
    present = [name for name in names if (source / name).is_file()]
    left_out = load(source)[1].values() if "tokenizer.json" in present else ()
    for name in present:
        (folder / name).parent.mkdir(exist_ok=True)
        if not left_out or name not in FILES:
            shutil.copyfile(source / name, folder / name)
            continue
        table = json.loads((source / name).read_text(encoding="utf-8"))
        cut = without(table, left_out) if name == "tokenizer.json" else _unnamed(table, set(left_out))
        # Keys in their old order: transformers and llama.cpp read a vocabulary in the order of the file.
        files.write_text(folder / name, json.dumps(cut, ensure_ascii=False, indent=2) + "\n")


def _unnamed(value: Any, texts: Collection[str]) -> Any:
    """A table of token settings without every entry that names one of `texts`, as key, text or content."""
    if isinstance(value, dict):
        return {key: _unnamed(item, texts) for key, item in value.items()
                if key not in texts and not _names(item, texts)}
    if isinstance(value, list):
        return [_unnamed(item, texts) for item in value if not _names(item, texts)]
    return copy.deepcopy(value)


def _names(item: Any, texts: Collection[str]) -> bool:
    text = item.get("content") if isinstance(item, dict) else item
    return isinstance(text, str) and text in texts


def _of_post_processor(processor: Mapping[str, Any] | None) -> list[str]:
    """The tokens that a post-processor adds."""
    found: list[str] = []
    for part in (processor or {}).get("processors", [processor] if processor else []):
        found += [text for entry in (part.get("special_tokens") or {}).values() for text in entry.get("tokens", [])]
        found += [part[key][0] for key in ("sep", "cls") if key in part]
    return found
