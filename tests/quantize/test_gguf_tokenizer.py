"""Byte-level BPE in a GGUF file: llama.cpp must make the same ids of a text as tokenizers does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from edgestill.models.errors import ArtifactError
from edgestill.quantize.gguf.tokenizer import splitters
from edgestill.quantize.gguf.tokenizer import write as gguf_tokenizer
from edgestill.quantize.source import corpus
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .. import tiny
from ..gguf_vocabulary import CORPUS, Change, assert_same, assert_same_but, both, shared_texts

SPLITTERS = {splitter.name: splitter for splitter in splitters.SPLITTERS}


def folder_of(tmp_path: Path, tokenizer_json: Path, **settings: Any) -> Path:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    shutil.copy(tokenizer_json, folder / "tokenizer.json")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize(("name", "pre", "size"),
                         [("gpt2", "gpt-2", 0), ("qwen2.5", "qwen2", 0), ("smollm2", "smollm", 49_280)])
def test_real_vocabularies(shared: Path, tmp_path: Path, name: str, pre: str, size: int) -> None:
    path = shared / "tokenizers" / name / "tokenizer.json"
    if not path.is_file():
        pytest.skip(f"needs {name}'s tokenizer.json")
    source = folder_of(tmp_path, path, eos_token="<|endoftext|>")
    with both(source, tmp_path / "v.gguf", size) as (codec, loaded, vocabulary):
        assert vocabulary.rules.pre == pre
        other = assert_same_but(codec, loaded, [*corpus.texts(), *shared_texts(shared)])
        assert len(other) < (150 if pre == "qwen2" else 1)
        assert bool(vocabulary.notes) == (pre == "qwen2")


def trained(folder: Path, name: str) -> Path:
    """A small byte-level tokenizer with the splitting rules that llama.cpp calls `name`."""
    from tokenizers import Regex, pre_tokenizers

    splitter = SPLITTERS[name]
    steps = [pre_tokenizers.Digits(individual_digits=True) if rule == splitters.DIGIT else
             pre_tokenizers.Split(Regex(rule), "isolated") for rule in splitter.steps if rule != splitters.GPT2]
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=splitters.GPT2 in splitter.steps))
    folder.mkdir(parents=True, exist_ok=True)
    tiny.byte_level_tokenizer(folder)
    from tokenizers import Tokenizer, decoders, models, trainers

    tokenizer = Tokenizer(models.BPE(ignore_merges=splitter.ignores_merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(CORPUS * 3, trainers.BpeTrainer(
        vocab_size=700, special_tokens=tiny.SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False))
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("name", SPLITTERS)
def test_every_known_rule_set_splits_as_tokenizers_does(tmp_path: Path, name: str) -> None:
    with both(trained(tmp_path / "tokenizer", name), tmp_path / "v.gguf") as (codec, loaded, vocabulary):
        assert vocabulary.rules.pre == name and vocabulary.rules.model == "gpt2"
        assert len(assert_same_but(codec, loaded, corpus.texts(tiny.SPECIAL))) < (
            400 if name in ("gpt-4o", "tekken") else 1)
        alphabet = st.sampled_from("aZéÉßſж漢한1٣½ \t\n\r'\u00a0.,;!-_()<|>🙂\u0301") | st.sampled_from(
            ["'s", "'LL", "'ſ", "  ", "\r\n", "<|end|>", "abc", "123", "नि", "Ab", "/\n"]
        ) | st.characters(codec="utf-8")

        @settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
        @given(st.lists(alphabet, max_size=20).map("".join))
        def same(text: str) -> None:
            assert_same_but(codec, loaded, [text])

        same()


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
BAD_BYTE_LEVEL: list[tuple[str, Change]] = [
    ("add_prefix_space True", lambda table: table.update(pre_tokenizer=BYTE_LEVEL | {"add_prefix_space": True})),
    (r"\\\\w\+", lambda table: table.update(pre_tokenizer={"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": r"\w+"}, "behavior": "Isolated", "invert": False}, BYTE_LEVEL]})),
    ("behavior 'Removed'", lambda table: table.update(pre_tokenizer={"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"String": " "}, "behavior": "Removed", "invert": False}, BYTE_LEVEL]})),
    ("ignore_merges = True", lambda table: table["model"].update(ignore_merges=True,
                                                                 merges=table["model"]["merges"][:-1])),
    ("'<|user|>' that is found as a whole", lambda table: table["added_tokens"][2].update(single_word=True)),
    ("the normalizer type 'NFKC'", lambda table: table.update(normalizer={"type": "NFKC"})),
    ("a post-processor that puts '<|user|>' before", lambda table: table.update(post_processor={
        "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<|user|>", "type_id": 0}},
                                                 {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|user|>": {"id": "<|user|>", "ids": [2], "tokens": ["<|user|>"]}}})),
]


@pytest.mark.parametrize(("message", "change"), BAD_BYTE_LEVEL, ids=[message for message, _ in BAD_BYTE_LEVEL])
def test_byte_level_rules_that_llama_cpp_lacks_are_refused(tmp_path: Path, message: str,
                                                           change: Change) -> None:
    tiny.byte_level_tokenizer(tmp_path)
    path = tmp_path / "tokenizer.json"
    table = json.loads(path.read_text())
    change(table)
    path.write_text(json.dumps(table))
    with pytest.raises(ArtifactError, match=message):
        gguf_tokenizer.read(tmp_path, 384)


def strip_blanks(folder: Path, template: str = tiny.TEMPLATE, **flags: bool) -> Path:
    """All added tokens but the first and the last take the blanks beside them, as most of Phi-4's do."""
    tiny.byte_level_tokenizer(folder)
    path = folder / "tokenizer.json"
    table = json.loads(path.read_text())
    for token in table["added_tokens"][1:-1]:
        token.update(flags)
    path.write_text(json.dumps(table))
    (folder / "chat_template.jinja").write_text(template)
    return folder


