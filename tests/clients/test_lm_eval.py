"""lm-evaluation-harness scores a served model over HTTP as our own runtime scores it directly."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from edgestill.models import kinds
from edgestill.runtime import load
from edgestill.runtime.generation.generator import Generator
from edgestill.runtime.loading.load import load_streams
from edgestill.runtime.server.work_queue import Station

from ..serving import Running, running

HARNESS = Path(__file__).with_name("harness.py")
CHOICES = ["kitchen", "living room", "Köln 🙂", "10 minutes"]
ROWS = [{"question": f"{name} is in the", "choices": CHOICES, "answer": place}
        for place, name in enumerate(("the light", "12 + 34", "weather today", "Grüße"))]
TASKS: dict[str, dict[str, Any]] = {
    "choice": {"output_type": "multiple_choice", "doc_to_text": "{{question}}", "doc_to_choice": "choices",
               "doc_to_target": "answer", "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}]},
    "writing": {"output_type": "generate_until", "doc_to_text": "Say: {{question}}", "doc_to_target": "answer",
                "generation_kwargs": {"until": ["\n", "<|end|>"], "max_gen_toks": 20, "do_sample": False},
                "metric_list": [{"metric": "exact_match"}]},
    "rolling": {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{question}}",
                "metric_list": [{"metric": "bits_per_byte"}]}}
# How programs send the same texts: token ids or strings, alone or several in a request, one after the other or at once.
WAYS = [{"tokenized_requests": True}, {"tokenized_requests": False}, {"tokenized_requests": True, "num_concurrent": 3},
        {"tokenized_requests": True, "batch_size": 3}, {"tokenized_requests": False, "batch_size": 4}]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tasks over local rows; JSON is YAML too."""
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    for name, task in TASKS.items():
        (folder / f"{name}.yaml").write_text(json.dumps({
            "task": name, "dataset_path": "json", "test_split": "test",
            "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}}, **task}), encoding="utf-8")
    return folder


@pytest.fixture(scope="module", params=kinds.names("runtime.engines"))
def served(request: pytest.FixtureRequest, packed_llama: dict[str, Path]) -> Iterator[tuple[Running, Path]]:
    path = packed_llama[request.param]
    with running([Station(request.param, load_streams(path, 2, 1), 32)]) as found:
        yield found, path


def command(served: Running, tokenizer: Path, tasks: Path, out: Path, way: dict[str, Any]) -> list[str]:
    """The harness's arguments that evaluate a served model in one way."""
    arguments = {"model": "any", "base_url": f"http://127.0.0.1:{served.port}/v1/completions", "tokenizer": tokenizer,
                 "tokenizer_backend": "huggingface", "max_length": 256, "max_retries": 1, **way}
    batch = arguments.pop("batch_size", 1)
    return ["run", "--model", "local-completions", "--tasks", *TASKS, "--model_args",
            ",".join(f"{name}={value}" for name, value in arguments.items()), "--batch_size", str(batch),
            "--include_path", str(tasks), "--output_path", str(out), "--log_samples"]


@pytest.fixture(scope="module")
def evaluated(served: tuple[Running, Path], tasks: Path, tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory,
              ) -> list[Path]:
    """What the harness wrote, a folder for every way."""
    outs = [tmp_path_factory.mktemp("harness") for _ in WAYS]
    commands = tmp_path_factory.mktemp("commands") / "commands.json"
    commands.write_text(json.dumps([command(served[0], tiny_llama, tasks, out, way)
                                    for out, way in zip(outs, WAYS, strict=True)]), encoding="utf-8")
    quiet = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tasks / "home")}
    done = subprocess.run([sys.executable, "-P", HARNESS, commands], env=os.environ | quiet, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return outs


def written(out: Path) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """Results and samples by task."""
    (result,) = out.rglob("results_*.json")
    samples = {name: [json.loads(line) for path in out.rglob(f"samples_{name}_*.jsonl")
                      for line in path.read_text(encoding="utf-8").splitlines()] for name in TASKS}
    assert all(len(rows) == len(ROWS) for rows in samples.values())
    return json.loads(result.read_text())["results"], {
        name: sorted(rows, key=lambda row: int(row["doc_id"])) for name, rows in samples.items()}


def likelihood(model: Generator, before: Sequence[int], ids: Sequence[int]) -> tuple[float, bool]:
    """Log-probability of ids behind others, and whether each is the likeliest."""
    scores = model.score([*before, *ids], 1)[len(before) - 1:]
    return sum(one.logprob for one in scores), all(one.id == one.top[0][0] for one in scores)


@pytest.mark.parametrize("way", range(len(WAYS)), ids=["-".join(map(str, way.values())) for way in WAYS])
def test_the_harness_finds_what_the_runtime_finds(way: int, served: tuple[Running, Path],
                                                  evaluated: list[Path]) -> None:
    results, samples = written(evaluated[way])
    right = right_by_length = 0
    bits = size = 0.0
    with load(served[1], threads=1) as model:
        assert isinstance(model, Generator)
        encode = model.codec.encode
        for row, choice, writing, rolling in zip(ROWS, *(samples[name] for name in TASKS), strict=True):
            before = encode(row["question"])
            wanted = []
            for one, (found,) in zip(row["choices"], choice["resps"], strict=True):
                ids = encode(f"{row['question']} {one}")
                assert ids[:len(before)] == before  # the harness cuts the tokens of both where the question ends
                wanted.append(likelihood(model, before, ids[len(before):]))
                assert float(found[0]) == pytest.approx(wanted[-1][0], abs=1e-3)
                assert str(found[1]) == str(wanted[-1][1])
            sums = [total for total, _ in wanted]
            right += sums.index(max(sums)) == row["answer"]
            by_length = [total / len(one) for total, one in zip(sums, row["choices"], strict=True)]
            right_by_length += by_length.index(max(by_length)) == row["answer"]
            *_, last = model.stream_ids(encode(f"Say: {row['question']}"), max_new_tokens=20, stop=["\n", "<|end|>"])
            assert last.done is not None and writing["resps"][0][0] == last.done.text
            total, _ = likelihood(model, [model.codec.eos_id or 0], before)
            assert float(rolling["resps"][0][0]) == pytest.approx(total, abs=1e-3)
            bits, size = bits - total / math.log(2), size + len(row["question"].encode())
    assert results["choice"]["acc,none"] == right / len(ROWS)
    assert results["choice"]["acc_norm,none"] == right_by_length / len(ROWS)
    assert results["rolling"]["bits_per_byte,none"] == pytest.approx(bits / size, rel=1e-4)
