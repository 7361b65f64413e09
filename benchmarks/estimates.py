"""How far `edgestill estimate` is off on this machine: six true shapes with random weights and, with --real, a real
model, two formats each.

The machine is calibrated and every prediction written down before any model is made; none is used to calibrate. What is
measured stands in WORK, so the same call goes on where it stopped. The machine should do nothing else.

    python benchmarks/estimates.py WORK --configs CONFIGS --tokenizers TOKENIZERS --real out/real/smollm2-135m-instruct
    python benchmarks/estimates.py WORK --configs CONFIGS --tokenizers TOKENIZERS --only SmolLM2-360M
    python benchmarks/estimates.py --published                      # device files against published rates
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

from decoding import make_model, pack
from edgestill.models import catalogue, device, files, toml_text
from edgestill.models.shape import Shape
from edgestill.runtime import profile
from edgestill.runtime.files.model_files import read_table
from edgestill.runtime.machine.cores import allowed_cores
from edgestill.runtime.profiling import estimate, machine_rates, model_shape, variants

TARGETS = ("gguf:Q4_0", "onnx:int4")
SHAPES = {"SmolLM2-135M": "smollm2", "SmolLM2-360M": "smollm2", "Qwen2.5-0.5B": "qwen2.5", "Qwen2.5-1.5B": "qwen2.5",
          "Qwen2.5-3B": "qwen2.5", "gemma-3-270m": "qwen2.5"}
"""Config → the tokenizer that its file gets; one that is too small is filled up."""
REAL = "real SmolLM2-135M"
PROMPT, NEW = 128, 64
NUMBERS = {"decode_tokens_per_s": (0.15, 0.30), "prefill_tokens_per_s": (0.20, 0.40), "peak_rss_bytes": (0.05, 0.12)}
"""Number → the targets of its median error and of its worst."""


def predicted(given: argparse.Namespace) -> dict[str, Any]:
    """Calibrate and foretell, once: later calls read what was written down."""
    place = given.work / "predictions.json"
    if place.is_file():
        return dict(json.loads(place.read_text(encoding="utf-8")))
    machine_file = given.work / "device.toml"
    if not machine_file.is_file():
        found = asdict(machine_rates.this_device(given.threads))
        files.write_text(machine_file, toml_text.to_toml({key: value for key, value in found.items() if value}))
    machine = device.device(str(machine_file))
    told: dict[str, Any] = {}
    for name, folder in sources(given).items():
        shape, _ = model_shape.read(folder)
        for target in TARGETS:
            made = estimate.estimate(shape, variants.planned(shape, target), machine, PROMPT + NEW, PROMPT, NEW)
            told[f"{name} {target}"] = asdict(made)
    files.write_json(place, told)
    return told


def sources(given: argparse.Namespace) -> dict[str, Path]:
    """Name → the folder with its config.json."""
    found = {name: given.configs / name for name in SHAPES}
    return found | ({REAL: given.real} if given.real else {})


def fill_up(folder: Path) -> None:
    """Merges of what the tokenizer has already, until it has as many tokens as the model."""
    wanted, path = int(read_table(folder / "config.json")["vocab_size"]), folder / "tokenizer.json"
    table = json.loads(path.read_text(encoding="utf-8"))
    vocabulary, merges = table["model"]["vocab"], table["model"]["merges"]
    added = {token["id"] for token in table.get("added_tokens", [])}
    texts = [text for text, token in vocabulary.items() if token not in added]
    last = max([*vocabulary.values(), *added])
    if wanted - last < 1000:
        return
    for place in range(len(texts) - 1):
        if last + 1 >= wanted:
            break
        joined = texts[place] + texts[-place - 1]
        if joined not in vocabulary:
            last += 1
            vocabulary[joined] = last
            pair = (texts[place], texts[-place - 1])
            merges.append(list(pair) if isinstance(merges[0], list) else " ".join(pair))
    path.write_text(json.dumps(table, ensure_ascii=False), encoding="utf-8")


def measured(name: str, source: Path, given: argparse.Namespace) -> None:
    """Make and profile the files of one model that were not yet, and delete them again."""
    missing = [target for target in TARGETS if not result(given, name, target).is_file()]
    if not missing:
        return
    folder = given.work / "model"
    shutil.rmtree(folder, ignore_errors=True)
    if name == REAL:
        shutil.copytree(source, folder)
    else:
        make_model(source, given.tokenizers / SHAPES[name], folder)
        fill_up(folder)
    for target in missing:
        out = given.work / "packed" / target.replace(":", "-")
        shutil.rmtree(out, ignore_errors=True)
        found = profile(pack(folder, target, out), prompt_tokens=PROMPT, new_tokens=NEW, repeats=given.repeats,
                        threads=given.threads)
        numbers = {number: getattr(found, number) for number in (*NUMBERS, "context", "file_bytes", "verdict")}
        files.write_json(result(given, name, target), numbers)
        shutil.rmtree(out)
        print(f"{name} {target}: {found.decode_tokens_per_s:.1f} tokens/s, {found.peak_rss_bytes / 1e6:.0f} MB; "
              f"{'; '.join(found.verdict)}", flush=True)
    shutil.rmtree(folder)


def result(given: argparse.Namespace, name: str, target: str) -> Path:
    """Where a measurement is kept."""
    place = given.work / "measured" / f"{name.replace(' ', '-')}.{target.replace(':', '-')}.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    return Path(place)


def middle(told: dict[str, Any], number: str) -> float:
    """The middle of what was foretold: of a rate, of its seconds."""
    low, high = told["memory_bytes" if number == "peak_rss_bytes" else number]
    return (low + high) / 2 if number == "peak_rss_bytes" else 2 / (1 / low + 1 / high)


def compared(told: dict[str, Any], given: argparse.Namespace) -> dict[str, Any]:
    """Errors of what was measured so far, and their medians and worst beside the targets."""
    found: dict[str, dict[str, float]] = {}
    for key, foretold in told.items():
        name, _, target = key.rpartition(" ")
        path = result(given, name, target)
        if path.is_file():
            seen = json.loads(path.read_text(encoding="utf-8"))
            found[key] = {number: middle(foretold, number) / seen[number] - 1 for number in NUMBERS}
            print(f"{key:32}", "  ".join(f"{number} {error:+.1%}" for number, error in found[key].items()))
    if not found:
        return {}
    summary = {}
    for number, (middling, worst) in NUMBERS.items():
        errors = [abs(each[number]) for each in found.values()]
        summary[number] = {"median": statistics.median(errors), "worst": max(errors),
                           "holds": statistics.median(errors) <= middling and max(errors) <= worst}
        print(f"{number}: median {summary[number]['median']:.1%} (at most {middling:.0%}), worst "
              f"{summary[number]['worst']:.1%} (at most {worst:.0%}), of {len(errors)}")
    return {"errors": found, "summary": summary}


def published() -> None:
    """The middle of each range against what others measured."""
    table = json.loads((Path(__file__).parent / "llama_bench.json").read_text(encoding="utf-8"))
    for row in table["rows"]:
        shape = Shape(**table["shapes"][row["model"]]) if row["model"] in table["shapes"] else \
            catalogue.entry(row["model"]).shape
        file, machine = variants.planned(shape, row["target"]), device.device(row["device"])
        for name, found, tokens in (("prefill", estimate.prefill_s(shape, file, machine, 512), 512),
                                    ("decode", estimate.step_s(shape, file, machine, 64), 1)):
            if name in row and found is not None:
                low, high = tokens / found[1], tokens / found[0]
                print(f"{row['device']:6}{row['model']:16}{row['target']:12}{name:8} published {row[name]:6.1f}, "
                      f"foretold {low:6.1f} to {high:6.1f}, the middle {2 / (1 / low + 1 / high) / row[name] - 1:+.0%}"
                      f"{' (derived from it)' if row.get('derived') else ''}  {row['source']}")


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, nargs="?")
    parser.add_argument("--configs", type=Path)
    parser.add_argument("--tokenizers", type=Path)
    parser.add_argument("--real", type=Path, help="the folder of SmolLM2-135M")
    parser.add_argument("--only", action="append", help="measure this model now; predictions are made for all")
    parser.add_argument("--threads", type=int, default=allowed_cores())
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--published", action="store_true")
    given = parser.parse_args()
    if given.published:
        published()
        return
    if not (given.work and given.configs and given.tokenizers):
        parser.error("WORK, --configs and --tokenizers are wanted")
    given.work.mkdir(parents=True, exist_ok=True)
    told = predicted(given)
    for name, source in sources(given).items():
        if not given.only or name in given.only:
            measured(name, source, given)
    files.write_json(given.work / "estimates.json", compared(told, given))


if __name__ == "__main__":
    main()
