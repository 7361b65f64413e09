"""A server that is asked ten times more than it can answer: who is refused, how soon, and whether the others suffer.

    python benchmarks/overload.py out/gguf-Q4_0 out/onnx-int4 --threads 2

`edgestill serve` runs in a process of its own. Its rate is measured with every stream busy; then requests come at
`--times` that rate, each on a connection of its own, whether or not earlier ones were answered. Answers are compared
with those to the same prompts asked alone.
"""

from __future__ import annotations

import argparse
import json
import re
import selectors
import socket
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import psutil
from serving import post, served

PROMPTS = [f"turn {state} the {light} light in the {room} {when}" for state in ("on", "off")
           for light in ("small", "big") for room in ("kitchen", "hall", "bedroom")
           for when in ("now", "in ten minutes", "please")]
PATIENCE = 120.0
"""Seconds that any answer may take."""


@dataclass
class Asked:
    """A request on a connection of its own, and what came back."""

    prompt: str
    connection: socket.socket
    started: float
    data: bytes = b""
    seconds: float = 0.0
    """From the opening of the connection to the last byte."""

    @property
    def status(self) -> int:
        """0 where there was no answer."""
        return int(self.data[9:12] or 0)

    @property
    def retry_after(self) -> str:
        """The header, empty where it is missing."""
        found = re.search(rb"(?i)\r\nretry-after: *([^\r]*)", self.data)
        return found[1].decode() if found else ""

    @property
    def text(self) -> str:
        """What the model said."""
        return str(json.loads(self.data.partition(b"\r\n\r\n")[2])["choices"][0]["message"]["content"])


class Client:
    """Asks without waiting. It is one loop over sockets, for it shares the processor with the server that it loads:
    a request costs it .25 ms, where one of asyncio's cost .6."""

    def __init__(self, port: int, tokens: int) -> None:
        self._port, self._tokens = port, tokens
        self._open = selectors.DefaultSelector()
        self.answers: list[Asked] = []

    @property
    def waiting(self) -> int:
        """Requests without an answer."""
        return len(self._open.get_map())

    def ask(self, prompt: str) -> None:
        """Send a request."""
        started = time.perf_counter()
        request = {"messages": [{"role": "user", "content": prompt}], "max_tokens": self._tokens}
        connection = post(self._port, "/v1/chat/completions", request)
        self._open.register(connection, selectors.EVENT_READ, Asked(prompt, connection, started))

    def look(self, until: float) -> None:
        """Take in what has come, waiting for something until then."""
        for key, _ in self._open.select(max(0.0, until - time.perf_counter())):
            asked: Asked = key.data
            try:
                found = asked.connection.recv(65536)
            except OSError:
                found = b""
            asked.data += found
            if not found:
                asked.seconds = time.perf_counter() - asked.started
                self._open.unregister(asked.connection)
                asked.connection.close()
                self.answers.append(asked)

    def finish(self, left: int = 0) -> None:
        """Wait until no more than `left` requests are without an answer, or for too long."""
        end = time.perf_counter() + PATIENCE
        while self.waiting > left and time.perf_counter() < end:
            self.look(end)


def busy(port: int, tokens: int, streams: int, count: int) -> float:
    """Answers a second with all streams at work."""
    client, started = Client(port, tokens), time.perf_counter()
    for prompt in islice(cycle(PROMPTS), count):
        client.finish(streams - 1)
        client.ask(prompt)
    client.finish()
    return count / (time.perf_counter() - started)


def flood(port: int, tokens: int, count: int, rate: float) -> tuple[list[Asked], float, int]:
    """`count` requests at `rate` a second; how many a second were sent, and how many never answered."""
    client, started = Client(port, tokens), time.perf_counter()
    for number, prompt in enumerate(islice(cycle(PROMPTS), count)):
        while time.perf_counter() < started + number / rate:
            client.look(started + number / rate)
        client.ask(prompt)
    sent = count / (time.perf_counter() - started)
    client.finish()
    return client.answers, sent, client.waiting


def watch(process: psutil.Process, found: list[int], done: threading.Event) -> None:
    """Note the memory of a process until it is done."""
    while not done.wait(0.05):
        found.append(process.memory_info().rss)


def measured(process: psutil.Process, port: int, given: argparse.Namespace) -> dict[str, Any]:
    """All numbers of one server."""
    quiet = Client(port, given.tokens)
    for prompt in PROMPTS:
        quiet.ask(prompt)
        quiet.finish()
    alone = {asked.prompt: asked.text for asked in quiet.answers}
    capacity = busy(port, given.tokens, given.streams, 4 * len(PROMPTS))
    before, memory, done = process.memory_info().rss, [0], threading.Event()
    watcher = threading.Thread(target=watch, args=(process, memory, done))
    watcher.start()
    spent = time.process_time()
    answers, sent, lost = flood(port, given.tokens, given.requests, given.times * capacity)
    spent = time.process_time() - spent
    done.set()
    watcher.join()
    refused = sorted(answer.seconds * 1000 for answer in answers if answer.status == 429)
    accepted = [answer for answer in answers if answer.status == 200]
    return {"requests": given.requests, "rate": round(sent, 1), "capacity": round(capacity, 1),
            "client_cpu_ms_per_request": round(spent * 1000 / given.requests, 3),
            "accepted": len(accepted), "refused": len(refused), "unanswered": lost,
            "errors_5xx": sum(answer.status >= 500 for answer in answers),
            "other": dict(Counter(str(a.status) for a in answers if a.status not in (200, 429) and a.status < 500)),
            "without_retry_after": sum(answer.status == 429 and not answer.retry_after.isdecimal()
                                       for answer in answers),
            "refusal_ms": {name: round(refused[int(share * (len(refused) - 1))], 2) for name, share in (
                ("p50", 0.5), ("p99", 0.99), ("max", 1.0))} if refused else {},
            "wrong_answers": sum(answer.text != alone[answer.prompt] for answer in accepted),
            "slowest_answer_s": round(max((answer.seconds for answer in accepted), default=0.0), 2),
            "rss_mb": {"before": round(before / 1e6, 1), "peak": round(max(memory) / 1e6, 1),
                       "after": round(process.memory_info().rss / 1e6, 1)}}


def measure(path: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Serve an artifact, flood it, end it."""
    with served(path, threads=given.threads, streams=given.streams, queue=given.queue) as (process, port):
        return {"artifact": str(path), "threads": given.threads, "streams": given.streams, "queue": given.queue,
                "tokens": given.tokens, **measured(psutil.Process(process), port, given)}


def main() -> None:
    """Print one JSON object an artifact; exit 1 where a request was failed, answered wrongly or refused without a hint
    when to come back."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifacts", nargs="+", type=Path)
    for name, value in (("threads", 2), ("streams", 4), ("queue", 16), ("tokens", 24), ("requests", 500),
                        ("times", 10)):
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    sound = True
    for path in given.artifacts:
        found = measure(path, given)
        print(json.dumps(found), flush=True)
        sound &= not any(found[name] for name in ("errors_5xx", "other", "unanswered", "without_retry_after",
                                                   "wrong_answers"))
    sys.exit(0 if sound else 1)


if __name__ == "__main__":
    main()
