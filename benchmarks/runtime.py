"""The runtime's promises, row by row, in one sitting: medians of interleaved runs, and what each is held against.

Models of SmolLM2-135M's shape have random weights (speed, never quality). Rows whose artifacts are not given are left
out. The peer runs at its best: the same threads and file, its own fast path; `out of the box` leaves every setting to
each program. Streams are measured by serving.py, overload by overload.py, start-up by startup.py.

    python benchmarks/runtime.py --config CONFIGS/SmolLM2-135M --tokenizer TOKENIZERS/smollm2 --text TEXT_FILE \\
        --demo out/demo/gguf-Q4_0 --demo out/demo/onnx-int4 \\
        --copying out/snips/gguf-Q4_0 --copying out/snips/onnx-int4 --copying-rows out/snips-data/test.jsonl \\
        --classifier out/banking77/onnx-int8 --labelled DATA/banking77
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from decoding import candidates, interleaved, made, prompt_of, ratios
from edgestill.runtime import load
from edgestill.runtime.data import learned_tokens
from edgestill.runtime.data.reader import Row, read_rows
from edgestill.runtime.profiling import machine

SCHEMA = Path(__file__).resolve().parent.parent / "models" / "demo" / "schema.json"
SAMPLING = {"temperature": 0.8, "top_k": 50, "top_p": 0.95, "min_p": 0.02, "seed": 1, "repetition_penalty": 1.1}
PREFIX_TOKENS = 512


def decoding(files: tuple[Path, Path], prompt: list[int], threads: int, given: argparse.Namespace) -> dict[str, Any]:
    """Tokens/s of our API and of the bare engines; `threads` 0 leaves the number to each program."""
    medians = interleaved(candidates(*files, threads, given.work), prompt, given.tokens, given.repeats)
    return {"decode_tokens_per_s": {name: round(value, 1) for name, value in medians.items()},
            "ratios": ratios(medians)}


def shaped(path: Path, prompt: list[int], threads: int, given: argparse.Namespace) -> dict[str, Any]:
    """Sampling, stop strings and a JSON schema, one by one and together, against plain greedy text."""
    item = json.loads(SCHEMA.read_text(encoding="utf-8"))["properties"]["calls"]["items"]
    schema = {"type": "array", "items": item, "minItems": 200}  # longer than the answer: none ends early
    ways: dict[str, dict[str, Any]] = {
        "greedy": {}, "sampling": SAMPLING, "stop": {"stop": ["\n\nUser:", "<|never|>"]}, "schema": {"schema": schema},
        "all": {**SAMPLING, "stop": ["\n\nUser:", "<|never|>"], "schema": schema}}
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    with load(path, threads=threads, context=1024) as model:
        model.codec.stop_ids = frozenset()  # random weights may say anything
        for repeat in range(given.repeats + 1):
            for name, options in ways.items():
                done = [piece.done for piece in model.stream_ids(prompt, max_new_tokens=given.tokens, **options)][-1]
                assert done is not None and len(done.ids) == given.tokens, (name, done)
                if repeat:
                    speeds[name].append(done.decode_tokens_per_s)
    medians = {name: statistics.median(found) for name, found in speeds.items()}
    return {"tokens_per_s": {name: round(value, 1) for name, value in medians.items()},
            "of_greedy": {name: round(value / medians["greedy"], 3) for name, value in medians.items()}}


def overhead(path: Path, threads: int, repeats: int) -> float:
    """Microseconds a token that our Python takes around the engine's step: choice, text, bookkeeping."""
    with load(path, threads=threads) as model:
        step, inside, found = model.engine.decode, [0.0], []

        def timed(token: int) -> Any:
            started = time.perf_counter()
            logits = step(token)
            inside[0] += time.perf_counter() - started
            return logits

        model.engine.decode = timed
        for _ in range(repeats * 20):
            inside[0], started, first = 0.0, 0.0, True
            for piece in model.stream("could you dim the lamp in the study to forty percent at half past six tonight",
                                      schema=False, reuse="none"):
                if first:  # what came before is the prompt's
                    inside[0], started, first = 0.0, time.perf_counter(), False
                done = piece.done
            assert done is not None
            found.append((time.perf_counter() - started - inside[0]) / (len(done.ids) or 1) * 1e6)
    return round(statistics.median(found), 1)


