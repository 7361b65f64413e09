"""Raw requests summed up: of all of them as they were met, and of the undisturbed ones alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from . import percentile_bounds
from .measures import PERCENTILES

Request = Mapping[str, Any]
_PARTS = ("template", "tokenize", "prefill", "detokenize", "model")


def view(requests: Sequence[Request]) -> dict[str, Any]:
    """Every number that requests give, in milliseconds or tokens a second: percentiles with their upper 95 % bounds."""
    found: dict[str, Any] = {"requests": len(requests)}
    if not requests:
        return found
    generates = "token_ns" in requests[0]
    whole = [request["end_ns"] / 1e6 for request in requests]
    found["request_ms" if generates else "latency_ms"] = distribution(whole)
    for part in _PARTS:
        if f"{part}_ns" in requests[0]:
            found[f"{part}_ms"] = distribution([request[f"{part}_ns"] / 1e6 for request in requests])
    if not generates:
        found["texts_per_s"] = _rate([1000 / value for value in whole])
        return found
    found["ttft_ms"] = distribution([first_token(request) / 1e6 for request in requests])
    if "prefill_ns" in requests[0]:
        found["prefill_tokens_per_s"] = _rate([1e9 * request["prompt_tokens"] / request["prefill_ns"]
                                               for request in requests])
    several = [request for request in requests if len(request["token_ns"]) > 1]
    if several:
        pooled = [gaps(request) for request in several]
        found["token_ms"] = distribution([float(np.mean(some)) for some in pooled], pooled)
        found["decode_tokens_per_s"] = _rate([1000 / float(np.mean(some)) for some in pooled])
    steps = [[step / 1e6 for step in request["decode_ns"]] for request in requests if request.get("decode_ns")]
    if steps:
        found["decode_ms"] = distribution([float(np.mean(some)) for some in steps], steps)
    return found


def distribution(times: Sequence[float], pooled: Sequence[Sequence[float]] = ()) -> dict[str, Any]:
    """Percentiles of `times` [requests], or of the values of each request in `pooled`; jitter as the distance between
    the quartiles; `upper` the bounds of the percentiles, and `why` there is none or what widened them."""
    values = np.concatenate([np.asarray(some) for some in pooled]) if pooled else np.asarray(times)
    quarter, three_quarters = np.percentile(values, (25, 75))
    return {**{name: float(np.quantile(values, share)) for name, share in PERCENTILES.items()},
            "max": float(values.max()), "jitter": float(three_quarters - quarter), "values": len(values),
            **upper_bounds(times, pooled)}


def upper_bounds(times: Sequence[float], pooled: Sequence[Sequence[float]] = ()) -> dict[str, Any]:
    """The bounds in a `distribution`."""
    bounds = {name: percentile_bounds.upper(times, share, pooled) for name, share in PERCENTILES.items()}
    return {"upper": {name: bound.value for name, bound in bounds.items()},
            "why": {name: bound.reason for name, bound in bounds.items() if bound.reason},
            "needed": {name: bound.needed for name, bound in bounds.items() if bound.needed}}


def first_token(request: Request) -> int:
    """Nanoseconds to the first token, or to the end of an answer that has none."""
    return int(request["token_ns"][0] if request["token_ns"] else request["end_ns"])


def gaps(request: Request) -> list[float]:
    """Milliseconds between each token and the one before it; where a server's pieces hold several, their mean."""
    if request.get("several_a_piece"):
        return [(request["token_ns"][-1] - request["token_ns"][0]) / 1e6 / (request["new_tokens"] - 1)]
    return [gap / 1e6 for gap in np.diff(request["token_ns"]).tolist()]


def _rate(rates: Sequence[float]) -> dict[str, Any]:
    """The median of tokens or texts a second, with its lower bound."""
    bound = percentile_bounds.lower(rates, 0.5)
    return {"p50": float(np.median(rates)), "lower": {"p50": bound.value}, "why": {"p50": bound.reason}
            if bound.reason else {}, "needed": {"p50": bound.needed} if bound.needed else {}}
