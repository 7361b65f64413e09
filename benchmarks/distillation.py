"""What a teacher adds, on a real model: one student, the same steps, four ways to teach it, judged as shipped files.

The teacher is SmolLM2-135M-Instruct after `--rows` voice commands of SNIPS; the student is cut from it to 40M
parameters, vocabulary trimmed. Its arms: labels alone, the teacher as `local` model, as its own Q8_0 `gguf` file, and
as a `cached` one. Each arm ships as gguf:Q4_0 and onnx:int4. Exact match and intent are measured on the shipped files
and compared with the teacher's own Q4_0, row by row; a linear SVM on the same rows is the baseline of intents. Stopped
and called again, it goes on.

    python benchmarks/real_models.py --out out/real
    python benchmarks/distillation.py --data ../shared/data/snips --model out/real/smollm2-135m-instruct \
        --out out/distillation
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from edgestill.distill.data.baselines import linear_svm
from edgestill.runtime.data.reader import Row, read_rows
from edgestill.runtime.evaluation.evaluate import spaced
from edgestill.runtime.evaluation.intervals import matched
from snips_data import answer, read, write

ARMS = ("labels", "local", "gguf", "cached")
TARGETS = ("gguf:Q4_0", "onnx:int4")
RUN = """\
[task]
kind = "generate"
system = "JSON"
max_new_tokens = 128

[data]
train = "train.jsonl"
validation = "validation.jsonl"
test = "test.jsonl"
max_tokens = 256

[student]
model = "{model}"

[tune]
epochs = {epochs}
learning_rate = {rate}
batch_size = 16
evaluate_every = {every}
adapter = {{ kind = "{adapter}" }}

[distill]
epochs = {epochs}
learning_rate = {rate}
batch_size = 16
evaluate_every = {every}
losses = [{{ kind = "forward_kl" }}]
"""
TEACHERS = {
    "local": '[teacher]\nkind = "local"\nmodel = "teacher"\n',
    "gguf": '[teacher]\nkind = "gguf"\nmodel = "packed-teacher/gguf-Q8_0/model.gguf"\n',
    "cached": '[teacher]\nkind = "local"\nmodel = "teacher"\ncache = { folder = "teacher-cache" }\n',
}


class Sitting:
    """The folder of one measurement, and the commands that fill it."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.minutes: dict[str, float] = {}

    def edgestill(self, name: str, made: str, *arguments: str) -> None:
        """One command with its output in NAME.log, unless `made` stands; its minutes are kept."""
        told = self.out / f"{name}.minutes"
        if not (self.out / made).exists():
            started = time.perf_counter()
            with (self.out / f"{name}.log").open("w") as log:
                code = subprocess.run([sys.executable, "-P", "-m", "edgestill", *arguments], cwd=self.out, stdout=log,
                                      stderr=subprocess.STDOUT, check=False).returncode
            if code or not (self.out / made).exists():
                raise SystemExit(f"{name}: exit {code}, see {self.out / name}.log")
            told.write_text(f"{(time.perf_counter() - started) / 60:.2f}")
        self.minutes[name] = float(told.read_text())

    def run_file(self, name: str, more: str, **values: Any) -> str:
        (self.out / f"{name}.toml").write_text(RUN.format(**values) + "\n" + more, encoding="utf-8")
        return f"{name}.toml"

    def pack(self, model: str, target: str, run: str) -> None:
        """Export to packed-MODEL."""
        folder = target.replace(":", "-")
        self.edgestill(f"pack-{model}-{folder}", f"packed-{model}/{folder}", "export", model, "--to", target, "--rows",
                       run, "-o", f"packed-{model}")

    def scored(self, name: str, artifact: str, limit: int) -> dict[str, Any]:
        """The answers of a shipped file to the test rows, and whether each is right."""
        self.edgestill(f"{name}.quality", f"{name}.quality.json", "evaluate", artifact, "test.jsonl", "--metric",
                       "exact_match", "--limit", str(limit), "-o", f"{name}.quality.json")
        found: dict[str, Any] = json.loads((self.out / f"{name}.quality.json").read_text(encoding="utf-8"))
        return found


def rows(data: Path, out: Path, count: int) -> None:
    """The first rows of a fixed order to learn from, 200 more to validate, and the published test rows."""
    tests = read(data / "test.jsonl")
    asked = {row["text"] for row in tests}
    known = [row for row in read(data / "train.jsonl.gz") if row["text"] not in asked]
    random.Random(0).shuffle(known)
    for name, part in (("validation", known[:200]), ("train", known[200:200 + count]), ("test", tests)):
        write(out / f"{name}.jsonl",
              [{"prompt": row["text"], "completion": answer(row["label"], row["slots"])} for row in part])


