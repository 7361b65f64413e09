"""The options of [task] as defaults in a chat template itself, so that every program renders what was learned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...models import files
from ...models.task import Task
from . import tokenizer_files
from .chat_template import THINKING
from .codec import Codec

_PROBE = [{"role": "user", "content": "question"}]


def write_template(folder: Path, task: Task) -> None:
    """Give the templates of a Hugging Face folder the task's options as their defaults.

    Where thinking is off and a template knows no such switch, its prompts end as its answers without reasoning begin.
    Templates that write the same already are left alone.
    """
    told = Codec.from_folder(folder, task)
    defaults = "".join(f"{{%- if {name} is not defined %}}{{%- set {name} = {literal(value)} %}}{{%- endif %}}\n"
                       for name, value in task.template_options.items())
    rest = told.prompt(_PROBE).removeprefix(told.render(_PROBE))
    asked = f"add_generation_prompt and not {THINKING}"
    closing = f"{{% if {asked} %}}{{{{ {literal(rest)} }}}}{{% endif %}}" if rest else ""
    settings = tokenizer_files.settings(folder)
    for name, source in tokenizer_files.templates(folder, settings).items():
        path = "chat_template.jinja" if name == "default" else f"additional_chat_templates/{name}.jinja"
        (folder / path).parent.mkdir(exist_ok=True)
        text = source if source.startswith(defaults) else defaults + source
        files.write_text(folder / path, text.removesuffix("\n") + closing if closing else text)
    config = folder / "tokenizer_config.json"
    table = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    if "chat_template" in table:
        files.write_text(config, json.dumps({key: value for key, value in table.items() if key != "chat_template"},
                                            ensure_ascii=False, indent=2) + "\n")


def literal(value: Any) -> str:
    """A JSON value as jinja writes it."""
    if value is None:
        return "none"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{literal(key)}: {literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(literal, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
