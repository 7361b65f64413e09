"""The server's routes: OpenAI's API, labels, health and counts."""

from __future__ import annotations

import asyncio
import base64
import logging
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ...models.errors import DataError, EdgestillError, UsageError
from ..classify import Classifier
from ..embed import Embedder
from ..engine import check_ids
from ..generate import Generator
from . import asked, fields
from .counters import Counters
from .fallback import Fallback
from .fields import Refusal
from .replies import ChatReply, Reply, TextReply, encoded, event
from .station import Station, Work

BODY_SECONDS, HEADER_BYTES = 10.0, 16 * 2**10
LOG = logging.getLogger("edgestill.server")
_LOCAL = ("127.0.0.1", "localhost", "[::1]")
_PAGE = Path(__file__).with_name("page.html")
_PAGE_RULES = ("default-src 'none'; script-src 'nonce-{0}'; style-src 'nonce-{0}'; connect-src 'self'; "
               "base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
Handler = Callable[[Request], Awaitable[Response]]


class Service:
    """Stations behind HTTP."""

    def __init__(self, stations: Sequence[Station], key: str = "", local_only: bool = True,
                 fallback: Fallback | None = None) -> None:
        """`key` is what clients must bring; `fallback` answers chats where the model is not sure; `local_only` refuses
        requests that were sent to another host's name, which is how web pages reach servers of this machine."""
        self.stations = {station.name: station for station in stations}
        self.counters = Counters()
        self._key, self._local_only, self._fallback = key, local_only, fallback
        posts = {"/v1/chat/completions": self.chat, "/v1/completions": self.completion,
                 "/v1/embeddings": self.embeddings, "/classify": self.classify}
        gets = {"/v1/models": self.models, "/v1/models/{name}": self.model, "/metrics": self.metrics}
        routes = [Route(path, self._guarded(handler), methods=["POST"]) for path, handler in posts.items()]
        routes += [Route(path, self._guarded(handler), methods=["GET"]) for path, handler in gets.items()]
        routes += [Route("/health", self.health), Route("/", self.page)]
        self.application = Starlette(routes=routes, exception_handlers={HTTPException: _no_route})

    async def chat(self, request: Request) -> Response:
        """Answers to a conversation; a classifier answers with its label."""
        body = await _body(request)
        station = self._station(request, body, Generator, Classifier)
        return await self._answers(request, station, body, asked.chat(body, self._fallback is not None), ChatReply)

    async def completion(self, request: Request) -> Response:
        """How texts go on."""
        body = await _body(request)
        station = self._station(request, body, Generator)
        return await self._answers(request, station, body, asked.completion(body), TextReply)

    async def embeddings(self, request: Request) -> Response:
        """Vectors of texts."""
        body = await _body(request)
        station = self._station(request, body, Embedder)
        texts, form = fields.inputs(body, "input"), body.get("encoding_format") or "float"
        if form not in ("float", "base64"):
            raise Refusal(f"encoding_format: {str(form)[:40]!r}, known are float and base64", "encoding_format")
        size = fields.number(body, "dimensions", 1, 2**20, True)
        if size not in (None, station.model.dimensions):
            raise Refusal(f"dimensions: {size}, this model's vectors have {station.model.dimensions}", "dimensions")

        def vector(model: Embedder, text: str | list[int]) -> tuple[Any, int]:
            ids = model.codec.encoding(text).ids if isinstance(text, str) else text
            if not isinstance(text, str):
                check_ids(ids, 0, fields.TOKENS, model.codec.vocabulary_size)
            found = model.vectors([ids])[0].astype("<f4")
            return base64.b64encode(found.tobytes()).decode() if form == "base64" else found.tolist(), len(ids)

        found = await self._all(request, station, lambda model, _: (vector(model, text) for text in texts))
        tokens = sum(count for _, count in found)
        self.counters.add("prompt_tokens", tokens, model=station.name)
        data = [{"object": "embedding", "index": index, "embedding": values}
                for index, (values, _) in enumerate(found)]
        return _json({"object": "list", "model": station.name, "data": data,
                      "usage": {"prompt_tokens": tokens, "total_tokens": tokens}})

    async def classify(self, request: Request) -> Response:
        """Labels of `text`, one or several, with probabilities: the `top_k` likeliest, or all."""
        body = await _body(request)
        station = self._station(request, body, Classifier)
        texts = fields.texts(body, "text", fields.INPUTS)
        if not texts:
            raise Refusal("text: a string or strings are needed", "text")
        count = fields.number(body, "top_k", 1, 2**20, True)
        found = await self._all(request, station, lambda model, _: (model.classify(text) for text in texts))
        results = [{"label": one.label, "probability": one.probability, "truncated": one.truncated,
                    "probabilities": dict(sorted(one.probabilities.items(), key=lambda item: -item[1])[:count])}
                   for one in found]
        return _json({"model": station.name, "results": results})

    async def models(self, request: Request) -> Response:
        """What is served."""
        return _json({"object": "list", "data": [_described(station) for station in self.stations.values()]})

    async def model(self, request: Request) -> Response:
        """One of them."""
        return _json(_described(self._named(request.path_params["name"])))

    async def health(self, request: Request) -> Response:
        """That the server lives."""
        return _json({"status": "ok"})

    async def metrics(self, request: Request) -> Response:
        """Counts for Prometheus."""
        return PlainTextResponse(self.counters.text(self.stations.values()),
                                 media_type="text/plain; version=0.0.4; charset=utf-8")

    async def page(self, request: Request) -> Response:
        """A page to talk with the models."""
        nonce = secrets.token_urlsafe(16)
        headers = {"Content-Security-Policy": _PAGE_RULES.format(nonce), "X-Content-Type-Options": "nosniff",
                   "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}
        return HTMLResponse(_PAGE.read_text(encoding="utf-8").replace("{nonce}", nonce), headers=headers)

    async def _answers(self, request: Request, station: Station, body: dict[str, Any], wanted: asked.Asked,
                       kind: type[Reply]) -> Response:
        streamed = fields.flag(body, "stream")
        usage = fields.flag(fields.object_(body, "stream_options"), "include_usage")
        reply = kind(station.name, station.model.codec, wanted.draws, wanted.logprobs)
        visit = Visit(request, station, wanted.work)
        parts = visit.items()
        if self._fallback is not None and wanted.messages:
            parts = self._decided(self._fallback, visit, parts, wanted)
        if streamed:
            first = await anext(parts, None)  # what is wrong with the request shows before the stream begins
            if first is None:
                await visit.end()
                return Response(status_code=499)
            return EventStream(self._events(visit, reply, first, parts, usage), visit)
        async with aclosing(parts):
            async for part in parts:
                reply.add(part)
        if visit.left:
            self.counters.add("cancelled", model=station.name)
            return Response(status_code=499)
        timings = self._finished(visit, reply)
        return _json({**reply.whole(), "usage": reply.usage(), "timings": timings})

    async def _events(self, visit: Visit, reply: Reply, first: Any, parts: AsyncGenerator[Any, None],
                      usage: bool) -> AsyncIterator[bytes]:
        try:
            for chunk in reply.add(first):
                yield event(chunk)
            async for part in parts:
                for chunk in reply.add(part):
                    yield event(chunk)
        except EdgestillError as error:  # the status is sent already: the error is the last event
            yield event(_refusal(error).body())
            return
        if visit.left:
            self.counters.add("cancelled", model=visit.station.name)
            return
        for chunk in reply.after(usage, self._finished(visit, reply)):
            yield event(chunk)
        yield b"data: [DONE]\n\n"

    async def _decided(self, fallback: Fallback, visit: Visit, parts: AsyncGenerator[Any, None],
                       wanted: asked.Asked) -> AsyncGenerator[Any, None]:
        """An answer once it is whole: the model's, or the fallback's."""
        whole = [part async for part in parts]
        if not visit.left:
            for part in await fallback.decide(visit.station.name, visit.station.model.codec, whole, wanted.messages,
                                              self.counters):
                yield part

    def _finished(self, visit: Visit, reply: Reply) -> dict[str, float]:
        """Count an answer; its timings."""
        usage, seconds = reply.usage(), visit.seconds
        for name, amount in (("prompt_tokens", usage["prompt_tokens"]),
                             ("completion_tokens", usage["completion_tokens"]),
                             ("cached_tokens", usage["prompt_tokens_details"]["cached_tokens"]),
                             ("queue_seconds", visit.job.queue_ms / 1000), ("answer_seconds", seconds)):
            self.counters.add(name, amount, model=visit.station.name)
        return reply.timings(visit.job.queue_ms, seconds * 1000)

    async def _all(self, request: Request, station: Station, work: Work) -> list[Any]:
        visit = Visit(request, station, work)
        async with aclosing(visit.items()) as items:
            found = [item async for item in items]
        if visit.left:
            raise ClientDisconnect
        return found

    def _station(self, request: Request, body: dict[str, Any], *kinds: type) -> Station:
        """The model that a request names. Where only one is served every name means it: clients keep the name that
        they had."""
        name = fields.text(body, "model", 1024)
        station = next(iter(self.stations.values())) if len(self.stations) == 1 else self._named(name)
        if not isinstance(station.model, kinds):
            raise Refusal(f"model: {station.name} is made to {station.model.artifact.manifest.task.kind}, and does not "
                          f"answer {request.url.path}", "model")
        request.state.model = station.name
        return station

    def _named(self, name: str) -> Station:
        if name not in self.stations:
            raise Refusal(f"model: {name[:200]!r} is not served, there are {', '.join(self.stations)}", "model", 404,
                          "model_not_found")
        return self.stations[name]

    def _guarded(self, handler: Handler) -> Handler:
        """The handler behind the checks that every request must pass; errors become OpenAI's."""
        async def guarded(request: Request) -> Response:
            try:
                self._check(request)
                response = await handler(request)
            except ClientDisconnect:
                response = Response(status_code=499)
            except Refusal as refusal:
                response = _refused(refusal)
            except EdgestillError as error:
                response = _refused(_refusal(error))
            except Exception:
                LOG.exception("%s failed", request.url.path)
                response = _refused(Refusal("the server failed on this request; its log says why", status=500))
            route = request.scope["route"].path
            self.counters.add("requests", path=route, model=getattr(request.state, "model", ""),
                              status=str(response.status_code))
            return response

        return guarded

    def _check(self, request: Request) -> None:
        if sum(len(name) + len(value) for name, value in request.headers.raw) > HEADER_BYTES:
            raise Refusal(f"the headers have more than {HEADER_BYTES} bytes", status=431)
        host = request.headers.get("host", "").rpartition(":")
        name = host[0] if host[1] and not host[2].endswith("]") else request.headers.get("host", "")
        if self._local_only and name not in _LOCAL:
            raise Refusal(f"host: {name[:100]!r}, this server answers on this machine only", status=403)
        given = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        if self._key and not secrets.compare_digest(given.encode(), self._key.encode()):
            raise Refusal("the API key is missing or wrong: send it as Authorization: Bearer KEY", status=401,
                          code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if request.method == "POST" and kind != "application/json":
            # Web pages may send other types to any server without asking it.
            raise Refusal(f"content-type: {kind[:100]!r}, application/json was expected", status=415)


class Visit:
    """A job whose client is watched: when it leaves, the work ends."""

    def __init__(self, request: Request, station: Station, work: Work) -> None:
        """Raises Refusal 429 when the station's queue is full."""
        self.station, self.job = station, station.submit(work)
        self.left = False
        self._watch = asyncio.create_task(self._watched(request))

    @property
    def seconds(self) -> float:
        """Since the request came."""
        return time.perf_counter() - self.job.asked

    async def items(self) -> AsyncGenerator[Any, None]:
        """What the work yields."""
        try:
            async for item in self.job:
                yield item
        finally:
            await self.end()

    async def end(self) -> None:
        """Watch no longer; the work ends too where it has not."""
        self.station.leave(self.job)
        self._watch.cancel()
        with suppress(asyncio.CancelledError):
            await self._watch

    async def _watched(self, request: Request) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        self.left = True
        self.station.leave(self.job)


class EventStream(Response):
    """Server-sent events."""

    def __init__(self, events: AsyncIterator[bytes], visit: Visit) -> None:
        """`visit` ends with the stream, however it ends."""
        super().__init__(media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        del self.headers["content-length"]
        self._events, self._visit = events, visit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them as they come."""
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for one in self._events:
                await send({"type": "http.response.body", "body": one, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            await self._visit.end()


async def _body(request: Request) -> dict[str, Any]:
    """The body as an object; Refusal when it is too long, too slow or no JSON object."""
    chunks, size = [], 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                chunks.append(chunk)
                size += len(chunk)
                if size > fields.BODY_BYTES:
                    raise Refusal(f"the body has more than {fields.BODY_BYTES} bytes", status=413,
                                  headers={"Connection": "close"})
    except TimeoutError:
        raise Refusal(f"the body did not come within {BODY_SECONDS:g} s", status=408,
                      headers={"Connection": "close"}) from None
    return fields.parse(b"".join(chunks))


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    reason = "there is nothing at" if error.status_code == 404 else f"{request.method} is not taken at"
    return _refused(Refusal(f"{reason} {request.url.path[:200]}", status=error.status_code,
                            headers=dict(error.headers or {})))


def _refusal(error: EdgestillError) -> Refusal:
    """What the client may do something about is its error, the rest the server's."""
    field = error.message.partition(":")[0].removeprefix("generate.")
    param = field if field.isidentifier() else None
    return Refusal(str(error), param, 400 if isinstance(error, (UsageError, DataError)) else 500)


def _refused(refusal: Refusal) -> Response:
    return _json(refusal.body(), refusal.status, refusal.headers)


def _json(table: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(encoded(table), status, headers, "application/json")


def _described(station: Station) -> dict[str, Any]:
    task = station.model.artifact.manifest.task.kind
    return {"id": station.name, "object": "model", "created": station.created, "owned_by": "edgestill", "task": task}
