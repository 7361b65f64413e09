"""What runs on another machine before anything of ours is there: it is sent as text, and needs Python 3.11 alone.

Contents are kept by their SHA-256, so only what is new is sent, and what was broken off goes on where it broke. What
measures is a process of its own that no connection holds, and says what happens in a file that can be read again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator

UNUSED = 30 * 86400
"""Seconds after which what no run took is deleted."""


def root() -> str:
    """The folder that all of it lies in: of the user alone, in the cache, or where there is no home in /tmp."""
    home = os.environ.get("XDG_CACHE_HOME") or os.environ.get("HOME") and os.path.join(os.environ["HOME"], ".cache")
    for base in (home, tempfile.gettempdir()):
        path = os.path.join(base, f"edgestill-target-{os.getuid()}") if base else ""
        try:
            os.makedirs(path, 0o700, exist_ok=True)
        except OSError:
            continue
        if os.stat(path).st_uid == os.getuid() and os.access(path, os.W_OK):
            return path
    raise SystemExit("neither the home nor the temporary folder can be written to")


def tell(found: object) -> None:
    """Hand over a line."""
    print(json.dumps(found), flush=True)  # noqa: T201 - the pipe to the other machine


def probe(names: str) -> None:
    """Tell what this machine is, and which of some modules (names with commas) it has."""
    features = ""
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            features = next((line.partition(":")[2] for line in file if line.startswith(("flags", "Features"))), "")
    tell({
        "python": sys.executable, "version": sys.version_info[:2], "implementation": sys.implementation.name,
        "platform": sys.platform, "machine": platform.machine(), "libc": platform.libc_ver(),
        "features": features.split(), "modules": [name for name in names.split(",") if importlib.util.find_spec(name)],
        "free_bytes": shutil.disk_usage(root()).free})


def have() -> None:
    """Of each content that stdin names ({sha256: bytes}), tell how many bytes are there."""
    found = {}
    for name, size in json.load(sys.stdin).items():
        whole = _content(name)
        if os.path.exists(whole):
            os.utime(whole)
            found[name] = size
        else:
            found[name] = os.path.getsize(whole + ".part") if os.path.exists(whole + ".part") else 0
    tell(found)


def take() -> None:
    """Store what stdin brings: a line with SHA-256, first byte and number of bytes, then these bytes, and so on."""
    while line := sys.stdin.buffer.readline():
        name, first, size = line.decode().split()
        part, left = _content(name) + ".part", int(size)
        with open(part, "r+b" if int(first) else "wb") as file:
            file.seek(int(first))
            file.truncate()
            while left and (data := sys.stdin.buffer.read(min(left, 1 << 20))):
                file.write(data)
                left -= len(data)
        if left:
            return  # broken off: it goes on from here
        with open(part, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != name:
            os.remove(part)
            raise SystemExit(f"what came is not what was sent: SHA-256 {found}, not {name}")
        os.replace(part, _content(name))


def start(run: str) -> None:
    """Start the run that stdin describes, unless it is under way or has ended and its result was not yet fetched."""
    asked = json.load(sys.stdin)
    folder = os.path.join(root(), "runs", run)
    with _alone("start"):
        if _running(folder) or _ended(folder):
            return
        shutil.rmtree(folder, ignore_errors=True)
        for name, content in asked["files"].items():
            path = os.path.join(folder, *name.split("/"))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.link(_content(content), path)
        with open(os.path.join(folder, "job.json"), "w", encoding="utf-8") as file:
            json.dump(asked["job"], file)
        site = _site(asked["packages"])
        _forget()
        words = [sys.executable, "-P", "-m", asked["module"]]
        places = os.pathsep.join([os.path.join(folder, asked["program"]), site])
        with open(os.path.join(folder, "log"), "wb") as log:
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder,
                                       start_new_session=True, env={**os.environ, "PYTHONPATH": places})
        with open(os.path.join(folder, "pid"), "w", encoding="utf-8") as file:
            file.write(str(process.pid))
        while process.poll() is None and not _running(folder) and not _ended(folder):
            time.sleep(0.05)  # until it holds its lock


def follow(run: str, known: str) -> None:
    """Hand over what the run says from its line `known` on, until it ends; {} now and then while it says nothing."""
    folder = os.path.join(root(), "runs", run)
    said = time.monotonic()
    count, live = 0, True
    with open(os.path.join(folder, "events"), "a+", encoding="utf-8") as file:
        file.seek(0)
        while True:
            place = file.tell()
            line = file.readline()
            if line.endswith("\n"):
                count += 1
                if count > int(known):
                    sys.stdout.write(line)
                    sys.stdout.flush()
                    said = time.monotonic()
                if "end" in json.loads(line):
                    return
                continue
            file.seek(place)
            if not live:
                with open(os.path.join(folder, "log"), encoding="utf-8", errors="replace") as log:
                    tell({"died": log.read()[-2000:]})
                return
            live = _running(folder)  # and if not, the file is read once more
            if time.monotonic() - said > 5:
                tell({})
                said = time.monotonic()
            time.sleep(0.2)


def forget(run: str) -> None:
    """End the run, and delete its folder and its rounds."""
    folder = os.path.join(root(), "runs", run)
    if _running(folder):
        with open(os.path.join(folder, "pid"), encoding="utf-8") as file:
            os.killpg(int(file.read()), signal.SIGTERM)
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        os.remove(os.path.join(root(), "rounds", f"{run}.jsonl"))


def _content(name: str) -> str:
    folder = os.path.join(root(), "contents")
    os.makedirs(folder, exist_ok=True)
    return os.path.join(folder, name)


def _site(packages: list[str]) -> str:
    """A folder with these packages, from their wheels."""
    folder = os.path.join(root(), "packages", hashlib.sha256("".join(sorted(packages)).encode()).hexdigest()[:16])
    if not os.path.exists(folder):
        made = folder + ".part"
        shutil.rmtree(made, ignore_errors=True)
        os.makedirs(made)
        for name in packages:
            with zipfile.ZipFile(_content(name)) as wheel:
                wheel.extractall(made)
        os.replace(made, folder)
    os.utime(folder)
    return folder


def _forget() -> None:
    """Delete contents, packages and results that have not been asked for in a long time."""
    for name in ("contents", "packages", "runs", "rounds"):
        os.makedirs(os.path.join(root(), name), exist_ok=True)
        for entry in os.scandir(os.path.join(root(), name)):
            if time.time() - entry.stat().st_mtime > UNUSED:
                shutil.rmtree(entry.path) if entry.is_dir() else os.remove(entry.path)


def _running(folder: str) -> bool:
    """Whether a run's process holds its lock."""
    try:
        with open(os.path.join(folder, "lock"), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _ended(folder: str) -> bool:
    try:
        with open(os.path.join(folder, "events"), encoding="utf-8") as file:
            return any("end" in json.loads(line) for line in file if line.endswith("\n"))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _alone(name: str) -> Iterator[None]:
    """One process at a time."""
    with open(os.path.join(root(), name + ".lock"), "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    for stream in (sys.stdin, sys.stdout):
        stream.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    globals()[sys.argv[1]](*sys.argv[2:])
