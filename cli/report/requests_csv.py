"""Every request of saved profiles as CSV, a line each, for whoever draws pictures of their own."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

COLUMNS = ("run", "request", "start_s", "prompt_tokens", "new_tokens", "ttft_ms", "prefill_ms", "token_ms", "whole_ms",
           "disturbed")


def table(profiles: Mapping[str, Mapping[str, Any]]) -> str:
    """The lines of all `profiles`, by name; `start_s` counts from a run's first request, `token_ms` is the mean gap
    between tokens, and cells that a request has no number for are empty."""
    told = io.StringIO()
    writer = csv.writer(told, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name, profile in profiles.items():
        requests = (profile.get("raw") or {}).get("requests") or []
        for place, one in enumerate(requests):
            tokens = one.get("token_ns") or []
            gap = (tokens[-1] - tokens[0]) / (len(tokens) - 1) if len(tokens) > 1 else None
            start = (one["start_ns"] - requests[0]["start_ns"]) / 1e9 if "start_ns" in one else None
            writer.writerow([_text(name), place, start, one.get("prompt_tokens"), one.get("new_tokens"),
                             _ms(tokens[0] if tokens else None), _ms(one.get("prefill_ns")), _ms(gap),
                             _ms(one["end_ns"]), " ".join(map(str, one.get("disturbed") or ()))])
    return told.getvalue()


def _text(name: str) -> str:
    """A name that no spreadsheet takes for a formula."""
    return f"'{name}" if name.startswith(("=", "+", "-", "@")) else name


def _ms(nanoseconds: float | None) -> float | None:
    return None if nanoseconds is None else nanoseconds / 1e6
