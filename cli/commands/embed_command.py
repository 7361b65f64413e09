"""`edgestill embed`: texts in, vectors out."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import click

from ...models.errors import UsageError
from .. import inputs, options, output


@click.command("embed", epilog=options.example(
    'edgestill embed out/onnx-int8 "where is my card" "my card has not arrived"',
    "edgestill embed out/onnx-int8 rows.jsonl --batch 16 -o vectors.npy"))
@click.argument("artifact", type=click.Path(path_type=Path))
@click.argument("texts", metavar="TEXT...|FILE", nargs=-1, required=True)
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Texts read at once.")
@options.out_file("Write the vectors to this file of numpy (.npy): float32 [texts, dimensions].")
@options.threads
@options.as_json
@options.verbose
def command(artifact: Path, texts: tuple[str, ...], batch: int, out: Path | None, threads: int, as_json: bool) -> None:
    """Turn texts into vectors.

    FILE is a data file, of which the texts or questions are taken; TEXT `-` reads one text a line from stdin. Shown is
    how alike (cosine) each text is to the first one; --json prints the vectors.
    """
    from ...runtime import load
    from ...runtime.encoders.embedder import Embedder, unit

    wanted = inputs.single(inputs.read_texts(texts))
    model = load(artifact, threads=threads)
    if not isinstance(model, Embedder):
        assert model.artifact is not None
        verb = model.artifact.manifest.task.kind
        raise UsageError(f"{artifact}: is made to {verb} and gives no vectors", f"edgestill {verb} {artifact} TEXT")
    found = model.embed_all(wanted, batch)
    if out is not None:
        import numpy as np

        from ...models import files

        content = BytesIO()
        np.save(content, found, allow_pickle=False)
        files.write_bytes(out, content.getvalue())
    if as_json:
        output.result([{"text": text, "vector": row.tolist()} for text, row in zip(wanted, found, strict=True)])
    elif out is None:
        alike = unit(found) @ unit(found[:1])[0]
        output.table(["text", "likeness"], [[text, f"{share:.3f}"] for text, share in zip(wanted, alike, strict=True)])
