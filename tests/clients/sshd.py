"""A real sshd on loopback, of the user who runs the tests: its own keys, a home with nothing in it, no network.

The client is the system's, which a script gives the settings that ~/.ssh/config would hold.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import psutil

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
_NO_NETWORK = ("unshare", "-rn")


class Sshd:
    """The server; `folder` keeps its keys, its home and the client's settings."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        self.home.mkdir(parents=True)
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.user = psutil.Process().username()
        isolated = subprocess.run([*_NO_NETWORK, "true"], check=False, capture_output=True).returncode == 0
        self.isolated = isolated
        command = 'ForceCommand unshare -rn sh -c "$SSH_ORIGINAL_COMMAND"\n' if isolated else ""
        (folder / "config").write_text(
            f"ListenAddress 127.0.0.1:{self.port}\nHostKey \"{folder / 'host'}\"\nAuthorizedKeysFile "
            f"\"{folder / 'user.pub'}\"\nPidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin prohibit-password\n"
            f"SetEnv HOME=\"{self.home}\"\n"
            + command)
        self.known = folder / "known"
        key = (folder / "host.pub").read_text().split()
        self.known.write_text(f"[127.0.0.1]:{self.port} {key[0]} {key[1]}\n")
        client = folder / "bin" / "ssh"
        client.parent.mkdir()
        client.write_text(f"#!/bin/sh\nexec {shutil.which('ssh')} -F '{folder / 'client'}' \"$@\"\n")
        client.chmod(0o755)
        (folder / "client").write_text(f"IdentityFile \"{folder / 'user'}\"\nIdentitiesOnly yes\nUserKnownHostsFile "
                                       f"\"{self.known}\"\nGlobalKnownHostsFile /dev/null\n")
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def place(self) -> str:
        """Its address."""
        return f"ssh://{self.user}@127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen."""
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        assert SSHD is not None
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([SSHD, "-D", "-e", "-f", self.folder / "config"], stdout=log, stderr=log)
        for _ in range(200):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError((self.folder / "log").read_text())

    def kill(self) -> None:
        """End it and every connection at once, as a device does that loses its network or its power for a moment; what
        no connection holds lives on."""
        assert self.process is not None
        ours = psutil.Process(self.process.pid)
        for one in [*ours.children(recursive=True), ours]:
            one.kill()
        self.process.wait()