@pytest.mark.parametrize(("flag", "place"), [("rstrip", "behind"), ("lstrip", "before")])
def test_blanks_that_a_token_takes_are_told_of_and_all_else_is_the_same(tmp_path: Path, flag: str, place: str) -> None:
    with both(strip_blanks(tmp_path, **{flag: True}), tmp_path / "v.gguf") as (codec, loaded, vocabulary):
        behind, before = "a<|user|>\n b<|end|>", "a <|user|>b<|end|> c"
        taken, left = (behind, before) if flag == "rstrip" else (before, behind)
        assert loaded.encode(taken) != codec.encode(taken)
        others = [text for text in CORPUS if " <|user|>" not in text]
        assert assert_same_but(codec, loaded, [*others, taken, left, "<|pad|> a <|end|> b", " a "]) == [taken]
        assert vocabulary.notes == [f"llama.cpp tokenizes otherwise: blanks {place} <|assistant|>, <|system|>, <|user|>"
                                    ", which llama.cpp keeps and the tokenizer drops"]


def test_a_template_that_writes_blanks_which_its_tokens_take_is_refused(tmp_path: Path) -> None:
    strip_blanks(tmp_path, tiny.TEMPLATE.replace("role'] }}|>", "role'] }}|>\n"), rstrip=True)
    with pytest.raises(ArtifactError, match=r"blanks behind <\|assistant\|>, .* in its chat template"):
        gguf_tokenizer.read(tmp_path, 384)


def test_every_stop_id_ends_generation(tmp_path: Path) -> None:
    tiny.byte_level_tokenizer(tmp_path)
    stops = [0, 1, 2, 3, 100, 200]
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": stops}))
    with both(tmp_path, tmp_path / "v.gguf") as (codec, loaded, vocabulary):
        assert codec.stop_ids == set(stops) == loaded.ends()
        assert vocabulary.ids["eos"] == 0 and vocabulary.ids["eot"] == 1
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [*stops, 300]}))
    with pytest.raises(ArtifactError, match="7 stop ids; llama.cpp has no key left"):
        gguf_tokenizer.read(tmp_path, 384)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": 384}))
    with pytest.raises(ArtifactError, match="the stop id 384 is outside the vocabulary of 384"):
        gguf_tokenizer.read(tmp_path, 384)


def test_the_template_s_end_of_turn_is_a_stop(tmp_path: Path) -> None:
    tiny.byte_level_tokenizer(tmp_path)
    template = "{% for m in messages %}<|user|>{{ m.content }}<|system|>{% endfor %}"
    (tmp_path / "chat_template.jinja").write_text(template)
    with both(tmp_path, tmp_path / "v.gguf") as (codec, loaded, vocabulary):
        assert codec.stop_ids == loaded.ends() == {0, 1}
        assert vocabulary.template == template


def test_a_tokenizer_without_any_end_is_refused(tmp_path: Path) -> None:
    tiny.byte_level_tokenizer(tmp_path)
    for name in ("generation_config.json", "chat_template.jinja", "tokenizer_config.json"):
        (tmp_path / name).unlink()
    with pytest.raises(ArtifactError, match="no token ends an answer"):
        gguf_tokenizer.read(tmp_path, 384)


def test_unused_rows_and_added_tokens_have_their_types(tmp_path: Path) -> None:
    tiny.byte_level_tokenizer(tmp_path)
    path = tmp_path / "tokenizer.json"
    table = json.loads(path.read_text())
    plain = {**table["added_tokens"][0], "id": 384, "content": "<tool_call>", "special": False}
    path.write_text(json.dumps({**table, "added_tokens": [*table["added_tokens"], plain]}))
    with both(tmp_path, tmp_path / "v.gguf", 390) as (codec, loaded, vocabulary):
        assert vocabulary.types[0] == gguf_tokenizer.CONTROL and vocabulary.types[384] == gguf_tokenizer.USER_DEFINED
        assert vocabulary.types[50] == gguf_tokenizer.NORMAL
        assert vocabulary.types[385:] == [gguf_tokenizer.UNUSED] * 5 and vocabulary.tokens[389] == "[PAD389]"
        assert_same(codec, loaded, ["call<tool_call>light", "<|user|>turn off<|end|>"])


def test_a_text_at_two_ids_is_refused(tmp_path: Path) -> None:
    tiny.byte_level_tokenizer(tmp_path)
    path = tmp_path / "tokenizer.json"
    table = json.loads(path.read_text())
    clash = {**table["added_tokens"][0], "id": 384, "content": "[PAD386]"}
    path.write_text(json.dumps({**table, "added_tokens": [*table["added_tokens"], clash]}))
    with pytest.raises(ArtifactError, match=r"'\[PAD386\]' stands at two ids"):
        gguf_tokenizer.read(tmp_path, 390)
