"""What quantization loses, file by file, in one sitting: bytes, KL to the float model and the same most likely token.

Every file runs in its own engine over the same held-out rows and is held against the same float model. The demo's
teacher without arguments; any Hugging Face folder with rows of its own otherwise, or with a plain text, of which the
first blocks of 512 tokens calibrate and the last ones judge. `--only` names what to make. `--retrained` names a folder
whose weights were put on the grid from the same float model, by training or by autoround.py. `--convert` measures a
conversion instead: seconds and peak memory of a model of that shape with random weights, in a process of its own.

    python benchmarks/quantization.py --out out/quantization
    python benchmarks/quantization.py --model out/lm --train train.jsonl --test test.jsonl --out out/quantization
    python benchmarks/quantization.py --model out/real/smollm2-135m-instruct --text WIKITEXT/valid.txt \
        --calibration-rows 48 --threads 2 --only stock gptq mixed --out out/real-quantization
    python benchmarks/quantization.py --convert CONFIGS/SmolLM2-360M --tokenizer TOKENIZERS/smollm2 --out out/convert
"""

from __future__ import annotations

import argparse
import ctypes
import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from edgestill.models import artifact, files, kinds
from edgestill.models.errors import UsageError
from edgestill.models.runfile import Export
from edgestill.models.scheme import Scheme
from edgestill.models.task import Task
from edgestill.quantize.gguf import llama_quantizer
from edgestill.quantize.gguf import tensors as gguf_tensors
from edgestill.quantize.gguf import write as gguf_format
from edgestill.quantize.grid.calibration import Calibration, measure
from edgestill.quantize.grid.encode import Encoder, encoder
from edgestill.quantize.mixed.choose_types import Mixer
from edgestill.quantize.proof import divergence
from edgestill.quantize.source.checkpoint import Checkpoint
from edgestill.quantize.source.float_model import FloatModel
from edgestill.runtime.data import learned_tokens
from edgestill.runtime.data.reader import Row, read_rows
from edgestill.runtime.text.codec import Codec

HERE = Path(__file__).resolve().parent
DEMO = HERE.parent / "models" / "demo" / "teacher"
CONTEXT = 512


