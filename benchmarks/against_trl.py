"""Distilling from a live teacher, ours against TRL: memory above the two models, and real tokens a second.

Both learn forward KL from the same rows: plain text in blocks of exactly `--length` tokens, so that nobody pads, with
AdamW, in float32, on as many threads as there are cores. Each run is a process of its own, and runs of different
kinds take turns. TRL's DistillationTrainer (its chunked loss holds no whole logits) learns from completions that it
writes itself: here it is given the rows' instead, in no time. Its GKDTrainer holds all logits. Both run with
gradient checkpointing and without.

Memory is the process's peak from the first step on, less what it held once everything was imported, less the bytes of
both models' parameters. With --adapters the student learns LoRA adapters of rank 16; without, gradients and AdamW's
moments of all its weights, which both must hold, are in it.

    pip install --no-deps trl==1.16.0
    python benchmarks/against_trl.py memory --config CONFIG_FOLDER --tokenizer TOKENIZER_FOLDER --text TEXT --adapters
    python benchmarks/against_trl.py speed --teacher SMOLLM2_135M_FOLDER --text TEXT
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

OURS = "edgestill"
KINDS = (OURS, "distillation", "distillation, checkpointing", "gkd", "gkd, checkpointing")
WARM_UP = 2
STUDENT_LAYERS = 3
"""Of SmolLM2-135M's thirty: 38.9M parameters with its table."""


def status(name: str) -> int:
    """Bytes of this process: VmRSS, or VmHWM, its highest."""
    return int(Path("/proc/self/status").read_text().partition(f"{name}:")[2].split()[0]) * 1024


def forget_peak() -> None:
    """Let VmHWM count from here."""
    Path("/proc/self/clear_refs").write_text("5")


def ours(folder: Path, steps: int, rows: int, length: int, adapters: bool,
         clock: Callable[[], float]) -> dict[str, Any]:
    """`distill`, as a run file with no more than these settings has it."""
    import accelerate  # noqa: F401
    import peft  # noqa: F401
    import torch
    import transformers  # noqa: F401
    from edgestill.distill import distill
    from edgestill.distill.training import loop

    torch.zeros(1).exp()
    imported, seen, train = status("VmRSS"), {}, loop.train

    def watched(*arguments: Any, **named: Any) -> Any:
        forget_peak()
        outcome = train(*arguments, **named)
        seen["peak"] = status("VmHWM")
        return outcome

    loop.train, loop.time = watched, SimpleNamespace(monotonic=clock)
    settings = [f"distill.steps={steps}", f"distill.batch_size={rows}", f"data.max_tokens={length}"]
    settings += ['distill.adapter={kind="lora", rank=16}'] if adapters else []
    with tempfile.TemporaryDirectory() as out:
        made = distill(folder / "run.toml", Path(out) / "model", settings)
        lines = [json.loads(line) for line in (made / "metrics.jsonl").read_text().splitlines()]
    timed = [line for line in lines if "tokens_per_s" in line]
    assert all(line["tokens"] == rows * length for line in timed), "a row is not of the exact length"
    seconds = [line["tokens"] / line["tokens_per_s"] for line in timed]
    return {"above_imports": seen["peak"] - imported, "seconds": seconds, "loss": timed[0]["loss"]}


