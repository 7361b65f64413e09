"""SNIPS voice commands as rows for text → JSON, and a small Llama of random weights to train as the teacher.

No pretrained generator can be fetched here, so the teacher starts from nothing. 13,084 rows are few for
that: each is also written with its slot values swapped for others of the same slot, which teaches copying.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fresh_llama import fresh_llama

VALIDATION_ROWS = 700


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file, gzipped or not; a few slot values end in a blank that the text does not have."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    for row in rows:
        row["slots"] = [(slot, value.strip()) for slot, value in row["slots"]]
    return rows


def pieces(row: dict[str, Any]) -> list[tuple[str, str]]:
    """The text cut into (slot or "", text) in order; values stand in the text from left to right."""
    cut, start = [], 0
    for slot, value in row["slots"]:
        begin = row["text"].index(value, start)
        cut += [("", row["text"][start:begin]), (slot, value)]
        start = begin + len(value)
    return [*cut, ("", row["text"][start:])]


def answer(label: str, slots: list[tuple[str, str]]) -> str:
    """The compact JSON call; a slot that stands twice keeps its values as one text, joined by a comma."""
    values: dict[str, list[str]] = defaultdict(list)
    for slot, value in slots:
        values[slot].append(value)
    call = {"intent": label, "slots": {slot: ", ".join(found) for slot, found in values.items()}}
    return json.dumps(call, ensure_ascii=False, separators=(",", ":"))


def swapped(rows: list[dict[str, Any]], copies: int, seed: int) -> Iterator[dict[str, str]]:
    """Each row `copies` times with every slot value swapped for one seen elsewhere in the same intent and slot."""
    pick = random.Random(seed)
    values: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in rows:
        for slot, value in row["slots"]:
            values[row["label"], slot].append(value)
    distinct = {key: sorted(set(found)) for key, found in values.items()}
    for _ in range(copies):
        for row in rows:
            cut = [(slot, pick.choice(distinct[row["label"], slot]) if slot else text) for slot, text in pieces(row)]
            yield {"prompt": "".join(text for _, text in cut),
                   "completion": answer(row["label"], [(slot, text) for slot, text in cut if slot])}


def write(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.jsonl.gz and test.jsonl of SNIPS")
    parser.add_argument("--out", type=Path, required=True, help="folder for the rows and the teacher's start")
    parser.add_argument("--copies", type=int, default=4, help="times each row stands in train with its values swapped")
    parser.add_argument("--vocabulary", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=8)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = read(arguments.data / "train.jsonl.gz")
    test_rows = read(arguments.data / "test.jsonl")
    tested = {row["text"] for row in test_rows}
    rows = [row for row in rows if row["text"] not in tested]  # 11 test rows also stand in train
    random.Random(0).shuffle(rows)
    held_out, rows = rows[:VALIDATION_ROWS], rows[VALIDATION_ROWS:]
    train = [*swapped(rows, arguments.copies, 0)]
    for name, part, more in (("train", rows, train), ("validation", held_out, []), ("test", test_rows, [])):
        plain = [{"prompt": row["text"], "completion": answer(row["label"], row["slots"])} for row in part]
        write(arguments.out / f"{name}.jsonl", plain + [row for row in more if row["prompt"] not in tested])
    texts = [text for row in train[:len(rows)] for text in row.values()]
    fresh_llama(arguments.out / "teacher", texts, arguments.vocabulary, arguments.layers)


if __name__ == "__main__":
    main()
