"""What is left of a model's speed beside one busy loop: decoding of GGUF and ONNX, and training.

Each way runs in a process of its own and is measured in pairs, alone and beside the loop in turn; what counts is the
ratio of the medians. Run it on a machine that does nothing else, on two cores (taskset -c 0,1):
python benchmarks/contention.py GGUF_ARTIFACT ONNX_ARTIFACT HF_FOLDER
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

BUSY = "while True: pass"


def decode(path: str, seconds: float, warm: float) -> float:
    """Tokens a second of greedy decoding, for `seconds` after `warm` seconds in which threads may be set anew."""
    from edgestill.runtime import load

    model: Any = load(path)
    ids = [5 + place % 100 for place in range(64)]
    logits = model.engine.prefill(ids)
    begun, count = time.perf_counter(), 0
    while (now := time.perf_counter()) < begun + warm + seconds:
        if model.engine.position + 1 >= model.engine.context_length:
            model.engine.truncate(0)
            model.engine.prefill(ids)
        logits = model.engine.decode(int(logits.argmax()))
        count += now >= begun + warm
    return count / seconds


def train(path: str, seconds: float, warm: float) -> float:
    """Tokens a second of forward and backward passes over 4 rows of 128 tokens, as training takes them."""
    from edgestill import distill

    assert "torch" not in sys.modules and "GOMP_SPINCOUNT" in os.environ, distill  # what it says must come before torch
    import torch
    from edgestill.distill.training.machine import threads
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads())
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    ids = torch.randint(5, 1000, (4, 128), generator=torch.Generator().manual_seed(0))
    begun, counted, started = time.perf_counter(), 0, 0.0
    while (now := time.perf_counter()) < begun + warm + seconds:
        if now >= begun + warm and not started:
            started = now
        model(input_ids=ids, labels=ids).loss.backward()
        model.zero_grad()
        counted += ids.numel() if started else 0
    return counted / (time.perf_counter() - started)


WAYS = {"gguf": decode, "onnx": decode, "training": train}


def measured(way: str, path: str, seconds: float, warm: float, beside: bool) -> float:
    """One run in a fresh process, beside a busy loop or alone."""
    busy = subprocess.Popen([sys.executable, "-P", "-c", BUSY]) if beside else None
    try:
        done = subprocess.run([sys.executable, __file__, "--way", way, path, str(seconds), str(warm)], check=True,
                              stdout=subprocess.PIPE, text=True)
    finally:
        if busy is not None:
            busy.kill()
            busy.wait()
    return float(done.stdout.split()[-1])


def main() -> None:
    """Measure every way that a path is given for; JSON on stdout."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", nargs=3, type=Path, metavar="PATH", help="GGUF artifact, ONNX artifact, HF folder")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--warm", type=float, default=2.0)
    given = parser.parse_args()
    result: dict[str, Any] = {"cores": len(os.sched_getaffinity(0)), "load": os.getloadavg()[0]}
    for way, path in zip(WAYS, given.paths, strict=True):
        found: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(given.pairs):
            for beside in found:
                found[beside].append(measured(way, str(path), given.seconds, given.warm, beside))
        alone, beside_it = (statistics.median(found[beside]) for beside in (False, True))
        result[way] = {"alone_per_s": found[False], "beside_per_s": found[True], "kept": beside_it / alone}
        print(f"{way}: {alone:.1f} alone, {beside_it:.1f} beside, {beside_it / alone:.2f} kept", file=sys.stderr)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--way"]:
        way, path, seconds, warm = sys.argv[2:]
        print(WAYS[way](path, float(seconds), float(warm)))
    else:
        main()
