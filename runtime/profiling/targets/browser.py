"""A browser, headless Chromium: browser://FOLDER, where FOLDER is a web app that `export --app web` made, with its
packages installed. The app is used as a person uses it, and its own times are taken: WebAssembly, or WebGPU where the
model is one for it."""

from __future__ import annotations

import importlib.resources
import itertools
import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ....models.errors import EdgestillError, UsageError
from ....models.task import Task
from ...loading.foreign import codec_of, open_model
from .. import limits
from ..enough import enough
from ..prompts import Source, order
from ..views import view
from ._base import Asked, Say
from ._from_outside import summed_up

NEEDS_MODEL = False
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = ("--headless=new", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
          "--disable-component-update")
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
    task = open_model(asked.model).manifest.task
    source = Source(task, codec_of(open_model(asked.model), task), None, None, asked.prompt_tokens, None)
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


class _Handler(SimpleHTTPRequestHandler):
    """The app below /app/, the page that drives it, its texts, and answers that are POSTed."""

    def __init__(self, *given: Any, app: Path, texts: Sequence[str], answers: queue.Queue[dict[str, Any]]) -> None:
        self._contents = {"/drive.html": importlib.resources.files(__package__).joinpath("_drive.html").read_bytes(),
                          "/texts.json": json.dumps(list(texts)).encode()}
        self._answers = answers
        super().__init__(*given, directory=str(app))

    def translate_path(self, path: str) -> str:
        """Where a file of the app lies."""
        return super().translate_path(path.removeprefix("/app"))

    def do_GET(self) -> None:
        """A file, or what was made for this page."""
        content = self._contents.get(self.path)
        if content is None:
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Type", "text/html" if self.path.endswith("html") else "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        return None

    def do_POST(self) -> None:
        """The page's answer."""
        self._answers.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def end_headers(self) -> None:
        """Pages that are isolated from other origins may use threads."""
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, format: str, *given: Any) -> None:
        """Nothing."""


def _answers(app: Path, texts: Sequence[str], device: str) -> list[dict[str, Any]]:
    """The profile that the app shows after each text; EdgestillError where there is none."""
    chromium = next(filter(None, map(shutil.which, NAMES)), None)
    if chromium is None:
        raise EdgestillError("no browser is installed here", f"install one of {', '.join(NAMES)}")
    flags = [*_FLAGS, "--enable-unsafe-webgpu" if device == "webgpu" else "--disable-gpu"]
    if hasattr(os, "getuid") and os.getuid() == 0:
        flags.append("--no-sandbox")  # root in a container has no user namespaces; the page is ours and loads nothing
    told: queue.Queue[dict[str, Any]] = queue.Queue()
    web = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, app=app, texts=texts, answers=told))
    threading.Thread(target=web.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory(prefix="edgestill-", ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen([chromium, *flags, f"--user-data-dir={folder}",
                                    f"http://127.0.0.1:{web.server_address[1]}/drive.html"],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            found = _wait(told, process, _SILENCE + 60 * len(texts))
        finally:
            process.terminate()
            process.wait(30)
            web.shutdown()
            web.server_close()
    if "error" in found:
        raise EdgestillError(f"{app}: the page says: {found['error']}", "open the app in a browser to see it fail")
    profiles: list[dict[str, Any]] = found["profiles"]
    return profiles


def _wait(told: queue.Queue[dict[str, Any]], process: subprocess.Popen[bytes], seconds: float) -> dict[str, Any]:
    for _ in range(int(seconds)):
        try:
            return told.get(timeout=1)
        except queue.Empty:
            if process.poll() is not None:
                raise EdgestillError(f"the browser ended with code {process.returncode}",
                                     "start it by hand to see why") from None
    raise EdgestillError(f"the page gave no answer in {seconds:.0f} s", "take fewer --repeats, or a smaller model")
