"""What a proof takes is said from the speed of what it will run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from edgestill.quantize.proof import duration
from edgestill.quantize.proof.checks import codes, rtn


class Clock:
    """Time that passes by what is computed alone: a second a token of the float model, a hundredth of the packed one's,
    a tenth a step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(duration.time, "perf_counter", lambda: self.now)
        self.engine = SimpleNamespace(
            logits=lambda ids: self.passes(0.01 * len(ids)), prefill=lambda ids: self.passes(0.01 * len(ids)),
            decode=lambda id: self.passes(0.1), truncate=lambda length: None)
        self.float_model = SimpleNamespace(logits=lambda ids: self.passes(1.0 * len(ids)))

    def passes(self, seconds: float) -> None:
        self.now += seconds

    def subject(self, **changes: Any) -> Any:
        return SimpleNamespace(**{
            "classifies": False, "embeds": False, "quick": True, "engine": self.engine, "float_model": None,
            "coded": None, "answer_tokens": 0, "sequences": [np.arange(300), np.arange(3000)], **changes})


def test_texts_are_counted_twice_and_steps_by_their_own_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    assert duration.seconds(clock.subject(), 50) == pytest.approx(2 * 3300 * 0.01 + 50 * 0.1)
    assert duration.seconds(clock.subject(embeds=True), 50) == 0


@pytest.mark.parametrize(("changes", "again"), [
    ({}, 0), ({"coded": object()}, codes.TOKENS),
    ({"coded": object(), "quick": False, "test_rows": [], "reference": SimpleNamespace(beyond_ids=[])},
     codes.TOKENS + rtn.TOKENS)])
def test_at_export_the_float_model_is_counted_too(changes: dict[str, Any], again: int,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    without = duration.seconds(clock.subject(**{**changes, "float_model": None}), 50)
    found = duration.seconds(clock.subject(**changes, float_model=clock.float_model), 50)
    assert found - without == pytest.approx(3300 + again)
