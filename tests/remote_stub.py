"""A server of somebody else's that speaks OpenAI's chat completions; conftest makes it the fixture `stub`."""

from __future__ import annotations

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, str], bytes]


class Stub(ThreadingHTTPServer):
    """Answers with what `reply` makes of a request's body, and remembers requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reply: Callable[[dict[str, Any]], Answer] = lambda body: said(body["messages"][-1]["content"].upper())
        self.requests: list[tuple[str, str | None, dict[str, Any]]] = []
        self.headers: list[dict[str, str]] = []
        self.models = ["big-1"]

    @property
    def url(self) -> str:
        """Its base address."""
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Stub

    def do_GET(self) -> None:
        self.server.requests.append((self.path, self.headers["Authorization"], {}))
        content = json.dumps({"object": "list", "data": [{"id": name} for name in self.server.models]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, self.headers["Authorization"], body))
        self.server.headers.append(dict(self.headers))
        status, headers, content = self.server.reply(body)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def said(text: str, **message: Any) -> Answer:
    """A chat completion as the API writes it."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text, "refusal": None, **message},
              "finish_reason": "tool_calls" if message else "stop"}
    usage = {"prompt_tokens": 30, "completion_tokens": 4, "total_tokens": 34}
    return 200, {}, json.dumps({"id": "chatcmpl-1", "object": "chat.completion", "model": "big-1", "choices": [choice],
                                "usage": usage}).encode()


def streamed(*texts: str) -> Answer:
    """The same in pieces, with what may stand between them."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "big-1"}
    usage = {"prompt_tokens": 30, "completion_tokens": 4, "total_tokens": 34}
    chunks = [{**head, "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]} for text in texts]
    chunks += [{**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
               {**head, "choices": [], "usage": usage}]
    events = [f"data: {json.dumps(chunk)}" for chunk in chunks]
    content = "\n\n".join([": a comment", *events, "data: [DONE]\n\n"])
    return 200, {"Content-Type": "text/event-stream"}, content.encode()
