"""`profile --target adb://…` by the real adb; the device is a stand-in (see adbd), and so is the server on it."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from edgestill.models.errors import EdgestillError, UsageError
from edgestill.runtime.profiling.targets import adb
from edgestill.runtime.profiling.targets._base import Asked

from .adbd import Adbd

pytestmark = [pytest.mark.timeout(900),
              pytest.mark.skipif(shutil.which("adb") is None, reason="no adb: apt-get install adb")]
_ANSWERING = """
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
if open(options["-m"], "rb").read(4) != b"GGUF":
    sys.exit("no GGUF")
class Handler(BaseHTTPRequestHandler):
    def answer(self, kind, text):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(text.encode())
    def do_GET(self):
        self.answer("application/json", json.dumps({"data": [{"id": "model"}]}))
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        chunks = [{"choices": [{"delta": {"content": text}}]} for text in "abc"]
        chunks.append({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}})
        lines = [f"data: {json.dumps(chunk)}\\n\\n" for chunk in chunks]
        self.answer("text/event-stream", "".join(lines) + "data: [DONE]\\n")
HTTPServer(("127.0.0.1", int(options["--port"])), Handler).serve_forever()
"""
# By a shell: a first line that names Python ends at the first blank of its path.
SERVER = f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(_ANSWERING)} \"$@\"\n"


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adbd]:
    """A device that the real adb is connected to, by a server of adb's own for this test."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        os.environ["ANDROID_ADB_SERVER_PORT"] = str(free.getsockname()[1])
    found = Adbd(tmp_path_factory.mktemp("device"))
    said = subprocess.run(["adb", "connect", found.serial], capture_output=True, text=True, check=True).stdout
    assert "connected to" in said
    yield found
    subprocess.run(["adb", "kill-server"], check=True)
    del os.environ["ANDROID_ADB_SERVER_PORT"]
    found.close()


def measured(device: Adbd, program: Path, model: Path, said: list[str], **asked: Any) -> dict[str, Any]:
    place = f"adb://{device.serial}?server={program}"
    return adb.profile(place, Asked(model, repeats=3, warmup=1, **asked), said.append)


def test_server_and_model_are_pushed_once_and_asked(device: Adbd, packed_llama: dict[str, Path],
                                                    tmp_path: Path) -> None:
    program, said = tmp_path / "llama server", list[str]()
    program.write_text(SERVER)
    for _ in range(2):
        found = measured(device, program, packed_llama["gguf"], said, threads=2)
    assert len(said) == 2 and "sending llama server" in said[0], "what was there was sent again"
    assert (found["new_tokens"], found["prompt_tokens"], found["threads"]) == (3, 7, 2)
    assert found["peak_rss_bytes"] > 1e6 and found["machine"]["target"].startswith("adb://127.0.0.1:")
    started = [command for command in device.commands if "nohup" in command]
    assert len(started) == 2 and started[0].endswith("-t 2 >log 2>&1 </dev/null & echo $!")
    listed = subprocess.run(["adb", "forward", "--list"], capture_output=True, text=True, check=True)
    assert listed.stdout.strip() == "" and sum(command.startswith("kill ") for command in device.commands) >= 2


def test_failures_of_the_device_are_told(device: Adbd, packed_llama: dict[str, Path], tmp_path: Path) -> None:
    broken = tmp_path / "llama-server"
    broken.write_text("#!/bin/sh\necho wrong processor >&2\nexit 1\n")
    with pytest.raises(EdgestillError, match="the server there does not answer: wrong processor"):
        measured(device, broken, packed_llama["gguf"], [])
    with pytest.raises(UsageError, match="is no GGUF file"):
        measured(device, broken, packed_llama["onnx"], [])
    with pytest.raises(EdgestillError, match="adb get-state, nowhere: .*not found"):
        adb.profile(f"adb://nowhere?server={broken}", Asked(packed_llama["gguf"]), print)


@pytest.mark.parametrize("place", [
    "adb://-s?server=x", "adb://one", "adb://one?server=no-such-file", "adb://one/x?server=x"])
def test_addresses_that_cannot_be_are_refused(place: str) -> None:
    with pytest.raises(UsageError, match="--target adb://"):
        adb.check(place)
