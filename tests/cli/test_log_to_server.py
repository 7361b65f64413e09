"""The recipe of docs/data.md: an API's calls become a log, the log a file that ships, and the client stays as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest
from edgestill.cli import main
from edgestill.runtime.loading.load import load_streams
from edgestill.runtime.server.work_queue import Station

from ..remote_stub import Stub, said
from ..serving import running

CALLS = 64
ROOMS = ("kitchen", "bedroom", "office", "attic")
FORM: Any = {"type": "json_schema", "json_schema": {"name": "order", "strict": True, "schema": {
    "type": "object", "properties": {"room": {"type": "string", "enum": list(ROOMS)}, "light": {
        "type": "string", "enum": ["on", "off"]}},
    "required": ["room", "light"], "additionalProperties": False}}}
SMALL = ["--set", 'export=[{target="gguf:Q8_0",calibration_rows=0,certify_rows=4}]', "--set", "tune.steps=2",
         "--set", "data.test_share=0.1", "--set", "data.validation_share=0.1",
         "--set", "profile.repeats=1", "--set", "profile.new_tokens=4", "--set", "profile.prompt_tokens=8"]


def ask(client: openai.OpenAI, text: str) -> tuple[dict[str, Any], Any]:
    """What the user's program sends, whoever answers; and the answer."""
    request: dict[str, Any] = {"model": "big-1", "messages": [
        {"role": "system", "content": "Turn orders into JSON."}, {"role": "user", "content": text}]}
    return request, client.chat.completions.create(**request, response_format=FORM, max_tokens=40)


def answered(body: dict[str, Any]) -> Any:
    """The teacher's answer."""
    words = body["messages"][-1]["content"].split()
    return said(json.dumps({"room": words[3], "light": words[-1]}))


def test_the_same_client_is_answered_by_the_file_that_its_log_made(
    stub: Stub, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    stub.reply = answered
    with openai.OpenAI(base_url=stub.url, api_key="sk-of-the-teacher") as client, open("calls.jsonl", "w") as log:
        for place in range(CALLS):
            room, light = ROOMS[place % 4], ("on", "off")[place // 4 % 2]
            request, response = ask(client, f"order {place}: the {room} light {light}")
            log.write(json.dumps({"request": request | {"response_format": FORM},
                                  "response": response.model_dump(mode="json")}) + "\n")
    assert main.call(["data", "logs", "calls.jsonl"]) == 0
    assert f"{CALLS} records (openai {CALLS}): {CALLS} rows, 0 left out" in capsys.readouterr().out
    assert main.call(["init", "rows.jsonl", "--student", str(tiny_llama)]) == 0
    assert main.call(["data", "check", "run.toml"]) == 0
    assert main.call(["run", "run.toml", "-o", "out", *SMALL]) == 0
    with running([Station("gguf-Q8_0", load_streams(tmp_path / "out" / "gguf-Q8_0", 1, 1), 8)]) as server, \
            server.client() as client:
        _, response = ask(client, "order 1: the attic light off")
    found = json.loads(response.choices[0].message.content)
    assert found["room"] in ROOMS and found["light"] in ("on", "off") and response.choices[0].finish_reason == "stop"
    assert "sk-of-the-teacher" not in "".join(path.read_text(errors="ignore") for path in tmp_path.rglob("*.*")
                                              if path.is_file())
