"""Training speed: the Banking77 teacher's first steps, ours against transformers.Trainer, in one sitting.

Real tokens a second (padding does not count) over the same rows, batch size and number of steps, each run in a
process of its own for its peak memory; runs are interleaved and ratios are of medians. The first steps warm up and
do not count. Trainer runs once with its defaults and once at its best: length grouping and our dtype.

    python benchmarks/training.py --data DATA/banking77 --model MINILM_FOLDER
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BATCH_SIZE = 32
WARM_UP = 5
KINDS = ("edgestill", "trainer with defaults", "trainer grouped, same dtype")


def ours(data: Path, model: Path, steps: int) -> dict[str, Any]:
    """`tune_teacher` on the benchmark's own run file."""
    from edgestill.distill import tune_teacher
    from edgestill.models.artifact import open_artifact

    run = Path(__file__).with_name("banking77.toml")
    with tempfile.TemporaryDirectory() as folder:
        made = tune_teacher(run, Path(folder) / "model", [
            f"data.dir={data.resolve()}", f"teacher.model={model.resolve()}", "teacher.tune=false",
            f"tune.steps={steps}", f"tune.batch_size={BATCH_SIZE}", "data.validation_share=0.0"])
        lines = [json.loads(line) for line in (made / "metrics.jsonl").read_text().splitlines()]
        settings = open_artifact(made).manifest.settings
    timed = [line for line in lines if "tokens_per_s" in line][WARM_UP:]
    seconds = sum(line["tokens"] / line["tokens_per_s"] for line in timed)
    return {"tokens_per_s": sum(line["tokens"] for line in timed) / seconds, "precision": settings["precision"]}


def trainer(data: Path, model: Path, steps: int, best: bool) -> dict[str, Any]:
    """transformers.Trainer on the same rows; `best` adds length grouping and bf16."""
    from datasets import Dataset
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    rows = [json.loads(line) for line in (data / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    labels = sorted({row["label"] for row in rows})
    tokenizer = AutoTokenizer.from_pretrained(model)
    encoded = Dataset.from_list([
        {"input_ids": tokenizer(row["text"], truncation=True, max_length=128)["input_ids"],
         "labels": labels.index(row["label"])} for row in rows])

    class Clock(TrainerCallback):
        """Notes when each step ended."""

        times: list[float] = []

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.times.append(time.perf_counter())

    class Counting(DataCollatorWithPadding):
        """Counts the real tokens of each batch."""

        tokens: list[int] = []

        def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
            batch = super().__call__(features)
            self.tokens.append(int(batch["attention_mask"].sum()))
            return batch

    clock, collator = Clock(), Counting(tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=BATCH_SIZE, max_steps=steps, learning_rate=1e-4,
            save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True, logging_strategy="no",
            **({"train_sampling_strategy": "group_by_length", "bf16": True} if best else {}))
        Trainer(AutoModelForSequenceClassification.from_pretrained(model, num_labels=len(labels)), arguments,
                data_collator=collator, train_dataset=encoded, processing_class=tokenizer, callbacks=[clock]).train()
    seconds = clock.times[-1] - clock.times[WARM_UP - 1]
    return {"tokens_per_s": sum(collator.tokens[WARM_UP:steps]) / seconds, "precision": "bf16" if best else "fp32"}


def child(kind: str, data: Path, model: Path, steps: int) -> None:
    """One run in this process; its last line of output is the result."""
    found = ours(data, model, steps) if kind == KINDS[0] else trainer(data, model, steps, kind == KINDS[2])
    peak = Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]
    print(json.dumps({**found, "peak_rss_mb": round(int(peak) * 1024 / 1e6)}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=105,
                        help="Trainer groups lengths in 50 batches: take whole groups behind the 5 that warm up")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--kind", choices=KINDS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.kind:
        return child(arguments.kind, arguments.data, arguments.model, arguments.steps)
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for _ in range(arguments.repeats):
        for kind in KINDS:
            printed = subprocess.run([sys.executable, __file__, *sys.argv[1:], "--kind", kind], check=True,
                                     stdout=subprocess.PIPE, text=True).stdout
            found[kind].append(json.loads(printed.splitlines()[-1]))
    speeds = {kind: statistics.median(one["tokens_per_s"] for one in runs) for kind, runs in found.items()}
    print(json.dumps({
        "real_tokens_per_s": {kind: round(speed) for kind, speed in speeds.items()},
        "ratios": {f"{KINDS[0]} / {kind}": round(speeds[KINDS[0]] / speeds[kind], 2) for kind in KINDS[1:]},
        "peak_rss_mb": {kind: max(one["peak_rss_mb"] for one in runs) for kind, runs in found.items()},
        "precision": {kind: runs[0]["precision"] for kind, runs in found.items()},
        "batch_size": BATCH_SIZE, "steps": arguments.steps, "repeats": arguments.repeats,
    }, indent=2))
    return None


if __name__ == "__main__":
    main()
