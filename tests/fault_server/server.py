"""The server: reads requests, draws their faults, keeps the ledger, writes what the faults make of the answers."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import hashlib
import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from .answers import OBJECTS, TEXTS, completion, digest, dumped, instance, parts_of, prompt_tokens, tokens, told
from .refusals import REFUSALS, Asked, Group, openai
from .wires import WIRES, End, Step, framed, head

FAULTS = {name: entry[0] for table in (REFUSALS, WIRES, OBJECTS, TEXTS) for name, entry in table.items()}


def of_group(*groups: Group) -> list[str]:
    """The faults of some groups."""
    return [name for name, group in FAULTS.items() if group in groups]


WORTH_ASKING_AGAIN = of_group(Group.REFUSED, Group.LOST, Group.SPOILT, Group.ODD)


@dataclasses.dataclass
class Call:
    """A line of the ledger."""

    asked_at: float            # seconds of a clock that only tells differences
    host: str                  # as the client called this server
    path: str
    authorization: str
    body: Any
    content: str               # hash of the body
    attempt: int               # how often this content was asked, this time included
    early: bool                # before a Retry-After for this content had passed
    fault: str                 # "" where the answer is as it should be
    status: int                # 0 where no status line was sent
    billed: bool
    prompt_tokens: int         # that are billed, as are the next
    completion_tokens: int
    answers: tuple[str, ...]   # what the teacher meant to say
    delivered: bool = False    # what the fault lets through was taken by the client's side

    @property
    def usable(self) -> bool:
        """Whether the client got an answer that it must take."""
        return self.delivered and self.status == 200 and FAULTS.get(self.fault, Group.ODD) is Group.ODD


Choose = Callable[[Asked], str]


class FaultServer:
    """Serves from a thread while the block runs.

    `choose` names the fault for a request ("" for none) and replaces the draw of `rate` among `faults`; `answer` says
    what the teacher's answer number n to a request is; `latency` is how long its work takes, `stall` how long a slow
    answer does, both in seconds; `wait` the whole seconds of a Retry-After; with a `key`, other keys get a 401.
    """

    def __init__(self, *, seed: int = 0, rate: float = 0.0, faults: Sequence[str] = WORTH_ASKING_AGAIN,
                 choose: Choose | None = None, answer: Callable[[Asked, int], str] | None = None, key: str = "",
                 wait: int = 1, stall: float = 5.0, latency: float = 0.0, port: int = 0) -> None:
        if unknown := set(faults) - set(FAULTS):
            raise ValueError(f"no such faults: {', '.join(sorted(unknown))}")
        self.seed, self.rate, self.faults, self.key = seed, rate, list(faults), key
        self.wait, self.stall, self.latency, self.port = wait, stall, latency, port
        self.choose, self.answer = choose or self._drawn, answer or told
        self.calls: list[Call] = []
        self.at_once = self.most_at_once = 0
        self._times: Counter[str] = Counter()
        self._not_before: dict[str, float] = {}
        self._stopping: Callable[[], object] = lambda: None

    @property
    def url(self) -> str:
        """The base address that a client is given."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def billed(self) -> list[Call]:
        """What the account is charged for."""
        return [call for call in self.calls if call.billed]

    def __enter__(self) -> Self:
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self.serve(ready.set)), daemon=True)
        self._thread.start()
        if not ready.wait(10):
            raise RuntimeError("the fault server did not start")
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping()
        self._thread.join()

    async def serve(self, ready: Callable[[], object]) -> None:
        """Serve until told to stop; `ready` is called once `port` is known."""
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        self._stopping = lambda: loop.call_soon_threadsafe(stop.set)
        server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        ready()
        await stop.wait()
        server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):  # the client went away
            while request := await _read(reader):
                if not await self._answered(*request, reader, writer):
                    break
        writer.close()

    async def _answered(self, method: str, path: str, headers: Mapping[str, str], data: bytes,
                        reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection stays open."""
        plain = path.partition("?")[0]
        if method == "GET":
            found = {"/ledger": [dataclasses.asdict(call) for call in self.calls],
                     "/v1/models": {"object": "list", "data": [{"id": "big", "object": "model", "owned_by": "them"}]}}
            return await _write(writer, *_json(200 if plain in found else 404, found.get(plain, {})))
        if not plain.endswith("/chat/completions"):
            message = f"Invalid URL ({method} {plain})"
            return await _write(writer, *_json(404, openai(message, "invalid_request_error")))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            body = json.loads(data or b"null")
            if not (isinstance(body, dict) and body.get("messages") and body.get("model")):
                message = "The body of your request lacks a model or messages."
                return await _write(writer, *_json(400, openai(message, "invalid_request_error")))
            call, steps = self._reply(path, headers, body)
            if call.billed:
                await asyncio.sleep(self.latency)
            self.calls.append(call)
            return await self._send(call, steps, reader, writer)
        finally:
            self.at_once -= 1

    def _reply(self, path: str, headers: Mapping[str, str], body: Any) -> tuple[Call, Sequence[Step]]:
        content = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        self._times[content] += 1
        asked = Asked(body, headers, path, content, self._times[content], (), self.wait, self.stall,
                      f"http://localhost:{self.port}")
        asked = dataclasses.replace(asked, answers=tuple(self.answer(asked, n) for n in range(body.get("n") or 1)))
        fault = "401" if self.key and asked.token != self.key else self.choose(asked)
        if fault in REFUSALS and not REFUSALS[fault].when(body):
            fault = ""
        said = asked
        if fault in TEXTS:
            said = dataclasses.replace(asked, answers=tuple(map(TEXTS[fault][1], asked.answers)))
        status, billed, steps = _made(said, fault)
        now = time.monotonic()
        used = (prompt_tokens(said), sum(map(tokens, said.answers))) if billed else (0, 0)
        call = Call(now, headers.get("host", ""), path, headers.get("authorization", ""), body, content, asked.attempt,
                    now < self._not_before.get(content, 0.0), fault, status, billed, *used, asked.answers)
        if status == 429 and isinstance(steps[0], bytes) and fault != "429_at_once" and (
                b"\nretry-after" in steps[0] or b"\nx-ratelimit-reset:" in steps[0]):
            self._not_before[content] = now + self.wait
        return call, steps

    def _drawn(self, asked: Asked) -> str:
        """By seed, content and attempt; what a first attempt makes permanent stays."""
        for attempt in (1, asked.attempt):
            drawn = digest(self.seed, asked.content, attempt)
            fault = self.faults[drawn // 2**32 % len(self.faults)] if drawn % 2**32 < self.rate * 2**32 else ""
            if attempt == asked.attempt or FAULTS.get(fault) is Group.PERMANENT:
                break
        return fault

    async def _send(self, call: Call, steps: Sequence[Step], reader: asyncio.StreamReader,
                    writer: asyncio.StreamWriter) -> bool:
        for at, step in enumerate(steps):
            if isinstance(step, End):
                return await _ended(step, reader, writer)
            if isinstance(step, float):
                await asyncio.sleep(step)
                continue
            call.delivered = not any(isinstance(rest, bytes) for rest in steps[at + 1:])
            try:
                await _write(writer, step)
            except ConnectionError:
                call.delivered = False
                raise
        return True


def _made(asked: Asked, fault: str) -> tuple[int, bool, Sequence[Step]]:
    """Status, whether it is billed, and what is written."""
    if refusal := REFUSALS.get(fault):
        body = refusal.body(asked) if callable(refusal.body) else refusal.body
        said, kind = (body.encode(), "text/html") if isinstance(body, str) else (dumped(body), "application/json")
        headers = {"content-type": kind, "content-length": len(said), "x-request-id": f"req_{asked.content[:32]}"}
        return refusal.status, refusal.billed, [head(refusal.status, {**headers, **refusal.headers(asked)}), said]
    whole = completion(asked)
    if fault in OBJECTS:
        whole = OBJECTS[fault][1](whole)
    parts = parts_of(asked, whole)
    if fault not in WIRES:
        return 200, True, framed(asked, parts)
    group, wire = WIRES[fault]
    steps = wire(asked, parts)
    return 200 if isinstance(steps[0], bytes | float) else 0, group is not Group.REFUSED, steps


async def _read(reader: asyncio.StreamReader) -> tuple[str, str, dict[str, str], bytes] | None:
    """Method, path, headers with their names in small letters, and body of the next request; None at the end."""
    if not (line := await reader.readline()):
        return None
    method, path, _ = line.decode().split()
    headers = {}
    while (line := (await reader.readline()).decode("latin-1").strip()):
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return method, path, headers, await reader.readexactly(int(headers.get("content-length", 0)))


async def _write(writer: asyncio.StreamWriter, *parts: bytes) -> bool:
    writer.writelines(parts)
    await writer.drain()
    return True


def _json(status: int, value: Any) -> tuple[bytes, bytes]:
    said = dumped(value)
    return head(status, {"content-type": "application/json", "content-length": len(said)}), said


async def _ended(end: End, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    if end is End.DROP_NEXT and not await reader.read(1):
        return False
    if end is not End.CLOSE:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    return False


def main() -> None:
    """Serve as a process until it is killed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fault_server")
    for name, default in (("port", 0), ("seed", 0), ("rate", 0.0), ("wait", 1), ("stall", 5.0), ("latency", 0.0)):
        parser.add_argument(f"--{name}", type=type(default), default=default)
    parser.add_argument("--key", default="", help="other keys get a 401")
    parser.add_argument("--faults", type=lambda names: names.split(","), default=WORTH_ASKING_AGAIN,
                        help=f"some of {', '.join(FAULTS)}")
    parser.add_argument("--labels", type=lambda names: names.split(","), help="the teacher says one of these")
    given = vars(parser.parse_args())
    labels = given.pop("labels")
    server = FaultServer(**given, answer=labels and (lambda asked, n: instance({"enum": labels}, told(asked, n))))
    asyncio.run(server.serve(lambda: print(server.url, flush=True)))  # noqa: T201
