"""`edgestill cascade`: how much a small model can answer in a bigger one's place."""

from __future__ import annotations

from pathlib import Path

import click

from .. import inputs, options, output, progress_lines
from . import cascading


@click.command("cascade", epilog=options.example(
    "edgestill cascade out/onnx-int8 teacher/onnx-int8 --rows validation.jsonl",
    "EDGESTILL_NEXT_KEY=… edgestill cascade out/gguf-Q4_0 https://host/v1 --model NAME --rows validation.jsonl "
    "--target 0.95 --target 0.98 --price 0.002",
    "edgestill cascade out/onnx-int8 --rows labelled-by-the-api.jsonl"))
@click.argument("small", type=click.Path(path_type=Path))
@click.argument("next_model", metavar="[NEXT]", required=False)
@click.option("--rows", type=click.Path(path_type=Path), required=True,
              help="Data file, or run file whose validation rows are taken; no row that SMALL was trained on.")
@click.option("--target", "targets", multiple=True, type=click.FloatRange(0, 1, min_open=True), default=[0.95],
              show_default=True, help="Share of the kept answers that NEXT gives too; may be repeated.")
@click.option("--price", type=click.FloatRange(0), default=0.0, help="What a call of NEXT costs.")
@click.option("--model", default="", metavar="NAME", help="Model to ask at a URL.")
@click.option("--system", default="", metavar="TEXT",
              help="System message for a URL; for a classifier's rows default: to answer with one of its labels.")
@click.option("--limit", type=click.IntRange(0), default=0, metavar="N", help="Take N rows, evenly spaced; 0: all.")
@options.columns
@options.out_file("Also write the result to this JSON file.")
@options.threads
@options.as_json
@options.verbose
def command(small: Path, next_model: str | None, rows: Path, targets: tuple[float, ...], price: float, model: str,
            system: str, limit: int, columns: tuple[str, ...], out: Path | None, threads: int, as_json: bool) -> None:
    """Fit how sure a small model must be to answer in a bigger one's place.

    NEXT is an artifact or an OpenAI-compatible URL (its key in EDGESTILL_NEXT_KEY); without it, the rows' own answers
    are what must be agreed with. The threshold is chosen on one half of the rows and judged on the other; JSON objects
    have one a field, and are kept when every field is sure. Intervals are at 95 % and choose the threshold anew.
    """
    from ...runtime.evaluation.cascade import fit_threshold, saving
    from ...runtime.evaluation.evaluate import spaced

    read = inputs.read_rows(rows, columns, split="validation")
    chosen = [read[index] for index in spaced(range(len(read)), limit)]
    first = cascading.opened(small, threads)
    second = cascading.following(next_model, first, model, system, threads) if next_model else None
    with progress_lines.bar("asking") as advance:
        cases, small_seconds, next_seconds = cascading.cases(first, second, chosen, advance)
    fits = [fit_threshold(cases, target) for target in targets]
    found = output.plain({
        "small": small, "next": next_model, "rows": len(chosen),
        "seconds_per_call": {"small": small_seconds, "next": next_seconds if next_model else None},
        "fits": [{**output.plain(fit), "saved_of_1000_calls": saving(
            fit, price, small_seconds, next_seconds if next_model else None)} for fit in fits]})
    if out is not None:
        from ...models import files

        files.write_json(out, found)
    if as_json:
        output.result(found)
        return
    shown = []
    for fit, table in zip(fits, found["fits"], strict=True):
        saved = ", ".join(f"{value:.4g} {name}" for name, value in table["saved_of_1000_calls"].items()
                          if value is not None and (price or name != "money"))
        whole = [output.percent(fit.target), output.interval(fit.coverage), output.interval(fit.agreement), saved]
        for field, share in fit.coverage_by_field.items():
            shown.append([*whole, field, fit.thresholds.get(field, "none reaches it"), output.percent(share)])
            whole = [""] * len(whole)
    output.table(["target", "kept %", "agree %", "saved of 1,000 calls", "field", "threshold", "passes it"], shown)
    output.note(f"Were all answers kept, {output.percent(fits[0].agreement_of_all)} would agree.")
