"""A page of this folder in headless Chromium: a local server gives it a job, and takes its answers."""

from __future__ import annotations

import json
import queue
import shutil
import subprocess
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from edgestill.quantize.proof import clients

HERE = Path(__file__).resolve().parent
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Root in a container has no user namespaces for Chromium's sandbox; the page is ours and loads nothing else.
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
         "--disable-background-networking", "--disable-component-update")


class _Handler(SimpleHTTPRequestHandler):
    """This folder's files, those of a folder of models under /models/, /job.json, and POSTed answers."""

    def __init__(self, *arguments: Any, models: Path, job: dict[str, Any], answers: queue.Queue[Any]) -> None:
        self.models, self.job, self.answers = models, job, answers
        super().__init__(*arguments, directory=str(HERE))

    def translate_path(self, path: str) -> str:
        inside = super().translate_path(path)
        if path.startswith("/models/"):
            return str(self.models / Path(inside).relative_to(HERE / "models"))
        if path.startswith("/clients/"):
            return str(Path(clients.__file__).parent / Path(inside).name)
        return inside

    def do_GET(self) -> None:
        if self.path != "/job.json":
            return super().do_GET()
        content = json.dumps(self.job).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        return None

    def do_POST(self) -> None:
        self.answers.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def end_headers(self) -> None:
        # A page that is isolated from other origins may use threads.
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing: the page's own error comes back as its answer."""


def _answer(answers: queue.Queue[dict[str, Any]], process: subprocess.Popen[bytes], seconds: int) -> dict[str, Any]:
    """The page's answer; AssertionError when the browser ends or says nothing for `seconds`."""
    for _ in range(seconds):
        try:
            return answers.get(timeout=1)
        except queue.Empty:
            if process.poll() is not None:
                raise AssertionError(f"ended with code {process.returncode}") from None
    raise AssertionError(f"no answer in {seconds} s")


def with_package(models: Path, job: dict[str, Any], package: str) -> dict[str, Any]:
    """What browser.html answers with one of npm's packages to `job` about a folder below `models`; errors as in
    `in_chromium`."""
    own = f"{package}/node_modules/onnxruntime-web"  # npm puts it there when another version has the common place
    runtime = own if (HERE / "node_modules" / own).is_dir() else "onnxruntime-web"
    return in_chromium(models, job | {"package": package, "runtime": runtime}, "browser.html")


def in_chromium(models: Path, job: dict[str, Any], name: str, seconds: int = 600) -> dict[str, Any]:
    """What the page `name` answers to `job` about a folder below `models`; AssertionError with its error otherwise."""
    chromium = next(filter(None, map(shutil.which, NAMES)), None)
    assert chromium, f"no browser: install one of {', '.join(NAMES)}"
    answers: queue.Queue[dict[str, Any]] = queue.Queue()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, models=models, job=job, answers=answers))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory(prefix="edgestill-chromium-", ignore_cleanup_errors=True) as profile:
        page = f"http://127.0.0.1:{server.server_address[1]}/{name}"
        said = Path(profile) / "stderr.txt"
        with said.open("wb") as stderr:
            process = subprocess.Popen([chromium, *FLAGS, f"--user-data-dir={profile}", page],
                                       stdout=subprocess.DEVNULL, stderr=stderr)
        try:
            found = _answer(answers, process, seconds)
        except AssertionError as error:
            raise AssertionError(f"{chromium}: {error}: {said.read_text(errors='replace')[-3000:]}") from None
        finally:
            process.terminate()
            process.wait(timeout=30)
            server.shutdown()
            server.server_close()
    assert "error" not in found, found["error"]
    return found
