"""What the server counts and times, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder

from ..generation.result import Generation
from .work_queue import Station

_COUNTERS = {
    "requests": ("Requests by path, model and status.", ("model", "path", "status")),
    "prompt_tokens": ("Tokens read.", ("model",)),
    "cached_tokens": ("Tokens of prompts that had been read before.", ("model",)),
    "completion_tokens": ("Tokens made.", ("model",)),
    "cancelled": ("Requests whose client left.", ("model",)),
    "answered": ("Answers by who gave them: the model, or the fallback.", ("by", "model")),
    "fallback_failed": ("Requests handed on that the fallback did not answer, by our status.", ("model", "status")),
    "fallback_prompt_tokens": ("Tokens that the fallback says it read.", ("model",)),
    "fallback_completion_tokens": ("Tokens that the fallback says it made.", ("model",)),
    "fallback_seconds": ("Time that requests handed on waited for the fallback.", ("model",)),
    "shadow": ("Answers that were also asked of the fallback, by whether it said the same.", ("model", "same")),
}
_SECONDS = (.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60)
_TOKEN_SECONDS = (.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1)
_HISTOGRAMS = {
    "queue_seconds": ("Time that requests waited for a worker.", _SECONDS),
    "time_to_first_token_seconds": ("Time from a request to its first token.", _SECONDS),
    "time_per_output_token_seconds": ("An answer's mean time for a token after its first.", _TOKEN_SECONDS),
    "answer_seconds": ("Time from a request to the end of its answer.", _SECONDS),
}


class Measures:
    """Sums and histograms since the start, of one server."""

    def __init__(self, stations: Iterable[Station]) -> None:
        """`stations` also say how busy they are."""
        self._registry = CollectorRegistry()
        self._counters = {name: Counter(f"edgestill_{name}", told, labels, registry=self._registry)
                          for name, (told, labels) in _COUNTERS.items()}
        self._histograms = {name: Histogram(f"edgestill_{name}", told, ("model",), buckets=buckets,
                                            registry=self._registry) for name, (told, buckets) in _HISTOGRAMS.items()}
        active = Gauge("edgestill_active", "Requests that are being answered.", ("model",), registry=self._registry)
        waiting = Gauge("edgestill_waiting", "Requests that wait for a worker.", ("model",), registry=self._registry)
        for station in stations:
            active.labels(station.name).set_function(partial(getattr, station, "active"))
            waiting.labels(station.name).set_function(partial(getattr, station, "waiting"))

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter, which is named without `edgestill_` and `_total`."""
        self._counters[name].labels(**labels).inc(amount)

    def answered(self, model: str, queue_seconds: float, seconds: float) -> None:
        """A request was answered `seconds` after it came, of which it waited `queue_seconds`."""
        self._histograms["queue_seconds"].labels(model).observe(queue_seconds)
        self._histograms["answer_seconds"].labels(model).observe(seconds)

    def generated(self, model: str, queue_seconds: float, answers: Iterable[Generation]) -> None:
        """The answers to one request, in the order they were made."""
        made = [answer for answer in answers if answer.ids]
        for answer in made[:1]:
            self._histograms["time_to_first_token_seconds"].labels(model).observe(queue_seconds + answer.ttft_ms / 1000)
        for answer in made:
            if answer.decode_tokens_per_s:
                self._histograms["time_per_output_token_seconds"].labels(model).observe(1 / answer.decode_tokens_per_s)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """All of them in the form that a client's `accept` header asks for, and that form's media type."""
        encode, media_type = choose_encoder(accept)
        return encode(self._registry), media_type