def intent(text: str) -> str:
    """The intent that an answer names; empty where it is no such call."""
    try:
        call = json.loads(text)
    except ValueError:
        return ""
    return str(call.get("intent", "")) if isinstance(call, dict) else ""


def svm_intents(out: Path, test: list[Row]) -> list[str]:
    """The intents that a linear SVM on the training rows gives the test rows."""
    train = [Row(text=row.question, label=intent(row.answer)) for row in read_rows(out / "train.jsonl")]
    return linear_svm(train, test)


def difference(a: list[float], b: list[float]) -> str:
    found = matched(np.array(a), np.array(b))
    return f"{100 * found.value:+.1f} points ({100 * found.low:+.1f} to {100 * found.high:+.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.jsonl.gz and test.jsonl of SNIPS")
    parser.add_argument("--model", type=Path, required=True, help="folder of SmolLM2-135M-Instruct")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=4000, help="rows to learn from")
    parser.add_argument("--teacher-epochs", type=float, default=1.0)
    parser.add_argument("--epochs", type=float, default=2.0, help="of every arm")
    parser.add_argument("--limit", type=int, default=0, help="test rows, evenly spaced; 0: all")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    sitting = Sitting(arguments.out.resolve())
    rows(arguments.data, sitting.out, arguments.rows)

    run = sitting.run_file("teacher", "", model=os.path.abspath(arguments.model), epochs=arguments.teacher_epochs,
                           rate=5e-4, every=50, adapter="lora")
    sitting.edgestill("tune-teacher", "teacher", "tune", run, "-o", "teacher")
    for target in ("gguf:Q8_0", "gguf:Q4_0"):
        sitting.pack("teacher", target, run)
    sitting.edgestill("cut", "start", "shrink", "teacher", "--to", "40M", "--rows", run, "-o", "start")
    for arm in arguments.arms:
        run = sitting.run_file(arm, TEACHERS.get(arm, ""), model="start", epochs=arguments.epochs, rate=1e-3, every=100,
                               adapter="full")
        if arm == "cached":
            sitting.edgestill("ask", "teacher-cache", "distill", run, "-o", arm, "--cache-only")
        sitting.edgestill(f"train-{arm}", arm, "distill" if arm in TEACHERS else "tune", run, "-o", arm)
        for target in TARGETS:
            sitting.pack(arm, target, run)

    test = read_rows(sitting.out / "test.jsonl")
    test = [test[index] for index in spaced(range(len(test)), arguments.limit)]
    files = {"teacher gguf:Q4_0": "packed-teacher/gguf-Q4_0", "teacher gguf:Q8_0": "packed-teacher/gguf-Q8_0",
             **{f"{arm} {target}": f"packed-{arm}/{target.replace(':', '-')}"
                for arm in arguments.arms for target in TARGETS}}
    exact: dict[str, list[float]] = {}
    intents: dict[str, list[float]] = {}
    for name, artifact in files.items():
        found = sitting.scored(name.replace(" ", "-").replace(":", "-"), artifact, arguments.limit)
        exact[name] = [float(score) for score in found["scores"]["exact_match"]]
        intents[name] = [float(intent(text) == intent(row.answer))
                         for text, row in zip(found["answers"], test, strict=True)]
    svm = [float(guess == intent(row.answer)) for guess, row in zip(svm_intents(sitting.out, test), test, strict=True)]
    print(f"{len(test)} test rows; linear SVM: intents {np.mean(svm):.3f}")
    for name, artifact in files.items():
        bytes_ = sum(path.stat().st_size for path in (sitting.out / artifact).glob("model*"))
        print(f"{name}: exact {np.mean(exact[name]):.3f}, against the teacher's Q4_0 "
              f"{difference(exact[name], exact['teacher gguf:Q4_0'])}; intents {np.mean(intents[name]):.3f}, against "
              f"the SVM {difference(intents[name], svm)}; {bytes_ / 1e6:.1f} MB")
        arm, target = name.split(" ")
        if arm in ("gguf", "cached", "labels") and f"local {target}" in exact:
            print(f"    against local: {difference(exact[name], exact[f'local {target}'])}")
    print(json.dumps(sitting.minutes))


if __name__ == "__main__":
    main()
