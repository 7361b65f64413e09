"""A browser, headless Chromium: browser://FOLDER, where FOLDER is a web app that `export --app web` made, with its
packages installed. The app is used as a person uses it, and its own times are taken: WebAssembly, or WebGPU where the
model is one for it."""

from __future__ import annotations

import importlib.resources
import itertools
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ....models.errors import EdgestillError, UsageError
from ....models.task import Task
from ...loading.foreign import codec_of, open_model
from .. import limits
from ..enough import enough
from ..prompts import Source, order
from ..views import view
from . import _chromium
from ._base import Asked, Say
from ._from_outside import summed_up

NEEDS_MODEL = False
_PACKAGES = "node_modules/@huggingface/transformers"
_BLIND = "a page knows neither its memory nor what else its machine did; --target local tells both of the same model"
_SILENCE = 600.0
"""Seconds without an answer after which the page counts as lost, beside a minute for each text."""


def check(place: str) -> None:
    """UsageError where there is no such app, or its packages are not installed."""
    folder = _folder(place)
    if not (folder / "settings.mjs").is_file():
        raise UsageError(f"--target {place}: {folder} is no web app: there is no settings.mjs",
                         "edgestill export MODEL --to onnx:int8 --app web makes one")
    if not (folder / _PACKAGES).is_dir():
        raise UsageError(f"--target {place}: {folder} has no transformers.js", "run npm install --ignore-scripts in it")


def profile(place: str, asked: Asked, say: Say) -> dict[str, Any]:
    """Have the app answer one text after the other in a fresh browser, and sum up the times that it tells.

    Raises UsageError for what a page cannot be asked, EdgestillError where the browser or the app fails.
    """
    folder = _folder(place)
    text = (folder / "settings.mjs").read_text(encoding="utf-8")
    settings = json.loads(text[text.index("{"):text.rindex("}") + 1])
    if asked.seconds or asked.options:
        raise UsageError(f"--target {place}: a page takes neither --sustained nor --schema", "leave them out")
    if asked.threads or asked.new_tokens:
        say(f"{place}: threads and the most tokens of an answer are the app's own")
    texts = _texts(asked)
    pages: list[dict[str, Any]] = []

    def measured(count: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        say(f"{place}: {count} requests in a browser")
        chosen = [texts[index] for index in order(len(texts), count)]
        pages[:] = _answers(folder, [*chosen[:asked.warmup], *chosen], settings["device"])
        found = _requests([page["raw"]["runs"][0] for page in pages[min(asked.warmup, count):]])
        summed = view(found)
        return found, {"as_met": summed, "clean": summed}  # nothing is known to have disturbed any

    found, views = enough(measured, max(asked.repeats, limits.requests(asked.held_to)), asked.held_to, say)
    page = pages[0]
    machine = {**page["machine"], "cpu": f"a browser ({settings['device']})", "target": place}
    known = {name: page[name] for name in ("threads", "file_bytes", "load_ms", "start_ms")}
    return summed_up(Task(kind=settings["task"]), found, views, machine, [_BLIND], asked,
                     "prompts" if asked.prompts is not None else "vocabulary", **known)


def _folder(place: str) -> Path:
    return Path(place.partition("://")[2])


def _texts(asked: Asked) -> list[str]:
    """What the app is asked; UsageError for rows that are more than one text."""
    if asked.prompts is not None:
        for row in asked.prompts:
            said = [message for message in row.prompt_messages if message["role"] != "system"]
            if len(said) > 1 or row.tools or row.pair:
                raise UsageError(f"{row.where}: the app takes one text, and no conversation, tools or pair",
                                 "give rows of one question each")
        return [row.question for row in asked.prompts]
    if asked.model is None:
        raise UsageError("a page's texts have to be given", "add --prompts ROWS, or name a model here, whose tokenizer "
                         "makes prompts of an exact length")
    artifact = open_model(asked.model)
    task = artifact.manifest.task
    source = Source(task, codec_of(artifact, task), None, None, asked.prompt_tokens, None)
    return [one["text"] for one in source.requests(max(asked.repeats, 1))]


def _requests(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the app tells of its runs as requests, one after the other, without what lies between."""
    found: list[dict[str, Any]] = []
    start = 0
    for run in runs:
        if "latency_ms" in run:
            times: dict[str, Any] = {"end_ns": int(run["latency_ms"] * 1e6)}
        else:
            ends = itertools.accumulate([run["tokenize_ms"] + run["prefill_ms"], *run["token_ms"]])
            tokens = [int(end * 1e6) for end in ends]
            times = {"token_ns": tokens, "end_ns": tokens[-1], "tokenize_ns": int(run["tokenize_ms"] * 1e6),
                     "prefill_ns": int(run["prefill_ms"] * 1e6), "new_tokens": len(tokens)}
        found.append({"start_ns": start, "disturbed": [], "prompt_tokens": run["prompt_tokens"], **times})
        start += times["end_ns"]
    return found


class _Handler(_chromium.Handler):
    """The app below /app/, and what drives it."""

    def translate_path(self, path: str) -> str:
        """Where a file of the app lies."""
        return super().translate_path(path.removeprefix("/app"))


def _answers(app: Path, texts: Sequence[str], device: str) -> list[dict[str, Any]]:
    """The profile that the app shows after each text; EdgestillError where there is none."""
    contents = {"/drive.html": importlib.resources.files(__package__).joinpath("_drive.html").read_bytes(),
                "/texts.json": json.dumps(list(texts)).encode()}
    found = _chromium.answer(partial(_Handler, directory=str(app), contents=contents), "drive.html",
                             "--enable-unsafe-webgpu" if device == "webgpu" else "--disable-gpu",
                             _SILENCE + 60 * len(texts))
    if "error" in found:
        raise EdgestillError(f"{app}: the page says: {found['error']}", "open the app in a browser to see it fail")
    profiles: list[dict[str, Any]] = found["profiles"]
    return profiles
