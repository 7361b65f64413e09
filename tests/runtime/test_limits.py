"""Limits of a profile: what is held to them is a bound, or there is no number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from edgestill.models.errors import UsageError
from edgestill.runtime.profiling import limits, measures
from edgestill.runtime.profiling.limits import Limit
from edgestill.runtime.profiling.views import view


def table(count: int) -> dict[str, Any]:
    """A profile of `count` requests, whose first tokens took 1, 2, 3 … ms in some order."""
    order = np.random.default_rng(3).permutation(count) + 1
    requests = [{"end_ns": 10**9, "token_ns": [int(place) * 10**6, (int(place) + 2) * 10**6], "decode_ns": [10**6],
                 "prefill_ns": 10**6, "template_ns": 0, "tokenize_ns": 1, "detokenize_ns": 1, "prompt_tokens": 4,
                 "new_tokens": 2} for place in order]
    return {"file_bytes": 1000, "peak_rss_bytes": 5000, "views": {"as_met": view(requests)}}


@pytest.mark.parametrize(("text", "name", "most", "value", "requests"), [
    ("ttft_ms.p95<=300", "ttft_ms.p95", True, 300, 59), ("token_ms_p99 <= 2e1", "token_ms.p99", True, 20, 299),
    ("ttft_ms<=5", "ttft_ms.p50", True, 5, 5), ("decode_tokens_per_s>=20", "decode_tokens_per_s", False, 20, 5),
    ("request_ms.max<=9", "request_ms.max", True, 9, 1), ("peak_rss_bytes<=2e8", "peak_rss_bytes", True, 2e8, 1)])
def test_a_limit_is_read(text: str, name: str, most: bool, value: float, requests: int) -> None:
    found = Limit.parse(text, "generate")
    assert (found.name, found.most, found.value, found.requests) == (name, most, value, requests)
    assert limits.requests([name, "exact_match"]) == requests


@pytest.mark.parametrize(("text", "match"), [
    ("ttft_ms.p95<300", "not of the form"), ("ttft_ms.p95<=fast", "not of the form"),
    ("ttft_ms.p97<=300", "ttft_ms.p97 is not measured"), ("latency_ms<=3", "not measured for models that generate"),
    ("ttft_ms>=3", "of ttft_ms lower is better"), ("decode_tokens_per_s<=3", "higher is better")])
def test_what_is_no_limit_is_refused(text: str, match: str) -> None:
    with pytest.raises(UsageError, match=match) as error:
        Limit.parse(text, "generate")
    assert error.value.hint


@pytest.mark.parametrize(("text", "count", "bound", "passed", "reason"), [
    ("ttft_ms.p95<=59", 59, 59.0, True, ""), ("ttft_ms.p95<=40", 59, 59.0, False, "19 (47.5%) too much"),
    ("ttft_ms.p95<=9999", 58, None, False, "too few requests: 58 of 59"), ("ttft_ms.max<=58", 58, 58.0, True, ""),
    ("decode_tokens_per_s>=600", 59, 500.0, False, "100 (16.7%) too little"),
    ("model_bytes<=1000", 5, 1000.0, True, ""), ("cold_load_ms<=5", 5, None, False, "was not measured")])
def test_a_limit_holds_the_bound(text: str, count: int, bound: float | None, passed: bool, reason: str) -> None:
    found = limits.judge(Limit.parse(text, "generate"), table(count))
    assert (found.bound, found.passed, found.reason) == (bound, passed, reason)
    assert found.needed == (59 if "too few" in reason else 0)


def test_profiles_without_bounds_stay_readable() -> None:
    old = {"ttft_ms": 5.0, "token_ms": {"p50": 1.0, "p90": 2.0, "p99": 4.0, "max": 5.0}}
    assert limits.bounded(old, "token_ms", "p99") == (4.0, "", 0) and limits.bounded(old, "ttft_ms", "p50")[0] == 5.0
    assert limits.bounded(old, "token_ms", "p95")[0] is None
    assert measures.split("token_ms_p99") == measures.split("token_ms.p99") == ("token_ms", "p99")
