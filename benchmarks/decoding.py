"""Decoding speed: our runtime against the bare engines on the same files, in one sitting.

A model of SmolLM2-135M's shape with random weights (speed, never quality), greedy, batch 1, a prompt of real
text. Every candidate has the same threads and a process of its own: two engines in one process disturb each other by
10 %. Their runs are interleaved; ratios are of medians.

    python benchmarks/decoding.py --config CONFIGS/SmolLM2-135M --tokenizer TOKENIZERS/smollm2 --text TEXT_FILE
"""

from __future__ import annotations

import argparse
import ctypes
import json
import multiprocessing
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
from edgestill.models import artifact, files, kinds
from edgestill.models.runfile import kind_config
from edgestill.models.scheme import Scheme
from edgestill.models.task import Task
from edgestill.quantize.grid.scaled_grids import Q4_0
from edgestill.runtime import load
from edgestill.runtime.machine.cores import allowed_cores

PROCESSES = 5
"""One after the other for every candidate: the same program may be 5 % slower in one process than in the next."""
SILENT: Any = None
"""llama.cpp's log callback, kept alive as long as llama.cpp may call it."""
Run = Callable[[list[int], int], float]
"""(prompt, new tokens) → decode tokens a second, the first token's time left out."""


def make_model(config: Path, tokenizer: Path, folder: Path) -> None:
    """A Hugging Face folder of this shape with random weights in bf16."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(config), dtype=torch.bfloat16)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if (tokenizer / name).is_file():
            shutil.copy(tokenizer / name, folder)


def pack(source: Path, target: str, out: Path) -> Path:
    """The model in one format, without certificate: the weights are random."""
    scheme = Scheme.parse(target)
    method = {"kind": "rtn"}
    config = kind_config("quantize.methods", method, "method")
    quantize = kinds.load("quantize.methods", "rtn").quantize
    path = out / scheme.folder_name
    if not artifact.is_artifact(path):
        with files.new_folder(path) as folder:
            name = kinds.load("quantize.formats", scheme.format).write(
                source, folder, scheme, lambda _, weight, grid=Q4_0: quantize(weight, None, config, grid),
                None)
            for extra in ("tokenizer.json", "tokenizer_config.json", "config.json"):
                if (source / extra).is_file() and not (folder / extra).exists():
                    shutil.copy(source / extra, folder)
            artifact.seal(folder, stage="export", task=Task(), family="llama", scheme=target, model_file=name)
    return path


def ours(folder: Path, threads: int) -> Run:
    """Our runtime's public API; here and below, `threads` 0 leaves the number to the program."""
    model = load(folder, threads=threads, context=1024)

    def run(prompt: list[int], count: int) -> float:
        made = model.generate_ids(prompt, max_new_tokens=count)
        assert len(made.ids) == count
        return made.decode_tokens_per_s

    return run


def bare_llama(folder: Path, threads: int) -> Run:
    """llama.cpp's own loop: llama_decode and an argmax over its logits."""
    import llama_cpp as c

    global SILENT
    SILENT = c.llama_log_callback(lambda *_: None)
    c.llama_log_set(SILENT, None)
    options = c.llama_model_default_params()
    model = c.llama_model_load_from_file(str(folder / "model.gguf").encode(), options)
    settings = c.llama_context_default_params()
    settings.n_ctx = 1024
    if threads:
        settings.n_threads = settings.n_threads_batch = threads
    context = c.llama_init_from_model(model, settings)
    vocabulary = c.llama_vocab_n_tokens(c.llama_model_get_vocab(model))

    def run(prompt: list[int], count: int) -> float:
        c.llama_memory_clear(c.llama_get_memory(context), True)
        ids = (ctypes.c_int32 * len(prompt))(*prompt)  # a batch only points at its tokens
        c.llama_decode(context, c.llama_batch_get_one(ids, len(prompt)))
        logits = np.ctypeslib.as_array(c.llama_get_logits_ith(context, -1), (vocabulary,))
        token = (ctypes.c_int32 * 1)(int(logits.argmax()))
        started = time.perf_counter()
        for _ in range(count - 1):
            c.llama_decode(context, c.llama_batch_get_one(token, 1))
            token[0] = int(np.ctypeslib.as_array(c.llama_get_logits_ith(context, -1), (vocabulary,)).argmax())
        return (count - 1) / (time.perf_counter() - started)

    return run


