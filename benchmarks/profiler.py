"""Whether the profiler's numbers hold: its bounds on simulated series, its clock beside llama.cpp's own, what measuring
costs, and whether it finds out what disturbed it.

    python benchmarks/profiler.py bounds                              # 2,000 series each; no model, some minutes
    python benchmarks/profiler.py clock out/snips/gguf-Q4_0           # on a machine that does nothing else
    python benchmarks/profiler.py cost out/snips/gguf-Q4_0
    python benchmarks/profiler.py hog out/snips/gguf-Q4_0
    python benchmarks/profiler.py compare out/snips/gguf-Q4_0 --pairs 20 --requests 60 --tokens 16
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from edgestill.runtime import load, profile
from edgestill.runtime.evaluation import intervals
from edgestill.runtime.profiling import comparison, percentile_bounds, timed_requests
from edgestill.runtime.profiling.prompts import of_length
from edgestill.runtime.profiling.watch import Watch

NORMAL_P95, NORMAL_P75 = 1.6448536, 0.6744898
Simulated = tuple[np.ndarray, float]


def lognormal(drawn: np.random.Generator, count: int) -> Simulated:
    """Heavy-tailed: a lognormal of sigma 1."""
    return drawn.lognormal(0, 1, count), float(np.exp(NORMAL_P95))


def pareto(drawn: np.random.Generator, count: int) -> Simulated:
    """Heavier still: of infinite variance."""
    return drawn.pareto(1.5, count) + 1, 0.05 ** (-1 / 1.5)


def two_modes(drawn: np.random.Generator, count: int) -> Simulated:
    """One request in five is ten times as slow, whichever came before."""
    slow = drawn.random(count) < 0.2
    return np.where(slow, 10 + drawn.normal(size=count), 1 + 0.1 * drawn.normal(size=count)), 10 + NORMAL_P75


def spells(drawn: np.random.Generator, count: int) -> Simulated:
    """The same share of slow requests, in spells of 2 to 50 requests on average."""
    leave = drawn.uniform(0.02, 0.5)
    slow, states = drawn.random() < 0.2, []
    for chance in drawn.random(count):
        states.append(slow)
        slow = chance >= leave if slow else chance < leave * 0.2 / 0.8
    times = np.where(states, 10 + drawn.normal(size=count), 1 + 0.1 * drawn.normal(size=count))
    return times, 10 + NORMAL_P75


def autoregressive(drawn: np.random.Generator, count: int) -> Simulated:
    """AR(1) with a correlation of 0 to 0.9 between neighbours."""
    alike = drawn.uniform(0, 0.9)
    noise, times = drawn.normal(size=count), np.empty(count)
    times[0] = noise[0]
    for place in range(1, count):
        times[place] = alike * times[place - 1] + np.sqrt(1 - alike**2) * noise[place]
    return times, NORMAL_P95


def drifting(drawn: np.random.Generator, count: int) -> Simulated:
    """Rising by 0 to 4 standard deviations, evenly or ever slower; the truth is that of the whole run's mixture."""
    share = (np.arange(count) + 0.5) / count
    level = drawn.uniform(0, 4) * (share if drawn.random() < 0.5 else 1 - np.exp(-5 * share))
    return level + drawn.normal(size=count), _mixed(level)


