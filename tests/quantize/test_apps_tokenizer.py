"""The C++ tokenizer of the apps gives the ids of `tokenizers`, on every text of the corpus and every character."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from edgestill.models.errors import UsageError
from edgestill.quantize.apps import TEMPLATES, _tables
from edgestill.quantize.source import corpus
from edgestill.runtime.text.codec import Codec
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from .. import tiny

COMPILER = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
DRIVER = """\
#include <iostream>
#include <string>
#include <vector>
#include "tokenizer.h"
int main() {
    for (int size, room; std::cin >> size >> room;) {
        std::string text(size, 0);
        std::cin.get();
        std::cin.read(&text[0], size);
        std::vector<int> ids(room);
        const int count = tokenize(text.data(), size, ids.data(), room);
        for (int index = 0; index < count; ++index) std::cout << ids[index] << ' ';
        std::cout << '\\n';
    }
}
"""
Build = Callable[[str], Path]
CORE = TEMPLATES / "core"
ROOM = 8192


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Compiles the tokenizer with its tables.h, each once."""
    if COMPILER is None:
        pytest.skip("no C++ compiler (c++, g++ or clang++)")
    root, made = tmp_path_factory.mktemp("programs"), dict[str, Path]()
    command = [COMPILER, "-std=c++17", "-Wall", "-Wextra", "-Werror", "-I", CORE]
    (root / "driver.cpp").write_text(DRIVER)
    subprocess.run([*command, "-c", root / "driver.cpp", "-o", root / "driver.o"], check=True)

    def program(header: str) -> Path:
        if header not in made:
            folder = root / str(len(made))
            folder.mkdir()
            (folder / "tables.h").write_text(header)
            subprocess.run([*command, "-I", folder, root / "driver.o", CORE / "tokenizer.cpp", "-o", folder / "driver"],
                           check=True)
            made[header] = folder / "driver"
        return made[header]

    return program


def encode(program: Path, texts: list[str], room: int) -> list[list[int]]:
    """At most `room` ids of each text."""
    data = b"".join(f"{len(text.encode())} {room}\n".encode() + text.encode() for text in texts)
    done = subprocess.run([program], input=data, capture_output=True, check=True)
    return [[int(id) for id in line.split()] for line in done.stdout.decode().split("\n")[:-1]]


def word_piece(**settings: Any) -> Tokenizer:
    """WordPiece of the corpus's letters and every second word, as BERT has it."""
    words = sorted({word for text in corpus.TEXTS for word in text.lower().split()})
    letters = sorted({sign for text in corpus.texts() for sign in text + text.lower() if not sign.isspace()})
    named = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = [*dict.fromkeys([*named, *letters, *(f"##{letter}" for letter in letters), *words[::2]])]
    tokenizer = Tokenizer(models.WordPiece({word: id for id, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(**settings)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.add_special_tokens([*named[:4], AddedToken("[MASK]", lstrip=True)])
    return tokenizer


def byte_pairs(composes: bool, leading_blank: bool) -> Tokenizer:
    """Byte-level BPE as RoBERTa (with a blank before every text) and ModernBERT (composed) have it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=leading_blank)
    if composes:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.train_from_iterator(corpus.texts(), trainers.BpeTrainer(
        vocab_size=1500, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False))
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, rstrip=True)])
    tokenizer.add_tokens([AddedToken(" " * count, normalized=True) for count in (3, 4)])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0), add_prefix_space=leading_blank)
    return tokenizer


TOKENIZERS = {"BERT": lambda: word_piece(), "BERT, cased": lambda: word_piece(lowercase=False),
              "BERT with accents": lambda: word_piece(strip_accents=False, handle_chinese_chars=False),
              "RoBERTa": lambda: byte_pairs(False, True), "ModernBERT": lambda: byte_pairs(True, False)}


def golden_texts(tokenizer: Tokenizer) -> list[str]:
    special = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    signs = [chr(code) for code in range(0, 0x30000, 7) if not 0xD800 <= code < 0xE000]
    return [*corpus.texts(special), *signs, "x" * 101 + " y", "e\u0301\u0323a\u0323\u0302", "\u0301a",
            "\u1100\u1161\u11a8 \uac00\u11a8", "\U000f1234 \U00051234"]


@cache
def tokenizer_and_header(name: str) -> tuple[Tokenizer, str]:
    """To make a header the tokenizer is asked about every character there is."""
    tokenizer = TOKENIZERS[name]()
    return tokenizer, _tables.header(Codec(tokenizer))


@pytest.mark.parametrize("name", TOKENIZERS)
def test_ids_are_those_of_tokenizers(name: str, build: Build) -> None:
    tokenizer, header = tokenizer_and_header(name)
    program = build(header)
    texts = golden_texts(tokenizer)
    wanted = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    found = zip(texts, encode(program, texts, ROOM), wanted, strict=True)
    assert {text: ids for text, ids, right in found if ids != right} == {}
    tokenizer.enable_truncation(6)
    short = [encoding.ids for encoding in tokenizer.encode_batch(texts[:200])]
    tokenizer.no_truncation()
    assert encode(program, texts[:200], 6) == short


def test_a_wrong_table_is_seen(build: Build) -> None:
    tokenizer, header = tokenizer_and_header("BERT")
    assert '{0x41, "a"}' in header
    program = build(header.replace('{0x41, "a"}', '{0x41, "b"}'))
    assert encode(program, ["Alarm"], ROOM) != [tokenizer.encode("Alarm").ids]


def test_text_that_is_no_utf_8_is_read_to_its_end(build: Build) -> None:
    program = build(tokenizer_and_header("BERT")[1])
    for broken in (b"\xff\xfe", b"a\xe4", b"\xf0\x9f", b"\x80\x80\x80"):
        done = subprocess.run([program], input=f"{len(broken)} 8\n".encode() + broken, capture_output=True)
        assert done.returncode == 0 and len(done.stdout.split()) <= 8


def lacking(change: Callable[[dict[str, Any]], None]) -> Codec:
    parts = json.loads(byte_pairs(False, False).to_str())
    change(parts)
    return Codec(Tokenizer.from_str(json.dumps(parts)))


def without_a_byte(parts: dict[str, Any]) -> None:
    del parts["model"]["vocab"]["\u0100"]
    parts["model"]["merges"] = []


REFUSED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "BPE after Whitespace": lambda parts: parts.update(pre_tokenizer={"type": "Whitespace"}),
    "ignore_merges": lambda parts: parts["model"].update(ignore_merges=True),
    r"normalizer \(Replace\)": lambda parts: parts.update(
        normalizer={"type": "Replace", "pattern": {"Regex": " +"}, "content": " "}),
    r"normalizer \(Prepend\)": lambda parts: parts.update(normalizer={"type": "Prepend", "prepend": "_"}),
    "whole words alone": lambda parts: parts["added_tokens"][0].update(single_word=True),
    "byte 0 is not in its vocabulary": without_a_byte,
}


@pytest.mark.parametrize("part", REFUSED)
def test_parts_of_a_tokenizer_that_are_not_known_are_refused(part: str) -> None:
    with pytest.raises(UsageError, match=part) as caught:
        _tables.header(lacking(REFUSED[part]))
    assert "web app" in caught.value.hint


def test_a_unigram_tokenizer_is_refused(tmp_path: Path) -> None:
    tiny.unigram_tokenizer(tmp_path)
    with pytest.raises(UsageError, match="Unigram after Metaspace is not known"):
        _tables.header(Codec.from_folder(tmp_path))
