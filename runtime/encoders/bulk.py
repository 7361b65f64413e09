"""Label many texts into a file of JSON lines; a run that was broken off goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...models import files
from ...models.errors import EdgestillError, UsageError
from ..generation.prompt_cache import model_digest
from .classifier import Classifier
from .encoder import Text
from .head import Classification

CHUNK = 64
"""Lines at least that reach the disk at once."""


@dataclass(frozen=True)
class Summary:
    """What a file of labelled texts holds."""

    texts: int
    labels: dict[str, int]
    """Texts of each label, the most frequent first."""
    abstained: int
    abstained_share: float
    truncated: int
    """Texts that were longer than the model can read."""
    resumed_at: int
    """Texts that an earlier run had labelled."""
    texts_per_s: float
    """Of this run; 0 when it had nothing to do."""


def record(text: Text, found: Classification, top: int = 1, abstain: float = 0.0) -> dict[str, Any]:
    """What is said of a text, as JSON: its label with the `top` likeliest ones, null below the probability `abstain`;
    all its labels; or its score."""
    said = {"text": text} if isinstance(text, str) else {"text": text[0], "text_pair": text[1]}
    told = found.to_json(top)
    if "probabilities" not in told:
        return said | told
    best = [{"label": label, "probability": value} for label, value in told.pop("probabilities").items()]
    unsure = "label" in told and found.probability < abstain
    return said | told | ({"label": None} if unsure else {}) | {"top": best, "abstained": unsure}


def check_abstain(model: Classifier, abstain: float) -> None:
    """UsageError for a probability to abstain below, and a model that does not choose one label."""
    if abstain > 0:
        model.head.require_single("--abstain")


def classify_into(out: Path, model: Classifier, texts: Sequence[Text], top: int = 1, abstain: float = 0.0,
                  batch: int = 1, progress: Callable[[int, int], None] | None = None) -> Summary:
    """Write a line for every text, in their order, to `out`, as `record` makes them.

    Beside it stands `out`.source.json, which says what it was made from. A file that a killed run left behind is gone
    on with, to the same bytes as those of a run in one go.
    Raises UsageError when the texts, the model or the settings are others than when the file was begun, and what
    `check_abstain` raises; EdgestillError when the file was not written here.
    """
    check_abstain(model, abstain)
    digest = hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()
    source = {"texts": digest, "model": model_digest(model.artifact), "labels": model.labels,
              "head": model.head.kind, "thresholds": list(model.head.thresholds),
              "temperature": model.head.temperature, "top": top, "abstain": abstain, "batch": batch}
    _claim(out, source)
    # Batches must fall as in a run in one go: the bits of an int8 graph's answers hang on them.
    chunk = -(-CHUNK // batch) * batch
    done = _kept(out, len(texts), chunk)
    resumed, started = len(done), time.perf_counter()
    with out.open("ab") as file:
        for start in range(resumed, len(texts), chunk):
            part = texts[start:start + chunk]
            made = [record(text, found, top, abstain)
                    for text, found in zip(part, model.classify_all(part, batch), strict=True)]
            file.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in made).encode())
            file.flush()
            os.fsync(file.fileno())
            done += [_named(line) for line in made]
            if progress:
                progress(len(done), len(texts))
    files.sync_folder(out.parent)
    abstained, new = sum(labels == [None] for labels, _ in done), len(done) - resumed
    counts = Counter(label for labels, _ in done for label in labels if label is not None)
    return Summary(len(done), dict(counts.most_common()), abstained,
                   abstained / len(done) if done else 0.0, sum(cut for _, cut in done), resumed,
                   new / (time.perf_counter() - started) if new else 0.0)


def _claim(out: Path, source: dict[str, Any]) -> None:
    """Say beside `out` what it is made from, or refuse when something else is said there."""
    beside = out.with_name(out.name + ".source.json")
    if not out.exists():
        files.write_json(beside, source)
        return
    try:
        known = json.loads(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = None
    if not isinstance(known, dict):
        raise EdgestillError(f"{out}: exists, and {beside.name} does not say what it was made from",
                             "choose another -o/--out, or remove it first")
    changed = [name for name in source if known.get(name) != source[name]]
    if changed:
        raise UsageError(f"{out}: was begun with other {', '.join(changed)}",
                         "go on with the same, choose another -o/--out, or remove it first")


def _named(line: dict[str, Any]) -> tuple[list[str | None], bool]:
    """The labels that a line names, and whether its text was cut; KeyError for no line of ours."""
    if "score" in line or "scores" in line:
        return [], line["truncated"]
    return line["labels"] if "labels" in line else [line["label"]], line["truncated"]


def _kept(out: Path, total: int, chunk: int) -> list[tuple[list[str | None], bool]]:
    """The labels of every line that stands, and whether its text was cut; what was not written whole is cut off."""
    found, ends = [], [0]
    if out.exists():
        with out.open("rb") as file:
            for line in file:
                try:
                    table = json.loads(line) if line.endswith(b"\n") else {}
                    found.append(_named(table))
                except (ValueError, LookupError, TypeError):  # after a loss of power a file may end in zeros
                    break
                ends.append(ends[-1] + len(line))
        whole = total if len(found) >= total else len(found) // chunk * chunk
        os.truncate(out, ends[whole])
        return found[:whole]
    return []
