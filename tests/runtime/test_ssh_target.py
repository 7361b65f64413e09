"""What is sent to another machine, and what happens when the connection drops: over a stand-in for ssh that runs the
command here. The real one is tried in tests/clients."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from edgestill.models.errors import EdgestillError, UsageError
from edgestill.runtime.loading.foreign import open_model
from edgestill.runtime.profiling.targets import _packages, _shipment, _ssh, ssh
from edgestill.runtime.profiling.targets._base import Asked
from edgestill.runtime.profiling.targets._shipment import Shipment
from edgestill.runtime.profiling.targets._ssh import Dropped, Host, stream

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the stand-in is a shell script")
STAND_IN = """#!/bin/sh
printf '%s\\n' "$*" | head -c 300 >> "$STAND_IN/log"
while [ "$1" != -- ]; do shift; done
if [ -s "$STAND_IN/drops" ]; then head -c 1 "$STAND_IN/drops" > "$STAND_IN/kind"; : > "$STAND_IN/drops"
    echo "Connection reset by peer" >&2; exit 255; fi
exec sh -c "$3"
"""
WORKER = """
import fcntl, json, pathlib
lock = open("lock", "wb")
fcntl.flock(lock, fcntl.LOCK_EX)
job = json.loads(pathlib.Path("job.json").read_text())
with open("starts", "a") as starts:
    starts.write("x")
if job.get("dies"):
    raise SystemExit("no memory left")
found = {"machine": {}, "read": pathlib.Path("model/a b").read_text()}
with open("events", "w") as events:
    for event in ({"began": True}, {"say": "soon"}, {"end": found}):
        events.write(json.dumps(event) + "\\n")
"""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A machine that is this one, with a home of its own and this Python."""
    script = tmp_path / "bin" / "ssh"
    script.parent.mkdir()
    script.write_text(STAND_IN)
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("STAND_IN", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(_ssh, "_LONGEST_WAIT", 0.01)
    monkeypatch.setattr(_ssh.time, "sleep", lambda seconds: None)
    return Host(f"ssh://me@there{sys.executable}")


def shipped(tmp_path: Path, **job: Any) -> Shipment:
    """A run of WORKER, whose model is one file."""
    model, program = tmp_path / "model", tmp_path / "program.zip"
    model.write_text("weights")
    with zipfile.ZipFile(program, "w") as archive:
        archive.writestr("stand_in_worker.py", WORKER)
    names = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in (model, program)}
    return Shipment({names[path]: path for path in names}, {
        "files": {"model/a b": names[model], "edgestill.zip": names[program]}, "packages": [], "job": job,
        "program": "edgestill.zip", "module": "stand_in_worker"})


@pytest.mark.parametrize("place", [
    "ssh://-oProxyCommand=x", "ssh://-l@host", "ssh://user@-host", "ssh://", "ssh://host:99999", "ssh://me:word@host",
    "ssh://host?x", "ssh://host#x", "ssh://[::1", "ssh://ho st", "ssh://$(x)@host"])
def test_addresses_that_ssh_could_misread_are_refused(place: str) -> None:
    with pytest.raises(UsageError, match="not of the form ssh://"):
        ssh.check(place)


def test_the_command_line_is_ssh_s_own_and_quoted(host: Host, tmp_path: Path) -> None:
    host.probe(["json", "no_such_module"])
    asked = (tmp_path / "log").read_text()
    assert asked.startswith("-T -o BatchMode=yes") and " -- me@there " in asked and "StrictHostKey" not in asked
    quoted = Host("ssh://me@there:22/a%20python;x")
    assert quoted._started("-V") == "'/a python;x' -V" and quoted._port == ("-p", "22")
    assert Host("ssh://there").python == "" and Host("ssh://[::1]")._user_at == "::1"


def test_a_run_there_goes_through_drops_and_is_measured_once(host: Host, tmp_path: Path) -> None:
    told = host.probe(["json", "no_such_module"])
    assert told["modules"] == ["json"] and tuple(told["version"]) == sys.version_info[:2]
    shipment, said = shipped(tmp_path), []
    (tmp_path / "drops").write_text("x")  # each time the next connection is reset, once
    host.again(lambda: ssh._send(host, shipment.contents, 2**40, said.append))
    (tmp_path / "drops").write_text("x")
    assert ssh._run(host, shipment, said.append) == {"machine": {}, "read": "weights"}
    assert [line.partition(": ")[2] for line in said] == ["sending 2 of 2 files, 0.0 MB", "soon"]
    host.tell("start", shipment.name, stdin=[json.dumps(shipment.run).encode()])  # as after a drop: nothing new
    (starts,) = (tmp_path / "cache").glob("*/runs/*/starts")
    assert starts.read_text() == "x" and ssh._run(host, shipment, said.append)["read"] == "weights"
    host.tell("forget", shipment.name)
    assert not list((tmp_path / "cache").glob("*/runs/*"))
    ssh._send(host, shipment.contents, 2**40, said.append)
    assert len(said) == 3, "contents that are there were sent again"


def test_what_nobody_asked_for_in_a_long_time_is_deleted_there(host: Host, tmp_path: Path) -> None:
    shipment = shipped(tmp_path)
    ssh._send(host, shipment.contents, 2**40, print)
    (contents,) = (tmp_path / "cache").glob("*/contents")
    old = [contents / "old", *(contents.parent / room / "old" for room in ("packages", "runs"))]
    for place in old:
        place.mkdir(parents=True) if place.parent != contents else place.touch()
        os.utime(place, (0, 0))
    assert ssh._run(host, shipment, print)["read"] == "weights"
    assert not any(place.exists() for place in old)
    assert [len(list((contents.parent / room).iterdir())) for room in ("contents", "packages", "runs")] == [2, 1, 1]


