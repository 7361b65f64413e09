"""One text through a classifier: the shipped student against its teacher, in one sitting.

Real test texts, batch 1, tokenization included, the same threads for all; candidates take turns text by text, and
ratios are of medians. The teacher runs in transformers in float32, and as an int8 ONNX file of its own.

    python benchmarks/classifying.py --run out/banking77 --rows DATA/banking77/test.jsonl
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from edgestill.models import artifact
from edgestill.quantize import export
from edgestill.runtime import load
from edgestill.runtime.data.reader import read_rows
from edgestill.runtime.machine.cores import allowed_cores


def transformers_fp32(folder: Path, threads: int) -> Callable[[str], object]:
    """The teacher as its users run it: tokenizer and model of transformers, inference mode."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.set_num_threads(threads)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()

    def run(text: str) -> object:
        with torch.inference_mode():
            return int(model(**tokenizer(text, return_tensors="pt")).logits.argmax())

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of a run of benchmarks/banking77.toml")
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=400)
    parser.add_argument("--threads", type=int, default=0)
    arguments = parser.parse_args()
    threads = arguments.threads or allowed_cores()
    rows = read_rows(arguments.rows)
    teacher_int8 = arguments.run / "teacher-packed" / "onnx-int8"
    if not artifact.is_artifact(teacher_int8):
        export(arguments.run / "teacher", ["onnx:int8"], teacher_int8.parent, test_rows=rows[:128])
    candidates: dict[str, Callable[[str], object]] = {
        "teacher, transformers fp32": transformers_fp32(arguments.run / "teacher", threads),
        "teacher, onnx:int8": load(teacher_int8, threads=threads).classify,
        "student, onnx:int8": load(arguments.run / "onnx-int8", threads=threads).classify,
    }
    step = max(1, len(rows) // arguments.texts)
    texts = [row.text for row in rows[::step]][:arguments.texts]
    found: dict[str, list[float]] = {name: [] for name in candidates}
    for index, text in enumerate([*texts[:20], *texts]):  # the first twenty warm up
        for name, run in candidates.items():
            started = time.perf_counter()
            run(text)
            if index >= 20:
                found[name].append((time.perf_counter() - started) * 1000)
    medians = {name: statistics.median(times) for name, times in found.items()}
    student = medians["student, onnx:int8"]
    json.dump({
        "p50_ms": {name: round(value, 3) for name, value in medians.items()},
        "p99_ms": {name: round(statistics.quantiles(times, n=100)[98], 3) for name, times in found.items()},
        "ratios": {f"{name} / student": round(value / student, 2) for name, value in medians.items()},
        "model_bytes": {path.parent.name + "/" + path.name: artifact.open_artifact(path).model_bytes()
                        for path in (teacher_int8, arguments.run / "onnx-int8")},
        "texts": len(texts), "threads": threads, "versions": artifact.versions(),
    }, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
