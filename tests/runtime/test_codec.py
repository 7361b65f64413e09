"""Templates and ids against transformers; streams of text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from edgestill.models.errors import ArtifactError, DataError
from edgestill.models.task import Task
from edgestill.runtime.data import learned_tokens
from edgestill.runtime.data.row import Row
from edgestill.runtime.text.codec import Codec
from edgestill.runtime.text.token_stream import StopStrings
from hypothesis import given, settings
from hypothesis import strategies as st

from .. import tiny

CHATS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": "turn off the <kitchen> light & fan"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " hello "}],
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b\n"}, {"role": "user", "content": "ü🙂"}],
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": None, "reasoning": "because",
                                        "tool_calls": [{"id": "abcdefghi", "type": "function", "function": {
                                            "name": "weather", "arguments": {"city": "Köln"}}}]},
     {"role": "tool", "name": "weather", "content": "12°", "tool_call_id": "abcdefghi"}],
]
TOOLS = [{"type": "function",
          "function": {"name": "weather", "description": "The weather <now> für Köln", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}]


def chat_folder(source: Path, folder: Path, template: str, **changes: Any) -> Path:
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("model.safetensors"))
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes), encoding="utf-8")
    return folder


def same_rendering(folder: Path) -> int:
    """Compare every chat, with tools and without; the number of texts that both rendered."""
    from transformers import AutoTokenizer

    theirs, ours, count = AutoTokenizer.from_pretrained(folder), Codec.from_folder(folder), 0
    for chat in CHATS:
        for tools in ([], TOOLS):
            for prompt in (False, True):
                try:
                    wanted = theirs.apply_chat_template(
                        chat, tools=tools or None, add_generation_prompt=prompt, tokenize=False)
                except Exception:
                    with pytest.raises(DataError):
                        ours.render(chat, tools, prompt)
                    continue
                assert ours.render(chat, tools, prompt).encode() == wanted.encode()
                assert ours.encode(wanted) == theirs.encode(wanted, add_special_tokens=False)
                count += 1
    return count


@pytest.mark.parametrize("name", ["HuggingFaceTB-SmolLM3-3B", "Qwen-Qwen2.5-7B-Instruct", "Qwen-Qwen3-0.6B",
                                  "google-gemma-2-2b-it",
                                  "meta-llama-Llama-3.2-3B-Instruct", "microsoft-Phi-3.5-mini-instruct",
                                  "mistralai-Mistral-Nemo-Instruct-2407"])
def test_real_templates_render_as_in_transformers(name: str, shared: Path, tiny_llama: Path, tmp_path: Path) -> None:
    template = (shared / "tokenizers" / "chat-templates" / f"{name}.jinja").read_text(encoding="utf-8")
    folder = chat_folder(tiny_llama, tmp_path / "model", template, bos_token="<|system|>")
    assert same_rendering(folder) >= 6


@pytest.mark.parametrize("template", [
    tiny.TEMPLATE,
    "{%- for m in messages %}\n    {% if m.role == 'tool' %}{% continue %}{% endif %}\n  {{ m.content }}\n"
    "{% endfor %}\n",
    "{{ bos_token }}{% generation %}{{ messages[0]['content'] | tojson(indent=2) }}{% endgeneration %}{{ eos_token }}",
    "{{ messages | tojson }}{{ tools | tojson }}{{ strftime_now('%Y') }}{{ unk_token }}{{ documents }}",
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
    "{% if ns.n > 2 %}{% break %}{% endif %}"
    "{{ m.role }}{% endfor %}",
    "{% if messages|length > 1 %}{{ raise_exception('one only') }}{% endif %}{{ messages[0].content }}",
])
def test_features_of_templates_render_as_in_transformers(template: str, tiny_llama: Path, tmp_path: Path) -> None:
    assert same_rendering(chat_folder(tiny_llama, tmp_path / "model", template, bos_token="<|user|>")) >= 4


def test_templates_by_name_choose_by_tools(tiny_llama: Path, tmp_path: Path) -> None:
    folder = chat_folder(tiny_llama, tmp_path / "model", "", chat_template=[
        {"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}])
    (folder / "chat_template.jinja").unlink()
    codec = Codec.from_folder(folder)
    assert (codec.render(CHATS[0]), codec.render(CHATS[0], TOOLS), codec.template) == ("plain", "tools", "plain")
    assert same_rendering(folder) > 0


def test_a_template_cannot_reach_python(tiny_llama: Path, tmp_path: Path) -> None:
    folder = chat_folder(tiny_llama, tmp_path / "model", "{{ messages.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(DataError):
        Codec.from_folder(folder).render(CHATS[0])


@pytest.mark.parametrize(("template", "names", "text"), [
    ("{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>\n{% endfor %}", {"<|end|>", "<|pad|>"}, ""),
    ("{% for m in messages %}{{ m.content }}<|assistant|>{% endfor %}", {"<|assistant|>", "<|end|>", "<|pad|>"}, ""),
    ("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}", {"<|end|>", "<|pad|>"}, ""),
    # A token that begins turns stands behind an answer, and ends none.
    ("{% for m in messages %}{{ m.content }}{{ bos_token }}{% endfor %}", {"<|end|>", "<|pad|>"}, ""),
    ("{% for m in messages %}{{ m.content }} [/turn]\n<|end|>{% endfor %}", {"<|end|>", "<|pad|>"}, "[/turn]"),
])
def test_the_ends_of_a_turn_come_from_every_place(template: str, names: set[str], text: str, tiny_llama: Path,
                                                  tmp_path: Path) -> None:
    folder = chat_folder(tiny_llama, tmp_path / "model", template, bos_token="<|system|>")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 4]}))
    codec = Codec.from_folder(folder)
    assert {codec.tokenizer.id_to_token(token) for token in codec.stop_ids} == names
    assert codec.turn_end == text


def test_an_end_that_stands_in_a_text_stays_there(tiny_llama: Path) -> None:
    codec = Codec.from_folder(tiny_llama)
    text = f"hello{codec.tokenizer.id_to_token(codec.eos_id)}"
    assert codec.plain_ids(text) == codec.encode(text) and codec.encode(text)[-1] == codec.eos_id


def test_stop_ids_without_a_generation_config(tiny_llama: Path, tmp_path: Path) -> None:
    folder = chat_folder(tiny_llama, tmp_path / "model", tiny.TEMPLATE, eos_token="<|pad|>")
    (folder / "generation_config.json").unlink()
    assert Codec.from_folder(folder).stop_ids == {0, 4}


def test_system_goes_first_unless_there_is_one(tiny_llama: Path) -> None:
    codec = Codec.from_folder(tiny_llama, Task(system="Obey."))
    assert codec.render(CHATS[0]).startswith("<|system|>Obey.<|end|><|user|>")
    assert codec.render(CHATS[1]).count("<|system|>") == 1


def test_prompt_is_the_prefix_of_a_training_row(tiny_llama: Path) -> None:
    codec = Codec.from_folder(tiny_llama)
    row = Row(messages=({"role": "user", "content": "set the alarm"}, {"role": "assistant", "content": '{"a":1}'}))
    ids, start = learned_tokens.training_ids(codec, row)
    assert ids[:start] == learned_tokens.prompt_ids(codec, row) == codec.prompt_ids(row.messages[:1])
    assert codec.decode(ids[start:], False) == '{"a":1}<|end|>'


def test_text_after_the_turn_is_not_learned(tiny_llama: Path, tmp_path: Path) -> None:
    template = tiny.TEMPLATE.replace("<|end|>", "<|end|>\n\n")
    codec = Codec.from_folder(chat_folder(tiny_llama, tmp_path / "model", template))
    row = Row(messages=({"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}))
    ids, start = learned_tokens.training_ids(codec, row)
    assert codec.decode(ids[start:], False) == "y<|end|>"


@pytest.mark.parametrize(("messages", "tools", "what"), [
    ([{"role": "user", "content": "a"}], TOOLS, "tools"),
    ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}], (),
     "several turns")])
def test_no_template_is_made_up_for_a_conversation(messages: list[dict], tools: Any, what: str, tiny_llama: Path,
                                                   tmp_path: Path) -> None:
    folder = chat_folder(tiny_llama, tmp_path / "model", "")
    (folder / "chat_template.jinja").unlink()
    codec = Codec.from_folder(folder)
    with pytest.raises(DataError, match=f"no chat template, which {what} need"):
        codec.prompt_ids(messages, tools)
    assert codec.prompt_ids(messages[:1]) == codec.encode("a")


def test_without_a_template_the_border_is_kept(tiny_llama: Path, tmp_path: Path) -> None:
    folder = chat_folder(tiny_llama, tmp_path / "model", "")
    (folder / "chat_template.jinja").unlink()
    codec = Codec.from_folder(folder, Task(system="S"))
    row = Row(messages=({"role": "user", "content": "the kit"}, {"role": "assistant", "content": "chen light"}))
    ids, start = learned_tokens.training_ids(codec, row)
    assert learned_tokens.prompt_ids(codec, row) == ids[:start] == codec.encode("S\nthe kit")
    assert codec.decode(ids[start:], False) == "chen light<|end|>"


def test_rows_of_plain_text(tiny_llama: Path, shared: Path) -> None:
    codec = Codec.from_folder(tiny_llama)
    assert learned_tokens.training_ids(codec, Row(text="play music")) == ([*codec.encode("play music"), 0], 0)
    story = Codec.from_folder(shared / "models" / "stories260K")
    ids, start = learned_tokens.training_ids(story, Row(text="Once upon a time"))
    assert (ids[0], ids[-1], start, story.adds_bos, story.stop_ids) == (1, 2, 1, True, {2})


def test_rows_that_cannot_be_trained_on(tiny_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing to learn"):
        learned_tokens.training_ids(Codec.from_folder(tiny_llama), Row(messages=({"role": "user", "content": "x"},)))
    turned = chat_folder(tiny_llama, tmp_path / "turned", "{{ messages|length }}{{ messages[0].content }}")
    row = Row(messages=({"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}), where="rows.jsonl:1")
    with pytest.raises(DataError, match=r"rows.jsonl:1: the chat template does not render the prompt"):
        learned_tokens.training_ids(Codec.from_folder(turned), row)
    with pytest.raises(DataError, match="refuses these messages"):
        Codec.from_folder(chat_folder(tiny_llama, tmp_path / "no", "{{ raise_exception('no') }}")).render(CHATS[0])
    with pytest.raises(DataError, match="no JSON value"):
        Codec.from_folder(tiny_llama).render([{"role": "user", "content": object()}])
    with pytest.raises(DataError, match="at least one message"):
        Codec.from_folder(tiny_llama).render([])
    with pytest.raises(DataError, match="surrogate"):
        Codec.from_folder(tiny_llama).encode("a\ud800")


@pytest.mark.parametrize("processor", [["<|user|>", "$A"], ["$A", "<|end|>"], ["<|user|>", "$A", "<|end|>"], []])
def test_added_tokens_as_in_transformers(processor: list[str], tiny_llama: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    # The flag contradicts the file on purpose: where there is a tokenizer.json, its own rule counts.
    folder = chat_folder(tiny_llama, tmp_path / "model", tiny.TEMPLATE, bos_token="<|user|>",
                         add_bos_token=not processor)
    if processor:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.post_processor = TemplateProcessing(single=processor,
                                                      special_tokens=[("<|user|>", 2), ("<|end|>", 0)])
        tokenizer.save(str(folder / "tokenizer.json"))
    codec, theirs = Codec.from_folder(folder), AutoTokenizer.from_pretrained(folder)
    assert codec.encode("play", add_special_tokens=True) == theirs.encode("play")
    assert codec.plain_ids("play")[-1] != codec.eos_id
    assert codec.adds_bos == ("<|user|>" in processor)


def test_damaged_folders_are_refused(tiny_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no tokenizer\.json"):
        Codec.from_folder(tmp_path)
    for name, content, match in (("tokenizer.json", '{"version":"1.0"}', "cannot be read as a tokenizer"),
                                 ("tokenizer_config.json", "{", "no valid JSON"),
                                 ("generation_config.json", "[]", "object was expected")):
        folder = chat_folder(tiny_llama, tmp_path / name, tiny.TEMPLATE)
        (folder / name).write_text(content)
        with pytest.raises(ArtifactError, match=match):
            Codec.from_folder(folder)
    broken = Codec.from_folder(chat_folder(tiny_llama, tmp_path / "syntax", "{% if %}"))
    with pytest.raises(ArtifactError, match="line 1"):
        broken.render(CHATS[0])


def test_a_panic_of_the_tokenizer_is_an_artifact_error(tiny_llama: Path) -> None:
    class PanicException(BaseException):
        """As pyo3 raises it: no Exception."""

    class Panicking:
        def get_vocab_size(self, with_added_tokens: bool) -> int:
            return 1

        def encode(self, text: str, pair: str | None, add_special_tokens: bool) -> list[int]:
            raise PanicException("index out of bounds")

        def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
            raise KeyboardInterrupt

    codec = Codec(Panicking())  # type: ignore[arg-type]
    with pytest.raises(ArtifactError, match="index out of bounds"):
        codec.encode("x")
    with pytest.raises(KeyboardInterrupt):
        codec.decode([1])


@settings(max_examples=60, deadline=None)
@given(ids=st.lists(st.integers(0, 300), max_size=30))
def test_streamed_pieces_sum_to_the_whole_text(ids: list[int], codec: Codec) -> None:
    stream = codec.stream()
    pieces = [stream.push(token) for token in ids]
    assert not any(piece.endswith("\ufffd") for piece in pieces)
    assert "".join(pieces) + stream.flush() == codec.decode(ids)


@pytest.mark.parametrize("name", ["stories260K", "tinystories-656k"])
def test_streams_of_sentencepiece_tokenizers(name: str, shared: Path) -> None:
    codec = Codec.from_folder(shared / "models" / name)
    text = "Once upon a time, 🙂 naïve café  你好\nThe end"
    ids, stream = codec.encode(text, add_special_tokens=True), codec.stream()
    pieces = [stream.push(token) for token in ids]
    assert "".join(pieces) + stream.flush() == codec.decode(ids)
    assert len([piece for piece in pieces if piece]) > 10


@pytest.fixture(scope="module")
def codec(tiny_llama: Path) -> Codec:
    return Codec.from_folder(tiny_llama)


@settings(max_examples=200, deadline=None)
@given(text=st.text("ab\n", max_size=20), stop=st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3),
       size=st.integers(1, 5))
def test_stop_strings_never_leak(text: str, stop: list[str], size: int) -> None:
    watch = StopStrings(stop)
    shown = "".join(watch.push(text[at:at + size]) for at in range(0, len(text), size))
    shown += watch.flush()
    if not any(string in text for string in stop):
        assert (shown, watch.hit) == (text, False)
    else:
        assert watch.hit and text.startswith(shown) and not any(string in shown for string in stop)
