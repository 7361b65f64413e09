"""`edgestill serve`: OpenAI's API over models of this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from .. import options, output


@click.command("serve", epilog=options.example(
    "edgestill serve out/gguf-Q4_0",
    "edgestill serve out/gguf-Q4_0 out/onnx-int8 --port 9000",
    "EDGESTILL_API_KEY=… edgestill serve out/gguf-Q4_0 --host 0.0.0.0"))
@click.argument("artifacts", metavar="ARTIFACT...", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--host", default="127.0.0.1", show_default=True,
              help="Address to listen on; one that other machines reach needs a key.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 takes a free one.")
@click.option("--api-key", envvar="EDGESTILL_API_KEY", default="", metavar="KEY",
              help="Key that clients must send; better set as EDGESTILL_API_KEY.")
@click.option("--streams", type=click.IntRange(1, 64), default=4, show_default=True,
              help="Answers that a generator makes at a time.")
@click.option("--queue", "places", type=click.IntRange(0, 10000), default=64, show_default=True,
              help="Requests to a model that may wait; more are refused with 429.")
@click.option("--context", type=click.IntRange(0), default=0,
              help="Tokens of context of each answer; 0: the model's own length up to 2048.")
@options.threads
@options.verbose
def command(artifacts: tuple[Path, ...], host: str, port: int, api_key: str, **settings: Any) -> None:
    """Answer OpenAI's API with one or more artifacts.

    /v1/chat/completions, /v1/completions, /v1/embeddings, /v1/models, /classify, /health, /metrics, and a page to
    talk with the models at /. A model has its folder's name; where one is served, any name means it. Ctrl-C ends it.
    """
    from ...runtime.server import serve

    def ready(url: str, models: Mapping[str, Any]) -> None:
        for name, model in models.items():
            output.note(f"{name}: {model.artifact.manifest.task.kind}, {model.artifact.manifest.scheme}")
        output.note(f"serving at {url}")

    serve(artifacts, host, port, key=api_key, ready=ready, **settings)