def bare_onnxruntime(folder: Path, threads: int) -> Run:
    """onnxruntime through IO binding with keys and values in one shared buffer, its other settings as they come."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    path = artifact.open_artifact(folder).model_path
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    inputs = {item.name: item for item in session.get_inputs()}
    past = [name for name in inputs if name.startswith("past_key_values.")]
    shape = [1, inputs[past[0]].shape[1], 1024, inputs[past[0]].shape[3]]
    cache = {name: onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32)) for name in past}
    vocabulary = session.get_outputs()[0].shape[-1]
    logits = np.zeros((1, 1, vocabulary), np.float32)

    def step(ids: list[int], position: int, out: Any) -> None:
        binding = session.io_binding()
        binding.bind_cpu_input("input_ids", np.array([ids], np.int64))
        binding.bind_cpu_input("attention_mask", np.ones((1, position + len(ids)), np.int64))
        if "position_ids" in inputs:
            binding.bind_cpu_input("position_ids", np.arange(position, position + len(ids), dtype=np.int64)[None])
        for name, value in cache.items():
            binding.bind_ortvalue_input(name, value)
            binding.bind_ortvalue_output(name.replace("past_key_values", "present"), value)
        binding.bind_output("logits", "cpu", 0, np.float32, out.shape, out.ctypes.data)
        session.run_with_iobinding(binding)

    def run(prompt: list[int], count: int) -> float:
        first = np.zeros((1, len(prompt), vocabulary), np.float32)
        step(prompt, 0, first)
        token = int(first[0, -1].argmax())
        started = time.perf_counter()
        for index in range(count - 1):
            step([token], len(prompt) + index, logits)
            token = int(logits[0, 0].argmax())
        return (count - 1) / (time.perf_counter() - started)

    return run


def genai(folder: Path, threads: int, work: Path) -> Run:
    """onnxruntime-genai on the same graph, with its thread count set (its default is 1.6 times slower)."""
    import onnxruntime_genai

    copy = work / "genai"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    settings = json.loads((copy / "genai_config.json").read_text())
    if threads:
        settings["model"]["decoder"]["session_options"]["intra_op_num_threads"] = threads
    settings["search"]["max_length"] = 1024
    (copy / "genai_config.json").write_text(json.dumps(settings))
    model = onnxruntime_genai.Model(str(copy))

    def run(prompt: list[int], count: int) -> float:
        options = onnxruntime_genai.GeneratorParams(model)
        options.set_search_options(max_length=1024, min_length=1024, do_sample=False)
        generator = onnxruntime_genai.Generator(model, options)
        generator.append_tokens(np.array([prompt], np.int32))
        generator.generate_next_token()
        started = time.perf_counter()
        for _ in range(count - 1):
            generator.generate_next_token()
        return (count - 1) / (time.perf_counter() - started)

    return run


def made(config: Path, tokenizer: Path, work: Path) -> tuple[Path, Path]:
    """The same random weights of this shape as gguf:Q4_0 and as onnx:int4, made once."""
    source = work / "model"
    if not source.is_dir():
        make_model(config, tokenizer, source)
    return pack(source, "gguf:Q4_0", work), pack(source, "onnx:int4", work)


def candidates(q4_0: Path, int4: Path, threads: int, work: Path) -> dict[str, Callable[[], Run]]:
    """What loads ours and the bare engines."""
    return {
        "edgestill gguf:Q4_0": partial(ours, q4_0, threads), "llama.cpp gguf:Q4_0": partial(bare_llama, q4_0, threads),
        "edgestill onnx:int4": partial(ours, int4, threads),
        "onnxruntime onnx:int4": partial(bare_onnxruntime, int4, threads),
        "onnxruntime-genai onnx:int4": partial(genai, int4, threads, work),
    }


def prompt_of(tokenizer: Path, text: Path, count: int) -> list[int]:
    """The first `count` ids of a text."""
    from tokenizers import Tokenizer

    ids: list[int] = Tokenizer.from_file(str(tokenizer)).encode(text.read_text(encoding="utf-8")[:20000]).ids
    return ids[:count]


def serve(connection: Connection, loader: Callable[[], Run]) -> None:
    """In a process of its own: load, then run what comes until nothing does."""
    run = loader()
    while asked := connection.recv():
        connection.send(run(*asked))


def interleaved(loaders: dict[str, Callable[[], Run]], prompt: list[int], tokens: int,
                repeats: int) -> dict[str, float]:
    """Median tokens/s of each candidate over PROCESSES processes; all take turns, and the first round warms up."""
    speeds: dict[str, list[float]] = {name: [] for name in loaders}
    spawn = multiprocessing.get_context("spawn")
    for _ in range(PROCESSES):
        lines = {}
        for name, loader in loaders.items():
            lines[name], theirs = spawn.Pipe()
            spawn.Process(target=serve, args=(theirs, loader), daemon=True).start()
            theirs.close()  # so that its end is noticed here
        for repeat in range(-(-repeats // PROCESSES) + 1):
            for name in list(lines)[::1 if repeat % 2 else -1]:  # whoever comes after whom changes
                lines[name].send((prompt, tokens))
                speed = lines[name].recv()
                if repeat:
                    speeds[name].append(speed)
        for line in lines.values():
            line.send(None)
    return {name: statistics.median(found) for name, found in speeds.items()}


def ratios(medians: dict[str, float]) -> dict[str, float]:
    """Ours over each peer on the same file."""
    return {f"{mine} / {theirs}": round(medians[mine] / medians[theirs], 3)
            for mine in medians for theirs in medians
            if mine.startswith("edgestill") and theirs != mine and mine.split()[-1] == theirs.split()[-1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True, help="the prompt is this text's first tokens")
    parser.add_argument("--work", type=Path, default=Path("out/decoding"), help="where models are made")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--tokens", type=int, default=128, help="of the prompt, and of the answer")
    arguments = parser.parse_args()
    threads = arguments.threads or allowed_cores()
    q4_0, int4 = made(arguments.config, arguments.tokenizer, arguments.work)
    prompt = prompt_of(arguments.work / "model" / "tokenizer.json", arguments.text, arguments.tokens)
    runs = candidates(q4_0, int4, threads, arguments.work)
    medians = interleaved(runs, prompt, arguments.tokens, arguments.repeats)
    result = {
        "threads": threads, "prompt_tokens": len(prompt), "new_tokens": arguments.tokens, "repeats": arguments.repeats,
        "decode_tokens_per_s": {name: round(value, 1) for name, value in medians.items()},
        "ratios": ratios(medians),
        "file_bytes": {path.name: artifact.open_artifact(path).model_bytes() for path in (q4_0, int4)},
        "versions": artifact.versions(),
    }
    json.dump(result, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
