"""`edgestill profile --rate`: a model as serve serves it, somebody's server, gates, and what does not go with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from edgestill.cli import main

from ..remote_stub import Stub, streamed

Capture = pytest.CaptureFixture[str]


def test_a_model_is_served_and_asked(packed_llama: dict[str, Path], tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "load.json"
    assert main.call(["profile", str(packed_llama["gguf"]), "--rate", "40,20", "--requests", "8", "--new-tokens", "3",
                      "--prompt-tokens", "6", "--threads", "1", "--streams", "2", "--cost-per-hour", "0.5", "--gate",
                      "request_ms.max<=1e6", "-o", str(out)]) == 0
    told, error = capsys.readouterr()
    found = json.loads(out.read_text())
    assert [(one["rate"], one["answered"], one["errors"]) for one in found["rates"]] == [(20, 8, {}), (40, 8, {})]
    assert all(one["new_tokens"] <= 3 and one["ttft_ms"]["p50"] <= one["request_ms"]["p50"] for one in found["rates"])
    assert found["holds_up_to"] == 40 and found["cost_per_million"] == found["rates"][1]["cost_per_million"] > 0
    assert found["server"]["streams"] == 2 and found["server"]["threads"] == 1 and found["server_peak_rss_bytes"] > 1e7
    assert "up to 40 requests a second hold request_ms.max <= 1e+06" in told and "16 requests: about" in error


def test_a_server_elsewhere_is_asked_by_name(stub: Stub, tmp_path: Path, capsys: Capture) -> None:
    stub.reply = lambda body: streamed("a", "b")
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "one", "completion": "1"}\n{"prompt": "two", "completion": "2"}\n')
    words = ["profile", "--target", f"{stub.url}#big-1", "--prompts", str(rows), "--rate", "100", "--requests", "6"]
    assert main.call([*words, "--json"]) == 0
    printed, error = capsys.readouterr()
    assert json.loads(printed)["rates"][0]["answered"] == 6 and "2 prompts for 8 requests" in error
    assert {body["messages"][0]["content"] for _, _, body in stub.requests} == {"one", "two"}
    assert {body["model"] for _, _, body in stub.requests} == {"big-1"} and len(stub.requests) == 8
    assert main.call([*words, "--gate", "ttft_ms.max<=0"]) == 3
    out, error = capsys.readouterr()
    assert "at 100 requests a second, the lowest rate, gates do not hold: ttft_ms.max <= 0" in error and "FAIL" in out


@pytest.mark.parametrize(("words", "told"), [
    (["m", "--rate", "0"], "write each rate once"), (["m", "--rate", "x,1"], "write each rate once"),
    (["m", "--rate", "5,5"], "write each rate once"), (["m", "--rate", "5", "--streams", "1,2"], "one number of them"),
    (["m", "--rate", "5", "--junit", "x"], "--junit does not go with --rate"),
    (["m", "n", "--rate", "5"], "--rate is of one model"),
    (["--target", "http://localhost:1", "--rate", "5", "--threads", "2"], "--threads does not go with --rate"),
    (["m", "--cost-per-hour", "1"], "--cost-per-hour does not go with a profile"),
    (["--rate", "5"], "--target local: measures a model that lies here"),
    (["--target", "http://localhost:1", "--target", "local", "m", "--rate", "5"], "--rate is of one target")])
def test_what_does_not_go_with_it_is_refused(words: list[str], told: str, capsys: Capture) -> None:
    assert main.call(["profile", *words]) == 2
    assert told in capsys.readouterr().err


def test_only_what_writes_is_asked_and_failures_are_those_of_the_server(
        packed_bert: Path, packed_llama: dict[str, Path], tmp_path: Path, capsys: Capture) -> None:
    assert main.call(["profile", str(packed_bert), "--rate", "5"]) == 2
    assert "models that classify are not measured under load" in capsys.readouterr().err
    assert main.call(["profile", str(tmp_path / "none.gguf"), "--rate", "5"]) == 1
    assert "no such file" in capsys.readouterr().err
    assert main.call(["profile", str(packed_llama["gguf"]), "--rate", "5", "--threads", "600"]) == 2
    assert "threads: 600 is outside the limits" in capsys.readouterr().err  # the server's process said so
