"""Start-up: `edgestill --help`, and a new process from start to a shipped model's first token, with its memory.

    python benchmarks/startup.py out/demo/export/gguf-Q4_0 out/demo/export/onnx-int4
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

FIRST_TOKEN = """
import sys
from edgestill.runtime import load
model = load(sys.argv[1])
for piece in model.stream("turn off the kitchen light in ten minutes"):
    print("first", flush=True)
    break
status = open("/proc/self/status").read()
print(status.partition("VmHWM:")[2].split()[0], flush=True)
"""


def first_token(folder: Path) -> tuple[float, int]:
    """(milliseconds from the start of a new process to its first token, its peak resident bytes)."""
    started = time.perf_counter()
    command = [sys.executable, "-P", "-c", FIRST_TOKEN, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "first\n"
    elapsed = (time.perf_counter() - started) * 1000
    peak = int(process.stdout.readline()) * 1024
    process.wait()
    return elapsed, peak


def root_help() -> float:
    """Milliseconds of `edgestill --help`."""
    started = time.perf_counter()
    subprocess.run([str(Path(sys.executable).with_name("edgestill")), "--help"], check=True, capture_output=True)
    return (time.perf_counter() - started) * 1000


def python(code: str) -> float:
    """Milliseconds of an interpreter that does no more than this."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-P", "-c", code], check=True)
    return (time.perf_counter() - started) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifacts", nargs="+", type=Path)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    # An installed package is compiled once, not at every start: so is a checkout, in the first round.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    helps, floors, numpys = [], [], []
    firsts: dict[str, list[tuple[float, int]]] = {path.name: [] for path in arguments.artifacts}
    for number in range(arguments.repeats + 1):
        found = [root_help(), python("pass"), python("import numpy"), *map(first_token, arguments.artifacts)]
        if number:
            for values, value in zip((helps, floors, numpys, *firsts.values()), found, strict=True):
                values.append(value)  # type: ignore[arg-type]
    json.dump({
        "help_ms": round(statistics.median(helps), 1),
        "bare_python_ms": round(statistics.median(floors), 1),
        "bare_python_with_numpy_ms": round(statistics.median(numpys), 1),
        "first_token": {name: {"ms": round(statistics.median(ms for ms, _ in found), 1),
                               "peak_rss_mb": round(max(rss for _, rss in found) / 1e6, 1)}
                        for name, found in firsts.items()},
        "repeats": arguments.repeats,
    }, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
