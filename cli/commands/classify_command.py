"""`edgestill classify`: texts in, labels out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ...models.errors import UsageError
from .. import inputs, options, output, progress_lines


@click.command("classify", epilog=options.example(
    'edgestill classify out/onnx-int8 "my card has not arrived"',
    "edgestill classify out/onnx-int8 - --json < questions.txt",
    "edgestill classify out/onnx-int8 questions.csv -o labels.jsonl --column text=body --abstain 0.6 --batch 16"))
@click.argument("artifact", type=click.Path(path_type=Path))
@click.argument("texts", metavar="TEXT...|FILE", nargs=-1, required=True)
@click.option("--pair", metavar="TEXT", help="A second text, read together with each of the first ones.")
@click.option("--top", type=click.IntRange(1), default=1, show_default=True, help="Labels to show for each text.")
@click.option("--abstain", type=click.FloatRange(0, 1), default=0.0, metavar="T",
              help="Give no label below this probability.")
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Texts read at once.")
@click.option("--column", "columns", multiple=True, metavar="OURS=THEIRS",
              help="Column of a data file, such as text=body.")
@options.out_file("Write one JSON object a text to this file; run again, it goes on where it was broken off.")
@options.threads
@options.as_json
@options.verbose
def command(artifact: Path, texts: tuple[str, ...], pair: str | None, top: int, abstain: float, batch: int,
            columns: tuple[str, ...], out: Path | None, threads: int, as_json: bool) -> None:
    """Label texts, with probabilities.

    A model of any number of labels gives all that reach their thresholds, one that scores gives its score. FILE is a
    data file, of which the texts, pairs of texts or questions are taken; TEXT `-` reads one text a line from stdin.
    With -o the labels go to a file, and what is shown sums them up.
    """
    from ...runtime import load
    from ...runtime.encoders.bulk import check_abstain, classify_into, record
    from ...runtime.encoders.classifier import Classifier

    wanted = inputs.read_texts(texts, columns, pair)
    model = load(artifact, threads=threads)
    if not isinstance(model, Classifier):
        assert model.artifact is not None
        verb = model.artifact.manifest.task.kind
        raise UsageError(f"{artifact}: is made to {verb} and gives no labels", f"edgestill {verb} {artifact} TEXT")
    if out is not None:
        with progress_lines.bar("classifying") as advance:
            summary = classify_into(out, model, wanted, top, abstain, batch, advance)
        if as_json:
            output.result(summary)
            return
        output.table(["label", "texts"], [*summary.labels.items(), *([["abstained", summary.abstained]]
                                                                     if abstain else [])])
        output.note(f"{out}: {summary.texts:,} texts, {summary.resumed_at:,} of them from before, "
                    f"{summary.texts_per_s:,.0f} texts/s")
        return
    check_abstain(model, abstain)
    found = [record(text, item, top, abstain)
             for text, item in zip(wanted, model.classify_all(wanted, batch), strict=True)]
    if as_json:
        output.result(found)
    else:
        columns_shown = ["text", "score"] if model.head.scores else ["text", "label", "probability"]
        output.table(columns_shown, [line for item in found for line in _shown(item)])


def _shown(item: dict[str, Any]) -> list[list[str]]:
    """The table's lines for a text."""
    text = item["text"] + (f" | {item['text_pair']}" if "text_pair" in item else "")
    if "top" not in item:
        scores = item.get("scores") or {"": item["score"]}
        return [[text if rank == 0 else "", f"{name} {value:.6g}".strip()]
                for rank, (name, value) in enumerate(scores.items())]
    if "labels" in item:
        marks = {one["label"]: "" if one["label"] in item["labels"] else "no: " for one in item["top"]}
    else:
        marks = {one["label"]: "not sure: " if item["abstained"] else "" for one in item["top"]}
    return [[text if rank == 0 else "", marks[one["label"]] + one["label"], f"{one['probability']:.3f}"]
            for rank, one in enumerate(item["top"])]
