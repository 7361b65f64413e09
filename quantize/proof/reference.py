"""What the float model says, kept beside the packed file so that agreement can be proved again without torch.

`reference.npz` holds token ids, and per token the float model's 64 largest log-probabilities as float16 and the mass of
all others as float32. `fixtures.json` holds the texts, the rendered chats' hashes and the stop ids. The KL from
64 log-probabilities and a tail is a lower bound of the full KL, which only the export can measure.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...models import files, progress
from ...models.errors import ArtifactError, UsageError
from ...models.strict import build
from ..source import context_limits
from ..source.float_model import FloatModel
from .divergence import by_chunks, log_softmax
from .limits import tokens_of

ARRAYS = "reference.npz"
FIXTURES = "fixtures.json"
TOP = 64
SEQUENCE_TOKENS = 512
UNFOLDED = 2**28
"""Most bytes of all arrays together: those of 10,000 tokens take some four million, an encoder's vectors ten."""
PARTS = ("text_ids", "special_ids", "sequences", "top_ids", "top_logprobs", "tails")
LATER = ("type_ids", "beyond_ids", "beyond_top_ids", "beyond_top_logprobs", "beyond_tails")
"""A part that older artifacts lack."""


@dataclass(frozen=True)
class Rendering:
    """One conversation and the SHA-256 of what the float model's template makes of it; empty: it refuses it."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] = field(default_factory=list)
    add_generation_prompt: bool = True
    sha256: str = ""


@dataclass(frozen=True)
class Fixtures:
    """The part of the reference that is text."""

    texts: list[str]
    decoded: dict[str, str]
    """Index of a text → what the tokenizer gives back for its ids, where that is not the text itself."""
    renderings: list[Rendering]
    clock: bool
    """The template writes today's date, so renderings can be compared on the day of the export only."""
    stop_ids: list[int]
    scores: dict[str, float]
    """Digest of a test row → the float model's score on it, 0 to 1."""
    metric: str = ""
    borders: dict[str, int] = field(default_factory=dict)
    """A decoder's token numbers, by what they are, behind which it reads otherwise: see `beyond`."""


@dataclass(frozen=True)
class Reference:
    """Everything the checks compare a packed file with. Sequences are prompts with answers, or an encoder's inputs."""

    fixtures: Fixtures
    text_ids: list[NDArray[np.int32]]
    """Ids of each text without added special tokens."""
    special_ids: list[NDArray[np.int32]]
    """Ids of each text with the special tokens that the tokenizer adds by itself."""
    sequences: list[NDArray[np.int32]]
    top_ids: list[NDArray[np.integer[Any]]]
    """Per sequence [tokens, K]; empty for an encoder."""
    top_logprobs: list[NDArray[np.float16]]
    """Per sequence [tokens, K], descending; empty for an encoder."""
    tails: list[NDArray[np.float32]]
    """Per sequence [tokens]: the probability of all tokens outside the K."""
    outputs: NDArray[np.float32]
    """[sequences, labels] of a classifier, [sequences, dimensions] of an embedder; [0, 0] for a decoder."""
    type_ids: list[NDArray[np.int8]] = field(default_factory=list)
    """Per sequence, which of a pair's texts each token belongs to; empty where there are no pairs."""
    beyond_ids: list[NDArray[np.int32]] = field(default_factory=list)
    """One text that is longer than the model's window or original context, where it has one."""
    beyond_top_ids: list[NDArray[np.integer[Any]]] = field(default_factory=list)
    """Of its last tokens [beyond.POSITIONS, K], as are the next two."""
    beyond_top_logprobs: list[NDArray[np.float16]] = field(default_factory=list)
    beyond_tails: list[NDArray[np.float32]] = field(default_factory=list)

    def types(self) -> list[NDArray[np.int8]]:
        """`type_ids`, all zero where none are kept."""
        return self.type_ids or [np.zeros(len(ids), np.int8) for ids in self.sequences]

    @property
    def tokens(self) -> int:
        """Tokens of all sequences."""
        return sum(map(len, self.sequences))

    def decoded(self, index: int) -> str:
        """What the float model's tokenizer gives back for the ids of text `index`."""
        return self.fixtures.decoded.get(str(index), self.fixtures.texts[index])

    def write(self, folder: Path) -> None:
        """Write reference.npz and fixtures.json; the same content gives the same bytes."""
        arrays: dict[str, NDArray[Any]] = {"outputs": self.outputs}
        for name in (*PARTS, *LATER):
            parts = getattr(self, name)
            arrays[name] = np.concatenate(parts) if parts else np.zeros(0, np.int32)
            arrays[f"{name}_lengths"] = np.array([len(part) for part in parts], np.int32)
        np.savez_compressed(folder / ARRAYS, allow_pickle=False, **arrays)
        # Keys in their own order: templates write tools and arguments in it.
        text = json.dumps(asdict(self.fixtures), indent=2, ensure_ascii=False, allow_nan=False)
        files.write_text(folder / FIXTURES, text + "\n")


