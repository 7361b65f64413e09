"""Messages to token ids and back: the one place for training, calibration, evaluation and generation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...models.errors import ArtifactError, ContextError, DataError, UsageError
from ..files.model_files import read_table
from . import tokenizer_files, unembedded
from .chat_template import NO_OPTIONS, THINKING, ChatTemplate, continued
from .thinking import thinking_marks
from .token_stream import TextStream
from .tokenizer import Encoding, Tokenizer, boundary, bytes_of_tokens
from .tool_calls import CALL, ToolFormat

if TYPE_CHECKING:
    from ...models.task import Task

_MARK = "edgestill-words"
_PLAUSIBLE = 16
"""Characters a token below which a text is tokenized without looking for the longest token, which takes a while."""


class Codec:
    """A model's tokenizer and chat template."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate | None = None, bos_id: int | None = None,
                 eos_id: int | None = None, pad_id: int | None = None, end_ids: frozenset[int] = frozenset(),
                 system: str = "", options: Mapping[str, Any] = NO_OPTIONS,
                 own_bytes: Callable[[int], bytes] | None = None) -> None:
        """`end_ids` are the stop ids of the generation config; `system` goes before every chat without one; `options`
        are variables of the template, and UsageError names one that it does not read; `own_bytes` says a token's bytes
        where `tokenizer` is none of the package `tokenizers`."""
        self.tokenizer = tokenizer
        self.vocabulary_size: int = tokenizer.get_vocab_size(with_added_tokens=True)
        self.bos_id, self.eos_id, self.pad_id = bos_id, eos_id, pad_id
        self.system = system
        self.options = dict(options)
        self._template = template
        self._check_options(options, "task.template_options")
        self._end_ids = end_ids
        self._lengths: dict[int, int] = {}
        self._own_bytes = own_bytes
        self._bytes: dict[int, bytes] = {}
        self.written: dict[object, bool] = {}
        """What was found out about which parts of conversations the template writes (see reached)."""

    @classmethod
    def from_folder(cls, folder: Path, task: Task | None = None, apart: bool = False) -> Codec:
        """Read tokenizer.json and, where they are, tokenizer_config.json, chat_template.jinja and
        generation_config.json of a Hugging Face folder or an artifact. `apart` renders the template in a process of
        its own.

        Raises ArtifactError when there is no tokenizer.json or a file cannot be read.
        """
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ArtifactError(f"{folder}: no tokenizer.json in it",
                                "save the tokenizer as tokenizer.json, with save_pretrained of a fast tokenizer")
        with boundary(f"{path}: cannot be read as a tokenizer"):
            tokenizer, left_out = unembedded.load(folder)
            tokenizer.no_truncation()
            tokenizer.no_padding()
        settings = tokenizer_files.settings(folder)
        generation = read_table(folder / "generation_config.json") or read_table(folder / "config.json")
        variables = tokenizer_files.special_tokens(settings)
        ids = {name: tokenizer.token_to_id(text) for name, text in variables.items()}
        for name in ("bos", "eos", "pad"):
            given = tokenizer_files.listed(generation.get(f"{name}_token_id"))
            if ids.get(f"{name}_token") is None and given:
                ids[f"{name}_token"] = given[0]
        sources = tokenizer_files.templates(folder, settings)
        codec = cls(tokenizer, ChatTemplate(sources, variables, apart) if sources else None,
                    ids.get("bos_token"), ids.get("eos_token"), ids.get("pad_token"),
                    frozenset(tokenizer_files.listed(generation.get("eos_token_id"))), task.system if task else "",
                    task.template_options if task else NO_OPTIONS)
        if left_out:
            unembedded.check_unused(folder, codec.render if sources else None, left_out, variables)
        return codec

    def changed(self, options: Mapping[str, Any], template: str = "") -> Codec:
        """The same tokenizer with other options, and with another template where one is given."""
        variables, apart = (self._template.variables, self._template.apart) if self._template else ({}, False)
        found = ChatTemplate({"default": template}, variables, apart) if template else self._template
        return Codec(self.tokenizer, found, self.bos_id, self.eos_id, self.pad_id, self._end_ids, self.system, options)

    @property
    def whole_tokenizer(self) -> Any:
        """The `tokenizers.Tokenizer`, for whoever reads its parts. UsageError for one inside a GGUF file."""
        import tokenizers
        if not isinstance(self.tokenizer, tokenizers.Tokenizer):
            raise UsageError("the tokenizer stands in a GGUF file, which does not say what it is made of",
                             "give the model's folder, with its tokenizer.json")
        return self.tokenizer

    @property
    def template(self) -> str | None:
        """The chat template's text, or None for a model without one."""
        return self._template.source() if self._template else None

    @property
    def templates(self) -> list[object]:
        """All that renderings depend on besides messages and options: every template, and the special tokens."""
        return [] if self._template is None else [self._template.sources, self._template.variables]

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Every id that ends an answer: of the generation config, the tokenizer's end of sequence, and the tokens
        that the chat template puts after an assistant's words and after its calls."""
        following = self.encode(self._closing)[:1]
        added = self.tokenizer.get_added_tokens_decoder()
        ends = {self.eos_id, *(token for token in following if token in added and token != self.bos_id)}
        return self._end_ids | {token for token in ends if token is not None}

    @cached_property
    def turn_end(self) -> str:
        """The text that ends an assistant's turn where the chat template writes no added token there: a stop string.
        Mostly empty."""
        texts = (token.content for token in self.tokenizer.get_added_tokens_decoder().values())
        found = (index for index in map(self._closing.find, texts) if index >= 0)
        return self._closing[:min(found, default=len(self._closing))].rstrip()

    @property
    def adds_bos(self) -> bool:
        """Whether the tokenizer itself puts the begin-of-sequence token before a plain text."""
        return self.bos_id is not None and self.encode("a", add_special_tokens=True)[:1] == [self.bos_id]

    def render(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = (),
               add_generation_prompt: bool = True, options: Mapping[str, Any] = NO_OPTIONS) -> str:
        """The conversation as text, `system` first where the messages have none; `options` go over the codec's own.

        Without a chat template the contents are joined by line ends. Raises DataError for messages that the
        template refuses, and for tools or earlier answers where there is no template that says how they are written.
        """
        if self.system and not any(message.get("role") in ("system", "developer") for message in messages):
            messages = [{"role": "system", "content": self.system}, *messages]
        if self._template is None:
            if not messages:
                raise DataError("a prompt needs at least one message, and there is none", "add a user message")
            if tools or any(message.get("role") not in ("system", "developer", "user") for message in messages):
                raise DataError(f"the model has no chat template, which {'tools' if tools else 'several turns'} need",
                                "take a model with a chat template, or give one prompt and one completion a row")
            return "\n".join(str(message.get("content") or "") for message in messages)
        return self._template.render(messages, tools, add_generation_prompt, {**self.options, **options})

    def prompt(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = (),
               options: Mapping[str, Any] = NO_OPTIONS, direct: bool = False) -> str:
        """The text before an answer: the conversation with the opening of the assistant's turn and, where thinking is
        switched off, all that the template writes before an answer without reasoning; `direct` switches it off where
        no option does. Errors as in `render`, and UsageError for an option that the template does not read."""
        self._check_options(options, "template_options")
        text = self.render(messages, tools, True, options)
        if self._template is not None and not {**self.options, **options}.get(THINKING, not direct):
            text += self.opening(messages, tools, text, options)
        return text

    def opening(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], prompt: str,
                options: Mapping[str, Any] = NO_OPTIONS) -> str:
        """What the template writes between `prompt` and the words of an answer without reasoning.

        Blanks alone are no opening: they are part of the answer's first token in many vocabularies.
        """
        words = self._behind(messages, {"content": _MARK}, tools, prompt, options)
        before, found, _ = words.partition(_MARK)
        if not found or not before.strip():
            return ""
        calls = self._behind(messages, {"content": "", "tool_calls": [CALL]}, tools, prompt, options) if tools else ""
        return before.rstrip(" ") if not calls or calls.startswith(before.rstrip(" ")) else ""

    def reads(self, name: str) -> bool:
        """Whether the chat template speaks of `name`: of a role, a key of messages, a variable."""
        return self._template is not None and self._template.reads(name)

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        """The ids of a text; special tokens written out in it count as special tokens.

        Raises DataError for a text that is no valid Unicode (lone surrogates).
        """
        return self.encoding(text, add_special_tokens).ids

    def encoding(self, text: str, add_special_tokens: bool = True, pair: str | None = None) -> Encoding:
        """The tokenizer's full answer: ids, offsets and what a set truncation left out; with `pair`, of both texts as
        the model reads two. Errors as in `encode`."""
        try:
            (text + (pair or "")).encode("utf-8")
        except UnicodeEncodeError as error:
            raise DataError(f"text with a lone surrogate at character {error.start}: it is no valid Unicode",
                            "clean the text before it is encoded") from error
        with boundary("the tokenizer failed on a text"):
            return self.tokenizer.encode(text, pair, add_special_tokens=add_special_tokens)

    def check_length(self, characters: int, tokens: int) -> None:
        """ContextError for texts that are too long for `tokens` even if every token were the longest there is: to count
        the tokens of a megabyte takes seconds and much memory."""
        if characters > _PLAUSIBLE * tokens and characters > self._longest_token * tokens:
            raise ContextError(f"the prompt has {characters} characters, the context holds {tokens} tokens of at most "
                               f"{self._longest_token}", "shorten the prompt, or load the model with a larger context",
                               tokens)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of ids; bytes that are no valid UTF-8 come out as U+FFFD."""
        with boundary("the tokenizer failed on token ids"):
            return self.tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)

    def bytes_of(self, token: int) -> bytes:
        """A token's own bytes inside a text: characters or a part of one, a leading blank; of a special token its
        mark."""
        if token not in self._bytes:
            with boundary("the tokenizer failed on a token id"):
                if self._own_bytes is None:
                    self._own_bytes = bytes_of_tokens(self.tokenizer)
                self._bytes[token] = self._own_bytes(token)
        return self._bytes[token]

    @cached_property
    def marks(self) -> dict[int, str]:
        """The special tokens, which the text of an answer leaves out, as they are written."""
        return {id: one.content for id, one in self.tokenizer.get_added_tokens_decoder().items() if one.special}

    def stream(self) -> TextStream:
        """A decoder for ids that come one at a time."""
        return TextStream(self.decode, self._lengths)

    def prompt_ids(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = (),
                   options: Mapping[str, Any] = NO_OPTIONS, direct: bool = False) -> list[int]:
        """The ids a model is given before it answers: those of `prompt`, of plain text where there is no template."""
        text = self.prompt(messages, tools, options, direct)
        return self.plain_ids(text) if self._template is None else self.encode(text)

    def plain_ids(self, text: str) -> list[int]:
        """A plain text's ids, with the begin-of-sequence token where the tokenizer adds it, open at the end."""
        ids = self.encode(text, add_special_tokens=True)
        if ids and ids[-1] == self.eos_id and self.encode(text)[-1:] != ids[-1:]:
            ids.pop()
        return ids

    def _behind(self, messages: Sequence[Mapping[str, Any]], answer: Mapping[str, Any],
                tools: Sequence[Mapping[str, Any]], prompt: str, options: Mapping[str, Any]) -> str:
        """What the template writes behind `prompt` for an answer; empty where it writes none there."""
        try:
            whole = continued(prompt, self.render([*messages, {"role": "assistant", **answer}], tools, False, options))
        except DataError:
            return ""
        return "" if whole is None else whole[len(prompt):]

    def _check_options(self, options: Mapping[str, Any], where: str) -> None:
        if options and self._template is None:
            raise UsageError(f"{where}: the model has no chat template, which {', '.join(options)} could change",
                             "leave it out")
        if self._template is not None:
            self._template.check_options(options, where)

    @cached_property
    def tool_format(self) -> ToolFormat:
        """How the template writes tool calls; UsageError where it writes none, or in a form that is not known."""
        return ToolFormat.of(self.render)

    @cached_property
    def thinking_marks(self) -> tuple[str, str]:
        """What stands before and behind the reasoning of an answer."""
        return thinking_marks(self.render)

    @cached_property
    def _longest_token(self) -> int:
        """Characters of the longest token; of byte-level ones, bytes."""
        return max(map(len, self.tokenizer.get_vocab()))

    @cached_property
    def _closing(self) -> str:
        """What the chat template writes after an assistant's turn."""
        if self._template is None:
            return ""
        marker = "edgestill-answer"
        try:
            text = self._template.render([{"role": "user", "content": "question"},
                                          {"role": "assistant", "content": marker}],
                                         add_generation_prompt=False, options=self.options)
        except DataError:
            return ""  # a template for other conversations than chats names no end of a turn
        return text.rpartition(marker)[2].lstrip() if marker in text else ""


