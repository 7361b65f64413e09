"""`edgestill drift`: has what a model is asked moved, is it likely less right, what is to be labelled next."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...models.errors import UsageError
from .. import inputs, options, output, progress_lines
from . import named_models

if TYPE_CHECKING:
    from ...runtime.data.row import Row
    from ...runtime.encoders.classifier import Classifier
    from ...runtime.monitoring.answered import Answered
    from ...runtime.monitoring.drift import Drift


@click.command("drift", epilog=options.example(
    "edgestill drift answers.jsonl --reference test.jsonl --model out/onnx-int8",
    "edgestill drift answers.jsonl --reference test.jsonl --model out/onnx-int8 --label-next 50 --worth next.jsonl",
    "edgestill drift this-week.csv --reference last-year.csv --check"))
@click.argument("log", type=click.Path(path_type=Path))
@click.option("--reference", type=click.Path(path_type=Path), required=True, metavar="ROWS",
              help="What it is held against: test rows, a run file, or an earlier log.")
@click.option("--model", type=click.Path(path_type=Path), metavar="ARTIFACT",
              help="The classifier in use: it answers what holds no answers of its own yet.")
@click.option("--window", type=click.IntRange(50, 2000), default=200, show_default=True,
              help="Texts that are looked at together, one window after the other.")
@click.option("--label-next", type=click.IntRange(1), default=20, show_default=True, metavar="N",
              help="How many texts to name that are worth a label.")
@click.option("--worth", type=click.Path(path_type=Path), metavar="FILE",
              help="Write them to this file as JSON lines, without labels.")
@click.option("--check", is_flag=True, help="Exit code 3 where inputs have moved or answers are likely less right.")
@options.columns
@options.out_file("Also write what was found to this JSON file.")
@options.threads
@options.as_json
@options.verbose
def command(log: Path, reference: Path, model: Path | None, window: int, label_next: int, worth: Path | None,
            check: bool, columns: tuple[str, ...], out: Path | None, threads: int, as_json: bool) -> int:
    """Say whether inputs have moved from what a model was tested on.

    LOG is what `serve --log` or `classify -o` wrote, the oldest first, or any data file. Words, new words, lengths,
    the labels given and how sure the model is are each held against the reference: of windows without drift two in a
    hundred say that they moved, so two one after the other count. Where the reference's rows have labels, it says how
    often the answers are likely right now.
    """
    from ...models import files
    from ...runtime.monitoring.answered import check_answers
    from ...runtime.monitoring.drift import drift
    from ...runtime.monitoring.worth_labelling import worth_labelling

    classifier = _opened(model, threads)
    earlier = _logged(reference)
    held, right = _tested(inputs.read_rows(reference, columns), classifier) if earlier is None else (earlier, None)
    now = _logged(log)
    if now is None:
        now = _answered(inputs.read_rows(log, columns), classifier)
    elif classifier is not None:
        check_answers(classifier, now)
    with progress_lines.bar("windows") as advance:
        found = drift(held, right, now, window, advance)
    chosen = worth_labelling(now.texts, found.unlike, now.confidences, label_next)
    told = [{"text": now.texts[one.place], "why": one.why, **_said(now, one.place)} for one in chosen]
    table = output.plain({"texts": len(now), "reference": len(held), "moved": found.moved, "fell": found.fell,
                          "windows": found.windows, "label_next": told})
    if worth is not None:
        files.write_text(worth, "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in told))
    if out is not None:
        files.write_json(out, table)
    if as_json:
        output.result(table)
    else:
        _show(found, told, worth)
    return 3 if check and (found.moved or found.fell) else 0


def _opened(path: Path | None, threads: int) -> Classifier | None:
    if path is None:
        return None
    from ...runtime import load
    from ...runtime.encoders.classifier import Classifier

    model = load(named_models.model(path), threads=threads)
    if not isinstance(model, Classifier):
        raise UsageError(f"{path}: gives no labels", "leave --model out: words and lengths are looked at without one")
    return model


def _logged(path: Path) -> Answered | None:
    from ...runtime.monitoring.answered import logged

    return logged(path) if path.suffix == ".jsonl" else None


def _answered(rows: list[Row], model: Classifier | None) -> Answered:
    from ...runtime.monitoring.answered import by, of_rows

    if model is None:
        return of_rows(rows)
    with progress_lines.bar("answering") as advance:
        return by(model, rows, advance)


def _tested(rows: list[Row], model: Classifier | None) -> tuple[Answered, Any]:
    """Rows with the model's answers, and which of these are right, where that can be known."""
    import numpy as np

    held = _answered(rows, model)
    if held.labels is None or not all(row.label for row in rows):
        return held, None
    return held, np.array([row.label == label for row, label in zip(rows, held.labels, strict=True)])


def _said(log: Answered, place: int) -> dict[str, Any]:
    if log.labels is None or log.confidences is None:
        return {}
    return {"said": log.labels[place], "probability": float(log.confidences[place])}


def _show(found: Drift, told: list[dict[str, Any]], worth: Path | None) -> None:
    from ...runtime.monitoring.drift import NAMES

    output.table(["texts", "moved", "typical now", "right, expected %"], [
        [f"{window.first + 1}–{window.first + window.texts}",
         ", ".join(f"{NAMES[name]} ({window.differences[name].size:.2f})" for name in window.moved) or "no",
         ", ".join(window.typical), _expected(window)] for window in found.windows])
    for line in _verdict(found):
        click.echo(line)
    if worth is None:
        output.table(["label next", "why", "said"], [[one["text"], one["why"], _brief(one)] for one in told[:5]])
    else:
        output.note(f"{worth}: {len(told)} texts that are worth a label")


def _expected(window: Any) -> str:
    if window.expected is None:
        return ""
    return f"{output.interval(window.expected.now)}{', less' if window.expected.fell else ''}"


def _brief(one: Mapping[str, Any]) -> str:
    return f"{one['said']} {one['probability']:.2f}" if "said" in one else ""


def _verdict(found: Drift) -> list[str]:
    """What to do, in words."""
    lines = []
    if found.moved:
        lines.append("Inputs have moved: two windows one after the other differ from the reference.")
    elif any(window.moved for window in found.windows):
        lines.append("One window differs from the reference, the next to it do not: wait for more before you act.")
    else:
        lines.append("Nothing says that inputs have moved.")
    if found.fell:
        lines.append("The answers are likely less right than on the reference: label some texts, and train again.")
    elif found.moved:
        lines.append("Whether answers are less right only labels can say: label some of these texts, and evaluate.")
    return lines
