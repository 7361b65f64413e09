"""What stands beside a tokenizer.json: its special tokens, its chat templates, the ids that configs name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..files.model_files import read_table

PROCESSOR_TEMPLATE = "chat_template.json"
"""Where models that see pictures too, such as Gemma 3, have it."""


def settings(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json, completed as transformers does from the older special_tokens_map.json."""
    found = read_table(folder / "tokenizer_config.json")
    if "added_tokens_decoder" not in found:
        found |= read_table(folder / "special_tokens_map.json")
    return found


def special_tokens(settings: Mapping[str, Any]) -> dict[str, str]:
    """Named special tokens such as {"bos_token": "<s>"}."""
    named = dict(settings)
    for key in ("extra_special_tokens", "model_specific_special_tokens"):
        if isinstance(settings.get(key), Mapping):
            named |= settings[key]
    texts = {name: value.get("content") if isinstance(value, Mapping) else value
             for name, value in named.items() if name.endswith("_token")}
    return {name: text for name, text in texts.items() if isinstance(text, str)}


def templates(folder: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    """Chat templates by name; files win over tokenizer_config.json."""
    given = settings.get("chat_template") or read_table(folder / PROCESSOR_TEMPLATE).get("chat_template")
    found = {"default": given} if isinstance(given, str) else {}
    if isinstance(given, list):
        found = {str(item["name"]): str(item["template"]) for item in given}
    paths = {"default": folder / "chat_template.jinja"}
    paths |= {path.stem: path for path in sorted((folder / "additional_chat_templates").glob("*.jinja"))}
    files = {name: path.read_text(encoding="utf-8") for name, path in paths.items() if path.is_file()}
    return files or found


def listed(value: Any) -> list[int]:
    """Ids of a config key that holds one id, several or none."""
    values = value if isinstance(value, list) else [value]
    return [item for item in values if isinstance(item, int) and not isinstance(item, bool)]
