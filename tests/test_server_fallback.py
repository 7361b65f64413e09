"""The served model hands on what it is not sure of, and is compared with the fallback where it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from edgestill.cli.main import call
from edgestill.runtime.loading import load_streams
from edgestill.runtime.remote import Remote
from edgestill.runtime.server.fallback import Fallback
from edgestill.runtime.server.station import Station

from .serving import running

QUESTION = [{"role": "user", "content": "turn off the kitchen light"}]


@pytest.mark.parametrize("kind", ["text", "labels"])
def test_who_answers(kind: str, packed_llama: dict[str, Path], packed_bert: Path) -> None:
    path = packed_bert if kind == "labels" else packed_llama["onnx"]
    with running([Station("big", load_streams(packed_llama["gguf"], 1, 1), 8)]) as big:
        remote = Remote(f"http://127.0.0.1:{big.port}/v1", "any")
        wanted = remote(QUESTION)
        for threshold, by in ((1.0, "fallback"), (0.0, "model")):
            fallback = Fallback(remote, threshold, shadow=1.0)
            with running([Station("small", load_streams(path, 1, 1), 8)], fallback=fallback) as small:
                client = small.client()
                answer = client.chat.completions.create(model="", messages=QUESTION).choices[0].message.content
                stream = client.chat.completions.create(model="", messages=QUESTION, stream=True)
                assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == answer
                assert (answer == wanted) == (by == "fallback" or kind == "text")
                assert small.metric(f'edgestill_answered_total{{by="{by}",model="small"}}') == 2
                shadows = [small.metric(f'edgestill_shadow_total{{model="small",same="{same}"}}')
                           for same in ("true", "false")]
                assert by == "model" or shadows == [0, 0]


def test_a_fallback_that_fails_is_an_error_of_the_server(packed_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgestill.runtime.remote.TRIES", 1)
    fallback = Fallback(Remote("http://127.0.0.1:9/v1", "any"), 1.0)
    with running([Station("small", load_streams(packed_bert, 1, 1), 8)], fallback=fallback) as small:
        status, found, _ = small.ask("POST", "/v1/chat/completions", {"messages": QUESTION})
        assert status == 500 and "cannot be reached" in json.dumps(found)
        assert small.ask("GET", "/health")[0] == 200


def test_a_threshold_without_a_fallback_is_refused(packed_bert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["serve", str(packed_bert), "--threshold", "0.5"]) == 2
    assert "--fallback URL" in capsys.readouterr().err
