"""A stand-in for Android's adbd, for the real adb: its protocol over TCP, with shell, sync and tcp services.

It is this machine: commands run in /bin/sh, and what Android keeps below /data/local/tmp lies in a folder. So it shows
that what is asked of adb is what adb does, and nothing of a device.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import threading
from pathlib import Path

PLACE = "/data/local/tmp"
_SIZE = 1 << 18


class Adbd:
    """Listens on a port of this machine; `commands` are the shell's."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.commands = folder, list[str]()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.serial = f"127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Listen no longer."""
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=_Connection(connection, self).serve, daemon=True).start()


class _Connection:
    def __init__(self, connection: socket.socket, device: Adbd) -> None:
        self._socket, self._device, self._lock = connection, device, threading.Lock()
        self._streams: dict[int, _Stream] = {}

    def send(self, command: bytes, first: int, second: int, data: bytes = b"") -> None:
        number = struct.unpack("<I", command)[0]
        head = struct.pack("<6I", number, first, second, len(data), sum(data) & 0xFFFFFFFF, number ^ 0xFFFFFFFF)
        with self._lock:
            self._socket.sendall(head + data)

    def serve(self) -> None:
        with self._socket:
            while head := self._read(24):
                command, first, second, size, _, _ = struct.unpack("<4s5I", head)
                data = self._read(size)
                if command == b"CNXN":
                    self.send(b"CNXN", 0x01000000, _SIZE, b"device::ro.product.name=stand_in;\0")
                elif command == b"OPEN":
                    stream = self._streams[first] = _Stream(self, first, data.rstrip(b"\0").decode(), self._device)
                    threading.Thread(target=stream.run, daemon=True).start()
                elif command == b"WRTE" and first in self._streams:
                    self._streams[first].take(data)
                elif command == b"CLSE" and first in self._streams:
                    self._streams.pop(first).take(b"")

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size and (more := self._socket.recv(size - len(data))):
            data += more
        return data if len(data) == size else b""


class _Stream:
    """One service that the other side has opened; its number there is ours, too."""

    def __init__(self, connection: _Connection, number: int, service: str, device: Adbd) -> None:
        self._connection, self._number, self._service, self._device = connection, number, service, device
        self._given, self._taken = socket.socketpair()

    def take(self, data: bytes) -> None:
        """What comes from the other side; nothing: it is closed."""
        if data:
            self._given.sendall(data)
            self._connection.send(b"OKAY", self._number, self._number)
        else:
            self._given.close()

    def run(self) -> None:
        self._connection.send(b"OKAY", self._number, self._number)
        kind, _, rest = self._service.partition(":")
        {"shell": self._shell, "sync": self._sync, "tcp": self._tcp}[kind](rest)
        self._connection.send(b"CLSE", self._number, self._number)

    def _write(self, data: bytes) -> None:
        self._connection.send(b"WRTE", self._number, self._number, data)

    def _here(self, text: str) -> str:
        return text.replace(PLACE, str(self._device.folder))

    def _shell(self, command: str) -> None:
        self._device.commands.append(command)
        done = subprocess.run(["sh", "-c", self._here(command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              stdin=subprocess.DEVNULL, check=False)
        self._write(done.stdout)

    def _tcp(self, port: str) -> None:
        try:
            there = socket.create_connection(("127.0.0.1", int(port)))
        except OSError:
            return

        def back() -> None:
            while data := there.recv(1 << 16):
                self._write(data)
            self._given.shutdown(socket.SHUT_RDWR)

        threading.Thread(target=back, daemon=True).start()
        while data := self._taken.recv(1 << 16):
            there.sendall(data)
        there.close()

    def _sync(self, _: str) -> None:
        while head := self._exactly(8):
            command, size = struct.unpack("<4sI", head)
            if command == b"QUIT":
                return
            path = self._exactly(size).decode()
            if command == b"STAT":
                there = self._here(path)
                found = os.stat(there) if os.path.exists(there) else None
                self._write(struct.pack("<4s3I", b"STAT", found.st_mode if found else 0, 0, 0))
            elif command == b"SEND":
                self._store(self._here(path.rpartition(",")[0]))
                self._write(struct.pack("<4sI", b"OKAY", 0))

    def _store(self, path: str) -> None:
        with open(path, "wb") as file:
            while True:
                command, size = struct.unpack("<4sI", self._exactly(8))
                if command == b"DONE":
                    return
                file.write(self._exactly(size))

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size and (more := self._taken.recv(size - len(data))):
            data += more
        return data
