"""`edgestill classify`: texts in, labels out."""

from __future__ import annotations

from pathlib import Path

import click

from ...models.errors import UsageError
from .. import inputs, options, output


@click.command("classify", epilog=options.example(
    'edgestill classify out/onnx-int8 "my card has not arrived"',
    "edgestill classify out/onnx-int8 - --json < questions.txt"))
@click.argument("artifact", type=click.Path(path_type=Path))
@click.argument("texts", metavar="TEXT...", nargs=-1, required=True)
@click.option("--top", type=click.IntRange(1), default=1, show_default=True, help="Labels to show for each text.")
@options.threads
@options.as_json
@options.verbose
def command(artifact: Path, texts: tuple[str, ...], top: int, threads: int, as_json: bool) -> None:
    """Label texts, with probabilities.

    TEXT `-` reads one text a line from stdin.
    """
    from ...runtime import load
    from ...runtime.classify import Classifier

    wanted = inputs.read_texts(texts)
    model = load(artifact, threads=threads)
    if not isinstance(model, Classifier):
        assert model.artifact is not None
        verb = model.artifact.manifest.task.kind
        raise UsageError(f"{artifact}: is made to {verb} and gives no labels", f"edgestill {verb} {artifact} TEXT")
    found = model.classify_all(wanted)
    if as_json:
        output.result([{"text": text, **output.plain(item)} for text, item in zip(wanted, found, strict=True)])
        return
    rows = []
    for text, item in zip(wanted, found, strict=True):
        best = sorted(item.probabilities.items(), key=lambda pair: -pair[1])[:top]
        rows += [[text if rank == 0 else "", label, f"{share:.3f}"] for rank, (label, share) in enumerate(best)]
    output.table(["text", "label", "probability"], rows)
