"""An Android device, by the system's own adb: adb://SERIAL?server=PATH, where PATH is a llama-server for it.

Stock Android has no Python. So the server and the model are pushed once, by their SHA-256, it is started there, its
port forwarded, and what `server` measures of any address is measured; its memory is read there.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ....models import files
from ....models.errors import EdgestillError, UsageError
from ...generation.remote import RemoteError
from ...loading.foreign import open_model
from .. import http_requests
from . import server
from ._base import Asked, Say

NEEDS_MODEL = True
_FOLDER = "/data/local/tmp/edgestill"
"""Where a shell without root may write and start programs."""
_PORT = 18437
_LOADS_WITHIN = 300.0
"""Seconds for the server to load its model."""
_CONTEXT = 2048
_SERIAL = re.compile(r"[\w.:][\w.:-]*")


def check(place: str) -> None:
    """UsageError for another form than adb://SERIAL?server=PATH, and for a serial that adb could take for an option."""
    _parts(place)


def profile(place: str, asked: Asked, say: Say) -> dict[str, Any]:
    """Push what is missing, start the server, and measure it; errors as in `server.profile`, and EdgestillError where
    adb or the server there fails."""
    assert asked.model is not None  # NEEDS_MODEL
    serial, program = _parts(place)
    artifact = open_model(asked.model)
    if artifact.model_path.suffix != ".gguf":
        raise UsageError(f"--target {place}: {artifact.model_path.name} is no GGUF file, which a llama-server runs",
                         "give a GGUF artifact")
    device = _Device(serial)
    state = device.adb("get-state").strip()
    if state != "device":
        raise EdgestillError(f"{place}: the device is {state}", "allow this machine on its screen, then try again")
    binary, model = (device.push(path, say) for path in (program, artifact.model_path))
    with device.running(binary, model, asked.threads) as (port, process):
        found = server.profile(f"http://127.0.0.1:{port}", replace(asked, threads=0), say)
        peak = re.search(r"VmHWM:\s+(\d+) kB", device.shell(f"cat /proc/{process}/status"))
    found["peak_rss_bytes"] = int(peak[1]) * 1024 if peak else None
    found["threads"], found["file_bytes"] = asked.threads or None, artifact.model_bytes()
    found["machine"] |= {"target": place, "cpu": " ".join(device.shell(
        f"getprop ro.product.{name}").strip() for name in ("manufacturer", "model", "board")),
        "system": f"Android {device.shell('getprop ro.build.version.release').strip()}"}
    return found


def _parts(place: str) -> tuple[str, Path]:
    parts = urlsplit(place)
    query = parse_qs(parts.query)
    if not _SERIAL.fullmatch(parts.netloc) or parts.path or parts.fragment or list(query) != ["server"]:
        raise UsageError(f"--target {place}: not of the form adb://SERIAL?server=PATH",
                         "adb devices lists serials; PATH is a llama-server that was built for Android")
    program = Path(query["server"][-1])
    if not program.is_file():
        raise UsageError(f"--target {place}: {program}: no such file", "name a llama-server that was built for Android")
    return parts.netloc, program


class _Device:
    """A device that adb reaches."""

    def __init__(self, serial: str) -> None:
        self._serial = serial

    def adb(self, *words: str) -> str:
        """What a command of adb prints; EdgestillError where it fails."""
        try:
            done = subprocess.run(["adb", "-s", self._serial, *words], capture_output=True, text=True, check=False,
                                  stdin=subprocess.DEVNULL)
        except FileNotFoundError:
            raise EdgestillError("adb is not installed here", "install Android's platform tools") from None
        if done.returncode:
            last = ((done.stderr or done.stdout).strip().splitlines() or ["it gave no reason"])[-1]
            raise EdgestillError(f"adb {words[0]}, {self._serial}: {last}", "see what adb devices says")
        return done.stdout

    def shell(self, command: str) -> str:
        """What a command line prints there, whatever its code: old devices hand over none."""
        return self.adb("shell", command)

    def push(self, path: Path, say: Say) -> str:
        """The place of a file there, named by its SHA-256; it is sent where it is not there."""
        there = f"{_FOLDER}/{files.sha256(path)}"
        size = path.stat().st_size
        if self.shell(f"stat -c %s {there} 2>/dev/null").strip() != str(size):
            say(f"{self._serial}: sending {path.name}, {size / 1e6:,.1f} MB")
            self.shell(f"mkdir -p {_FOLDER}")
            self.adb("push", str(path), f"{there}.part")
            self.shell(f"chmod 755 {there}.part && mv {there}.part {there}")
        return there

    @contextmanager
    def running(self, program: str, model: str, threads: int) -> Iterator[tuple[str, str]]:
        """The server while the block runs: the port that leads to it from here, and its process there."""
        words = shlex.join([program, "-m", model, "--host", "127.0.0.1", "--port", str(_PORT), "-c", str(_CONTEXT),
                            *(("-t", str(threads)) if threads else ())])
        process = self.shell(f"cd {_FOLDER}; nohup {words} >log 2>&1 </dev/null & echo $!").strip()
        port = self.adb("forward", "tcp:0", f"tcp:{_PORT}").strip()
        try:
            self._wait(f"http://127.0.0.1:{port}", process)
            yield port, process
        finally:
            self.shell(f"kill {process}")
            self.adb("forward", "--remove", f"tcp:{port}")

    def _wait(self, url: str, process: str) -> None:
        """Until the server answers; EdgestillError where it ends or does not."""
        began = time.monotonic()
        while time.monotonic() - began < _LOADS_WITHIN:
            try:
                http_requests.model_names(url)
                return
            except RemoteError:  # it loads
                if "alive" not in self.shell(f"kill -0 {process} 2>/dev/null && echo alive"):
                    break
                time.sleep(0.5)
        raise EdgestillError(f"{self._serial}: the server there does not answer: "
                             + " ".join(self.shell(f"tail -n 3 {_FOLDER}/log").split()),
                             "was it built for this device's processor, as one file (-DBUILD_SHARED_LIBS=OFF)?")
