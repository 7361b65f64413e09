"""Other people's programs load our folders as they are and answer with our tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edgestill.models.artifact import open_artifact
from edgestill.quantize.proof.clients import transformers_js
from edgestill.quantize.proof.other_programs import MOST_TIES, NEAR_TIE
from edgestill.runtime import load
from edgestill.runtime.text.chat_template import ChatTemplate

from . import programs
from .browser import with_package
from .cases import QUESTIONS, Case
from .conftest import TARGETS

CLIENTS = {"onnx": programs.ONNX, "onnx:q4f16": programs.HALF, "gguf": programs.GGUF}
SLOW = {("SmolLM2-135M", "transformers.js 3 in Chromium")}
"""Minutes of WebAssembly for what the demo's files show."""
PAIRS = [(name, model, target) for model, targets in TARGETS.items() for target in targets
         for name in CLIENTS.get(target, CLIENTS.get(target.split(":")[0])) if (model, name) not in SLOW]


@pytest.mark.parametrize(("name", "model", "target"), PAIRS)
def test_a_client_answers_with_our_tokens(name: str, model: str, target: str, record: dict[str, Any],
                                          case: Callable[[str, str], Case]) -> None:
    made = case(model, target)
    try:
        answers = programs.ALL[name](made)
    except RuntimeError as error:
        if "WebGPU adapter" in str(error):
            pytest.skip(f"no Vulkan driver here that WebGPU takes: {error}")
        raise
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
    # Random weights are near ties everywhere, and half precision rounds otherwise; else answers must be equal.
    assert ties <= (0 if model == "demo" and "f16" not in target else MOST_TIES * tokens)
    entry = record.setdefault(name, {"version": answers["version"], "files": {}})
    entry["files"][made.name] = {"prompts": len(made.chats), "tokens": tokens, "near_ties": ties}


@pytest.mark.parametrize("package", [transformers_js.PACKAGE, programs.OLDER])
@pytest.mark.parametrize("place", ["Node", "Chromium"])
def test_transformers_js_gives_our_labels(place: str, package: str, classifier: Path) -> None:
    job = programs.labels(open_artifact(classifier), QUESTIONS[:5])
    answers = with_package(classifier.parent, job, package) if place == "Chromium" else programs.node(package, job)
    model = load(classifier, threads=1)
    for found, text in zip(answers["labels"], job["texts"], strict=True):
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
    for (name, text), found in zip(wanted, programs.rendered(jobs), strict=True):
        assert found == text, name
