"""A server that is asked ten times more than it can answer: who is refused, how soon, and whether the others suffer.

    python benchmarks/overload.py out/gguf-Q4_0 out/onnx-int4 --threads 2

`edgestill serve` runs in a process of its own. Its rate is measured with every stream busy; then requests come at
`--times` that rate, each on a connection of its own, whether or not earlier ones were answered. Answers are compared
with those to the same prompts asked alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import psutil
from serving import served

PROMPTS = [f"turn {state} the {light} light in the {room} {when}" for state in ("on", "off")
           for light in ("small", "big") for room in ("kitchen", "hall", "bedroom")
           for when in ("now", "in ten minutes", "please")]
PATIENCE = 120.0
"""Seconds that any answer may take."""


@dataclass(frozen=True)
class Answer:
    """What came back for a prompt."""

    prompt: str
    status: int
    seconds: float
    """From the opening of the connection to the last byte."""
    retry_after: str = ""
    text: str = ""


async def ask(port: int, prompt: str, tokens: int) -> Answer:
    """Ask on a connection of its own; status 0 where none was given."""
    body = json.dumps({"messages": [{"role": "user", "content": prompt}], "max_tokens": tokens}).encode()
    started = time.perf_counter()
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                         b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            data = await reader.read()
            writer.close()
    except (OSError, TimeoutError):
        data = b""
    seconds = time.perf_counter() - started
    head, _, rest = data.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    number = int(status.split()[1]) if status else 0
    text = json.loads(rest)["choices"][0]["message"]["content"] if number == 200 else ""
    return Answer(prompt, number, seconds, headers.get("retry-after", ""), text)


async def busy(port: int, tokens: int, streams: int, count: int) -> float:
    """Answers a second with all streams at work."""
    prompts = iter(list(islice(cycle(PROMPTS), count)))

    async def worker() -> None:
        for prompt in prompts:
            await ask(port, prompt, tokens)

    started = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(streams)))
    return count / (time.perf_counter() - started)


async def flood(port: int, tokens: int, count: int, rate: float) -> tuple[list[Answer], float]:
    """`count` requests at `rate` a second, and how many a second were sent."""
    started, tasks = time.perf_counter(), []
    for number, prompt in enumerate(islice(cycle(PROMPTS), count)):
        await asyncio.sleep(max(0.0, started + number / rate - time.perf_counter()))
        tasks.append(asyncio.create_task(ask(port, prompt, tokens)))
    sent = count / (time.perf_counter() - started)
    return list(await asyncio.gather(*tasks)), sent


async def peak_of(process: psutil.Process, found: list[int]) -> None:
    """Note the memory of a process until cancelled."""
    while True:
        found.append(process.memory_info().rss)
        await asyncio.sleep(0.05)


async def measured(process: psutil.Process, port: int, given: argparse.Namespace) -> dict[str, Any]:
    """All numbers of one server."""
    alone = {prompt: (await ask(port, prompt, given.tokens)).text for prompt in PROMPTS}
    capacity = await busy(port, given.tokens, given.streams, 4 * len(PROMPTS))
    before, memory = process.memory_info().rss, [0]
    watch = asyncio.create_task(peak_of(process, memory))
    answers, sent = await flood(port, given.tokens, given.requests, given.times * capacity)
    watch.cancel()
    refused = sorted(answer.seconds * 1000 for answer in answers if answer.status == 429)
    accepted = [answer for answer in answers if answer.status == 200]
    return {"requests": len(answers), "rate": round(sent, 1), "capacity": round(capacity, 1),
            "accepted": len(accepted), "refused": len(refused),
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
                "tokens": given.tokens, **asyncio.run(measured(psutil.Process(process), port, given))}


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
        sound &= not (found["errors_5xx"] or found["other"] or found["without_retry_after"] or found["wrong_answers"])
    sys.exit(0 if sound else 1)


if __name__ == "__main__":
    main()
