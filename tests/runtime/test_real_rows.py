"""Rows under published templates: what a plain jinja renders is what is learned, and a perfect student is right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from edgestill.models.errors import DataError
from edgestill.runtime.data import learned_tokens
from edgestill.runtime.data.row import Row
from edgestill.runtime.evaluation.evaluate import evaluate
from edgestill.runtime.generation.generator import Generator
from edgestill.runtime.text.chat_template import ChatTemplate
from edgestill.runtime.text.codec import Codec

from .test_generator import Scripted
from .test_learned_tokens import CALL, ROWS, THINKS, TOOL, answer, user

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
ENDS = {"Qwen": "<|im_end|>", "Hugging": "<|im_end|>", "smollm3": "<|im_end|>", "google": "<end_of_turn>",
        "gemma-3": "<end_of_turn>", "gemma-4": "<turn|>", "meta": "<|eot_id|>", "micro": "<|end|>", "phi": "<|end|>",
        "mistral": "</s>"}
NAMES = ["Qwen-Qwen2.5-7B-Instruct", "Qwen-Qwen3-0.6B", "HuggingFaceTB-SmolLM3-3B", "google-gemma-2-2b-it",
         "meta-llama-Llama-3.2-3B-Instruct", "microsoft-Phi-3.5-mini-instruct", "mistralai-Mistral-Nemo-Instruct-2407",
         "smollm3", "gemma-3", "gemma-4", "phi-3-mini", "phi-4", "phi-4-mini"]
ALL = {**ROWS, "thinks": THINKS, "developer": Row(({"role": "developer", "content": "Obey."}, user("a"), answer("b")))}
ALL["call"] = Row((user("find news"), answer("", tool_calls=[CALL | {"id": "abcdefghi"}])), (TOOL,))
REFUSED = {
    "thinks": ("Qwen-Qwen3-0.6B",),
    "call": ("Qwen-Qwen2.5-7B-Instruct", "Qwen-Qwen3-0.6B", "gemma-4", "meta-llama-Llama-3.2-3B-Instruct",
             "mistralai-Mistral-Nemo-Instruct-2407"),
}
"""Rows of which some templates write a part alone: those that write all of it."""


def source_of(name: str, shared: Path) -> str:
    folder = shared / "tokenizers"
    if (path := folder / "chat-templates" / f"{name}.jinja").is_file():
        return path.read_text(encoding="utf-8")
    if (path := folder / name / "chat_template.jinja").is_file():
        return path.read_text(encoding="utf-8")
    path = next(path for path in (folder / name / "chat_template.json", folder / name / "tokenizer_config.json")
                if path.is_file() and "chat_template" in json.loads(path.read_text(encoding="utf-8")))
    return str(json.loads(path.read_text(encoding="utf-8"))["chat_template"])


def published(source: str, row: Row, **options: Any) -> str:
    """The text of the whole row as transformers renders it."""
    from transformers.utils.chat_template_utils import render_jinja_template

    system = {"role": "system"} if "developer" not in source else {}
    messages = [message | (system if message["role"] == "developer" else {}) for message in row.messages]
    (text,), _ = render_jinja_template([messages], tools=list(row.tools) or None, chat_template=source, **SPECIAL,
                                       **options)
    return str(text)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["system", "turns", "call", "thinks", "developer"])
def test_a_perfect_student_is_right(name: str, kind: str, shared: Path, tiny_llama: Path) -> None:
    row, source = ALL[kind], source_of(name, shared)
    end = next(text for start, text in ENDS.items() if name.startswith(start))
    plain = Codec.from_folder(tiny_llama)
    plain.whole_tokenizer.add_special_tokens([end, "</s>", "<s>"])
    stop = frozenset([plain.encode(end)[0]])
    template = ChatTemplate({"default": source}, SPECIAL)
    codec = Codec(plain.tokenizer, template, None, None, None, stop)
    if kind in REFUSED and name not in REFUSED[kind]:
        with pytest.raises(DataError, match=r"messages\[1\]"):
            learned_tokens.sequences(codec, row)
        return
    if name == "google-gemma-2-2b-it" and kind in ("system", "developer"):
        with pytest.raises(DataError, match="System role not supported"):
            learned_tokens.sequences(codec, row)
        return
    options = learned_tokens.settled(codec, [row])
    codec = Codec(plain.tokenizer, template, None, None, None, stop, options=options)
    *_, last = learned_tokens.sequences(codec, row)
    start, finish = last.spans[-1]
    said = codec.decode(last.ids[start:finish], False)
    whole = published(source, row, **options)
    assert said.removesuffix(end) in whole and "<think>\n\n" not in said
    if not name.startswith("mistral") or kind not in ("system", "developer"):  # which drops it once it is answered
        assert whole.startswith(codec.decode(last.ids, False))
    if kind != "call":
        thoughts = "<think>\na number\n</think>\n\n" if kind == "thinks" else ""
        assert said == thoughts + row.messages[-1]["content"] + end
    assert learned_tokens.prompt_ids(codec, row) == codec.prompt_ids(row.prompt_messages, row.tools) == last.ids[:start]
    engine: Any = Scripted(last.ids[start:finish])
    engine.context_length, engine.vocabulary_size = 4096, codec.tokenizer.get_vocab_size()
    if name == "gemma-4" and kind == "call":
        return  # its calls are no JSON
    found = evaluate(Generator(engine, codec, max_new_tokens=200), [row])
    assert found.metrics["exact_match"].value == 1.0, found.answers