def prefix(path: Path, prompt: list[int], threads: int, given: argparse.Namespace) -> dict[str, float]:
    """Time to first token with a prefix of PREFIX_TOKENS restored, against computing it."""
    with load(path, threads=threads, context=1024) as model:
        for size in range(PREFIX_TOKENS, len(prompt)):
            text = model.codec.decode(prompt[:size])
            kept = model.prefix(text)
            if len(kept.ids) == PREFIX_TOKENS:  # the last ones belong to it only where any text may follow
                break
        file = given.work / "prefix.bin"
        started = time.perf_counter()
        kept.save(file)
        saved = (time.perf_counter() - started) * 1000
        times: dict[str, list[float]] = {"computed": [], "restored": [], "read_file": []}
        for _ in range(given.repeats):
            for name, options in (("computed", {}), ("restored", {"prefix": kept})):
                model.engine.truncate(0)
                question = "?" if options else text + "?"
                done = model.generate(question, max_new_tokens=1, schema=False, reuse="none", **options)
                times[name].append(done.ttft_ms)
            started = time.perf_counter()
            model.load_prefix(file)
            times["read_file"].append((time.perf_counter() - started) * 1000)
    medians = {name: round(statistics.median(found), 2) for name, found in times.items()}
    return {"prompt_tokens": done.prompt_tokens, "prefix_tokens": len(kept.ids), "file_bytes": file.stat().st_size,
            "save_ms": round(saved, 1), **medians, "ratio": round(medians["restored"] / medians["computed"], 4)}


def lookup(path: Path, questions: Sequence[str], threads: int) -> dict[str, float]:
    """Tokens/s of answers with prompt lookup against those without, question by question; texts must be equal."""
    with load(path, threads=threads) as model:
        spent = {False: 0.0, True: 0.0}
        tokens = guessed = accepted = 0
        for index, question in enumerate(questions):
            texts = []
            for way in ((False, True), (True, False))[index % 2]:
                done = model.generate(question, lookup=way, schema=False)
                texts.append(done.text)
                spent[way] += (len(done.ids) - 1) / done.decode_tokens_per_s if len(done.ids) > 1 else 0.0
                guessed, accepted = guessed + done.guessed_tokens, accepted + done.accepted_tokens
            tokens += max(0, len(done.ids) - 1)
            assert texts[0] == texts[1], question
    return gain(len(questions), tokens, spent, guessed, accepted)


def replayed(path: Path, rows: Sequence[Row], threads: int) -> dict[str, float]:
    """As `lookup`, of a model that would say the rows' own answers: the engine computes all of them, and the logits
    of the right token are raised afterwards. So a shape of random weights shows what guesses gain it on a task."""
    with load(path, threads=threads) as model:
        engine, start, answer = model.engine, 0, list[int]()
        fast = {name: getattr(engine, name) for name in ("prefill", "decode", "extend")}

        def raised(name: str) -> Callable[[Any], Any]:
            def run(ids: Any) -> Any:
                logits = fast[name](ids)
                for back, row in enumerate(logits[::-1] if name == "extend" else (logits,)):
                    place = engine.position - back - start
                    row[answer[min(place, len(answer) - 1)] if place >= 0 else 0] = 1e4
                return logits
            return run

        for name in fast:
            setattr(engine, name, raised(name))
        spent, tokens, guessed, accepted = {False: 0.0, True: 0.0}, 0, 0, 0
        for index, row in enumerate(rows):
            prompt = learned_tokens.prompt_ids(model.codec, row)
            start, answer = len(prompt), model.codec.encode(row.answer)
            for way in ((False, True), (True, False))[index % 2]:
                engine.truncate(0)
                done = model.generate_ids(prompt, len(answer), lookup=way, stop_ids=[])
                assert done.ids == answer, row.question
                spent[way] += (len(answer) - 1) / done.decode_tokens_per_s
                guessed, accepted = guessed + done.guessed_tokens, accepted + done.accepted_tokens
            tokens += len(answer) - 1
    return gain(len(rows), tokens, spent, guessed, accepted)


