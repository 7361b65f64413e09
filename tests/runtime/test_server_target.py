"""`profile --target http://…`: a server's times, by the one schema of profiles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from edgestill.cli import main
from edgestill.cli.commands import profile_targets
from edgestill.models.errors import UsageError
from edgestill.runtime.data.row import Row
from edgestill.runtime.profiling.targets import server
from edgestill.runtime.profiling.targets._base import Asked, Target

from ..remote_stub import Stub, streamed
from ..serving import Running
from .test_http_requests import delta, events

ROWS = [Row(messages=({"role": "user", "content": text}, {"role": "assistant", "content": "SECRET"}))
        for text in ("one", "two")]


def measured(place: str, **asked: Any) -> dict[str, Any]:
    return server.profile(place, Asked(**{"model": None, "prompts": ROWS, "repeats": 4, "warmup": 1, **asked}), print)


def test_a_server_is_asked_the_prompts_and_timed(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(server.KEY, "secret")
    stub.reply = lambda body: streamed("a", "b", "c", "d")
    found = measured(stub.url, new_tokens=9, options={"schema": {"type": "object"}}, seconds=0.2)
    met, requests = found["views"]["as_met"], found["raw"]["requests"]
    assert len(requests) == met["requests"] >= 4 and found["sustained"]["seconds"] > 0.1
    times = met["ttft_ms"]
    assert found["ttft_ms"] == times["p50"] and ("p95" in times["needed"]) is (times["upper"]["p95"] is None)
    assert (found["new_tokens"], found["prompt_tokens"]) == (4, 30) and met["token_ms"]["values"] == 3 * len(requests)
    assert found["threads"] is found["file_bytes"] is found["prefill_tokens_per_s"] is None
    assert found["machine"]["model"] == "big-1" and "secret" not in json.dumps(found)
    bodies = [body for path, key, body in stub.requests if key == "Bearer secret" and path != "/v1/models"]
    assert len(bodies) == len(stub.requests) - 1 == len(requests) + 2  # one says how long it takes, one warms up
    assert {body["messages"][-1]["content"] for body in bodies[2:4]} == {"one", "two"}
    assert bodies[0]["max_tokens"] == 9 and bodies[0]["response_format"]["json_schema"]["schema"] == {"type": "object"}


def test_pieces_of_several_tokens_give_a_mean_and_the_cache_is_told(stub: Stub) -> None:
    usage = {"prompt_tokens": 8, "completion_tokens": 9, "prompt_tokens_details": {"cached_tokens": 4}}
    stub.reply = lambda body: events(delta(content="ab"), delta(content="cd"), {
        "choices": [], "usage": usage, "timings": {"prompt_ms": 2.0, "prompt_n": 4}})
    found = measured(f"{stub.url}#big-2")
    request = found["raw"]["requests"][0]
    assert found["views"]["as_met"]["token_ms"]["values"] == 4 and stub.requests[0][2]["model"] == "big-2"
    assert found["prefill_tokens_per_s"] == pytest.approx(2000)
    gap = (request["token_ns"][1] - request["token_ns"][0]) / 8
    assert gap / 1e6 in [pytest.approx(found["token_ms"][part]) for part in ("p50", "max")] or len({
        tuple(one["token_ns"]) for one in found["raw"]["requests"]}) > 1
    told = "\n".join(found["verdict"])
    assert "4 of 4 answers came in pieces that are no single tokens" in told and "had 100% of the prompts'" in told


def test_our_own_server_is_one(several: Running, packed_llama: dict[str, Path], packed_bert: Path) -> None:
    place = f"http://127.0.0.1:{several.port}"
    found = measured(f"{place}#text", model=packed_llama["gguf"], prompts=None, prompt_tokens=6, new_tokens=5)
    assert 1 <= found["new_tokens"] <= 5 and found["kind"] == "generate" and found["prompt_tokens"] > 6
    labels = measured(f"{place}#labels", model=packed_bert)
    assert labels["kind"] == "classify" and labels["latency_ms"]["p50"] > 0 and labels["new_tokens"] is None


def test_what_cannot_be_asked_is_refused(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    for asked, refusal in (({"prompts": None}, "a server's prompts have to be given"), ({"prompts": []}, "no rows")):
        with pytest.raises(UsageError, match=refusal):
            measured(stub.url, **asked)
    stub.models = ["a", "b"]
    with pytest.raises(UsageError, match="the server has 2 models, and none is named") as error:
        measured(stub.url)
    assert error.value.hint.endswith("one of: a, b")
    for place in ("http://pi5.local:80", "http://", "https://host/v1?key=x"):
        with pytest.raises(UsageError):
            Target.parse(place)
    monkeypatch.setenv(server.KEY, "secret")
    assert profile_targets.parse(["https://one/v1"], None)
    with pytest.raises(UsageError, match=f"{server.KEY} would be sent to each of 2 servers"):
        profile_targets.parse(["https://one/v1", "b=https://two/v1"], None)


def test_gates_hold_a_server(stub: Stub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stub.reply = lambda body: streamed("a", "b", "c", "d")
    rows, text = tmp_path / "rows.jsonl", tmp_path / "gates.md"
    rows.write_text('{"prompt": "one", "completion": "x"}\n')
    words = ["profile", "--target", f"phone={stub.url}", "--prompts", str(rows), "--threads", "2",
             "--markdown", str(text)]
    assert main.call([*words, "--gate", "ttft_ms<=1e9"]) == 0
    printed, said = capsys.readouterr()
    assert "ttft_ms" in printed and "threads" not in printed and "this server has its own" in said
    assert "### phone" in text.read_text(encoding="utf-8") and "a server that does not tell" in text.read_text("utf-8")
    assert main.call([*words, "--gate", "phone:peak_rss_bytes<=1"]) == 3
    assert "peak_rss_bytes <= 1: was not measured" in capsys.readouterr().err
