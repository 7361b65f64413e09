"""A server that speaks OpenAI's chat completions, wherever it runs: http://localhost:8080 or https://host/v1#model.

What it runs on is not known here, so memory, threads and causes are not told. Its key stands in EDGESTILL_TARGET_KEY.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ....models.errors import UsageError
from ....models.task import Task
from ...evaluation import handover
from ...loading.foreign import codec_of, open_model
from .. import limits, timed_requests
from ..enough import enough, tell
from ..http_requests import ask, base_of, model_names
from ..prompts import DEFAULT_NEW_TOKENS, Source, order
from ..views import view
from ..watch import Watch
from ._base import Asked, Say
from ._from_outside import summed_up

if TYPE_CHECKING:
    from ....models.artifact import Artifact
    from ...data.reader import Row

NEEDS_MODEL = False
KEY = "EDGESTILL_TARGET_KEY"
"""The environment variable with its key, which is written nowhere."""
_BLIND = "what its machine did meanwhile is not known here; --target ssh://… measures there"


def check(place: str) -> None:
    """UsageError for no address, and for plain http to another machine."""
    base_of(place.partition("#")[0])


def profile(place: str, asked: Asked, say: Say) -> dict[str, Any]:
    """Ask it one request after the other, and sum up what came when.

    A model that lies here says what its task is and how prompts of an exact length are made. Raises UsageError without
    prompts and such a model, or for a server of several models none of which is named, and RemoteError.
    """
    url, _, model = place.partition("#")
    key = os.environ.get(KEY, "")
    if asked.threads:
        say(f"{place}: --threads is for models that are run, and this server has its own")
    model = model or only_model(place)
    artifact = open_model(asked.model) if asked.model is not None else None
    requests = Requests(asked, artifact, model)
    task = requests.task

    def request(body: timed_requests.Request) -> dict[str, Any]:
        answer = ask(url, body, key)
        found: dict[str, Any] = {"start_ns": answer.start_ns, "connect_ns": answer.connect_ns, "disturbed": [],
                                 "end_ns": answer.end_ns, "prompt_tokens": answer.prompt_tokens or 0,
                                 "cached_tokens": answer.cached_tokens}
        if task.kind != "generate":
            return found
        found |= {"token_ns": list(answer.token_ns), "new_tokens": answer.new_tokens, "finish": answer.finish,
                  "counted": answer.counted}
        if answer.new_tokens > 1 and len(answer.token_ns) not in (answer.new_tokens, answer.new_tokens - 1):
            found["several_a_piece"] = True
        if read := answer.timings.get("prompt_ms"):
            found |= {"prefill_ns": int(read * 1e6), "prompt_tokens": answer.timings["prompt_n"]}
        return found

    first = request(requests.bodies(1)[0])
    count = max(asked.repeats, limits.requests(asked.held_to))
    tell(say, count, asked.seconds, first["end_ns"] / 1e9, asked.held_to if count > asked.repeats else ())

    def measured(count: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        found = timed_requests.serve(request, requests.bodies(count), _Unwatched(), asked.warmup, asked.seconds)
        summed = view(found)
        return found, {"as_met": summed, "clean": summed}  # nothing is known to have disturbed any

    found, views = enough(measured, count, asked.held_to, say)
    machine = {"cpu": "a server that does not tell what it runs on", "target": place, "model": model}
    return summed_up(task, found, views, machine, _verdict(found), asked, requests.name)


class Requests:
    """Bodies of requests, without `stream`."""

    def __init__(self, asked: Asked, artifact: Artifact | None, model: str) -> None:
        """`artifact` is `asked.model`, opened; `model` what the server calls its own."""
        if asked.prompts is None and artifact is None:
            raise UsageError("a server's prompts have to be given", "add --prompts ROWS, or name a model here, whose "
                             "tokenizer makes prompts of an exact length")
        if asked.prompts is not None and not asked.prompts:
            raise UsageError("prompts: there are no rows", "give one or more")
        self._rows: Sequence[Row] | None = asked.prompts
        self.task = task = artifact.manifest.task if artifact is not None else Task()
        self._source = None if artifact is None else Source(
            task, codec_of(artifact, task), None, None, asked.prompt_tokens, None)
        self.name = "prompts" if self._rows is not None else "vocabulary"
        longest = asked.new_tokens or (DEFAULT_NEW_TOKENS if self._rows is None else
                                       task.max_new_tokens if artifact is not None else None)
        schema = asked.options.get("schema")
        self._common: dict[str, Any] = {
            "model": model, "temperature": 0, **({"max_tokens": longest} if longest else {}),
            **({"response_format": handover.response_format(schema)} if schema else {})}
        self._system = [{"role": "system", "content": task.system}] if task.system else []

    def bodies(self, count: int) -> list[dict[str, Any]]:
        """`count` of them, the user's prompts in the order of `prompts.order`."""
        if self._rows is not None:
            made = [self._of_row(row) for row in self._rows]
            return [made[place] for place in order(len(made), count)]
        assert self._source is not None  # one of both is given
        return [self._body([{"role": "user", "content": one["text"]}]) for one in self._source.requests(count)]

    def _of_row(self, row: Row) -> dict[str, Any]:
        messages = handover.sent(row.prompt_messages) or [{"role": "user", "content": row.question}]
        return self._body(messages) | ({"tools": list(row.tools)} if row.tools else {})

    def _body(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        system = [] if messages[0]["role"] == "system" else self._system
        return {**self._common, "messages": [*system, *messages]}


class _Unwatched(Watch):
    """Looks at nothing: this machine is not the one that answers."""

    def __init__(self) -> None:
        self.looks = [{}]

    def look(self, last: bool = False) -> None:
        """Nothing."""


def only_model(place: str) -> str:
    """What the server at an address calls its one model; UsageError where it has several or none."""
    names = model_names(place, os.environ.get(KEY, ""))
    if len(names) != 1:
        raise UsageError(f"--target {place}: the server has {len(names)} models, and none is named",
                         f"write {place}#MODEL, one of: {', '.join(names[:20])}" if names else f"write {place}#MODEL")
    return names[0]


def _verdict(found: Sequence[Mapping[str, Any]]) -> list[str]:
    connecting = statistics.median(request["connect_ns"] for request in found) / 1e6
    verdict = [_BLIND, f"connecting took {connecting:.3g} ms, which is in none of the times"]
    if cached := sum(request["cached_tokens"] for request in found):
        total = max(sum(request["prompt_tokens"] for request in found), cached)
        verdict.append(f"the server had {cached / total:.0%} of the prompts' tokens in its cache and did not read them")
    if several := sum(request.get("several_a_piece", False) for request in found):
        verdict.append(f"{several} of {len(found)} answers came in pieces that are no single tokens: of these the mean "
                       "time between tokens counts")
    return verdict
