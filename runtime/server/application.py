"""The server's routes: OpenAI's API, labels, health and counts."""

from __future__ import annotations

import base64
import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from importlib import resources
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from ..encoders.classifier import Classifier
from ..encoders.embedder import Embedder
from ..encoders.encoder import Text
from ..generation.generator import Generator
from . import known, requests, responses_api, validation
from .admission import ID_HEADER, LOOPBACK, Admission, Counted, RequestIds, Room, WholeBody
from .answers import HEADER, Answers
from .client_watch import Visit
from .errors import HANDLERS, as_json
from .fallback import Fallback
from .measures import Measures
from .response_form import ResponseForm
from .responses import ChatReply, Form, TextReply
from .validation import Refusal
from .work_queue import Station, Work

_PAGE = resources.files(__package__) / "page.html"
_PAGE_RULES = ("default-src 'none'; script-src 'nonce-{0}'; style-src 'nonce-{0}'; connect-src 'self'; "
               "base-uri 'none'; form-action 'none'; frame-ancestors 'none'")


class Service:
    """Stations behind HTTP."""

    def __init__(self, stations: Sequence[Station], key: str = "", hosts: Sequence[str] = LOOPBACK,
                 origins: Sequence[str] = (), fallback: Fallback | None = None, sagemaker: bool = False) -> None:
        """`key` and `hosts` as in `Admission`; web pages of `origins` may ask, too; `fallback` answers chats where the
        model is not sure; `sagemaker`: beside health, only what Amazon SageMaker asks for. UsageError for a fallback
        behind a classifier that does not choose one label."""
        for station in stations if fallback is not None else ():
            if isinstance(station.model, Classifier):
                station.model.head.require_single("--fallback")
        self.stations = {station.name: station for station in stations}
        behind = [] if fallback is None else [fallback.station]
        self.measures = Measures([*stations, *behind])
        self._fallback = fallback
        self._answers = Answers(self.measures, fallback)
        admission = Middleware(Admission, key=key, hosts=hosts, full=self._full)
        asking = {"/v1/chat/completions": self.chat, "/v1/completions": self.completion,
                  "/v1/responses": self.responses, "/v1/embeddings": self.embeddings, "/classify": self.classify}
        telling = {"/v1/models": self.models, "/v1/models/{name}": self.model, "/metrics": self.metrics}
        open_to_all = {"/health": self.health, "/ready": self.ready, "/": self.page}
        if sagemaker:
            asking, telling = {"/invocations": self.invocations}, {}
            open_to_all = {"/health": self.health, "/ready": self.ready, "/ping": self.ready}
        body = Middleware(WholeBody, room=Room())
        routes = [Route(path, handler, methods=["POST"], middleware=[admission, body])
                  for path, handler in asking.items()]
        routes += [Route(path, handler, middleware=[admission]) for path, handler in telling.items()]
        routes += [Route(path, handler) for path, handler in open_to_all.items()]
        middleware = [Middleware(RequestIds), Middleware(Counted, measures=self.measures)]
        if origins:
            middleware.append(Middleware(
                CORSMiddleware, allow_origins=origins, allow_methods=("GET", "POST"), allow_headers=("*",),
                expose_headers=(ID_HEADER, HEADER, "Retry-After"), allow_private_network=True))
        self.application = Starlette(routes=routes, exception_handlers=HANDLERS, middleware=middleware)
        self.application.router.redirect_slashes = False

    async def chat(self, request: Request) -> Response:
        """Answers to a conversation; a classifier answers with its label."""
        body, station = await self._asked(request, Generator, Classifier)
        wanted = requests.chat(body, self._fallback is not None)
        return await self._answers.of(request, station, requests.streaming(body), wanted, ChatReply, Form())

    async def completion(self, request: Request) -> Response:
        """How texts go on."""
        body, station = await self._asked(request, Generator)
        wanted = requests.completion(body)
        return await self._answers.of(request, station, requests.streaming(body), wanted, TextReply, Form())

    async def responses(self, request: Request) -> Response:
        """A chat in the words of OpenAI's newer API."""
        body, station = await self._asked(request, Generator, Classifier)
        wanted, streamed = responses_api.asked(body, self._fallback is not None), validation.flag(body, "stream")
        return await self._answers.of(request, station, (streamed, True), wanted, ChatReply, ResponseForm(body))

    async def embeddings(self, request: Request) -> Response:
        """Vectors of texts."""
        body, station = await self._asked(request, Embedder)
        known.check(body, known.EMBEDDING)
        texts, form = validation.inputs(body, "input"), validation.text(body, "encoding_format")
        if form not in ("", "float", "base64"):
            raise Refusal(f"encoding_format: {form[:40]!r}, known are float and base64", "encoding_format")
        size = validation.number(body, "dimensions", 1, 2**20, True)
        if size not in (None, station.model.dimensions):
            raise Refusal(f"dimensions: {size}, this model's vectors have {station.model.dimensions}", "dimensions")
        cut = validation.number(body, "truncate_prompt_tokens", -1, -1, True) is not None

        def vectors(model: Embedder, cancel: threading.Event) -> Iterator[dict[str, Any]]:
            read = [_read(model, text, cut) for text in texts]  # what is too long is refused before one is computed
            for index, (ids, truncated) in enumerate(read):
                found = model.vectors([ids])[0].astype("<f4")
                values = base64.b64encode(found.tobytes()).decode() if form == "base64" else found.tolist()
                yield {"object": "embedding", "index": index, "embedding": values, "truncated": truncated}
            yield {"tokens": sum(len(ids) for ids, _ in read)}

        *data, last = await self._all(request, station, vectors)
        tokens = last["tokens"]
        self.measures.add("prompt_tokens", tokens, model=station.name)
        return as_json({"object": "list", "model": station.name, "data": data,
                        "usage": {"prompt_tokens": tokens, "total_tokens": tokens}})

    async def classify(self, request: Request) -> Response:
        """What `text`, one or several, says, read together with `text_pair` where it is given: labels with
        probabilities, the `top_k` likeliest or all, or scores. One text may stand before several of `text_pair`."""
        body, station = await self._asked(request, Classifier)
        known.check(body, known.CLASSIFY)
        texts = validation.texts(body, "text", validation.INPUTS)
        if not texts:
            raise Refusal("text: a string or strings are needed", "text")
        count = validation.number(body, "top_k", 1, 2**20, True)
        inputs: list[Text] = list(texts)
        if pairs := validation.texts(body, "text_pair", validation.INPUTS):
            firsts = texts * len(pairs) if len(texts) == 1 else texts
            if len(firsts) != len(pairs):
                raise Refusal(f"text_pair: {len(pairs)} second texts for {len(texts)} first ones", "text_pair")
            inputs = list(zip(firsts, pairs, strict=True))
        found = await self._all(request, station, lambda model, _: (model.classify(text) for text in inputs))
        return as_json({"model": station.name, "results": [one.to_json(count) for one in found]})

    async def invocations(self, request: Request) -> Response:
        """What SageMaker hands on: a chat where there are `messages`, else what the model is made for."""
        body, station = await self._asked(request, Generator, Classifier, Embedder)
        if "messages" in body:
            return await self.chat(request)
        if isinstance(station.model, Generator):
            return await self.completion(request)
        return await (self.classify if isinstance(station.model, Classifier) else self.embeddings)(request)

    async def models(self, request: Request) -> Response:
        """What is served."""
        return as_json({"object": "list", "data": [_described(station) for station in self.stations.values()]})

    async def model(self, request: Request) -> Response:
        """One of them."""
        return as_json(_described(self._named(request.path_params["name"])))

    async def health(self, request: Request) -> Response:
        """That the server lives."""
        return as_json({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """Whether requests are taken: not once the server is told to stop, or where a model has no worker."""
        silent = next((station.name for station in self.stations.values() if not station.works), None)
        if request.app.state.server.should_exit:
            return as_json({"status": "stopping"}, 503)
        return as_json({"status": "ready"}) if silent is None else as_json({"status": "failed", "model": silent}, 503)

    async def metrics(self, request: Request) -> Response:
        """Counts and times for Prometheus."""
        content, kind = self.measures.exposition(request.headers.get("accept", ""))
        return Response(content, headers={"Content-Type": kind})

    async def page(self, request: Request) -> Response:
        """A page to talk with the models."""
        nonce = secrets.token_urlsafe(16)
        headers = {"Content-Security-Policy": _PAGE_RULES.format(nonce), "X-Content-Type-Options": "nosniff",
                   "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}
        return HTMLResponse(_PAGE.read_text(encoding="utf-8").replace("{nonce}", nonce), headers=headers)

    async def _all(self, request: Request, station: Station, work: Work) -> list[Any]:
        visit = Visit(request, station, work)
        async with aclosing(visit.items()) as items:
            found = [item async for item in items]
        if visit.left:
            raise ClientDisconnect
        self.measures.answered(station.name, visit.job.queue_ms / 1000, visit.seconds)
        return found

    async def _asked(self, request: Request, *kinds: type) -> tuple[dict[str, Any], Station]:
        """A request's body and the model that it names. Where only one is served every name means it: clients keep the
        name that they had."""
        only = next(iter(self.stations.values())) if len(self.stations) == 1 else None
        request.state.model = "" if only is None else only.name
        body = validation.parse(await request.body())
        station = self._named(validation.text(body, "model", 1024), only)
        if not isinstance(station.model, kinds):
            raise Refusal(f"model: {station.name} is made to {station.model.artifact.manifest.task.kind}, and does not "
                          f"answer {request.url.path}", "model")
        request.state.model = station.name
        return body, station

    def _full(self) -> tuple[str, Refusal] | None:
        """Why no work is taken in, when every model's queue is full, and the model that says so."""
        found = None
        for station in self.stations.values():
            if (refusal := station.refusal) is None:
                return None
            found = station.name, refusal
        return found

    def _named(self, name: str, only: Station | None = None) -> Station:
        if only is not None:
            return only
        if name not in self.stations:
            raise Refusal(f"model: {name[:200]!r} is not served, there are {', '.join(self.stations)}", "model", 404,
                          "model_not_found")
        return self.stations[name]


def _read(model: Embedder, text: str | list[int], cut: bool) -> tuple[list[int], bool]:
    """The ids of a text or of ids, and whether its end was cut off, as `cut` allows. ContextError for what is too
    long."""
    if isinstance(text, str):
        found = model.codec.encoding(text) if cut else model.whole(text)
        return found.ids, bool(found.overflowing)
    size = model.context or validation.TOKENS
    validation.token_ids(text[:size] if cut else text, "input", size, model.codec.vocabulary_size)
    return text[:size], len(text) > size


def _described(station: Station) -> dict[str, Any]:
    task = station.model.artifact.manifest.task.kind
    return {"id": station.name, "object": "model", "created": station.created, "owned_by": "edgestill", "task": task}
