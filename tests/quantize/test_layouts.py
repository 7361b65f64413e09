"""What other programs read beside the model: each layout's files, and Ollama's template against our own."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from edgestill.models import kinds
from edgestill.models.artifact import Artifact, Manifest
from edgestill.models.errors import DataError
from edgestill.models.scheme import TYPES
from edgestill.models.task import Task
from edgestill.quantize import layouts
from edgestill.quantize.layouts import ollama, transformers_js
from edgestill.quantize.source import chat_turns
from edgestill.runtime.text.chat_template import ChatTemplate
from edgestill.runtime.text.codec import Codec

NAMES = kinds.names("quantize.layouts")
PIECES = re.compile(r"{{\s*(.*?)\s*}}", re.DOTALL)
SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
CHATML = ("{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] }}"
          "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
DEFAULT_SYSTEM = ("{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}"
                  + CHATML)
LLAMA_3 = ("{{ bos_token }}{% for message in messages %}{{ '[' + message['role'] + ']\n\n' }}"
           "{{ message['content'] | trim + '</s>' }}{% endfor %}"
           "{% if add_generation_prompt %}{{ '[assistant]\n\n' }}{% endif %}")
NO_SYSTEM = ("{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}"
             "{% for message in messages %}{{ '<' + message['role'] + '>\"\"\"' + message['content'] }}{% endfor %}"
             "{{ '<assistant>' }}")
LAST_ONLY = "{{ messages[-1]['content'] }}"
DATED = "{{ strftime_now('%d') }}" + CHATML
COMPLAINING = "{{ raise_exception('no user\\nFROM elsewhere') }}"


def codec(template: str | None, system: str = "", adds_bos: bool = False) -> Codec:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(dict(zip(alphabet, range(256), strict=True)), []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    if adds_bos:
        tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 256)])
    sources = ChatTemplate({"default": template}, {"bos_token": "<s>", "eos_token": "</s>"}) if template else None
    return Codec(tokenizer, sources, 256, 257, 257, frozenset({257, 259}), system)


def run_go(template: str, messages: list[dict[str, str]]) -> str:
    """The few statements of Go's template language that our Modelfiles use."""
    pieces = PIECES.split(template)  # texts and statements by turns
    position, variables, out = 0, {}, []

    def value(word: str, message: dict[str, str]) -> str:
        if word.startswith('"'):
            return str(json.loads(word))
        return variables[word] if word.startswith("$") else message[word[1:].lower()]

    def block(start: int, message: dict[str, str], active: bool) -> int:
        """Run from `start` to the `end` or `else` that closes the block; returns its place."""
        index = start
        while index < len(pieces):
            if index % 2 == 0:
                out.append(pieces[index] if active else "")
                index += 1
                continue
            word, _, rest = pieces[index].partition(" ")
            if word in ("end", "else"):
                return index
            if word == "range":
                end = index
                for each in messages:
                    end = block(index + 1, each, active)
                index = end
            elif word == "if":
                taken = False
                while True:
                    left, right = re.findall(r'"(?:[^"\\]|\\.)*"|\S+', rest)[1:] if rest else ("", "")
                    holds = not rest or (active and value(left, message) == value(right, message))
                    index = block(index + 1, message, active and holds and not taken)
                    taken = taken or holds
                    if pieces[index] == "end":
                        break
                    rest = pieces[index].removeprefix("else").strip().removeprefix("if ").strip()
            elif rest.startswith((":=", "=")):
                if active:
                    variables[word] = value(rest.split(" ", 1)[1], message)
            elif active:
                out.append(value(pieces[index], message))
            index += 1
        return index

    block(position, {}, True)
    return "".join(out)


def modelfile(folder: Path, used: Codec, task: Task | None = None) -> str:
    manifest = Manifest("export", task or Task(), "llama", "gguf:Q8_0", "model.gguf", {"context": 512})
    ollama.write(Artifact(folder, manifest), used)
    return (folder / "Modelfile").read_text(encoding="utf-8")


TALK = [{"role": "system", "content": "Say {{ less }}."}, {"role": "user", "content": "a \"quoted\"\nline"},
        {"role": "assistant", "content": "b"}, {"role": "user", "content": "…"}]


@pytest.mark.parametrize(("template", "adds_bos"), [(CHATML, False), (DEFAULT_SYSTEM, False), (LLAMA_3, False),
                                                    (LLAMA_3, True), (NO_SYSTEM, False)])
def test_ollama_renders_what_the_models_template_does(template: str, adds_bos: bool, tmp_path: Path) -> None:
    used = codec(template, adds_bos=adds_bos)
    text = modelfile(tmp_path, used)
    (go,) = re.findall(r'^TEMPLATE """(.*)"""$', text, re.MULTILINE)
    assert '"""' not in go
    for talk in (TALK[1:2], TALK[1:], TALK[:2], TALK):
        if template == NO_SYSTEM and talk[0]["role"] == "system":
            continue
        wanted = used.render(talk)
        assert run_go(go, talk) == (wanted.removeprefix("<s>") if adds_bos else wanted)
    assert ("cuts white space" in text) == (template == LLAMA_3)
    assert ("takes no system message" in text) == (template == NO_SYSTEM)


