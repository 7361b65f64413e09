"""Other people's programs held to our greedy tokens: one check a client, of those that quantize/proof/clients knows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from ...models import kinds
from ...models.errors import DataError
from ...models.kv_cache import AUTO
from ...runtime.data.reader import Row
from ..layouts import CACHE_LENGTH
from .certificate import Check
from .clients import Chat
from .packed_file import Subject

PACKAGE = "quantize.proof.clients"
ALL = "all"
PROMPTS = 6
TOKENS = 24
"""New tokens a prompt."""
NEAR_TIE = 0.15
"""Of the logits' standard deviation: so far below our first choice a client's may lie, since kernels round differently.
0.104 was seen between two programs on llama.cpp over 30 layers of random weights, the worst case there is."""
MOST_TIES = 0.1
"""Of the tokens."""
NAMED = "client "
"""What the names of these checks begin with."""


def clients(names: Sequence[str], target: str) -> list[ModuleType]:
    """The clients named, or all, that read a target's format. Raises UsageError for an unknown name."""
    chosen = kinds.names(PACKAGE) if ALL in names else names
    modules = [kinds.load(PACKAGE, name) for name in dict.fromkeys(chosen)]
    return [module for module in modules if target.partition(":")[0] == module.FORMAT]


def check_names(names: Sequence[str]) -> None:
    """Raise UsageError for a name that is neither a client nor `all`."""
    for name in names:
        if name != ALL and name not in kinds.names(PACKAGE):
            raise kinds.unknown("client", name, [ALL, *kinds.names(PACKAGE)])


def checks(subject: Subject, names: Sequence[str]) -> Iterator[Check]:
    """One check for each client of `names` that reads the subject's format."""
    manifest = subject.artifact.manifest
    found = clients(names, manifest.scheme)
    if not found:
        return
    why = "" if manifest.task.kind == "generate" else "programs are compared by the text they generate"
    if not why and subject.prompts.template is None:
        why = "the model has no chat template that every program would render"
    chats = [] if why else list(_chats(subject))
    ours = [subject.greedy(subject.prompts.prompt_ids(chat), TOKENS) for chat in chats]
    for client in found:
        version = client.version()
        missing = why or _keeps(client, manifest.kv) or ("" if version else f"not installed: {client.INSTALL}")
        if missing or version is None:
            yield Check(NAMED + client.NAME, None, detail=missing)
        else:
            yield _compare(subject, client, version, chats, ours)


def _keeps(client: ModuleType, kv: str) -> str:
    """Why a client's tokens say nothing of a file with keys and values of the type `kv`; empty where they do."""
    return "" if kv == AUTO or getattr(client, "KV", False) else f"it is not told to keep keys and values in {kv}"


def versions(names: Sequence[str], target: str) -> dict[str, str]:
    """The installed clients of `names` that read the target's format, with their versions."""
    return {client.NAME: version for client in clients(names, target) if (version := client.version())}


def _compare(subject: Subject, client: ModuleType, version: str, chats: Sequence[Chat],
             ours: Sequence[list[int]]) -> Check:
    name = NAMED + client.NAME
    said = client.answers(subject.artifact, chats, TOKENS)
    if len(said.chats) < len(chats):
        why = said.failure or f"{len(said.chats)} answers to {len(chats)} prompts"
        return Check(name, False, "files", detail=f"{version} does not run it: {why}")
    tokens, ties, wrong = 0, 0, []
    for number, (chat, wanted, found) in enumerate(zip(chats, ours, said.chats, strict=True), 1):
        cause, why, near = _differs(subject, chat, wanted, found)
        if cause:
            wrong.append((cause, f"prompt {number}: {why}"))
        ties += near
        tokens += len(found["ids"])
    if not wrong and ties > MOST_TIES * tokens:
        wrong = [("weights", f"{ties} near ties, at most {MOST_TIES:.0%} of the tokens are allowed")]
    detail = f"{version}: {len(chats)} prompts, {ties} near ties" if not wrong else f"{version}: {wrong[0][1]}"
    return Check(name, not wrong, wrong[0][0] if wrong else "weights", float(len(wrong)), 0.0, tokens, detail)


def _differs(subject: Subject, chat: Chat, wanted: list[int], found: dict[str, Any]) -> tuple[str, str, int]:
    """(cause, what differs, near ties) of one answer; no cause where it is ours."""
    text, prompt, stops = subject.prompts.prompt(chat), subject.prompts.prompt_ids(chat), subject.prompts.stop_ids
    if found.get("text", text) != text:
        return "template", "it renders another text", 0
    if found["prompt"] != prompt:
        return "tokenizer", f"it reads {len(found['prompt'])} ids that are not our {len(prompt)}", 0
    end = next((index for index, token in enumerate(found["ids"]) if token in stops), None)
    if end is not None and len(found["ids"]) > end + 1:
        return "stop ids", f"it goes on after the stop id {found['ids'][end]}", 0
    ids = found["ids"][:end]
    if ids == wanted:
        return "", "", 0
    gaps = _gaps(subject, prompt, ids)
    if max(gaps[:len(ids)], default=0.0) >= NEAR_TIE:
        place = next(index for index, gap in enumerate(gaps) if gap >= NEAR_TIE)
        return "weights", f"its token {place + 1} is {ids[place]}, {gaps[place]:.2g} standard deviations below ours", 0
    if len(gaps) > len(ids) and gaps[-1] >= NEAR_TIE:
        return "stop ids", f"it stops after {len(ids)} tokens, where ours goes on", 0
    return "", "", sum(gap > 0 for gap in gaps)


def _gaps(subject: Subject, prompt: list[int], ids: list[int]) -> list[float]:
    """How far each of `ids` lies below our own choice after those before it, in standard deviations of the logits;
    of an answer that is shorter than it could be also its end."""
    logits = np.asarray(subject.engine.logits(prompt + ids))[len(prompt) - 1:]
    chosen = [float(row[token]) for row, token in zip(logits, ids, strict=False)]
    if len(ids) < TOKENS:
        chosen.append(float(logits[len(ids)][sorted(subject.prompts.stop_ids)].max()))
    return [float((row.max() - value) / row.std()) for row, value in zip(logits, chosen, strict=False)]


def _chats(subject: Subject) -> Iterator[list[dict[str, str]]]:
    """Conversations of the user's rows that end with a question, held-out ones first; without any, the built-in ones.

    The task's system prompt stands written out in each. Those that the template refuses are left out.
    """
    rows = [*subject.test_rows, *subject.rows]
    given = [_question(row) for row in rows if row.kind == "chat" and not row.tools]
    own = [chat.messages for chat in subject.reference.fixtures.renderings
           if chat.sha256 and chat.add_generation_prompt and not chat.tools]
    room = min(subject.engine.context_length, CACHE_LENGTH) - TOKENS
    left = PROMPTS
    for messages in given or own:
        system = [] if messages[0]["role"] == "system" else _system(subject)
        chat = [*system, *({"role": str(each["role"]), "content": str(each["content"])} for each in messages)]
        try:
            fits = len(subject.prompts.prompt_ids(chat)) <= room
        except DataError:
            continue
        if fits and left:
            left -= 1
            yield chat


def _system(subject: Subject) -> list[dict[str, str]]:
    text = subject.artifact.manifest.task.system
    return [{"role": "system", "content": text}] if text else []


def _question(row: Row) -> list[dict[str, Any]]:
    """A row's messages without the answer at their end."""
    messages = list(row.messages)
    return messages[:-1] if messages[-1]["role"] == "assistant" else messages
