"""Another machine, by the system's own ssh: commands there, and what to do when the connection drops."""

from __future__ import annotations

import base64
import importlib.resources
import json
import re
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from ....models.errors import EdgestillError, UsageError

T = TypeVar("T")
PATIENCE = 900.0
"""Seconds for which a connection that drops is tried again; it begins anew with every word that comes."""
_LONGEST_WAIT = 10.0
_NO_PYTHON = 111
_PYTHONS = ("python3", "python3.14", "python3.13", "python3.12", "python3.11")
_USER, _HOST = re.compile(r"[\w.][\w.-]*"), re.compile(r"[\w.:][\w.:-]*(?:%\w+)?")
_OPTIONS = ("-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15", "-o", "ServerAliveInterval=5",
            "-o", "ServerAliveCountMax=3")
"""Nobody is asked for a password or whether a host's key is right; a dead connection is noticed after 15 seconds."""
_FOR_GOOD = ("permission denied", "host key verification failed", "could not resolve hostname",
             "remote host identification has changed", "bad configuration", "too many authentication failures")
"""What ssh says where trying again helps nothing."""


class Dropped(EdgestillError):
    """The connection ended; what was asked may be asked again."""


class Host:
    """A machine that ssh reaches, and the Python there."""

    def __init__(self, place: str) -> None:
        """`place` is ssh://[user@]host[:port][/path/to/python]. UsageError for another form, and for a user or host
        that ssh could take for an option."""
        try:
            parts = urlsplit(place)
            user, name, port = unquote(parts.username or ""), parts.hostname or "", parts.port
            sound = parts.password is None and not parts.query and not parts.fragment
        except ValueError:  # a port beyond 65535, a bracket that is not closed
            sound, user, name, port = False, "", "", None
        if not sound or not _HOST.fullmatch(name) or user and not _USER.fullmatch(user):
            raise UsageError(f"--target {place}: not of the form ssh://user@host:port/path/to/python, or a name begins "
                             "with a dash", "for example ssh://pi@pi5.local; ~/.ssh/config holds what else ssh needs")
        self.place, self._user_at = place, f"{user}@{name}" if user else name
        self._port = ("-p", str(port)) if port else ()
        self.python = unquote(parts.path).rstrip("/")
        self._heard, self._knows = time.monotonic(), False

    def call(self, name: str, *words: str, stdin: Iterable[bytes] = ()) -> Iterator[str]:
        """The lines that a function of _far prints there. Raises Dropped, and EdgestillError where it fails."""
        source = importlib.resources.files(__package__).joinpath("_far.py").read_bytes()
        program = f"import base64;exec(base64.b64decode('{base64.b64encode(source).decode()}'))"
        arguments = shlex.join(["-c", program, name, *words])
        with tempfile.TemporaryFile() as said:
            try:
                process = subprocess.Popen(
                    ["ssh", *_OPTIONS, *self._port, "--", self._user_at, self._started(arguments)],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said)
            except FileNotFoundError:
                raise EdgestillError("ssh is not installed here", "install OpenSSH's client") from None
            assert process.stdin is not None and process.stdout is not None
            try:
                _write(process.stdin, stdin)
                for line in process.stdout:
                    self._heard = time.monotonic()
                    yield line.decode("utf-8", "replace")
            finally:
                process.stdout.close()
                _end(process)
            said.seek(0)
            self._check(process.wait(), said.read().decode("utf-8", "replace"))

    def tell(self, name: str, *words: str, stdin: Iterable[bytes] = ()) -> Any:
        """The JSON that a function of _far prints; None where it prints nothing."""
        text = "".join(self.call(name, *words, stdin=stdin))
        return json.loads(text) if text else None

    def again(self, work: Callable[[], T]) -> T:
        """What `work` gives; done again over a new connection, for up to PATIENCE, where the connection drops."""
        wait = 1.0
        while True:
            try:
                return work()
            except Dropped:
                if not self._knows or time.monotonic() - self._heard > PATIENCE:
                    raise
                time.sleep(wait)
                wait = min(2 * wait, _LONGEST_WAIT)

    def probe(self, modules: Iterable[str]) -> Mapping[str, Any]:
        """What _far.probe tells; the Python that told it is the one that is asked from then on."""
        found: dict[str, Any] = self.tell("probe", ",".join(modules))
        self.python, self._knows = found["python"], True
        return found

    def _started(self, arguments: str) -> str:
        """The command line of a Python there, for any shell; of the first one that is new enough."""
        if self.python:
            return f"{shlex.quote(self.python)} {arguments}"
        old = shlex.join(["-c", "import sys; sys.exit(sys.version_info < (3, 11))"])
        script = (f"for p in {' '.join(_PYTHONS)}; do if $p {old} 2>/dev/null; then exec $p {arguments}; fi; done; "
                  f"exit {_NO_PYTHON}")
        return shlex.join(["sh", "-c", script])

    def _check(self, code: int, said: str) -> None:
        last = (said.strip().splitlines() or ["it gave no reason"])[-1]
        if code == _NO_PYTHON and not self.python:
            raise EdgestillError(f"{self.place}: no Python 3.11 or later there",
                                 f"name one, as in {self.place}/path/to/python, or run a server there and profile "
                                 "--target http://localhost:8080 over ssh -L 8080:localhost:8080")
        if code == 255:
            if not self._knows or any(word in said.lower() for word in _FOR_GOOD):
                raise EdgestillError(f"{self.place}: ssh could not log in: {last}",
                                     f"ssh {self._user_at} must work by itself first, without a password")
            raise Dropped(f"{self.place}: the connection dropped: {last}",
                          "what was measured is kept there: run the same command again")
        if code < 0:
            raise Dropped(f"{self.place}: ssh was ended by signal {-code}", "run the same command again")
        if code:
            raise EdgestillError(f"{self.place}: {last}", "see whether its disk is full, and its Python whole")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Wait until ssh has ended, which it does when the other side has."""
    try:
        process.wait(_LONGEST_WAIT)
    except subprocess.TimeoutExpired:
        process.kill()


def _write(pipe: Any, pieces: Iterable[bytes]) -> None:
    try:
        for piece in pieces:
            pipe.write(piece)
        pipe.close()
    except BrokenPipeError:  # how ssh ended says why
        return


def stream(path: Path, sha256: str, first: int) -> Iterator[bytes]:
    """A content from its byte `first` on, as _far.take reads it."""
    yield f"{sha256} {first} {path.stat().st_size - first}\n".encode()
    with path.open("rb") as file:
        file.seek(first)
        while data := file.read(1 << 20):
            yield data