def test_a_transfer_goes_on_where_it_broke(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(bytes(range(256)) * 100)
    name = hashlib.sha256(path.read_bytes()).hexdigest()
    head, *body = stream(path, name, 0)
    host.tell("take", stdin=[head, body[0][:1000]])
    assert host.tell("have", stdin=[json.dumps({name: 25600}).encode()]) == {name: 1000}
    host.tell("take", stdin=stream(path, name, 1000))
    assert host.tell("have", stdin=[json.dumps({name: 25600}).encode()]) == {name: 25600}
    with pytest.raises(EdgestillError, match="what came is not what was sent"):
        host.tell("take", stdin=stream(path, "0" * 64, 0))
    assert host.tell("have", stdin=[json.dumps({"0" * 64: 25600}).encode()]) == {"0" * 64: 0}
    with pytest.raises(EdgestillError, match="25,600 bytes are to be sent, and its disk has 9 left"):
        ssh._send(host, {"1" * 64: path}, 9, print)


def test_failures_there_are_told(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host.probe([])
    shipment = shipped(tmp_path, dies=True)
    ssh._send(host, shipment.contents, 2**40, print)
    with pytest.raises(EdgestillError, match="the measuring process there ended: no memory left"):
        ssh._run(host, shipment, print)
    monkeypatch.setattr(_ssh, "PATIENCE", -1.0)
    (tmp_path / "drops").write_text("x")
    with pytest.raises(Dropped, match="the connection dropped: Connection reset by peer"):
        host.again(lambda: host.tell("have", stdin=[b"{}"]))
    with pytest.raises(EdgestillError, match="no-such-python: not found|No such file|not found"):
        Host("ssh://there/no-such-python").probe([])
    monkeypatch.setattr(_ssh, "_PYTHONS", ("no-such-python",))
    with pytest.raises(EdgestillError, match=r"no Python 3\.11 or later there"):
        Host("ssh://there").probe([])
    (tmp_path / "drops").write_text("x")
    with pytest.raises(EdgestillError, match="ssh could not log in: Connection reset"):  # nothing ever worked
        Host("ssh://there").again(lambda: Host("ssh://there").probe([]))


def test_what_is_sent_is_the_same_for_the_same(packed_llama: dict[str, Path], tmp_path: Path) -> None:
    there = {"modules": [*_packages.BASE, *_packages.OF_ENGINE["gguf"]]}
    made = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        made.append(_shipment.pack([open_model(packed_llama["gguf"])], Asked(packed_llama["gguf"]), there, folder))
    assert made[0].name == made[1].name and made[0].run["packages"] == []
    assert {"models/0/manifest.json", "edgestill.zip"} <= made[0].run["files"].keys()
    with zipfile.ZipFile(made[0].contents[made[0].run["files"]["edgestill.zip"]]) as archive:
        names = archive.namelist()
    assert "edgestill/runtime/loading/load.py" in names and "edgestill/__init__.py" in names
    assert not [name for name in names if name.startswith(("edgestill/cli", "edgestill/distill", "edgestill/quantize"))]


def test_packages_are_of_the_other_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import platform

    here = {"modules": [], "version": list(sys.version_info[:2]), "implementation": sys.implementation.name,
            "platform": sys.platform, "machine": platform.machine(), "libc": list(platform.libc_ver()),
            "features": _packages.features()}
    (copied,) = _packages.wheels({"markupsafe": "MarkupSafe"}, here, tmp_path)
    with zipfile.ZipFile(copied) as archive:
        assert {"markupsafe/__init__.py"} <= set(archive.namelist())
    assert _packages.wheels({"markupsafe": "MarkupSafe"}, {**here, "modules": ["markupsafe"]}, tmp_path) == []
    with pytest.raises(EdgestillError, match="installed neither there nor here"):
        _packages.wheels({"no_such": "no_such"}, here, tmp_path)
    if here["features"]:
        with pytest.raises(EdgestillError, match="compiled for a processor with"):
            _packages.wheels({"llama_cpp": "llama_cpp_python"}, {**here, "features": []}, tmp_path)
    asked: list[list[str]] = []

    def pip(words: list[str], **_: Any) -> Any:
        asked.append(words)
        if "numpy" in words[-1]:
            (Path(words[words.index("--dest") + 1]) / f"{words[-1].replace('==', '-')}-cp312-none-x.whl").touch()
        return SimpleNamespace(returncode=int("numpy" not in words[-1]), stderr="no matching distribution\n")

    monkeypatch.setattr(_packages, "user_cache", lambda: tmp_path / "cache")
    monkeypatch.setattr(_packages.subprocess, "run", pip)
    pi = {**here, "machine": "aarch64", "version": [3, 12], "platform": "linux", "implementation": "cpython",
          "libc": ["glibc", "2.36"]}
    for _ in range(2):  # the second time it is there
        (wheel,) = _packages.wheels({"numpy": "numpy"}, pi, tmp_path)
    assert len(asked) == 1 and wheel.name.startswith("numpy-") and wheel.parent.name == "cp312-aarch64"
    assert {"--python-version", "3.12", "--platform=manylinux_2_36_aarch64", "--abi=cp312"} <= set(asked[0])
    assert "--platform=manylinux_2_37_aarch64" not in asked[0]
    with pytest.raises(EdgestillError, match=r"llama_cpp_python: no wheel for Python 3\.12 on aarch64: no matching"):
        _packages.wheels({"llama_cpp": "llama_cpp_python"}, pi, tmp_path)
    with pytest.raises(EdgestillError, match="wheels are sent to Linux with glibc"):
        _packages.wheels({"numpy": "numpy"}, {**pi, "libc": ["", ""]}, tmp_path)
