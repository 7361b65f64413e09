"""Reasoning through the door: switched by everyone's words, and apart from what is said."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from edgestill.runtime.generation.result import Generation, Piece
from edgestill.runtime.loading.load import load_streams
from edgestill.runtime.server.thinking import Thoughts
from edgestill.runtime.server.work_queue import Station
from hypothesis import given
from hypothesis import strategies as st

from .. import packed
from ..serving import Running, running

CHAT = "/v1/chat/completions"
QUESTION = [{"role": "user", "content": "turn off the light"}]
TEMPLATE = """{%- for m in messages %}<|{{ m.role }}|>
{%- if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}{{ m.content }}<|end|>
{%- endfor %}{%- if add_generation_prompt %}<|assistant|>
{%- if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{%- endif %}"""


@pytest.fixture(scope="module")
def thinker(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server of the tiny Llama with a template that can think."""
    root = tmp_path_factory.mktemp("thinker")
    source = Path(shutil.copytree(tiny_llama, root / "source"))
    (source / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    with running([Station("thinker", load_streams(packed.pack(source, root / "gguf", "gguf:F32"), 1, 1), 8)]) as found:
        yield found


def read(server: Running, **more: Any) -> tuple[str, int]:
    """What is said, and how many tokens were read before."""
    body = {"messages": QUESTION, "max_tokens": 8, "reasoning_format": "none", **more}
    status, found, _ = server.ask("POST", CHAT, body)
    assert status == 200, found
    return found["choices"][0]["message"]["content"], found["usage"]["prompt_tokens"]


OFF = [{"chat_template_kwargs": {"enable_thinking": False}}, {"reasoning_effort": "none"}, {"enable_thinking": False},
       {"thinking_budget_tokens": 0}, {"thinking_token_budget": 0},
       {"reasoning_effort": "high", "chat_template_kwargs": {"enable_thinking": False}}]


def test_thinking_is_switched_off_in_everyones_words(thinker: Running) -> None:
    plain = read(thinker)
    found = [read(thinker, **off) for off in OFF]
    assert len(set(found)) == 1 and found[0][1] > plain[1] and found[0][0] != plain[0]
    for on in ({"chat_template_kwargs": {"enable_thinking": True}}, {"reasoning_effort": "medium"},
               {"chat_template_kwargs": {}}, {"thinking_token_budget": -1}):
        assert read(thinker, **on) == plain


@pytest.mark.parametrize(("more", "param"), [
    ({"chat_template_kwargs": {"enable_thinkin": False}}, "chat_template_kwargs.enable_thinkin"),
    ({"chat_template_kwargs": {"enable_thinking": "no"}}, "chat_template_kwargs.enable_thinking"),
    ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs.messages"),
    ({"reasoning_effort": "huge"}, "reasoning_effort")])
def test_what_the_template_does_not_read_is_named(more: dict[str, Any], param: str, thinker: Running) -> None:
    status, found, _ = thinker.ask("POST", CHAT, {"messages": QUESTION, "max_tokens": 1, **more})
    assert (status, found["error"]["param"]) == (400, param) and param in found["error"]["message"]


THOUGHT = ["<thi", "nk>\nhm, the ", "light</th", "ink>\n\n", "off", " it is"]


def says(server: Running, pieces: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the model say these pieces."""
    model = server.service.stations["thinker"].model
    text = "".join(pieces)

    def stream(**_: Any) -> Iterator[Piece]:
        yield from (Piece(piece) for piece in pieces)
        yield Piece("", Generation(text, model.codec.encode(text), 3, "stop", 1.0, 1.0))

    monkeypatch.setattr(model, "stream", stream)


def test_thoughts_come_apart_from_what_is_said(thinker: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    says(thinker, THOUGHT, monkeypatch)
    client = thinker.client()
    message = client.chat.completions.create(model="", messages=QUESTION).choices[0].message  # type: ignore[arg-type]
    assert (message.content, message.reasoning_content) == ("off it is", "hm, the light")
    deltas = [chunk.choices[0].delta for chunk in client.chat.completions.create(
        model="", messages=QUESTION, stream=True)]  # type: ignore[arg-type]
    assert "".join(delta.content or "" for delta in deltas) == "off it is"
    assert "".join(getattr(delta, "reasoning_content", "") for delta in deltas).strip() == "hm, the light"
    raw = read(thinker)[0]
    assert raw == "".join(THOUGHT)
    status, found, _ = thinker.ask("POST", CHAT, {"messages": QUESTION, "include_reasoning": False})
    assert status == 200 and found["choices"][0]["message"] == {
        "role": "assistant", "content": "off it is", "refusal": None}


def test_words_without_thoughts_stay_whole(thinker: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("<thin ice", "no <think>\nx\n</think>", "", "<"):
        says(thinker, list(text), monkeypatch)
        message = thinker.client().chat.completions.create(model="", messages=QUESTION).choices[0].message
        assert message.content == text and not hasattr(message, "reasoning_content")


@given(st.lists(st.integers(0, 40), max_size=8), st.sampled_from(["<think>", ""]))
def test_however_it_comes_it_is_the_same(cuts: list[int], start: str) -> None:
    text = f"{start}\na < b </ </think>\n\nwords </think> \n<think>"
    split, found = Thoughts((start, "</think>")), ["", ""]
    places = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    for low, high in zip(places, places[1:], strict=False):
        for index, part in enumerate(split.push(text[low:high])):
            found[index] += part
    found = [one + rest for one, rest in zip(found, split.flush(), strict=True)]
    assert found == ["\na < b </ ", "words </think> \n<think>"]
