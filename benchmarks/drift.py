"""How often `drift` cries wolf, and how soon it finds what was planted: windows of 200 texts of CLINC150.

The model is TF-IDF with logistic regression, trained on its training rows and asked about its test rows: half of them
are the reference, windows are drawn from the others, as they are or with a drift. Each call draws another half.

    python benchmarks/drift.py ../shared/data [--windows 200] [--planted 20]
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from edgestill.runtime.monitoring.answered import Answered
from edgestill.runtime.monitoring.drift import drift

Rows = list[dict[str, Any]]
SIZE, HALVES = 200, 10


def read(path: Path) -> Rows:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def misspelt(text: str, pick: random.Random) -> str:
    """Two neighbouring letters changed in about a third of the longer words."""
    return " ".join(word if len(word) < 4 or pick.random() > 0.3 else word[0] + word[2] + word[1] + word[3:]
                    for word in text.split())


def planted(pool: Rows, strangers: Rows, pick: random.Random) -> dict[str, Callable[[], Rows]]:
    """Five kinds of drift, each a window at a call."""
    few = set(pick.sample(sorted({row["label"] for row in pool}), 30))
    favoured = [row for row in pool if row["label"] in few]

    def changed(change: Callable[[str], str]) -> Rows:
        return [{**row, "text": change(row["text"])} for row in pick.sample(pool, SIZE)]

    return {
        "a fifth from another domain": lambda: [*pick.sample(pool, 160), *pick.sample(strangers, 40)],
        "a fifth of the labels asked thrice as often": lambda: [*pick.sample(pool, 120), *pick.choices(favoured, k=80)],
        "misspelt": lambda: changed(lambda text: misspelt(text, pick)),
        "a third are two questions at once": lambda: changed(
            lambda text: text if pick.random() > 1 / 3 else f"{text} and {pick.choice(pool)['text']}"),
        "a third begin with a new word": lambda: changed(
            lambda text: text if pick.random() > 1 / 3 else f"assistant {text}")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with clinc150 and banking77")
    parser.add_argument("--windows", type=int, default=200, help="without drift")
    parser.add_argument("--planted", type=int, default=20, help="of each kind of drift, two windows each")
    options = parser.parse_args()
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    train, test = (read(options.data / "clinc150" / f"{split}.jsonl") for split in ("train", "test"))
    strangers = read(options.data / "banking77" / "test.jsonl")
    vectors = TfidfVectorizer(sublinear_tf=True)
    model = LogisticRegression(C=20, max_iter=40).fit(vectors.fit_transform(row["text"] for row in train),
                                                      [row["label"] for row in train])

    def answered(rows: Rows) -> Answered:
        said = model.predict_proba(vectors.transform(row["text"] for row in rows))
        best = said.argmax(axis=1)
        return Answered([row["text"] for row in rows], model.classes_[best].tolist(), said.max(axis=1))

    false = errors = 0
    kinds: dict[str, list[int]] = {}
    gaps = []
    for half in range(HALVES):
        pick = random.Random(half)
        pick.shuffle(test)
        reference, pool = test[:len(test) // 2], test[len(test) // 2:]
        held = answered(reference)
        right = np.array([label == row["label"] for label, row in zip(held.labels or (), reference, strict=True)])
        for _ in range(options.windows // HALVES):
            window = drift(held, right, answered(pick.sample(pool, SIZE)), SIZE).windows[0]
            false += bool(window.moved)
            errors += window.expected is not None and window.expected.fell
        for name, make in planted(pool, strangers, pick).items():
            for _ in range(options.planted // HALVES):
                rows = [*make(), *make()]
                log = answered(rows)
                told = drift(held, right, log, SIZE)
                found = sum(bool(window.moved) for window in told.windows)
                true = np.mean([label == row["label"] for label, row in zip(log.labels or (), rows, strict=True)])
                expected = np.mean([window.expected.now.value for window in told.windows if window.expected])
                gaps.append(expected - true)
                kinds.setdefault(name, []).append(found)
        print(f"half {half + 1} of {HALVES}: reference {right.mean():.3f}", flush=True)
    print(f"no drift: {false} of {options.windows} windows moved, {errors} fell")
    for name, counts in kinds.items():
        print(f"{name}: within two windows in {sum(map(bool, counts))} of {len(counts)}, in both in "
              f"{sum(count == 2 for count in counts)}")
    print(f"expected accuracy less the true one under drift: mean {np.mean(gaps):+.3f}, "
          f"most {max(gaps, key=abs):+.3f}")


if __name__ == "__main__":
    main()
