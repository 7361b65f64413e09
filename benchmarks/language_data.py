"""Stories as rows of plain text, and a small Llama of random weights to train on them.

python benchmarks/language_data.py --data DATA/tinystories --out out/language
Next: edgestill tune benchmarks/language.toml, as its first lines say.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
from pathlib import Path

from fresh_llama import fresh_llama

LONGEST = 1200
"""Characters of a row: longer texts are cut at a paragraph or sentence before that."""


def stories(path: Path) -> list[str]:
    """The texts of TinyStories' rows."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line)["text"].strip() for line in file]


def cut(text: str) -> list[str]:
    """`text` in pieces of at most about LONGEST characters, each a whole number of sentences."""
    pieces, start = [], 0
    while len(text) - start > LONGEST:
        end = text.rfind(". ", start, start + LONGEST) + 1
        end = end if end > start else start + LONGEST
        pieces.append(text[start:end].strip())
        start = end
    return [*pieces, text[start:].strip()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.jsonl.gz of TinyStories")
    parser.add_argument("--out", type=Path, required=True, help="folder for the rows and the model's start")
    parser.add_argument("--vocabulary", type=int, default=2048)
    parser.add_argument("--layers", type=int, default=6)
    arguments = parser.parse_args()
    texts = stories(arguments.data / "train.jsonl.gz")
    random.Random(0).shuffle(texts)  # whole texts are held out, so no piece of one stands on both sides
    test, validation, train = texts[:200], texts[200:300], texts[300:]
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", train), ("validation", validation), ("test", test)):
        rows = [json.dumps({"text": piece}, ensure_ascii=False) + "\n" for text in part for piece in cut(text) if piece]
        (arguments.out / f"{name}.jsonl").write_text("".join(rows), encoding="utf-8")
    fresh_llama(arguments.out / "start", train, arguments.vocabulary, arguments.layers)


if __name__ == "__main__":
    main()
