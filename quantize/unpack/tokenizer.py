"""The tokenizer inside a GGUF file as a Hugging Face folder has it: what our files are written with, the other way."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...models import files
from ...models.errors import ArtifactError, UsageError
from ...runtime.files import gguf_header
from ...runtime.files.gguf_header import Header
from ..gguf.tokenizer.splitters import DIGIT, GPT2, SPLITTERS, named
from ..gguf.tokenizer.write import CONTROL, ENDING_KEYS, NORMAL, PHI3_KEEPS, UNKNOWN, UNUSED, USER_DEFINED
from ..source.tokenizer_rules import BLANK

HINT = "take the model's Hugging Face folder, which has its own tokenizer.json"
MODELS = ("gpt2", "llama")
"""llama.cpp's names of byte-level and of SentencePiece-style BPE."""


class Vocabulary:
    """What stands below `tokenizer.` in a file."""

    def __init__(self, path: Path, header: Header) -> None:
        """Read the lists. Raises UsageError for a kind of tokenizer or splitting rules that are not known here, by
        name; ArtifactError for tokens that stand twice and ids outside of the vocabulary."""
        self.path, self._values = path, header.values
        self.model, self.pre = self._said("model", ""), self._said("pre", "")
        if self.model not in MODELS:
            raise UsageError(f"{path}: a tokenizer of the kind {self.model!r}; {' and '.join(MODELS)} are read", HINT)
        splitter = named(self.pre)
        if self.model == "gpt2" and splitter is None:
            raise UsageError(f"{path}: its text is split by the rules {self.pre!r}, which are not known here",
                             f"known: {', '.join(sorted(known.name for known in SPLITTERS))}")
        self.splitter = splitter or SPLITTERS[0]
        self.tokens, types, self.scores, self.merges = (
            gguf_header.items(path, header, f"tokenizer.ggml.{name}")
            for name in ("tokens", "token_type", "scores", "merges"))
        if len(set(self.tokens)) < len(self.tokens):
            raise ArtifactError(f"{path}: the token {Counter(self.tokens).most_common(1)[0][0]!r} stands at two ids",
                                "the file is damaged: get it again")
        self.types = types or [NORMAL] * len(self.tokens)
        self.trims = any(mark in str(header.values.get("general.name", "")).lower() for mark in ("phi-3", "phi3"))
        self.ids = {name: self._id(name) for name in ("bos", "eos", "padding", "unknown", *ENDING_KEYS)}

    def _said(self, name: str, default: Any) -> Any:
        return self._values.get(f"tokenizer.ggml.{name}", default)

    def _id(self, name: str) -> int | None:
        found = self._said(f"{name}_token_id", None)
        if found is not None and not (isinstance(found, int) and 0 <= found < len(self.tokens)):
            raise ArtifactError(f"{self.path}: tokenizer.ggml.{name}_token_id is {found!r}, the vocabulary has "
                                f"{len(self.tokens)} tokens", "the file is damaged: get it again")
        return found

    @property
    def ends(self) -> dict[str, Any]:
        """The special ids as config.json and generation_config.json name them."""
        ends = [found for name in ("eos", *ENDING_KEYS) if (found := self.ids[name]) is not None]
        ends = list(dict.fromkeys(ends))
        return {"bos_token_id": self.ids["bos"], "pad_token_id": self.ids["padding"],
                "eos_token_id": ends if len(ends) > 1 else ends[0] if ends else None}

    def write(self, folder: Path, longest: int) -> None:
        """Write tokenizer.json, tokenizer_config.json and the chat templates; `longest` is the model's context."""
        files.write_text(folder / "tokenizer.json", json.dumps(self.table(), ensure_ascii=False, indent=1) + "\n")
        texts = {f"{name}_token": self.tokens[index] for name, key in (("bos", "bos"), ("eos", "eos"),
                                                                       ("pad", "padding"), ("unk", "unknown"))
                 if (index := self.ids[key]) is not None}
        files.write_json(folder / "tokenizer_config.json", {
            "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": longest,
            "clean_up_tokenization_spaces": False, **texts})
        start = "tokenizer.chat_template"
        for key, template in self._values.items():
            if key == start:
                files.write_text(folder / "chat_template.jinja", template)
            elif re.fullmatch(re.escape(start) + r"\.[\w-]+", key):
                name = key.removeprefix(start)[1:]
                files.write_text(folder / "additional_chat_templates" / f"{name}.jinja", template)

    def table(self) -> dict[str, Any]:
        """The content of tokenizer.json.

        Unused rows, which only fill the embedding up, are no tokens. Unicode's normal form (NFC), which some tokenizers
        bring a text to first, is nothing that a file says: texts are read as llama.cpp reads them.
        """
        vocabulary = {text: index for index, (text, kind) in enumerate(zip(self.tokens, self.types, strict=True))
                      if kind != UNUSED}
        added = [{"id": index, "content": text, "single_word": False, "lstrip": False,
                  "rstrip": self.trims and text not in PHI3_KEEPS, "normalized": False, "special": kind != USER_DEFINED}
                 for index, (text, kind) in enumerate(zip(self.tokens, self.types, strict=True))
                 if kind in (CONTROL, UNKNOWN, USER_DEFINED)]
        rules = self._byte_level() if self.model == "gpt2" else self._sentencepiece(vocabulary)
        model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                 "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                 "vocab": vocabulary, **rules.pop("model")}
        return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
                "pre_tokenizer": None, "post_processor": self._frame(), **rules, "model": model}

    def _byte_level(self) -> dict[str, Any]:
        steps = list(self.splitter.steps)
        last = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": steps[-1] == GPT2}
        splits = [{"type": "Digits", "individual_digits": True} if step == DIGIT else
                  {"type": "Split", "pattern": {"Regex": step}, "behavior": "Isolated", "invert": False}
                  for step in (steps[:-1] if steps[-1] == GPT2 else steps)]
        return {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [*splits, last]},
                "decoder": last | {"add_prefix_space": True, "use_regex": True},
                "model": {"ignore_merges": self.splitter.ignores_merges, "merges": self.merges}}

    def _sentencepiece(self, vocabulary: Mapping[str, int]) -> dict[str, Any]:
        """llama.cpp merges by a score for each token: every split of a token into two is a merge of its rank."""
        if not self.scores:
            raise ArtifactError(f"{self.path}: no tokenizer.ggml.scores in it, which say what is merged first", HINT)
        prefix = self._said("add_space_prefix", True)
        words = [index for index, kind in enumerate(self.types) if kind in (NORMAL, USER_DEFINED)]
        merges = [[text[:cut], text[cut:]]
                  for index in sorted(words, key=lambda index: -self.scores[index])
                  for text in (self.tokens[index],) for cut in range(1, len(text))
                  if text[:cut] in vocabulary and text[cut:] in vocabulary]
        unknown = next((text for text, kind in zip(self.tokens, self.types, strict=True) if kind == UNKNOWN), None)
        blank = {"type": "Replace", "pattern": {"String": " "}, "content": BLANK}
        back = [{"type": "Replace", "pattern": {"String": BLANK}, "content": " "}, {"type": "ByteFallback"},
                {"type": "Fuse"}]
        before = [{"type": "Prepend", "prepend": BLANK}] if prefix else []
        first = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
        return {"normalizer": {"type": "Sequence", "normalizers": [*before, blank]},
                "decoder": {"type": "Sequence", "decoders": [*back, *first]},
                "model": {"unk_token": unknown, "fuse_unk": True, "byte_fallback": True, "merges": merges}}

    def _frame(self) -> dict[str, Any] | None:
        """What is put around a text. Where a file does not say, llama.cpp goes by its kind of tokenizer."""
        before = self._said("add_bos_token", self.model == "llama" or self.splitter.ignores_merges)
        behind = self._said("add_eos_token", False)
        names = [("bos" if before else ""), ("eos" if behind else "")]
        if not any(names):
            return None
        around = {name: self.ids[name] for name in names if name}
        if None in around.values():
            missing = next(name for name, index in around.items() if index is None)
            raise ArtifactError(f"{self.path}: a token goes around texts, and no tokenizer.ggml.{missing}_token_id "
                                "says which", "the file is damaged: get it again")
        texts = {name: self.tokens[index or 0] for name, index in around.items()}

        def framed(*sequences: str) -> list[dict[str, Any]]:
            parts: list[dict[str, Any]] = []
            for kind, sequence in enumerate(sequences):
                parts += [{"SpecialToken": {"id": texts["bos"], "type_id": kind}}] if "bos" in texts else []
                parts += [{"Sequence": {"id": sequence, "type_id": kind}}]
                parts += [{"SpecialToken": {"id": texts["eos"], "type_id": kind}}] if "eos" in texts else []
            return parts
        return {"type": "TemplateProcessing", "single": framed("A"), "pair": framed("A", "B"),
                "special_tokens": {texts[name]: {"id": texts[name], "ids": [index], "tokens": [texts[name]]}
                                   for name, index in around.items()}}
