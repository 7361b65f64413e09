"""`edgestill serve`: OpenAI's API over models of this machine."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ...models.errors import UsageError
from .. import options, output
from . import cascading, named_models, sweeping


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
              help="Answers that a generator makes at a time; several may hold an ONNX model's weights twice.")
@click.option("--queue", "places", type=click.IntRange(0, 10000), default=64, show_default=True,
              help="Requests to a model that may wait; more are refused with 429.")
@click.option("--context", type=click.IntRange(0), default=0,
              help="Tokens of context of each answer; 0: the model's own length up to 2048.")
@click.option("--fallback", default="", metavar="URL",
              help="OpenAI-compatible address, such as https://host/v1, that chats are handed on to, whole, where a "
                   "model is not sure.")
@click.option("--fallback-model", default="", metavar="NAME", help="Model to ask for there.")
@click.option("--fallback-key", envvar="EDGESTILL_FALLBACK_KEY", default="", metavar="KEY",
              help="Key to send there; better set as EDGESTILL_FALLBACK_KEY.")
@click.option("--threshold", default="", metavar="T|FILE",
              help="Lowest confidence of an answer that is kept, or each field's own: a file of edgestill cascade -o.")
@click.option("--shadow", type=click.FloatRange(0, 1), default=0.0, metavar="SHARE",
              help="Share of the kept answers that the fallback is asked for too: /metrics counts agreement.")
@click.option("--allowed-host", "allowed_hosts", multiple=True, metavar="HOST",
              help="Another name that clients call this server by, *.NAME or *; repeat for several. Its address and "
                   "localhost are known; at 0.0.0.0 any name is, until one is given.")
@click.option("--allow-origin", "allow_origins", multiple=True, metavar="ORIGIN",
              help="Origin whose web pages may ask, such as https://app.example.org, or *; repeat for several.")
@click.option("--sagemaker", is_flag=True, envvar="EDGESTILL_SAGEMAKER",
              help="Answer what Amazon SageMaker asks a container for, /ping and /invocations, and nothing else; it "
                   "lets in who may, so no key is asked for.")
@click.option("--log", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Keep what classifiers are asked and say in this file, for edgestill drift, without what looks "
                   "personal.")
@click.option("--log-share", type=click.FloatRange(0, 1, min_open=True), default=1.0, show_default=True,
              metavar="SHARE", help="Share of it that is kept, drawn by chance.")
@options.threads
@options.verbose
def command(artifacts: tuple[Path, ...], host: str, port: int, api_key: str, **settings: Any) -> None:
    """Answer OpenAI's API with one or more artifacts.

    /v1/chat/completions, /v1/responses, /v1/completions, /v1/embeddings, /v1/models, /classify, /health, /ready,
    /metrics, and a page to talk with the models at /. A model has its folder's name; where one is served, any name
    means it. Ctrl-C ends it.
    """
    from ...runtime.server import serve

    given = settings.pop("threshold")
    if settings["log"] is None and sweeping.given("log_share"):
        raise UsageError("--log-share needs a log", "give --log FILE")
    if not settings["fallback"] and (given or settings["shadow"]):
        raise UsageError("--threshold and --shadow need a model to fall back on", "give --fallback URL")
    threshold = cascading.threshold(given) if given else None
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    logging.getLogger("edgestill.server").setLevel(logging.INFO)

    def ready(url: str, models: Mapping[str, Any]) -> None:
        for name, model in models.items():
            output.note(f"{name}: {model.artifact.manifest.task.kind}, {model.artifact.manifest.scheme}, "
                        f"threads: {model.threads}")
        if settings["fallback"]:
            share = f", and {output.percent(settings['shadow'])} of the others to compare" if settings["shadow"] else ""
            output.note("Messages leave this machine: chats that a model is not sure of "
                        f"({cascading.shown(threshold)}) are handed on to {settings['fallback']}{share}")
        if settings["log"] is not None:
            output.note(f"{settings['log']}: {output.percent(settings['log_share'])} of what classifiers are asked is "
                        "kept here, with what looks personal left out: tell those who ask")
        output.note(f"serving at {url}")

    folders = [named_models.model(path) for path in artifacts]
    serve(folders, host, port, key=api_key, ready=ready, threshold=threshold, **settings)
