"""Other people's programs load our folders as they are and answer with our tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edgestill.runtime import load
from edgestill.runtime.template import ChatTemplate

from . import programs
from .browser import in_chromium
from .cases import QUESTIONS, Case
from .conftest import TARGETS

CLIENTS = {"onnx": programs.ONNX, "gguf": programs.GGUF}
PAIRS = [(name, model, target) for model, targets in TARGETS.items() for target in targets
         for name in CLIENTS[target.split(":")[0]]]
# transformers.js 3 brings onnxruntime 1.21, whose kernels know no 8-bit blocks.
PAIRS.append(("transformers.js 3 in Node", "demo", "onnx:fp32"))
NEAR_TIE = 0.1
"""Of the logits' standard deviation, for random weights alone: 30 layers of them amplify how kernels round (0.054 was
seen between two builds of llama.cpp), and their first two choices lie 0.2 apart on average. A trained model's answers
must be equal."""
MOST_TIES = 0.1
"""Of the tokens."""


@pytest.mark.parametrize(("name", "model", "target"), PAIRS)
def test_a_client_answers_with_our_tokens(name: str, model: str, target: str, record: dict[str, Any],
                                          case: Callable[[str, str], Case]) -> None:
    made = case(model, target)
    answers = programs.ALL[name](made)
    tokens, ties = 0, 0
    for found, wanted in zip(answers["chats"], made.expected, strict=True):
        assert found.get("text", wanted["text"]) == wanted["text"]
        assert found["prompt"] == wanted["prompt"]
        ids = made.answer(found["ids"])
        if ids != wanted["ids"]:
            gaps = made.gaps(wanted["prompt"], ids)
            assert max(gaps) < NEAR_TIE, (ids, wanted["ids"], gaps)
            ties += sum(gap > 0 for gap in gaps)
        tokens += len(ids)
    assert ties <= (0 if model == "demo" else MOST_TIES * tokens)
    entry = record.setdefault(name, {"version": answers["version"], "files": {}})
    entry["files"][made.name] = {"prompts": len(made.chats), "tokens": tokens, "near_ties": ties}


@pytest.mark.parametrize("place", ["@huggingface/transformers", "transformers-3", "Chromium"])
def test_transformers_js_gives_our_labels(place: str, classifier: Path) -> None:
    texts = QUESTIONS[:5]
    job = programs.transformers_job(classifier, [], texts)
    answers = in_chromium(classifier.parent, job) if place == "Chromium" else programs.node(
        "transformers_node.mjs", job, place)
    model = load(classifier, threads=1)
    for found, text in zip(answers["labels"], texts, strict=True):
        wanted = model.classify(text)
        assert found["label"] == wanted.label and found["score"] == pytest.approx(wanted.probability, abs=0.02)


def test_transformers_js_renders_templates_as_we_do(shared: Path) -> None:
    talks = [
        [{"role": "user", "content": " hi <b> \"there\" "}],
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "a\nb"},
         {"role": "assistant", "content": "c"}, {"role": "user", "content": "Grüße 🙂"}],
    ]
    jobs, wanted = [], []
    for path in sorted((shared / "tokenizers" / "chat-templates").glob("*.jinja")):
        source, tokens = path.read_text(encoding="utf-8"), {"bos_token": "<s>", "eos_token": "</s>"}
        for talk in talks:
            chat = talk[1:] if "System role not supported" in source and len(talk) > 1 else talk
            wanted.append((path.name, ChatTemplate({"default": source}, tokens).render(chat)))
            jobs.append({"source": source, "variables": {"messages": chat, "add_generation_prompt": True, **tokens}})
    assert len(jobs) == 14
    for (name, text), found in zip(wanted, programs.node("templates_node.mjs", jobs), strict=True):
        assert found == text, name