def trl(kind: str, folder: Path, steps: int, rows: int, length: int, adapters: bool, clock: Callable[[], float],
        at_once: int) -> dict[str, Any]:
    """TRL's trainer on the same rows, `at_once` of them in a forward pass."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import DistillationConfig, DistillationTrainer
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    torch.zeros(1).exp()
    imported = status("VmRSS")
    tokenizer = AutoTokenizer.from_pretrained(folder / "teacher")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    texts = [json.loads(line)["text"] for line in (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    stream = [token for text in texts for token in tokenizer(text)["input_ids"]]
    blocks = [stream[start:start + length] for start in range(0, steps * rows * length, length)]
    assert len(blocks[-1]) == length, "more text is needed"

    class Given(DistillationTrainer):
        """Learns from the rows' own completions: all but the first token."""

        def _generate(self, prompts: list[Any]) -> Any:
            return [row[:1] for row in prompts], [row[1:] for row in prompts], None, None, []

    class Clock(TrainerCallback):
        """Forgets the peak of loading, and notes when each step began and ended, and its loss."""

        def __init__(self) -> None:
            self.began: list[float] = []
            self.seconds: list[float] = []
            self.losses: list[float] = []

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            forget_peak()

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began.append(clock())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.seconds.append(clock() - self.began[-1])

        def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
            self.losses += [logs["loss"]] if "loss" in logs else []

    def stack(features: list[dict[str, Any]]) -> dict[str, Any]:
        ids = torch.tensor([row["input_ids"] for row in features])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}

    load = partial(AutoModelForCausalLM.from_pretrained, dtype=torch.float32)
    watch, checkpointing = Clock(), kind.endswith("checkpointing")
    with tempfile.TemporaryDirectory() as out:
        common: dict[str, Any] = {
            "output_dir": out, "per_device_train_batch_size": at_once, "gradient_accumulation_steps": rows // at_once,
            "max_steps": steps, "learning_rate": 2e-4, "beta": 0.0, "bf16": False, "use_cpu": True,
            "gradient_checkpointing": checkpointing, "save_strategy": "no", "report_to": "none", "disable_tqdm": True,
            "logging_steps": 1, "dataloader_pin_memory": False}
        lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM") if adapters else None
        made: dict[str, Any] = {"model": load(folder / "student"), "teacher_model": load(folder / "teacher"),
                                "processing_class": tokenizer, "callbacks": [watch], "peft_config": lora}
        if kind.startswith("gkd"):
            trainer = GKDTrainer(args=GKDConfig(lmbda=0.0, temperature=1.0, max_length=length, **common),
                                 train_dataset=Dataset.from_list([{"input_ids": row} for row in blocks]),
                                 data_collator=stack, **made)
        else:
            trainer = Given(args=DistillationConfig(shuffle_dataset=False, **common),
                            train_dataset=Dataset.from_list([{"prompt": row} for row in blocks]), **made)
        trainer.train()
    return {"above_imports": status("VmHWM") - imported, "seconds": watch.seconds, "loss": watch.losses[0],
            "settings": {key: str(value) for key, value in common.items() if key != "output_dir"}}


