"""AutoRound (Intel, arXiv 2309.05516) on the same grid and rows, for a row of its own in quantization.py.

Symmetric 4 bits in blocks of 32, its own default of 200 iterations, calibrated on the given rows one after the other in
sequences of `--length` tokens. The folder that it leaves holds weights on the grid, which exports keep code by code:

    pip install --no-deps auto-round py-cpuinfo
    python benchmarks/autoround.py --out out/autoround-demo
    python benchmarks/quantization.py --retrained out/autoround-demo --out out/quantization
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from auto_round import AutoRound
from edgestill.runtime.data import learned_tokens
from edgestill.runtime.text.codec import Codec
from quantization import DEMO, rows_of
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    """Quantize, save, say how long it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=DEMO)
    parser.add_argument("--train", type=Path, help="rows that calibrate")
    parser.add_argument("--calibration-rows", type=int, default=128)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    codec = Codec.from_folder(options.model)
    train, _ = rows_of(options.model, options.train, None, options.calibration_rows)
    ids = [token for row in train for token in (learned_tokens.training_ids(codec, row)[0] if row.messages
                                                else codec.plain_ids(row.text))]
    rows = torch.tensor(ids[:len(ids) // options.length * options.length]).reshape(-1, options.length)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    started = time.perf_counter()
    rounding = AutoRound(model, AutoTokenizer.from_pretrained(options.model), bits=4, group_size=32, sym=True,
                         dataset=[{"input_ids": row[None], "attention_mask": torch.ones_like(row[None])}
                                  for row in rows], iters=200, seqlen=options.length, nsamples=len(rows),
                         batch_size=8, device_map="cpu", enable_torch_compile=False)
    aside = options.out.with_name(f"{options.out.name}.made")
    rounding.quantize_and_save(str(aside), format="fake")
    next(aside.iterdir()).rename(options.out)  # it names a folder of its own in there
    aside.rmdir()
    print(f"{len(rows)} sequences of {options.length} tokens, {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
