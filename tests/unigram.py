"""Unigram tokenizers in the forms that transformers writes, over one small vocabulary of our own."""

from __future__ import annotations

import json
import math
import unicodedata
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from edgestill.quantize.gguf.tokenizer.charsmap import Charsmap
from edgestill.quantize.source import corpus
from edgestill.quantize.source.tokenizer_rules import BLANK

from . import tiny
from .gguf_vocabulary import CORPUS, Change

Pieces = list[tuple[str, float]]


@cache
def charsmap() -> bytes:
    """NFKC with all blanks as one and controls left out, as SentencePiece's own table has it."""
    from tokenizers import normalizers

    return Charsmap.of(normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC()]).normalize_str, []).packed()


@cache
def _pieces() -> tuple[tuple[str, float], ...]:
    """Common parts of words and all signs but emoji and Cyrillic, scored by how often they occur in the corpus.

    In single precision, as SentencePiece's files have it."""
    counts: Counter[str] = Counter()
    for text in (*corpus.TEXTS, *CORPUS):
        for word in unicodedata.normalize("NFKC", text).split():
            word = BLANK + word
            counts.update(word[start:start + length] for start in range(len(word)) for length in (1, 2, 3, 4, 5))
    known = {piece: count for piece, count in counts.items() if BLANK not in piece[1:] and "\0" not in piece}
    signs = sorted(piece for piece in known if len(piece) == 1 and piece < "\U00010000" and not "Ѐ" <= piece <= "ӿ")
    parts = sorted((piece for piece in known if len(piece) > 1), key=lambda piece: (-known[piece], piece))[:900]
    total = sum(known.values())
    return tuple((piece, float(np.float32(math.log(known[piece] / total)))) for piece in [*signs, *parts])


def _saved(tokenizer: Any, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    return folder


def made(folder: Path, name: str, first: Pieces, last: Pieces = [], **settings: Any) -> Path:  # noqa: B006
    """The tokenizer of transformers' class `name`."""
    import transformers

    return _saved(getattr(transformers, name)(vocab=[*first, *_pieces(), *last], **settings), folder)


def specials(*names: str) -> Pieces:
    return [(name, 0.0) for name in names]


def t5(folder: Path) -> Path:
    return made(folder, "T5Tokenizer", specials("<pad>", "</s>", "<unk>"),
                specials("<extra_id_1>", "<extra_id_0>"), _spm_precompiled_charsmap=charsmap(), extra_ids=2)


def xlm_roberta(folder: Path) -> Path:
    return made(folder, "XLMRobertaTokenizer", specials("<s>", "<pad>", "</s>", "<unk>"), specials("<mask>"),
                _spm_precompiled_charsmap=charsmap())


def camembert(folder: Path) -> Path:
    return made(folder, "CamembertTokenizer", [*specials("<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>"),
                                               ("<unk>NOTUSED", -100.0)], specials("<s>", "</s>", "<mask>"),
                _spm_precompiled_charsmap=charsmap())


def albert(folder: Path) -> Path:
    return made(folder, "AlbertTokenizer", specials("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"),
                _spm_precompiled_charsmap=charsmap())


def pegasus(folder: Path) -> Path:
    return made(folder, "PegasusTokenizer", specials("<pad>", "</s>", "<mask_1>", "<mask_2>", "<unk>"), offset=3,
                _spm_precompiled_charsmap=charsmap())


def big_bird(folder: Path) -> Path:
    return made(folder, "BigBirdTokenizer", specials("<pad>", "</s>", "<s>", "<unk>", "[CLS]", "[SEP]", "[MASK]"))


def deberta(folder: Path) -> Path:
    return made(folder, "DebertaV2Tokenizer", specials("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"),
                do_lower_case=True)


def converted(folder: Path, change: Change = lambda table: None) -> Path:
    """As transformers' converter writes any other SentencePiece model, with a template and an end of turn."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(models.Unigram([*specials("<unk>", "<s>", "</s>"), *_pieces()], 0, False))
    tokenizer.normalizer = normalizers.Sequence([
        normalizers.Precompiled(charsmap()), normalizers.Strip(left=False, right=True),
        normalizers.Replace(Regex(" {2,}"), BLANK)])
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A $B", [("<s>", 1)])
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    table = json.loads(tokenizer.to_str())
    change(table)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(table))
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    return folder


def trained(folder: Path) -> Path:
    """Trained by `tokenizers` with the rules of its own SentencePiece implementation."""
    from tokenizers import SentencePieceUnigramTokenizer

    tokenizer = SentencePieceUnigramTokenizer()
    tokenizer.train_from_iterator([*CORPUS, *tiny.SENTENCES], vocab_size=400, show_progress=False, unk_token="<unk>",
                                  special_tokens=["<s>", "</s>", "<unk>"])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>", "unk_token": "<unk>"}))
    return folder


def metaspace(**settings: Any) -> Change:
    step = {"type": "Metaspace", "replacement": BLANK, "prepend_scheme": "always", "split": True} | settings
    return lambda table: table.update(pre_tokenizer=step)


def every_blank(table: dict[str, Any]) -> None:
    """As transformers converts a model whose class it does not know: nothing before a text, no blank is dropped."""
    table["normalizer"]["normalizers"][1:] = [{"type": "Replace", "pattern": {"String": " "}, "content": BLANK}]
    table["pre_tokenizer"] = None
    table["decoder"] = {"type": "Replace", "pattern": {"String": BLANK}, "content": " "}


def with_bytes(table: dict[str, Any]) -> None:
    table["model"]["vocab"] += [[f"<0x{value:02X}>", -20.0] for value in range(256)]
    table["model"]["byte_fallback"] = True
    table["decoder"] = {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": BLANK}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}


FORMS: dict[str, Callable[[Path], Path]] = {
    "T5": t5, "XLM-RoBERTa": xlm_roberta, "CamemBERT": camembert, "ALBERT": albert, "Pegasus": pegasus,
    "DeBERTa": deberta, "converted": converted, "trained": trained,
    "first": lambda folder: converted(folder, metaspace(prepend_scheme="first")),
    "never": lambda folder: converted(folder, metaspace(prepend_scheme="never")),
    "every blank": lambda folder: converted(folder, every_blank),
    "bytes": lambda folder: converted(folder, with_bytes),
}