@pytest.mark.parametrize(("template", "why"), [(LAST_ONLY, "more than one text"), (DATED, "date of the day")])
def test_a_template_that_go_cannot_say_is_left_to_the_file(template: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=why):
        chat_turns.of(codec(template))
    text = modelfile(tmp_path, codec(template))
    assert "\nTEMPLATE" not in text and "# No TEMPLATE: the template writes" in text and why in text


def test_what_a_template_complains_of_is_no_instruction(tmp_path: Path) -> None:
    text = modelfile(tmp_path, codec(COMPLAINING))
    assert "no user FROM elsewhere" in text and "\nFROM elsewhere" not in text


def test_a_modelfile_names_system_stops_and_lengths(tmp_path: Path) -> None:
    task = Task(system="Be brief.\nBe kind.", max_new_tokens=40)
    lines = modelfile(tmp_path, codec(CHATML, task.system), task)
    for part in ("FROM ./model.gguf\n", 'SYSTEM """Be brief.\nBe kind."""\n', 'PARAMETER stop "</s>"\n',
                 'PARAMETER stop "<|im_end|>"\n', "PARAMETER num_ctx 512\n", "PARAMETER num_predict 40\n"):
        assert part in lines
    assert "send it with every request" in modelfile(tmp_path, codec(CHATML), Task(system='"""'))
    assert '{{ .Prompt }}' in modelfile(tmp_path, codec(None))


def test_every_scheme_has_a_place_and_a_dtype() -> None:
    assert {transformers_js.model_file(type).split("/")[0] for type in TYPES["onnx"]} == {"onnx"}
    assert transformers_js.model_file("int4") == "onnx/model_q4.onnx"
    half = Manifest("export", Task(), "llama", "onnx:q4f16", transformers_js.model_file("q4f16"))
    assert '{ device: "webgpu" }' in transformers_js.usage(half)
    assert "webgpu" not in transformers_js.usage(replace(half, scheme="onnx:int4"))


def test_transformers_js_finds_template_labels_and_data(tmp_path: Path) -> None:
    (tmp_path / "onnx").mkdir()
    for name in ("onnx/model_q4.onnx", "onnx/model_q4.onnx_data", "onnx/model_q4f16.onnx_data"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    decoder = {"head_size": 64, "num_key_value_heads": 2, "num_attention_heads": 4, "num_hidden_layers": 3}
    (tmp_path / "genai_config.json").write_text(json.dumps({"model": {"decoder": decoder, "eos_token_id": 1}}))
    manifest = Manifest("export", Task(), "llama", "onnx:int4", "onnx/model_q4.onnx")
    for layout in layouts.of("onnx:int4"):
        layout.write(Artifact(tmp_path, manifest), codec(CHATML))

    def table(name: str) -> dict[str, Any]:
        return dict(json.loads((tmp_path / name).read_text()))
    config = table("config.json")
    assert config["transformers.js_config"] == {"dtype": "q4", "use_external_data_format": {"model_q4.onnx": 1}}
    assert (config["head_dim"], config["num_key_value_heads"], config["model_type"]) == (64, 2, "llama")
    assert table("tokenizer_config.json")["chat_template"] == (tmp_path / "chat_template.jinja").read_text() == CHATML
    assert table("generation_config.json")["eos_token_id"] == table("genai_config.json")["model"]["eos_token_id"]
    transformers_js.write(Artifact(tmp_path, replace(manifest, scheme="onnx:q4f16")), codec(CHATML))
    assert table("config.json")["transformers.js_config"] == {
        "dtype": "q4f16", "use_external_data_format": {"model_q4f16.onnx": 1}, "kv_cache_dtype": {"q4f16": "float16"}}
    classifier = Manifest("export", Task("classify", labels=["yes", "no"]), "bert", "onnx:int8", "onnx/model_q4.onnx")
    transformers_js.write(Artifact(tmp_path, classifier), codec(None))
    assert table("config.json")["id2label"] == {"0": "yes", "1": "no"}


@pytest.mark.parametrize("name", NAMES)
def test_every_layout_says_how_it_is_used(name: str) -> None:
    layout = kinds.load("quantize.layouts", name)
    assert layout.FORMAT in TYPES
    for type in TYPES[layout.FORMAT]:
        assert layout in layouts.of(f"{layout.FORMAT}:{type}")
    manifest = Manifest("export", Task(), "llama", f"{layout.FORMAT}:{TYPES[layout.FORMAT][1]}", "model")
    assert "http" in layout.usage(manifest)