def read(folder: Path) -> Reference:
    """Read what `Reference.write` wrote; ArtifactError when a file is missing or damaged."""
    try:
        fixtures = build(Fixtures, json.loads((folder / FIXTURES).read_text(encoding="utf-8")), FIXTURES)
        arrays = _arrays(folder / ARRAYS)
        parts = {name: _split(arrays[name], arrays[f"{name}_lengths"]) for name in (*PARTS, *LATER)
                 if name not in LATER or name in arrays}
        return Reference(fixtures=fixtures, outputs=arrays["outputs"], **parts)
    # An archive can be damaged in as many ways as it has parts: packed, locked, cut short, of sizes that are none.
    except (OSError, ValueError, KeyError, TypeError, EOFError, MemoryError, RuntimeError, UsageError,
            zipfile.BadZipFile, zlib.error) as error:
        raise ArtifactError(f"{folder}: its reference cannot be read: {error}",
                            "copy the artifact again, or export it again") from error


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a file that anyone may have packed: a small archive can unfold to more than there is memory."""
    with zipfile.ZipFile(path) as archive:
        unfolded = sum(part.file_size for part in archive.infolist())
    if unfolded > UNFOLDED:
        raise ValueError(f"{ARRAYS} unfolds to {unfolded:,} bytes, the limit is {UNFOLDED:,}")
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def make(model: FloatModel, texts: Sequence[str], sequences: Iterable[tuple[Sequence[int], Sequence[int]]],
         output: Callable[[list[int], list[int]], NDArray[np.float32]] | None, scores: dict[str, float],
         metric: str) -> Reference:
    """Ask the float model and its own tokenizer.

    `sequences`, ids each with the types of their tokens where there are pairs of texts, are cut to SEQUENCE_TOKENS and
    taken until `tokens_of`; `output` is the one vector that an encoder gives for one, None for a decoder; `scores` are
    the float model's on the test rows.
    """
    tokenizer = model.tokenizer
    text_ids, special_ids = (tokenizer(list(texts), add_special_tokens=around).input_ids for around in (False, True))
    decoded = {str(index): back for index, ids in enumerate(text_ids)
               if (back := tokenizer.decode(ids, clean_up_tokenization_spaces=False)) != texts[index]}
    taken: list[NDArray[np.int32]] = []
    top_ids: list[NDArray[np.integer[Any]]] = []
    top_logprobs: list[NDArray[np.float16]] = []
    tails: list[NDArray[np.float32]] = []
    outputs: list[NDArray[np.float32]] = []
    kinds: list[NDArray[np.int8]] = []
    count, most = 0, tokens_of(model.parameters)
    for sequence, types in sequences:
        ids = np.array(sequence[: min(SEQUENCE_TOKENS, model.context_length)], np.int32)
        if not len(ids) or count >= most:
            continue
        progress.at("read rows with the float model", count, text=f"{count:,} tokens")
        count += len(ids)
        taken.append(ids)
        if output is not None:
            kinds.append(np.array([*types[:len(ids)]] or [0] * len(ids), np.int8))
            outputs.append(output(ids.tolist(), kinds[-1].tolist()))
            continue
        best, logprobs, tail = top(model.logits(ids.tolist()))
        top_ids.append(best)
        top_logprobs.append(logprobs)
        tails.append(tail)
    clock = "strftime_now" in str(tokenizer.chat_template or "")
    borders = context_limits.borders(model.module.config.to_dict()) if output is None else {}
    return Reference(
        Fixtures(list(texts), decoded, renderings(tokenizer), clock, sorted(stop_ids(model)), scores, metric, borders),
        [np.array(ids, np.int32) for ids in text_ids], [np.array(ids, np.int32) for ids in special_ids], taken,
        top_ids, top_logprobs, tails,
        np.stack(outputs) if outputs else np.zeros((0, 0), np.float32),
        kinds if any(part.any() for part in kinds) else [], *_beyond(model, borders, taken))


def _beyond(model: FloatModel, borders: Mapping[str, int], taken: Sequence[NDArray[np.int32]]) -> tuple[list[Any], ...]:
    """One text beyond the borders, made of those `taken`, and what the model says of its end; empty without one."""
    tokens, _ = context_limits.plan(borders, model.context_length, max(map(len, taken), default=0))
    if not tokens or not taken:
        return [], [], [], []
    ids = np.resize(np.concatenate(taken), tokens).astype(np.int32)
    return [ids], *([part] for part in top(model.last_logits(ids.tolist(), context_limits.POSITIONS)))


def top(logits: NDArray[np.float32]) -> tuple[NDArray[np.integer[Any]], NDArray[np.float16], NDArray[np.float32]]:
    """The TOP largest log-probabilities of each row, descending: ids [n, K], values [n, K], mass of the others [n]."""
    found = by_chunks(lambda part: _top(logits[part]), len(logits))
    ids, logprobs, tails = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return ids, logprobs, tails


def _top(logits: NDArray[np.float32]) -> tuple[NDArray[np.integer[Any]], NDArray[np.float16], NDArray[np.float32]]:
    size = min(TOP, logits.shape[1])
    everything = log_softmax(logits)
    ids = np.sort(np.argpartition(-logits, size - 1, axis=1)[:, :size], axis=1)
    # Ids are sorted first and the order is stable: of equals, the lower id comes first, as argmax has it.
    order = np.argsort(-np.take_along_axis(everything, ids, axis=1), axis=1, kind="stable")
    ids = np.take_along_axis(ids, order, axis=1)
    logprobs = np.take_along_axis(everything, ids, axis=1)
    np.put_along_axis(everything, ids, -np.inf, axis=1)
    narrow = np.uint16 if logits.shape[1] <= 2**16 else np.int32
    return ids.astype(narrow), logprobs.astype(np.float16), np.exp(everything).sum(axis=1).astype(np.float32)


def renderings(tokenizer: Any) -> list[Rendering]:
    """Conversations and the hash of what a transformers tokenizer renders for them; none without a chat template."""
    found = []
    for chat in CHATS if tokenizer.chat_template else ():
        text = _render(tokenizer, chat)
        found.append(replace(chat, sha256="" if text is None else text_hash(text)))
    return found


def _render(tokenizer: Any, chat: Rendering) -> str | None:
    """What transformers renders; None where the template refuses the conversation."""
    from jinja2 import TemplateError

    try:
        text: str = tokenizer.apply_chat_template(chat.messages, tools=chat.tools or None, tokenize=False,
                                                  add_generation_prompt=chat.add_generation_prompt)
    except (TemplateError, TypeError):  # the first is raised on purpose, the second by content that is not expected
        return None
    return text


def stop_ids(model: FloatModel) -> set[int]:
    """Every id that can end a turn: of the generation config, the config, the tokenizer, and the special token that
    the chat template puts behind an assistant's answer."""
    tokenizer = model.tokenizer
    found = set(model.end_ids) | ({int(tokenizer.eos_token_id)} if tokenizer.eos_token_id is not None else set())
    if tokenizer.chat_template:
        marker = "an-answer-to-find"
        text = _render(tokenizer, Rendering([_user("question"), _assistant(marker)], add_generation_prompt=False))
        behind = tokenizer.encode((text or "").rpartition(marker)[2].lstrip(), add_special_tokens=False)[:1]
        added = set(tokenizer.added_tokens_decoder) - {tokenizer.bos_token_id}
        found |= {token for token in behind if token in added}
    return found