def gain(answers: int, tokens: int, spent: dict[bool, float], guessed: int, accepted: int) -> dict[str, float]:
    """What lookup gained; `spent` are the seconds with and without it."""
    return {"answers": answers, "plain_tokens_per_s": round(tokens / spent[False], 1),
            "lookup_tokens_per_s": round(tokens / spent[True], 1), "ratio": round(spent[False] / spent[True], 3),
            "guessed": guessed, "accepted": accepted}


def classifying(path: Path, data: Path, threads: int, repeats: int) -> dict[str, Any]:
    """Texts/s at batch 1 and 32, beside scikit-learn's TF-IDF and linear SVM on the same texts."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    train, test = read_rows(data / "train.jsonl"), read_rows(data / "test.jsonl")
    texts, labels = [row.text for row in test[::6]], [row.answer for row in test[::6]]
    svm = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LinearSVC(random_state=0))
    svm.fit([row.text for row in train], [row.answer for row in train])
    with load(path, threads=threads) as model:
        def ours(batch: int) -> list[str]:
            return [found.label for found in model.classify_all(texts, batch=batch)]

        def theirs(batch: int) -> list[str]:
            return [str(label) for start in range(0, len(texts), batch)
                    for label in svm.predict(texts[start:start + batch])]

        ways: dict[str, tuple[Callable[[int], list[str]], int]] = {
            f"{name}, batch {batch}": (run, batch)
            for batch in (1, 32) for name, run in (("ours", ours), ("svm", theirs))}
        speeds: dict[str, list[float]] = {name: [] for name in ways}
        right: dict[str, float] = {}
        for _ in range(repeats):
            for name, (run, batch) in ways.items():
                started = time.perf_counter()
                answers = run(batch)
                speeds[name].append(len(texts) / (time.perf_counter() - started))
                right[name] = round(sum(map(str.__eq__, answers, labels)) / len(labels), 4)
    return {"texts": len(texts), "accuracy_on_them": right,
            "texts_per_s": {name: round(statistics.median(found)) for name, found in speeds.items()}}


def main() -> None:
    """Print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("config", "tokenizer", "text"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--work", type=Path, default=Path("out/decoding"), help="where models are made")
    for name in ("demo", "copying"):
        parser.add_argument(f"--{name}", type=Path, action="append", default=[])
    for name in ("copying-rows", "classifier", "labelled"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--threads", type=int, action="append", help="1 and 2 unless given")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--tokens", type=int, default=128, help="of the prompt, and of the answer")
    given = parser.parse_args()
    counts = given.threads or [1, 2]
    result: dict[str, Any] = {"machine": machine.facts(), "repeats": given.repeats, "tokens": given.tokens}
    if given.config:
        files = made(given.config, given.tokenizer, given.work)
        prompt = prompt_of(given.work / "model" / "tokenizer.json", given.text, PREFIX_TOKENS + 64)
        result["out of the box"] = decoding(files, prompt[:given.tokens], 0, given)
        for count in counts:
            result[f"{count} threads"] = {
                "decoding": decoding(files, prompt[:given.tokens], count, given),
                "shaped": {path.name: shaped(path, prompt[:given.tokens], count, given) for path in files},
                "prefix": {path.name: prefix(path, prompt, count, given) for path in files}}
    for path in given.demo:
        result[f"overhead_us {path.name}"] = {count: overhead(path, count, given.repeats) for count in counts}
    copying = read_rows(given.copying_rows) if given.copying_rows else []
    for path in files if copying and given.config else ():
        result[f"lookup, answers replayed {path.name}"] = {count: replayed(path, copying[:60], count)
                                                           for count in counts}
    for path in given.copying:
        questions = [row.question for row in copying[:200]]
        result[f"lookup {path.name}"] = {count: lookup(path, questions, count) for count in counts}
    if given.classifier:
        result["classifying"] = {count: classifying(given.classifier, given.labelled, count, given.repeats)
                                 for count in counts}
    json.dump(result, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
