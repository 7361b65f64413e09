"""What the server counts, in the text form that Prometheus reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from .work_queue import Station

_HELP = {
    "edgestill_requests_total": "Requests by path, model and status.",
    "edgestill_prompt_tokens_total": "Tokens read.",
    "edgestill_cached_tokens_total": "Tokens of prompts that had been read before.",
    "edgestill_completion_tokens_total": "Tokens made.",
    "edgestill_cancelled_total": "Requests whose client left.",
    "edgestill_queue_seconds_total": "Time that requests waited for a worker.",
    "edgestill_answer_seconds_total": "Time from a request to the end of its answer.",
    "edgestill_answered_total": "Answers by who gave them: the model, or the fallback.",
    "edgestill_fallback_failed_total": "Requests handed on that the fallback did not answer, by our status.",
    "edgestill_fallback_prompt_tokens_total": "Tokens that the fallback says it read.",
    "edgestill_fallback_completion_tokens_total": "Tokens that the fallback says it made.",
    "edgestill_fallback_seconds_total": "Time that requests handed on waited for the fallback.",
    "edgestill_shadow_total": "Answers that were also asked of the fallback, by whether it said the same.",
}


class Counters:
    """Sums since the start; used by the event loop alone."""

    def __init__(self) -> None:
        self._sums: Counter[tuple[str, tuple[tuple[str, str], ...]]] = Counter()

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to one of the sums of the table above, without `edgestill_` and `_total`."""
        self._sums[f"edgestill_{name}_total", tuple(sorted(labels.items()))] += amount  # type: ignore[assignment]

    def text(self, stations: Iterable[Station]) -> str:
        """All of them, and how busy the models are."""
        lines = []
        for name, help in _HELP.items():
            lines += [f"# HELP {name} {help}", f"# TYPE {name} counter"]
            lines += [f"{name}{_labels(labels)} {value:.10g}" for (found, labels), value in sorted(self._sums.items())
                      if found == name]
        stations = list(stations)
        for name, help, values in (("edgestill_active", "Requests that are being answered.",
                                    [one.active for one in stations]),
                                   ("edgestill_waiting", "Requests that wait for a worker.",
                                    [one.waiting for one in stations])):
            lines += [f"# HELP {name} {help}", f"# TYPE {name} gauge"]
            lines += [f"{name}{_labels([('model', one.name)])} {value}"
                      for one, value in zip(stations, values, strict=True)]
        return "\n".join(lines) + "\n"


def _labels(labels: Iterable[tuple[str, str]]) -> str:
    escaped = [(name, value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")) for name, value in labels]
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped) + "}" if escaped else ""
