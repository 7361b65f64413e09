"""What Amazon SageMaker asks a container for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from edgestill.models.errors import UsageError
from edgestill.runtime import load
from edgestill.runtime.loading.load import load_streams
from edgestill.runtime.server import serve
from edgestill.runtime.server.work_queue import Station

from ..serving import running

TEXT = "turn off the kitchen light"
CHAT = {"messages": [{"role": "user", "content": TEXT}], "max_tokens": 4}


def test_each_task_is_invoked_with_its_own_words(packed_llama: dict[str, Path], packed_bert: Path,
                                                 packed_vectors: Path) -> None:
    paths = {"text": packed_llama["gguf"], "labels": packed_bert, "vectors": packed_vectors}
    stations = [Station(name, load_streams(path, 1, 1), 8) for name, path in paths.items()]
    with running(stations, sagemaker=True) as server:
        def asked(name: str, **body: Any) -> Any:
            status, found, _ = server.ask("POST", "/invocations", {"model": name, **body})
            assert status == 200, found
            return found

        with load(paths["text"], threads=1) as model:
            wanted = model.chat(CHAT["messages"], max_new_tokens=4)
        assert asked("text", **CHAT)["choices"][0]["message"]["content"] == wanted.text
        assert asked("text", prompt=TEXT, max_tokens=4)["object"] == "text_completion"
        label = asked("labels", text=TEXT)["results"][0]["label"]
        assert label == load(packed_bert, threads=1).classify(TEXT).label
        assert asked("labels", messages=CHAT["messages"])["choices"][0]["message"]["content"] == label
        assert len(asked("vectors", input=TEXT)["data"][0]["embedding"]) == 64
        status, found, _ = server.ask("POST", "/invocations", {"model": "vectors", **CHAT})
        assert status == 400 and "vectors is made to embed" in found["error"]["message"]


def test_only_its_routes_are_there(packed_bert: Path) -> None:
    with running([Station("labels", load_streams(packed_bert, 1, 1), 8)], sagemaker=True) as server:
        assert server.ask("GET", "/ping")[0] == server.ask("GET", "/health")[0] == 200
        for method, path in (("GET", "/"), ("GET", "/metrics"), ("GET", "/v1/models"), ("POST", "/classify")):
            assert server.ask(method, path, {"text": "a"} if method == "POST" else None)[0] == 404
    with running([Station("labels", load_streams(packed_bert, 1, 1), 8)]) as server:
        assert server.ask("GET", "/ping")[0] == server.ask("POST", "/invocations", {"text": "a"})[0] == 404


@pytest.mark.parametrize("given", [{"key": "0123456789abcdef"}, {"allow_origins": ["https://a.example"]}])
def test_what_it_never_sends_is_refused(given: dict[str, Any], packed_bert: Path) -> None:
    with pytest.raises(UsageError, match="SageMaker sends no API key"):
        serve([packed_bert], "0.0.0.0", 0, sagemaker=True, **given)