def write_models(folder: Path, arguments: argparse.Namespace) -> int:
    """Teacher, student and run file in `folder`; returns the bytes of both models' parameters in float32."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    source = arguments.teacher or arguments.config
    shape = AutoConfig.from_pretrained(source)
    counts = []
    for seed, name in enumerate(("teacher", "student")):
        if name == "teacher" and arguments.teacher:
            shutil.copytree(arguments.teacher, folder / name)
            counts.append(AutoModelForCausalLM.from_pretrained(arguments.teacher).num_parameters())
            continue
        if name == "student" and arguments.teacher:
            shape.num_hidden_layers = STUDENT_LAYERS
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(shape, dtype=torch.bfloat16)
        model.save_pretrained(folder / name)
        counts.append(model.num_parameters())
        for file in (arguments.tokenizer or arguments.teacher).glob("tokenizer*"):
            shutil.copyfile(file, folder / name / file.name)
    text = arguments.text.read_text(encoding="utf-8")
    rows = (text[start:start + 4000] for start in range(0, len(text), 4000))
    (folder / "train.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows), encoding="utf-8")
    (folder / "run.toml").write_text(
        '[task]\nkind = "generate"\n[data]\ntrain = "train.jsonl"\nvalidation_share = 0.0\ntest_share = 0.0\n'
        '[teacher]\nkind = "local"\nmodel = "teacher"\n[student]\nmodel = "student"\n[distill]\nprecision = "fp32"\n')
    return 4 * sum(counts)


def child(arguments: argparse.Namespace) -> None:
    """One run in this process; its last line of output is the result."""
    common = (arguments.folder, arguments.steps, arguments.rows, arguments.length, arguments.adapters,
              time.process_time if arguments.cpu_time else time.monotonic)
    at_once = arguments.rows if arguments.what == "speed" else 1
    run: Callable[..., dict[str, Any]] = ours if arguments.kind == OURS else partial(trl, arguments.kind)
    print(json.dumps(run(*common) if arguments.kind == OURS else run(*common, at_once)), flush=True)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("memory", "speed"))
    parser.add_argument("--text", type=Path, required=True, help="a file of plain text to learn from")
    parser.add_argument("--teacher", type=Path, help="a model's folder; its student has the same shape in 3 layers")
    parser.add_argument("--config", type=Path, help="a folder with config.json: both models have random weights")
    parser.add_argument("--tokenizer", type=Path, help="a folder with the tokenizer of --config")
    parser.add_argument("--adapters", action="store_true", help="the student learns adapters, not all weights")
    parser.add_argument("--cpu-time", action="store_true",
                        help="count seconds of the cores: where others compute, too, with OMP_NUM_THREADS=1")
    parser.add_argument("--rows", type=int, help="of a step; memory: 2, one in a forward pass; speed: 4, all in one")
    parser.add_argument("--length", type=int, help="tokens of a row; memory: 1024, speed: 256")
    parser.add_argument("--steps", type=int, help="memory: 2, speed: 8, of which the first 2 do not count")
    parser.add_argument("--repeats", type=int, help="memory: 1, speed: 3")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, help="which to run")
    parser.add_argument("--kind", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    memory = arguments.what == "memory"
    for name, value in {"rows": 2 if memory else 4, "length": 1024 if memory else 256, "steps": 2 if memory else 8,
                        "repeats": 1 if memory else 3, "kinds": KINDS[:3] if memory else KINDS}.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    return arguments


def main() -> None:
    arguments = parsed()
    if find_spec("trl") is None:
        sys.exit("trl is not installed: nothing to compare with (pip install --no-deps trl==1.16.0)")
    if arguments.kind:
        return child(arguments)
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in arguments.kinds}
    with tempfile.TemporaryDirectory() as folder:
        models = write_models(Path(folder), arguments)
        options = [f"--{name}={getattr(arguments, name)}" for name in ("rows", "length", "steps")]
        for _ in range(arguments.repeats):
            for kind in found:
                command = [sys.executable, __file__, *sys.argv[1:], *options, "--kind", kind, "--folder", folder]
                printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                found[kind].append(json.loads(printed.splitlines()[-1]))
                print(kind, found[kind][-1], file=sys.stderr, flush=True)
    tokens = arguments.rows * arguments.length
    speeds = {kind: [tokens / statistics.mean(run["seconds"][min(WARM_UP, arguments.steps - 1):]) for run in runs]
              for kind, runs in found.items()}
    above = {kind: max(run["above_imports"] for run in runs) - models for kind, runs in found.items()}
    others = [kind for kind in found if kind != OURS]
    best = max(others, key=lambda kind: statistics.median(speeds[kind]))
    print(json.dumps({
        "tokens_per_s": {kind: [round(one, 1) for one in runs] for kind, runs in speeds.items()},
        f"tokens/s, {OURS} / {best}, run by run":
            [round(one / other, 2) for one, other in zip(speeds[OURS], speeds[best], strict=True)],
        "mb_above_models": {kind: round(value / 1e6) for kind, value in above.items()},
        f"memory, {OURS} / the least of trl": round(above[OURS] / min(above[kind] for kind in others), 2),
        "first_loss": {kind: runs[0]["loss"] for kind, runs in found.items()},
        "mb_of_models": round(models / 1e6), "rows": arguments.rows, "length": arguments.length,
        "steps": arguments.steps, "cpu_time": arguments.cpu_time,
        "adapters": arguments.adapters, "settings": found[others[0]][0]["settings"],
    }, indent=2))
    return None


if __name__ == "__main__":
    main()
