"""Ollama: a Modelfile, for without one it guesses a template by likeness, which a changed template leads astray."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ...models import files
from ...models.errors import DataError
from ...models.kv_cache import AUTO
from ..source import chat_turns
from . import CACHE_LENGTH

if TYPE_CHECKING:
    from ...models.artifact import Artifact, Manifest
    from ...runtime.text.codec import Codec

FORMAT = "gguf"
FILE = "Modelfile"


def write(packed: Artifact, codec: Codec) -> None:
    """Write the Modelfile: template, system prompt, every stop token, and greedy decoding as our runtime's default."""
    manifest = packed.manifest
    lines = [f"FROM ./{manifest.model_file}"]
    if manifest.kv != AUTO:
        lines.insert(0, f"# Proven with keys and values in {manifest.kv}. The server alone decides that: "
                        f"{_server(manifest.kv)}")
    if manifest.task.kind == "generate":
        context = min(manifest.dimensions.get("context", CACHE_LENGTH), CACHE_LENGTH)
        lines += _template(codec)
        if manifest.task.system:
            lines.append(_system(manifest.task.system))
        stops = [*(codec.decode([token], False) for token in sorted(codec.stop_ids)), codec.turn_end]
        lines += [f'PARAMETER stop "{stop}"' for stop in stops if stop]
        lines += [f"PARAMETER num_ctx {context}", f"PARAMETER num_predict {manifest.task.max_new_tokens}",
                  "PARAMETER temperature 0", "PARAMETER repeat_penalty 1"]
    files.write_text(packed.folder / FILE, "\n".join(lines) + "\n")


def usage(manifest: Manifest) -> str:
    """How to load the folder in Ollama, and in LM Studio, which needs nothing but the file."""
    kept = "" if manifest.kv == AUTO else f"The server keeps keys and values so: `{_server(manifest.kv)}`. "
    return (f"[Ollama](https://ollama.com): `ollama create NAME -f Modelfile`. {kept}"
            "[LM Studio](https://lmstudio.ai) looks two folders deep, so let it place the file: "
            f"`lms import {manifest.model_file} --user-repo PUBLISHER/NAME`.\n")


def _server(kv: str) -> str:
    return f"OLLAMA_FLASH_ATTENTION=1 OLLAMA_KV_CACHE_TYPE={kv} ollama serve"


def go_template(found: chat_turns.Turns, bos: str) -> str:
    """`found` in Go's template language; a leading `bos` is left out, which the engine itself puts there."""
    roles = {role for _, role in found.between if role}
    parts = ['{{ $before := "" }}{{ range .Messages }}']
    for index, role in enumerate(sorted(roles)):
        parts.append(f'{{{{ {"else if" if index else "if"} eq .Role "{role}" }}}}')
        texts = {before: text for (before, after), text in found.between.items() if after == role}
        if "" in texts:
            texts[""] = texts[""].removeprefix(bos)
        *others, last = texts
        for place, before in enumerate(others):
            parts.append(f'{{{{ {"else if" if place else "if"} eq $before "{before}" }}}}{_literal(texts[before])}')
        parts.append(("{{ else }}" if others else "") + _literal(texts[last]) + ("{{ end }}" if others else ""))
        parts.append("{{ .Content }}")
    parts.append("{{ end }}{{ $before = .Role }}{{ end }}" + _literal(found.between["user", ""]))
    return "".join(parts)


def _template(codec: Codec) -> list[str]:
    if codec.template is None:
        return ['TEMPLATE """{{ .Prompt }}"""']
    try:
        found = chat_turns.of(codec)
    except DataError as error:
        why = " ".join(error.message.split())  # a second line would be taken for an instruction
        return [f"# No TEMPLATE: {why}, which Go templates cannot say. Ollama reads it from the file."]
    bos = codec.decode([codec.bos_id], False) if codec.adds_bos and codec.bos_id is not None else ""
    notes = ["# The model's own template cuts white space around messages; Ollama's cannot."] if found.trims else []
    if ("", "system") not in found.between:
        notes.append("# The model's own template takes no system message; Ollama leaves it out.")
    return [*notes, f'TEMPLATE """{go_template(found, bos)}"""']


def _system(text: str) -> str:
    if '"""' in text:
        return '# The system prompt holds """, which a Modelfile cannot say: send it with every request.'
    return f'SYSTEM """{text}"""'


def _literal(text: str) -> str:
    """A text as a Go string, whose escapes are those of JSON."""
    return f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}" if text else ""