def _split(joined: NDArray[Any], lengths: NDArray[np.int32]) -> list[NDArray[Any]]:
    return np.split(joined, np.cumsum(lengths)[:-1]) if len(lengths) else []


def text_hash(text: str) -> str:
    """SHA-256 of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def _assistant(content: str) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def _system(content: str) -> dict[str, Any]:
    return {"role": "system", "content": content}


_TOOL: dict[str, Any] = {"type": "function", "function": {
    "name": "turn_on", "description": "Turns a device on.", "parameters": {
        "type": "object", "required": ["device"],
        "properties": {"device": {"type": "string"}, "minutes": {"type": "integer"}}}}}
CHATS = (
    Rendering([_user("Hello!")]),
    Rendering([_user("Hello!")], add_generation_prompt=False),
    Rendering([_system("You are brief."), _user("turn off the light")]),
    Rendering([_user("one"), _assistant("two"), _user("three")]),
    Rendering([_system("s"), _user("one"), _assistant("two")], add_generation_prompt=False),
    Rendering([_user("  blanks  \n\n and lines\n")]),
    Rendering([_user("Grüße 你好 🙂 <|user|> {{ braces }} <b>&amp;</b> \"quotes\" 'single'")]),
    Rendering([_user("")]),
    Rendering([_user("on"), _assistant('{"action": "turn_on"}'), _user("off"), _assistant("")],
              add_generation_prompt=False),
    Rendering([_user("turn the heater on")], tools=[_TOOL]),
    Rendering([_system("Use tools."), _user("turn the heater on")], tools=[_TOOL], add_generation_prompt=False),
)
"""Kept inside one module with what renders them: a conversation is worth nothing without its hash."""
