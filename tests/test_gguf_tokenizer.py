"""The vocabulary in a GGUF file: llama.cpp must make the same ids of a text as tokenizers does."""

from __future__ import annotations

import ctypes
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from edgestill.models.errors import ArtifactError
from edgestill.quantize import gguf_rules, gguf_sentencepiece, gguf_splitters, gguf_tokenizer
from edgestill.runtime.engines._llama import library
from edgestill.runtime.text import Codec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from . import tiny

CORPUS = [
    *tiny.SENTENCES, "I'LL we'll don't DON'T it's'", "a  b   c\t\td\r\n\r\n  e \n f", "1 12 123 1234 12345.678", "",
    "½ Ⅷ ²", "x=1;y+=2//comment\n\tif(a&&b){return!c;}", "ナイーブ カフェ 한국어 ไทย",
    "العربية עברית हिन्दी", " leading", "trailing ", "\n", "   ",
    "<|end|> inside <|user|>text<|assistant|>", "\ufb01 ligature, e\u0301 combining",
    "\u200b zero width\u00a0no-break", "👩\u200d👩\u200d👧\u200d👦🇩🇪",
]
SPLITTERS = {splitter.name: splitter for splitter in gguf_splitters.SPLITTERS}


class LlamaVocabulary:
    """llama.cpp's tokenizer of a file that holds nothing else."""

    def __init__(self, path: Path) -> None:
        self.c = library()
        options = self.c.llama_model_default_params()
        options.vocab_only = True
        self.model = self.c.llama_model_load_from_file(str(path).encode(), options)
        assert self.model, "llama.cpp refuses the vocabulary"
        self.vocabulary = self.c.llama_model_get_vocab(self.model)

    def encode(self, text: str, special: bool = False) -> list[int]:
        data = text.encode()
        ids = (ctypes.c_int32 * (len(data) + 8))()
        count = self.c.llama_tokenize(self.vocabulary, data, len(data), ids, len(ids), special, True)
        return list(ids[:count])

    def ends(self) -> set[int]:
        count = self.c.llama_vocab_n_tokens(self.vocabulary)
        return {index for index in range(count) if self.c.llama_vocab_is_eog(self.vocabulary, index)}


def assert_same_but(codec: Codec, loaded: LlamaVocabulary, texts: list[str]) -> list[str]:
    """Both make the same ids of every text but those with a known difference, which are returned."""
    named = gguf_tokenizer.differences(codec)
    other = [text for text in texts if named(text)]
    assert_same(codec, loaded, [text for text in texts if text not in other])
    return other


@contextmanager
def both(source: Path, path: Path, size: int = 0) -> Iterator[tuple[Codec, LlamaVocabulary, gguf_tokenizer.Vocabulary]]:
    """A folder's tokenizer, and llama.cpp's of the vocabulary written from it."""
    import gguf

    codec = Codec.from_folder(source)
    vocabulary = gguf_tokenizer.read(source, size or codec.vocabulary_size)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_vocab_size(len(vocabulary.tokens))
    gguf_tokenizer.add(writer, vocabulary)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    loaded = LlamaVocabulary(path)
    try:
        yield codec, loaded, vocabulary
    finally:
        loaded.c.llama_model_free(loaded.model)


def assert_same(codec: Codec, loaded: LlamaVocabulary, texts: list[str]) -> None:
    for text in texts:
        for special in (False, True):
            assert loaded.encode(text, special) == codec.encode(text, special), (text, special)


def shared_texts(shared: Path) -> list[str]:
    files = [shared / "data" / "tinyshakespeare", shared / "data" / "wikitext2", shared / "data" / "tinystories"]
    texts = []
    for folder in files:
        for path in sorted(folder.rglob("*.txt"))[:3]:
            texts += path.read_bytes()[:25_000].decode("utf-8", "ignore").split("\n\n")
    assert sum(map(len, texts)) > 30_000
    return texts


def folder_of(tmp_path: Path, tokenizer_json: Path, **settings: Any) -> Path:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    shutil.copy(tokenizer_json, folder / "tokenizer.json")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize(("name", "pre", "size"),
                         [("gpt2", "gpt-2", 0), ("qwen2.5", "qwen2", 0), ("smollm2", "smollm", 49_280)])
