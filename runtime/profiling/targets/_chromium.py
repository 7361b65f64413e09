"""A page in headless Chromium, which says by a POST what it found."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ....models.errors import EdgestillError

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = ("--headless=new", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
          "--disable-component-update")


class Handler(SimpleHTTPRequestHandler):
    """A folder's files, `contents` by their paths beside them, and the page's answer."""

    def __init__(self, *given: Any, directory: str, contents: Mapping[str, bytes], answers: queue.Queue[Any]) -> None:
        self._contents, self._answers = contents, answers
        super().__init__(*given, directory=directory)

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


def answer(handler: Callable[..., Handler], page: str, flag: str, seconds: float) -> dict[str, Any]:
    """What `page` answers in a fresh browser, which is started with one more `flag`; `handler` lacks `answers` alone.

    EdgestillError where no browser is installed, where it ends, or where nothing comes for `seconds`.
    """
    chromium = next(filter(None, map(shutil.which, NAMES)), None)
    if chromium is None:
        raise EdgestillError("no browser is installed here", f"install one of {', '.join(NAMES)}")
    flags = [*_FLAGS, flag]
    if hasattr(os, "getuid") and os.getuid() == 0:
        flags.append("--no-sandbox")  # root in a container has no user namespaces; the page is ours and loads nothing
    answers: queue.Queue[dict[str, Any]] = queue.Queue()
    web = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, answers=answers))
    threading.Thread(target=web.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory(prefix="edgestill-chromium-", ignore_cleanup_errors=True) as folder:
        said = Path(folder) / "stderr.txt"
        with said.open("wb") as stderr:
            process = subprocess.Popen([chromium, *flags, f"--user-data-dir={folder}",
                                        f"http://127.0.0.1:{web.server_address[1]}/{page}"],
                                       stdout=subprocess.DEVNULL, stderr=stderr)
        try:
            return _wait(answers, process, seconds, said)
        finally:
            process.terminate()
            process.wait(30)
            web.shutdown()
            web.server_close()


def _wait(answers: queue.Queue[dict[str, Any]], process: subprocess.Popen[bytes], seconds: float,
          said: Path) -> dict[str, Any]:
    for _ in range(int(seconds)):
        try:
            return answers.get(timeout=1)
        except queue.Empty:
            if process.poll() is not None:
                last = " ".join(said.read_text(errors="replace").split())[-300:]
                raise EdgestillError(f"the browser ended with code {process.returncode}: {last}",
                                     "start it by hand to see why") from None
    raise EdgestillError(f"the page gave no answer in {seconds:.0f} s", "take fewer --repeats, or a smaller model")
