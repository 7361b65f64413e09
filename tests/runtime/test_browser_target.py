"""`profile --target browser://…` without a browser: what is asked of the app, and what is made of its times. The real
one is tried in tests/clients."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from edgestill.models.errors import EdgestillError, UsageError
from edgestill.runtime.data.row import Row
from edgestill.runtime.profiling.targets import browser
from edgestill.runtime.profiling.targets._base import Asked, Target

ROWS = [Row(messages=({"role": "system", "content": "s"}, {"role": "user", "content": text}))
        for text in ("one", "two")]


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """The folder of a web app, as far as anything here looks at it."""
    (tmp_path / "node_modules" / "@huggingface" / "transformers").mkdir(parents=True)
    settings = {"task": "generate", "device": "wasm", "system": "a } in it"}
    (tmp_path / "settings.mjs").write_text(f"// Generated.\nexport const settings = {json.dumps(settings)};\n")
    return tmp_path


def test_the_app_s_own_times_are_summed_up(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def answers(folder: Path, texts: list[str], device: str) -> list[dict[str, Any]]:
        asked.append(texts)
        run = {"prompt_tokens": 5, "tokenize_ms": 1.0, "prefill_ms": 9.0, "token_ms": [2.0, 4.0]}
        slow = {**run, "prefill_ms": 99.0}
        return [{"threads": 2, "file_bytes": 10, "load_ms": 3.0, "start_ms": 4.0, "machine": {"system": "Chrome"},
                 "raw": {"runs": [slow if place == 0 else run]}} for place in range(len(texts))]

    monkeypatch.setattr(browser, "_answers", answers)
    found = browser.profile(f"browser://{app}", Asked(None, prompts=ROWS, repeats=4, warmup=1), print)
    assert len(asked[0]) == 5 and set(asked[0]) == {"one", "two"}
    assert found["raw"]["requests"][1]["token_ns"] == [10_000_000, 12_000_000, 16_000_000]
    assert (found["ttft_ms"], found["new_tokens"], found["prompt_tokens"]) == (10.0, 3, 5)  # the slow one warmed up
    assert found["decode_tokens_per_s"] == pytest.approx(1000 / 3) and found["request_ms"]["max"] == 16.0
    assert found["prefill_tokens_per_s"] == pytest.approx(5000 / 9) and found["peak_rss_bytes"] is None
    assert (found["threads"], found["load_ms"], found["machine"]["cpu"]) == (2, 3.0, "a browser (wasm)")
    with_gate = browser.profile(f"browser://{app}", Asked(None, prompts=ROWS, held_to=["ttft_ms.p95"], warmup=0), print)
    assert with_gate["views"]["as_met"]["requests"] == 59


def test_a_classifier_s_are_latencies() -> None:
    assert browser._requests([{"latency_ms": 2.0, "prompt_tokens": 3}] * 2) == [
        {"start_ns": start, "disturbed": [], "prompt_tokens": 3, "end_ns": 2_000_000} for start in (0, 2_000_000)]


def test_what_a_page_cannot_do_is_refused(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = f"browser://{app}"
    several = [Row(messages=(*ROWS[0].messages, {"role": "assistant", "content": "x"}, *ROWS[1].messages))]
    for asked, refusal in ((Asked(None), "a page's texts have to be given"),
                           (Asked(None, prompts=several), "takes one text, and no conversation"),
                           (Asked(None, prompts=ROWS, seconds=9), "neither --sustained nor --schema"),
                           (Asked(None, prompts=ROWS, options={"schema": {}}), "neither --sustained nor --schema")):
        with pytest.raises(UsageError, match=refusal):
            browser.profile(place, asked, print)
    monkeypatch.setattr(browser._chromium.shutil, "which", lambda name: None)
    with pytest.raises(EdgestillError, match="no browser is installed here"):
        browser.profile(place, Asked(None, prompts=ROWS), print)
    (app / "node_modules" / "@huggingface" / "transformers").rmdir()
    with pytest.raises(UsageError, match=r"has no transformers\.js"):
        Target.parse(place)
    with pytest.raises(UsageError, match="is no web app"):
        Target.parse("browser:///no/such/folder")