def test_real_vocabularies(shared: Path, tmp_path: Path, name: str, pre: str, size: int) -> None:
    import unicodedata

    path = shared / "tokenizers" / name / "tokenizer.json"
    if not path.is_file():
        pytest.skip(f"needs {name}'s tokenizer.json")
    source = folder_of(tmp_path, path, eos_token="<|endoftext|>")
    with both(source, tmp_path / "v.gguf", size) as (codec, loaded, vocabulary):
        assert vocabulary.rules.pre == pre
        other = assert_same_but(codec, loaded, [*CORPUS, *shared_texts(shared)])
        assert all(unicodedata.normalize("NFC", text) != text for text in other) and len(other) < 20
        assert bool(vocabulary.notes) == (pre == "qwen2")


def test_a_sentence_piece_vocabulary(shared: Path, tmp_path: Path) -> None:
    source = shared / "models" / "stories260K"
    if not source.is_dir():
        pytest.skip("needs stories260K")
    with both(source, tmp_path / "v.gguf") as (codec, loaded, vocabulary):
        assert vocabulary.rules.model == "llama" and vocabulary.add_bos
        assert "several in a row" in vocabulary.notes[0]
        assert_same_but(codec, loaded, [*CORPUS, *shared_texts(shared)])


def test_a_vocabulary_that_merges_other_splits_is_refused(shared: Path) -> None:
    source = shared / "models" / "tinystories-656k"
    if not source.is_dir():
        pytest.skip("needs tinystories-656k")
    with pytest.raises(ArtifactError, match="no token for the byte <0x00>; llama.cpp carries only"):
        gguf_tokenizer.read(source, 2048)


def trained(folder: Path, name: str) -> Path:
    """A small byte-level tokenizer with the splitting rules that llama.cpp calls `name`."""
    from tokenizers import Regex, pre_tokenizers

    splitter = SPLITTERS[name]
    steps = [pre_tokenizers.Digits(individual_digits=True) if rule == gguf_splitters.DIGIT else
             pre_tokenizers.Split(Regex(rule), "isolated") for rule in splitter.steps if rule != gguf_splitters.GPT2]
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=gguf_splitters.GPT2 in splitter.steps))
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
        assert len(assert_same_but(codec, loaded, CORPUS)) < (8 if name in ("gpt-4o", "tekken") else 1)
        alphabet = st.sampled_from("aZéÉßſж漢한1٣½ \t\n\r'\u00a0.,;!-_()<|>🙂\u0301") | st.sampled_from(
            ["'s", "'LL", "'ſ", "  ", "\r\n", "<|end|>", "abc", "123", "नि", "Ab", "/\n"]) | st.characters()

        @settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
        @given(st.lists(alphabet, max_size=20).map("".join))
        def same(text: str) -> None:
            assert_same_but(codec, loaded, [text])

        same()


