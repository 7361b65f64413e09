"""Answers to chats and texts, whole or in pieces: of a station's model, or of the fallback where it is not sure."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import Response

from ...models.errors import EdgestillError
from .client_watch import EventStream, Visit
from .errors import as_json, refusal_of
from .fallback import Fallback
from .measures import Measures
from .requests import Asked, Part
from .responses import Form, Reply, counted, together
from .validation import Refusal
from .work_queue import Station

HEADER = "x-edgestill-answered-by"
"""Who gave an answer: model or fallback."""


class Answers:
    """Makes responses."""

    def __init__(self, measures: Measures, fallback: Fallback | None = None) -> None:
        """`fallback` answers chats where a model is not sure."""
        self._measures, self._fallback = measures, fallback

    async def of(self, request: Request, station: Station, streaming: tuple[bool, bool], wanted: Asked,
                 kind: type[Reply], form: Form) -> Response:
        """The response to a request, written in `form`. `streaming` says whether it is wanted in pieces, and with its
        usage."""
        request.state.names = wanted.names
        reply = kind(station.name, station.model.codec, wanted.draws, wanted.logprobs)
        visit = Visit(request, station, wanted.work)
        parts = visit.items()
        if self._fallback is not None and wanted.handed is not None:
            whole = [part async for part in parts]
            if visit.left:
                return self._gone(visit)
            kept = self._fallback.is_sure(station, whole)
            self._measures.add("answered", model=station.name, by="model" if kept else "fallback")
            if not kept:
                return await self._handed(self._fallback, request, visit, reply, whole, streaming, wanted.handed, form)
            done = next(part.piece.done for part in whole if part.piece.done is not None)
            self._fallback.compare(station, wanted.handed, done, self._measures)
            parts = _again(whole)
        if streaming[0]:
            first = await anext(parts, None)  # what is wrong with the request shows before the stream begins
            if first is None:
                await visit.end()
                return Response(status_code=499)
            events = self._events(visit, reply, first, parts, streaming[1], form)
            return EventStream(events, visit, {HEADER: "model"})
        async with aclosing(parts):
            async for part in parts:
                reply.add(part)
        if visit.left:
            return self._gone(visit)
        timings = self._finished(visit, reply)
        table = form.whole({**reply.whole(), "usage": reply.usage(), "timings": timings})
        return as_json(table, headers={HEADER: "model"})

    async def _events(self, visit: Visit, reply: Reply, first: Part, parts: AsyncGenerator[Part, None],
                      usage: bool, form: Form) -> AsyncIterator[bytes]:
        written, part = b"", cast(Part | None, first)
        reply.says_usage = usage
        try:
            while part is not None:
                written += b"".join(map(form.piece, reply.add(part)))
                if written and not visit.job.ready:  # what has come by now goes in one piece
                    yield written
                    written = b""
                part = await anext(parts, None)
        except EdgestillError as error:  # the status is sent already: the error is the last event
            yield written + form.failed(refusal_of(error).body())
            return
        if visit.left:
            self._gone(visit)
            return
        last = reply.after(usage, self._finished(visit, reply))
        yield written + b"".join(map(form.piece, last)) + form.end()

    async def _handed(self, fallback: Fallback, request: Request, visit: Visit, reply: Reply, whole: list[Part],
                      streaming: tuple[bool, bool], asked: dict[str, Any], form: Form) -> Response:
        """The fallback's answer to what the model had no sure one to: as it gave it, but for the usage, which is that
        of both."""
        for part in whole:
            reply.add(part)
        name = visit.station.name
        timings, own = self._finished(visit, reply), reply.usage()
        try:
            second = Visit(request, fallback.station, fallback.asking(visit.station, asked))
            items = second.items()
            first = await anext(items, None)
        except Refusal as refusal:
            self._measures.add("fallback_failed", model=name, status=str(refusal.status))
            raise
        if first is None:
            return self._gone(visit)
        if streaming[0]:
            events = self._relayed(visit, second, first, items, own if streaming[1] else None, form)
            return EventStream(events, second, {HEADER: "fallback"})
        await items.aclose()
        self._told(name, first.get("usage"), second)
        timings = {**timings, "total_ms": round(visit.seconds * 1000, 3)}
        table = form.whole({**first, "usage": together(own, first.get("usage")), "timings": timings})
        return as_json(table, headers={HEADER: "fallback"})

    async def _relayed(self, visit: Visit, second: Visit, first: dict[str, Any], chunks: AsyncGenerator[Any, None],
                       own: dict[str, Any] | None, form: Form) -> AsyncIterator[bytes]:
        """The chunks of the fallback's answer; `own` is the model's usage where it is to be said."""
        chunk, head, usage = cast(dict[str, Any] | None, first), {}, None
        try:
            while chunk is not None:
                usage = chunk.get("usage") or usage
                head = {name: value for name, value in chunk.items() if name not in ("choices", "usage")}
                if chunk["choices"]:
                    yield form.piece({**chunk, "usage": None} if own is not None else
                                     {name: value for name, value in chunk.items() if name != "usage"})
                chunk = await anext(chunks, None)
        except Refusal as refusal:
            self._measures.add("fallback_failed", model=visit.station.name, status=str(refusal.status))
            yield form.failed(refusal.body())
            return
        if second.left:
            self._gone(visit)
            return
        self._told(visit.station.name, usage, second)
        last = [] if own is None else [{**head, "choices": [], "usage": together(own, usage)}]
        yield b"".join(map(form.piece, last)) + form.end()

    def _finished(self, visit: Visit, reply: Reply) -> dict[str, float]:
        """Count an answer; its timings."""
        name, usage, seconds, queued = visit.station.name, reply.usage(), visit.seconds, visit.job.queue_ms / 1000
        self._measures.add("prompt_tokens", usage["prompt_tokens"], model=name)
        self._measures.add("completion_tokens", usage["completion_tokens"], model=name)
        self._measures.add("cached_tokens", usage["prompt_tokens_details"]["cached_tokens"], model=name)
        self._measures.answered(name, queued, seconds)
        self._measures.generated(name, queued, (done for _, (done, _) in sorted(reply.done.items())))
        return reply.timings(visit.job.queue_ms, seconds * 1000)

    def _told(self, name: str, usage: Any, second: Visit) -> None:
        """Count what the fallback said in the place of the model `name`."""
        for kind in ("prompt_tokens", "completion_tokens"):
            self._measures.add(f"fallback_{kind}", counted(usage, kind), model=name)
        self._measures.add("fallback_seconds", second.seconds, model=name)

    def _gone(self, visit: Visit) -> Response:
        self._measures.add("cancelled", model=visit.station.name)
        return Response(status_code=499)


async def _again(parts: list[Part]) -> AsyncGenerator[Part, None]:
    for part in parts:
        yield part