def drifting_late(drawn: np.random.Generator, count: int) -> Simulated:
    """The same; the truth is that of the later half, which a promise is for."""
    share = (np.arange(count) + 0.5) / count
    level = drawn.uniform(0, 4) * (share if drawn.random() < 0.5 else 1 - np.exp(-5 * share))
    return level + drawn.normal(size=count), _mixed(level[count // 2:])


def _mixed(levels: np.ndarray) -> float:
    """The p95 of normals around `levels`, by bisection."""
    low, high, normal = float(levels.min()), float(levels.max()) + 6, statistics.NormalDist()
    for _ in range(30):
        middle = (low + high) / 2
        below = statistics.fmean(normal.cdf(middle - level) for level in levels[::3])
        low, high = (middle, high) if below < 0.95 else (low, middle)
    return high


SERIES: tuple[Callable[[np.random.Generator, int], Simulated], ...] = (
    lognormal, pareto, two_modes, spells, autoregressive, drifting, drifting_late)


def bounds(given: argparse.Namespace) -> dict[str, Any]:
    """Of simulated series: how many get a bound of p95, how many of these bounds hold, how many promises are false."""
    found: dict[str, Any] = {}
    for count in given.counts:
        for kind in SERIES:
            drawn, made, broken = np.random.default_rng(count), 0, 0
            for _ in range(given.series):
                times, truth = kind(drawn, count)
                bound = percentile_bounds.upper(times.tolist(), 0.95).value
                made += bound is not None
                broken += bound is not None and bound < truth
            found[f"{kind.__name__}, {count} requests"] = {
                "answered": made / given.series, "covered_of_answered": 1 - broken / made if made else None,
                "covered_or_refused": 1 - broken / given.series}
    return found


def request(model: Any, length: int, index: int) -> dict[str, Any]:
    """A prompt of some tokens."""
    ids = of_length(model.codec, None, length, index)
    return {"ids": ids, "text": model.codec.decode(ids)}


def clock(given: argparse.Namespace) -> dict[str, Any]:
    """Our time of the decode steps over llama.cpp's own of the same passes, request by request."""
    from edgestill.runtime.engines._gguf_context import GgufModel

    begin = GgufModel.begin
    GgufModel.begin = lambda self, threads, **chosen: begin(self, threads, no_perf=False, **chosen)
    ratios, whole = [], []
    with load(given.path, threads=given.threads) as model:
        c, pointer = model.engine._context.c, model.engine._context.pointer
        timed_requests.run_to_the_end(model)
        watch = Watch()
        ask = timed_requests.asker(model, new_tokens=given.tokens)
        for index in range(given.requests + 1):
            c.llama_perf_context_reset(pointer)
            [one] = timed_requests.serve(ask, [request(model, 64, index)], watch)
            theirs = c.llama_perf_context(pointer)
            assert theirs.n_eval == len(one["decode_ns"]), (theirs.n_eval, len(one["decode_ns"]))
            if index:
                ratios.append(theirs.t_eval_ms / (sum(one["decode_ns"]) / 1e6))
                whole.append(theirs.t_eval_ms / ((one["token_ns"][-1] - one["token_ns"][0]) / 1e6))
    return {"decode_rate_over_llama_cpp": statistics.median(ratios), "each": ratios,
            "with_choice_and_text": statistics.median(whole)}


def cost(given: argparse.Namespace) -> dict[str, Any]:
    """The speed of measured requests over that of plain ones, in pairs that take turns; all that measuring does is in
    the measured ones' time."""
    pairs, processor = [], []
    with load(given.path, threads=given.threads) as plain, load(given.path, threads=given.threads) as measured:
        for model in (plain, measured):
            timed_requests.run_to_the_end(model)
        asked = [request(plain, 64, index) for index in range(given.requests)]
        watch, ask = Watch(), timed_requests.asker(measured, new_tokens=given.tokens)

        def plainly() -> None:
            for one in asked:
                plain.codec.encode(one["text"])
                for _ in plain.stream_ids(one["ids"], max_new_tokens=given.tokens, reuse="none"):
                    pass

        for index in range(given.pairs + 1):
            times, used = {}, {}
            for name in ("plain", "measured") if index % 2 else ("measured", "plain"):
                started, before = time.perf_counter(), time.process_time()
                if name == "plain":
                    plainly()
                else:
                    timed_requests.serve(ask, asked, watch)
                times[name], used[name] = time.perf_counter() - started, time.process_time() - before
            if index:
                pairs.append(times["plain"] / times["measured"])
                processor.append(used["plain"] / used["measured"])
    return {"measured_over_plain": str(intervals.bootstrap(pairs)), "pairs": pairs,
            "by_processor_time": str(intervals.bootstrap(processor))}


def hog(given: argparse.Namespace) -> dict[str, Any]:
    """A busy loop on every core from half-way on: the share of requests that is marked before and after, and what is
    said of it."""
    hogs: list[subprocess.Popen[bytes]] = []
    started: list[float] = []

    def begin() -> None:
        started.append(time.perf_counter())
        hogs.extend(subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in os.sched_getaffinity(0))

    timer = threading.Timer(given.seconds / 2 + given.start, begin)
    timer.start()
    try:
        found = profile(given.path, threads=given.threads, new_tokens=given.tokens, repeats=2, seconds=given.seconds)
    finally:
        timer.cancel()
        for one in hogs:
            one.kill()
            one.wait()
    # The monotonic clock of both processes counts from the machine's start.
    marks: dict[bool, list[bool]] = {False: [], True: []}
    for one in found.raw["requests"]:
        marks[one["start_ns"] / 1e9 > started[0]].append(bool(one["disturbed"]))
    return {"marked_before": statistics.fmean(marks[False]) if marks[False] else None,
            "marked_after": statistics.fmean(marks[True]) if marks[True] else None,
            "requests": [len(marks[False]), len(marks[True])], "hogs": [one.pid for one in hogs],
            "verdict": found.verdict}


def compare(given: argparse.Namespace) -> dict[str, Any]:
    """Pairs of runs of one model, each loaded anew, and with a tenth of every step planted in the engine's loop of the
    second: what is said of them. Then 200 simulated pairs with the noise of the plain runs: their requests in blocks of
    five, their medians' spread."""
    plain, calls = [], {"same": [], "planted": []}
    for _ in range(given.pairs):
        first, second, slow = _run(given, 0.0), _run(given, 0.0), _run(given, 0.1)
        plain += [first, second]
        for name, other in (("same", second), ("planted", slow)):
            calls[name].append(next(one.told for one in comparison.compare(first, other) if one.number == "token_ms"))
    series = [np.array([comparison.TIMES["token_ms"](one) for one in run["raw"]["requests"]]) for run in plain]
    medians = np.log([np.median(one) for one in series])
    noise, drawn = [one / np.median(one) for one in series], np.random.default_rng(0)

    def simulated(slowdown: float) -> np.ndarray:
        starts = drawn.integers(0, given.requests - 5, given.requests // 5)
        chosen = noise[drawn.integers(len(noise))]
        return slowdown * np.exp(drawn.normal(0, medians.std())) * np.concatenate([chosen[at:at + 5] for at in starts])

    said = {slowdown: [comparison.interval(simulated(1.0), simulated(slowdown), True) for _ in range(200)]
            for slowdown in (1.0, 1.1)}
    return {"calls": calls, "spread_of_medians": float(medians.std()), "range_of_medians": float(np.ptp(medians)),
            "simulated_false": statistics.fmean(low > 0 or high < 0 for _, low, high, _ in said[1.0]),
            "simulated_seen": statistics.fmean(low > 0 for _, low, _, _ in said[1.1])}


def _run(given: argparse.Namespace, planted: float) -> dict[str, Any]:
    """A profile's requests of a model that is loaded for them, each step of its engine longer by the share planted."""
    with load(given.path, threads=given.threads) as model:
        timed_requests.run_to_the_end(model)
        step = model.engine.decode

        def decode(token: int) -> Any:
            begun = time.perf_counter()
            logits = step(token)
            end = begun + (time.perf_counter() - begun) * (1 + planted)
            while time.perf_counter() < end:
                pass
            return logits

        model.engine.decode = decode
        asked = [request(model, 32, index) for index in range(given.requests)]
        found = timed_requests.serve(timed_requests.asker(model, new_tokens=given.tokens), asked, Watch(), warmup=2)
    return {"kind": "generate", "raw": {"requests": found}}


def main() -> None:
    """Measure one of them; JSON on stdout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("bounds", "clock", "cost", "hog", "compare"))
    parser.add_argument("path", nargs="?", type=Path)
    parser.add_argument("--series", type=int, default=2000)
    parser.add_argument("--counts", type=int, nargs="*", default=[59, 120, 300])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--requests", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--start", type=float, default=5.0, help="seconds that the starts before the requests take")
    given = parser.parse_args()
    found = {"bounds": bounds, "clock": clock, "cost": cost, "hog": hog,
             "compare": compare}[given.what](given)
    print(json.dumps({"load_average": os.getloadavg()[0], **found}, indent=2))


if __name__ == "__main__":
    main()