def sentence_piece(folder: Path, change: Callable[[dict[str, Any]], object] = lambda table: None) -> Path:
    """A closed SentencePiece-style vocabulary: every split of a token is a merge, as in Llama 2's."""
    blank = gguf_rules.BLANK
    words = ["th", "the", blank + "t", blank + "th", blank + "the", "he", "er", blank + "a", "in", "ing", blank * 2]
    letters = sorted({*"abcdefghijklmnopqrstuvwxyz.", blank})
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{value:02X}>" for value in range(256)), *words, *letters]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    merges = [[word[:cut], word[cut:]] for word in words for cut in range(1, len(word))
              if word[:cut] in vocabulary and word[cut:] in vocabulary]
    table = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": index, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": True} for index, token in enumerate(tokens[:3])],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": blank}, {"type": "Replace", "pattern": {"String": " "}, "content": blank}]},
        "pre_tokenizer": None,
        "post_processor": {"type": "TemplateProcessing", "single": [
            {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}], "pair": [
            {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": None,
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": vocabulary, "merges": merges},
    }
    change(table)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(table))
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    return folder


def metaspace(scheme: str, split: bool = False) -> Callable[[dict[str, Any]], object]:
    step = {"type": "Metaspace", "replacement": gguf_rules.BLANK, "prepend_scheme": scheme, "split": split}
    return lambda table: table.update(normalizer=None, pre_tokenizer=step)


@pytest.mark.parametrize("change", [lambda table: None, metaspace("always"), metaspace("never"), metaspace("first")],
                         ids=["prepend", "always", "never", "first"])
def test_sentence_piece_rules(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    with both(sentence_piece(tmp_path / "t", change), tmp_path / "v.gguf") as (codec, loaded, vocabulary):
        assert vocabulary.ids == {"bos": 1, "eos": 2, "unknown": 0}
        texts = ["the thing", "other  theatre", "a.the\n", "grüße 漢", "a", "there is the other thing in the theatre."]
        assert_same(codec, loaded, texts)
        if not vocabulary.notes:
            assert_same(codec, loaded, ["a</s>the", "<s>the thing</s>", " the", "   "])

            @settings(deadline=None, max_examples=80, suppress_health_check=list(HealthCheck))
            @given(st.text("the aring.x\n漢", min_size=1, max_size=30))
            def same(text: str) -> None:
                assert loaded.encode(text) == codec.encode(text)

            same()


def gemma(table: dict[str, Any]) -> None:
    """No blank before a text, line ends and runs of blanks as added tokens, a step that splits nothing."""
    for content, index in (("\n\n", len(table["model"]["vocab"])), (gguf_rules.BLANK * 2, None)):
        index = table["model"]["vocab"].setdefault(content, index)
        table["added_tokens"].append({**table["added_tokens"][0], "id": index, "content": content, "special": False})
    table["normalizer"] = table["normalizer"]["normalizers"][1]
    table["pre_tokenizer"] = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
                              "invert": False}


def open_gemma(table: dict[str, Any]) -> None:
    gemma(table)
    table["model"]["merges"].remove(["t", "he"])


def without_bytes(table: dict[str, Any]) -> None:
    gemma(table)
    names = [name for name in table["model"]["vocab"] if name not in gguf_sentencepiece.BYTES]
    table["model"]["vocab"] = {name: index for index, name in enumerate(names)}
    for token in table["added_tokens"]:
        token["id"] = names.index(token["content"])


@pytest.mark.parametrize(("change", "pre"), [(gemma, "default"), (open_gemma, "sarvam-moe"),
                                             (without_bytes, "sarvam-moe")])
def test_gemma_s_kind_merges_by_score_or_by_rank(tmp_path: Path, change: Callable[[dict[str, Any]], object],
                                                 pre: str) -> None:
    with both(sentence_piece(tmp_path / "t", change), tmp_path / "v.gguf") as (codec, loaded, vocabulary):
        assert vocabulary.rules.pre == pre
        texts = ["the thing", "other  theatre", "a.the\n\n\nthe\n", "a</s>the", "<s>the thing</s>", " the", "   "]
        no_lines = [text for text in texts if "\n" not in text]
        assert not assert_same_but(codec, loaded, no_lines if change == without_bytes else texts)
        assert bool(assert_same_but(codec, loaded, ["grüße 漢"])) == (change == without_bytes)

        @settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
        @given(st.text(st.sampled_from("the aring.x\n漢") | st.characters(), max_size=30))
        def same(text: str) -> None:
            assert_same_but(codec, loaded, [text.replace(gguf_rules.BLANK, "")])

        same()


def phi3(table: dict[str, Any]) -> None:
    tokens = ["<|endoftext|>", "<|assistant|>", "<|end|>"]
    for content in tokens:
        index = table["model"]["vocab"].setdefault(content, len(table["model"]["vocab"]))
        table["added_tokens"].append({**table["added_tokens"][0], "id": index, "content": content})
    for token in table["added_tokens"]:
        token["rstrip"] = token["content"] not in gguf_tokenizer.PHI3_KEEPS


def test_phi_3_s_tokens_take_the_blanks_behind_them(tmp_path: Path) -> None:
    with both(sentence_piece(tmp_path / "t", phi3), tmp_path / "v.gguf") as (codec, loaded, vocabulary):
        assert vocabulary.trims
        assert_same(codec, loaded, ["a<|end|>\n<|assistant|> \n the", "the</s>  ing", "<|endoftext|> the", "<s>  a"])
        assert assert_same_but(codec, loaded, ["the<|end|>\u2003the"])


def test_an_added_token_that_its_normalizer_changes_is_refused(tmp_path: Path) -> None:
    source = sentence_piece(tmp_path, lambda table: table["added_tokens"][2].update(normalized=True))
    with pytest.raises(ArtifactError, match="'</s>', which its normalizer changes to '▁</s>'"):
        gguf_tokenizer.read(source, 300)


def set_model(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda table: table["model"].update(changes)


BAD_SENTENCE_PIECE: list[tuple[str, Callable[[dict[str, Any]], object]]] = [
    ("a model of type 'Unigram'", lambda table: table.update(model={
        "type": "Unigram", "unk_id": 0, "byte_fallback": False,
        "vocab": [["<unk>", 0.0], ["<s>", -1.0], ["</s>", -1.0], ["a", -2.0]]})),
    ("end_of_word_suffix = '@'", set_model(end_of_word_suffix="@")),
    ("neither byte-level nor falls back to bytes", set_model(byte_fallback=False)),
    ("no token for the byte <0x41>", lambda table: table["model"]["vocab"].pop("<0x41>")),
    ("the token 'the', which is not merged from 't' and 'he'",
     lambda table: table["model"]["merges"].remove(["t", "he"])),
    ("on both sides of one into", lambda table: table["model"]["merges"].append(table["model"]["merges"].pop(1))),
    ("the normalizer type 'Lowercase'", lambda table: table.update(normalizer={"type": "Lowercase"})),
    ("blanks that are not written as U", lambda table: table.update(normalizer=None)),
    ("the pre-tokenizer step type 'Whitespace'", lambda table: table.update(pre_tokenizer={"type": "Whitespace"})),
    ("a Metaspace that splits", metaspace("always", split=True)),
]


@pytest.mark.parametrize(("message", "change"), BAD_SENTENCE_PIECE, ids=[message for message, _ in BAD_SENTENCE_PIECE])
def test_sentence_piece_rules_that_llama_cpp_lacks_are_refused(tmp_path: Path, message: str,
                                                               change: Callable[[dict[str, Any]], object]) -> None:
    with pytest.raises(ArtifactError, match=message) as caught:
        gguf_tokenizer.read(sentence_piece(tmp_path, change), 300)
    assert "ONNX" in caught.value.hint


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
BAD_BYTE_LEVEL: list[tuple[str, Callable[[dict[str, Any]], object]]] = [
    ("add_prefix_space True", lambda table: table.update(pre_tokenizer=BYTE_LEVEL | {"add_prefix_space": True})),
    (r"\\\\w\+", lambda table: table.update(pre_tokenizer={"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": r"\w+"}, "behavior": "Isolated", "invert": False}, BYTE_LEVEL]})),
    ("behavior 'Removed'", lambda table: table.update(pre_tokenizer={"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"String": " "}, "behavior": "Removed", "invert": False}, BYTE_LEVEL]})),
    ("ignore_merges = True", lambda table: table["model"].update(ignore_merges=True,
                                                                 merges=table["model"]["merges"][:-1])),
    ("'<|user|>' that is found as a whole", lambda table: table["added_tokens"][2].update(single_word=True)),
    ("'<|user|>' that takes the blanks", lambda table: table["added_tokens"][2].update(rstrip=True)),
    ("the normalizer type 'NFKC'", lambda table: table.update(normalizer={"type": "NFKC"})),
    ("a post-processor that puts '<|user|>' before", lambda table: table.update(post_processor={
        "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<|user|>", "type_id": 0}},
                                                 {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|user|>": {"id": "<|user|>", "ids": [2], "tokens": ["<|user|>"]}}})),
]


@pytest.mark.parametrize(("message", "change"), BAD_BYTE_LEVEL, ids=[message for message, _ in BAD_BYTE_LEVEL])
def test_byte_level_rules_that_llama_cpp_lacks_are_refused(tmp_path: Path, message: str,
                                                           change: Callable[[dict[str, Any]], object]) -> None:
    tiny.byte_level_tokenizer(tmp_path)
    path = tmp_path / "tokenizer.json"
    table = json.loads(path.read_text())
    change(table)
    path.write_text(json.dumps(table))
    with pytest.raises(ArtifactError, match=message):
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


def word_piece(folder: Path, change: Callable[[dict[str, Any]], object] = lambda table: None) -> Path:
    """A WordPiece tokenizer with every letter of the corpus."""
    from tokenizers import BertWordPieceTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    trainer = BertWordPieceTokenizer(lowercase=True)
    trainer.train_from_iterator(CORPUS, vocab_size=900, min_frequency=1, show_progress=False)
    from tokenizers import processors

    first, last = (trainer.token_to_id(token) for token in ("[CLS]", "[SEP]"))
    trainer._tokenizer.post_processor = processors.BertProcessing(("[SEP]", last), ("[CLS]", first))
    table = json.loads(trainer.to_str())
    change(table)
    (folder / "tokenizer.json").write_text(json.dumps(table))
    named = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    return folder


def set_normalizer(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda table: table["normalizer"].update(changes)


@pytest.mark.parametrize("change", [lambda table: None, set_normalizer(lowercase=False),
                                    set_normalizer(strip_accents=False)], ids=["uncased", "cased", "accents"])
def test_word_piece_rules(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    with both(word_piece(tmp_path / "t", change), tmp_path / "v.gguf") as (codec, loaded, vocabulary):
        assert vocabulary.rules.model == "bert" and vocabulary.ids == {
            name: codec.tokenizer.token_to_id(token) for name, token in (
                ("bos", "[CLS]"), ("seperator", "[SEP]"), ("unknown", "[UNK]"), ("padding", "[PAD]"))}
        texts = [*CORPUS, "a[SEP]b [MASK] c", "x" * 100, "x" * 101, "Unaffable UNAFFABLE, naïve!", "[unused1] [X]"]
        assert "x" * 101 in assert_same_but(codec, loaded, texts)
        named = gguf_tokenizer.differences(codec)
        characters = [chr(code) for code in (*range(0x3100), *range(0xABF0, 0xAD00), 0xD7A3, *range(0xF8F0, 0xFB10),
                                             *range(0xFE00, 0x10000), *range(0x1F5F0, 0x1F620), 0x20000, 0x2F800)]
        wrong = [character for character in characters
                 if bool(named(character)) != (loaded.encode(f"a{character}b") != codec.encode(f"a{character}b"))
                 and codec.tokenizer.token_to_id("[UNK]") not in codec.encode(f"a{character}b")]
        assert not wrong

        @settings(deadline=None, max_examples=80, suppress_health_check=list(HealthCheck))
        @given(st.text(max_size=12))
        def same(text: str) -> None:
            assert_same_but(codec, loaded, [text])

        same()


BAD_WORD_PIECE: list[tuple[str, Callable[[dict[str, Any]], object]]] = [
    ("WordPiece with the normalizer type 'NFC'", lambda table: table.update(normalizer={"type": "NFC"})),
    ("a BertNormalizer with handle_chinese_chars = false", set_normalizer(handle_chinese_chars=False)),
    ("WordPiece with the pre-tokenizer", lambda table: table.update(pre_tokenizer={"type": "Whitespace"})),
    ("WordPiece without .CLS. and .SEP. around", lambda table: table.update(post_processor=None)),
    ("'.SEP.' that is also found in capitals", lambda table: [token.update(normalized=token["content"] == "[SEP]")
                                                              for token in table["added_tokens"]]),
]


@pytest.mark.parametrize(("message", "change"), BAD_WORD_PIECE, ids=[message for message, _ in BAD_WORD_PIECE])
def test_word_piece_rules_that_llama_cpp_lacks_are_refused(tmp_path: Path, message: str,
                                                           change: Callable[[dict[str, Any]], object]) -> None:
    with pytest.raises(ArtifactError, match=message):
        gguf_tokenizer.read(word_piece(tmp_path, change), 900)
