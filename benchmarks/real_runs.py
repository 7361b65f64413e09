"""The main job on a real pretrained model: `init` then `run` on rows as people have them, as a new user types it.

Three tasks: SNIPS voice commands as text → JSON (400 rows), SGD dialogues as chats with tools (200 conversations), and
Bitext's support answers as free text (400 rows). Prints exit code, minutes and peak memory of each run, and what
shipped.

    python benchmarks/real_models.py --out out/real
    python benchmarks/real_runs.py --data ../shared/data --out out/real [--task snips]
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from real_models import SMOLLM2
from snips_data import answer, read, write

ROWS = {"snips": 400, "sgd": 200, "bitext": 400}


def rows(task: str, data: Path) -> list[dict[str, Any]]:
    """The task's rows, the same at every call."""
    pick = random.Random(0)
    if task == "snips":
        found = read(data / "snips" / "train.jsonl.gz")
        made = [{"prompt": row["text"], "completion": answer(row["label"], row["slots"])} for row in found]
    else:
        path = data / ("sgd/train.chat.jsonl.gz" if task == "sgd" else "bitext_support/all.jsonl.gz")
        with gzip.open(path, "rt", encoding="utf-8") as file:
            made = [json.loads(line) for line in file]
        if task == "sgd":
            made = [{"messages": row["messages"], "tools": row["tools"]} for row in made]
    pick.shuffle(made)
    return made[:ROWS[task]]


def run(task: str, data: Path, out: Path, epochs: float) -> None:
    """`init` and `run` of one task, told in one line each."""
    folder = out / task
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "rows.jsonl", rows(task, data))
    command = [sys.executable, "-P", "-m", "edgestill"]
    run_file = folder / "run.toml"
    run_file.unlink(missing_ok=True)
    subprocess.run([*command, "init", str(folder / "rows.jsonl"), "--student", str(out / SMOLLM2), "-o", str(run_file)],
                   check=True)
    started = time.perf_counter()
    with (folder / "run.log").open("w") as log:
        process = subprocess.Popen([*command, "run", str(run_file), "-o", str(folder / "out"), "--set",
                                    f"tune.epochs={epochs}"], stdout=log, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    minutes = (time.perf_counter() - started) / 60
    print(f"{task}: exit {os.waitstatus_to_exitcode(status)}, {minutes:.1f} minutes, "
          f"{usage.ru_maxrss * (1 if sys.platform == 'darwin' else 1024) / 1e9:.2f} GB at most; {folder / 'run.log'}")
    summary = folder / "out" / "summary.json"
    if summary.is_file():
        for model in json.loads(summary.read_text(encoding="utf-8"))["models"]:
            told = {name: f"{value['value']:.3f}" for name, value in model["metrics"].items()}
            print(f"  {model['name']}: {told} {model['model_bytes'] or ''}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with snips, sgd and bitext_support")
    parser.add_argument("--out", type=Path, default=Path("out/real"))
    parser.add_argument("--task", choices=[*ROWS], action="append")
    parser.add_argument("--epochs", type=float, default=1.0)
    arguments = parser.parse_args()
    for task in arguments.task or ROWS:
        run(task, arguments.data, arguments.out, arguments.epochs)


if __name__ == "__main__":
    main()