class Sitting:
    """One float model, its rows, and the files made from it."""

    def __init__(self, source: Path, out: Path, train: Sequence[Sequence[int]], test: Sequence[Sequence[int]],
                 threads: int, only: Sequence[str]) -> None:
        self.source, self.out, self.threads, self.only = source, out, threads, only
        self.model = FloatModel.from_folder(source)
        self.train, self.test = train, test
        self.calibration: Calibration = measure(self.model, self.train)
        self.float_logits = [self.model.logits(ids) for ids in self.test]
        self.results: list[dict[str, Any]] = []
        self.encoders: dict[str, Encoder] = {}

    def wanted(self, name: str) -> bool:
        """Whether `--only` asks for a file."""
        return not self.only or any(part in name for part in self.only)

    def make(self, name: str, target: str, method: str = "rtn", source: Path | None = None,
             budget: int = 0) -> None:
        """Our own export of one target, without certificate."""
        if not self.wanted(name):
            return
        scheme, told = Scheme.parse(target), {}

        def write(folder: Path) -> str:
            choose = None
            if budget:
                export = Export(target, {"kind": method}, budget_mb=budget / 1e6)
                choose = Mixer(self.model, self.train, self.calibration, export)
            writer = kinds.load("quantize.formats", scheme.format)
            encode = self.encoders.setdefault(method, encoder({"kind": method}, self.calibration))
            made: str = writer.write(source or self.source, folder, scheme, encode, self.calibration, choose)
            if choose:
                told.update(choose.told)
            return made
        try:
            self.measured(name, target, write, told)
        except UsageError as error:  # the stock file may be smaller than any of ours
            if not budget:
                raise
            self.results.append({"name": name, "not_possible": error.message})
            print(f"{name:34} not possible: {error.message}", flush=True)

    def stock(self, name: str, type_name: str, importance: bool) -> dict[str, Any]:
        """llama.cpp's own quantizer on our float file."""
        def write(folder: Path) -> str:
            full = self.out / "float.gguf"
            if not full.exists():
                gguf_format.write(self.source, self.out, Scheme("gguf", "F32"), encoder({"kind": "rtn"}, None), None)
                (self.out / gguf_format.FILE).rename(full)
            llama_cpp = llama_quantizer.library()
            parameters = llama_cpp.llama_model_quantize_default_params()
            parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{type_name}")
            parameters.nthread = self.threads
            tensors, _ = gguf_tensors.plan(Checkpoint.open(self.source), "F32")
            matrices = gguf_format.importance_by_name(tensors, self.calibration.importance)
            entries = llama_quantizer.imatrix(matrices)
            if importance:
                parameters.imatrix = entries
            target = folder / gguf_format.FILE
            code = llama_cpp.llama_model_quantize(str(full).encode(), str(target).encode(), ctypes.byref(parameters))
            assert code == 0
            return gguf_format.FILE
        return self.measured(name, f"gguf:{type_name}", write, {})

    def builders(self, name: str) -> dict[str, Any]:
        """The int4 of onnxruntime-genai's model builder as it comes."""
        def write(folder: Path) -> str:
            aside = self.out / "builder"
            command = f"{sys.executable} -P -m onnxruntime_genai.models.builder -i {self.source} -o {aside} -p int4 " \
                      f"-e cpu -c {aside} --extra_options int4_block_size=32 int4_accuracy_level=4"
            subprocess.run(command.split(), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for path in aside.glob("model.onnx*"):
                shutil.copy(path, folder)
            return "model.onnx"
        return self.measured(name, "onnx:int4", write, {})

    def measured(self, name: str, target: str, write: Callable[[Path], str], told: dict[str, Any]) -> dict[str, Any]:
        """Make a file, run it over the held-out rows, keep and print what it loses."""
        scheme = Scheme.parse(target)
        path = self.out / "files" / name.replace(" ", "_").replace(":", "-")
        shutil.rmtree(path, ignore_errors=True)
        started, cpu = time.perf_counter(), time.process_time()
        with files.new_folder(path) as folder:
            model_file = write(folder)
            for extra in ("tokenizer.json", "tokenizer_config.json", "config.json"):
                if not (folder / extra).exists():
                    shutil.copy(self.source / extra, folder)
            artifact.seal(folder, stage="export", task=Task(), family="llama", scheme=target, model_file=model_file,
                          dimensions={"context": self.model.context_length})
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
        packed = artifact.open_artifact(path)
        engine = kinds.load("runtime.engines", scheme.format).open(packed, threads=self.threads, context=CONTEXT)
        parts = []
        for ids, logits in zip(self.test, self.float_logits, strict=True):
            found = np.asarray(engine.logits(ids))
            parts.append(divergence.Divergence(divergence.kl(logits, found), logits.argmax(1) == found.argmax(1),
                                               divergence.decisive(logits)))
        engine.close()
        lost = divergence.join(parts)
        result = {"name": name, "bytes": packed.model_bytes(), "kl_nats": lost.mean,
                  "kl_p999_nats": lost.p999, "same_top1": lost.top1, "tokens": lost.n, "seconds_to_make": seconds,
                  "same_decisive": float(lost.same_top[lost.decisive].mean()), "cpu_seconds_to_make": cpu_seconds,
                  "types": types_of(path / model_file), **({"allocation": told} if told else {})}
        self.results.append(result)
        print(f"{name:34} {result['bytes']:>12,} {lost.mean:10.5f} {lost.p999:9.4f} {lost.top1:9.2%} "
              f"{result['same_decisive']:9.2%} {cpu_seconds:8.0f} s  {result['types']}", flush=True)
        return result


def types_of(path: Path) -> dict[str, int]:
    """How many tensors of a GGUF file are of each type; nothing for other files."""
    from gguf import GGUFReader

    return dict(Counter(tensor.tensor_type.name for tensor in GGUFReader(path).tensors)) \
        if path.suffix == ".gguf" else {}


def blocks_of(model: Path, text: Path, count: int, tokens: int) -> tuple[list[list[int]], list[list[int]]]:
    """The first `count` blocks of CONTEXT tokens of a plain text, and the last ones that hold at least `tokens`."""
    ids = Codec.from_folder(model).plain_ids(text.read_text(encoding="utf-8"))
    blocks = [list(ids[start : start + CONTEXT]) for start in range(0, len(ids) - CONTEXT + 1, CONTEXT)]
    judging = -(-tokens // CONTEXT)
    if len(blocks) < count + judging:
        raise UsageError(f"{text}: {len(blocks)} blocks of {CONTEXT} tokens, {count + judging} are needed", "")
    return blocks[:count], blocks[-judging:]


def token_ids(model: Path, rows: Sequence[Row], tokens: int = sys.maxsize) -> list[list[int]]:
    """The rows' tokens, ends included, cut to CONTEXT: rows until there are at least `tokens`."""
    codec, found = Codec.from_folder(model), []
    for row in rows:
        if sum(map(len, found)) < tokens:
            ids = learned_tokens.training_ids(codec, row)[0] if row.messages else codec.plain_ids(row.text)
            found.append(list(ids)[:CONTEXT])
    return found


def rows_of(model: Path, train: Path | None, test: Path | None, count: int) -> tuple[list[Row], list[Row]]:
    """`count` rows that calibrate and those that files are measured on: the demo's for its teacher."""
    if model != DEMO:
        return read_rows(train)[:count] if train else [], read_rows(test) if test else []
    from edgestill.models.demo import grammar

    def rows(split: str, count: int) -> list[Row]:
        return [Row(({"role": "user", "content": row["prompt"]},
                     {"role": "assistant", "content": row["completion"]})) for row in grammar.rows(split, count)]
    return rows("train", count), rows("test", 400)


def sit(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Make and measure every file."""
    if options.text:
        train_ids, test_ids = blocks_of(options.model, options.text, options.calibration_rows, options.tokens)
    else:
        train, test = rows_of(options.model, options.train, options.test, options.calibration_rows)
        train_ids, test_ids = token_ids(options.model, train), token_ids(options.model, test, options.tokens)
    options.out.mkdir(parents=True, exist_ok=True)
    sitting = Sitting(options.model, options.out, train_ids, test_ids, options.threads, options.only)
    print(f"{'file':34} {'bytes':>12} {'mean KL':>10} {'p99.9':>9} {'same top':>9} {'decisive':>9} {'CPU':>10}")
    plain = sitting.stock("stock Q4_0", "Q4_0", importance=False)
    medium = sitting.stock("stock Q4_K_M imatrix", "Q4_K_M", importance=True)
    for method in ("rtn", "scale_search", "gptq"):
        sitting.make(f"gguf:Q4_0 {method}", "gguf:Q4_0", method)
    for name, stock in (("Q4_0", plain), ("Q4_K_M", medium)):
        sitting.make(f"gguf:mixed at {name} bytes", "gguf:mixed", "gptq", budget=stock["bytes"])
    for type_name in ("Q4_K_S", "IQ4_NL", "IQ4_XS"):
        sitting.make(f"gguf:{type_name}", f"gguf:{type_name}")
    if not sitting.wanted("onnx"):
        return sitting.results
    theirs = sitting.builders("builder int4")
    for method in ("rtn", "scale_search", "gptq"):
        sitting.make(f"onnx:int4 {method}", "onnx:int4", method)
    sitting.make("onnx:mixed at builder's bytes", "onnx:mixed", "gptq", budget=theirs["bytes"])
    sitting.make("onnx:int8", "onnx:int8")
    for retrained in options.retrained:
        for target in ("gguf:Q4_0", "onnx:int4"):
            sitting.make(f"{target} {retrained.name}", target, "scale_search", source=retrained)
    return sitting.results


CONVERT = """
import json, resource, sys, time
from pathlib import Path
from edgestill.models import kinds
from edgestill.models.runfile import Export
from edgestill.models.scheme import Scheme
from edgestill.quantize.grid.encode import encoder
source, folder, target = Path(sys.argv[1]), Path(sys.argv[2]), Export(sys.argv[3])
scheme, started = Scheme.parse(target.target), time.perf_counter()
kinds.load("quantize.formats", scheme.format).write(source, folder, scheme, encoder(target.method, None), None)
print(json.dumps({"seconds": time.perf_counter() - started,
                  "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
"""


def convert(options: argparse.Namespace) -> dict[str, Any]:
    """Conversion alone, with the default method."""
    from decoding import make_model

    options.out.mkdir(parents=True, exist_ok=True)
    source = options.out / "source"
    if not source.is_dir():
        make_model(options.convert, options.tokenizer, source)
    packed = options.out / "packed"
    shutil.rmtree(packed, ignore_errors=True)
    packed.mkdir()
    done = subprocess.run([sys.executable, "-P", "-c", CONVERT, source, packed, options.target], check=True,
                          stdout=subprocess.PIPE, text=True)
    result = {"target": options.target, "shape": options.convert.name, **json.loads(done.stdout)}
    print(f"{result['shape']} to {result['target']}: {result['seconds']:.1f} s, "
          f"{result['peak_rss_bytes'] / 1e9:.2f} GB at most")
    return result


def main() -> None:
    """Read the arguments, measure, write results.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=DEMO)
    parser.add_argument("--train", type=Path, help="rows that calibrate")
    parser.add_argument("--test", type=Path, help="rows that every file is measured on")
    parser.add_argument("--retrained", type=Path, action="append", default=[])
    parser.add_argument("--text", type=Path, help="plain text that calibrates and judges")
    parser.add_argument("--only", nargs="+", default=[], help="parts of the names of the files to make")
    parser.add_argument("--calibration-rows", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=10_000, help="held-out tokens")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--convert", type=Path)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--target", default="gguf:Q4_0")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    found = convert(options) if options.convert else sit(options)
    (options.out / "results.json").write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
