"""What a server costs and gains: one stream beside the bare model, and several streams beside one, in one sitting.

    python benchmarks/serving.py out/gguf-Q4_0 out/onnx-int4 --threads 2

`edgestill serve` runs in a process of its own. Every round measures all of them once, so that a machine whose speed
changes changes them alike; medians of ratios.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgestill.runtime import load

PROMPT = "Once upon a time there was a small model that lived on a very small device, and every day it said"


@contextmanager
def served(path: Path, **options: int) -> Iterator[tuple[int, int]]:
    """The process and the port of `edgestill serve` over an artifact; SystemExit with its words when it ends first."""
    command = [sys.executable, "-P", "-m", "edgestill", "serve", str(path), "--port", "0",
               *(word for name, value in options.items() for word in (f"--{name}", str(value)))]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            said: list[str] = []
            for line in iter(server.stderr.readline, ""):
                said.append(line)
                if line.startswith("serving at "):
                    break
            else:
                raise SystemExit("".join(said))
            yield server.pid, int(said[-1].rpartition(":")[2])
        finally:
            server.terminate()


def bare(model: Any, tokens: int) -> float:
    """Tokens/s after the first of one answer without a server."""
    stamps = [time.perf_counter() for piece in model.stream_ids(model.codec.plain_ids(PROMPT), max_new_tokens=tokens,
                                                                reuse="none", stop_ids=[]) if piece.text]
    return (len(stamps) - 1) / (stamps[-1] - stamps[0])


def post(port: int, path: str, request: dict[str, Any]) -> socket.socket:
    """A connection over which a request was sent, and which ends with its answer."""
    body = json.dumps(request).encode()
    connection = socket.create_connection(("127.0.0.1", port), timeout=600)
    connection.sendall(b"POST %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
                       b"Content-Length: %d\r\n\r\n%s" % (path.encode(), len(body), body))
    return connection


def streamed(port: int, tokens: int, number: int) -> list[float]:
    """When the pieces of one streamed answer arrived. They are counted as they come off the socket: a client that takes
    every line apart needs the cores that compute the next token."""
    request = {"prompt": f"{number} {PROMPT}", "max_tokens": tokens, "stream": True}
    with post(port, "/v1/completions", request) as connection:
        stamps: list[float] = []
        while data := connection.recv(2**16):
            stamps += [time.perf_counter()] * data.count(b"data: {")
    return stamps[:-1]


def speed(stamps: list[float]) -> float:
    """Pieces/s after the first."""
    return (len(stamps) - 1) / (stamps[-1] - stamps[0])


def measure(path: Path, threads: int, streams: int, tokens: int, rounds: int, restarts: int) -> dict[str, Any]:
    """Medians over rounds, ratios within rounds; `added` also for each restart. One program's processes differ among
    themselves by up to 9 %, so both are started several times."""
    found: dict[str, list[float]] = {name: [] for name in ("bare", "served", "added", "together", "gain", "slowest")}
    for _ in range(restarts):
        with served(path, threads=threads, streams=streams) as (_, port), load(path, threads=threads) as model:
            for _ in range(rounds):
                one_round(model, port, streams, tokens, found)
    added = [statistics.median(found["added"][start:start + rounds]) for start in range(0, restarts * rounds, rounds)]
    return {"artifact": str(path), "threads": threads, "streams": streams, "tokens": tokens, "rounds": rounds,
            **{name: round(statistics.median(values), 3) for name, values in found.items()},
            "added_by_restart": [round(value, 3) for value in added]}


def one_round(model: Any, port: int, streams: int, tokens: int, found: dict[str, list[float]]) -> None:
    """Measure everything once."""
    alone = bare(model, tokens)
    one = speed(streamed(port, tokens, 0))
    with ThreadPoolExecutor(streams) as pool:
        all_stamps = list(pool.map(lambda number: streamed(port, tokens, number), range(streams)))
    begin, end = max(stamps[0] for stamps in all_stamps), min(stamps[-1] for stamps in all_stamps)
    speeds = [sum(begin <= stamp <= end for stamp in stamps) / (end - begin) for stamps in all_stamps]
    for name, value in (("bare", alone), ("served", one), ("added", alone / one - 1), ("together", sum(speeds)),
                        ("gain", sum(speeds) / one), ("slowest", min(speeds) * streams / sum(speeds))):
        found[name].append(value)


def main() -> None:
    """Print one JSON object an artifact. bare, served, together: tokens/s; added: time a token that the server adds;
    gain: all streams over one; slowest: the slowest stream over their mean."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifacts", nargs="+", type=Path)
    for name, value in (("threads", 2), ("streams", 4), ("tokens", 128), ("rounds", 3), ("restarts", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    for path in given.artifacts:
        print(json.dumps(measure(path, given.threads, given.streams, given.tokens, given.rounds, given.restarts)),
              flush=True)


if __name__ == "__main__":
    main()
