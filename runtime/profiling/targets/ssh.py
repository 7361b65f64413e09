"""Another machine, by the system's own ssh: Python 3.11 or later there, and nothing else.

Our runtime, the packages that are missing and the model are sent once, by their SHA-256; a process that no connection
holds measures, and what it found is fetched when it ends, whatever dropped meanwhile.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ....models.artifact import Artifact
from ....models.errors import EdgestillError
from ...files.limited_process import refused
from ...loading.foreign import open_model
from . import _shipment
from ._base import Asked, Say, Swept
from ._shipment import Shipment
from ._ssh import Dropped, Host, stream

NEEDS_MODEL = True
_SPARE = 2**26
"""Bytes that must be left on its disk."""


def check(place: str) -> None:
    """UsageError for what is no address of ssh, or could be taken for an option."""
    Host(place)


def profile(place: str, asked: Asked, say: Say) -> dict[str, Any]:
    """Send what is missing there, measure there, and fetch the profile.

    A connection that drops is opened again; a run that goes on there is taken up by the same call. Raises
    EdgestillError where ssh cannot log in or the process there dies, and what `measure.profile` raises.
    """
    assert asked.model is not None  # NEEDS_MODEL
    return _measured(place, [open_model(asked.model)], asked, say)


def sweep(place: str, asked: Swept, lines: Path, say: Say) -> dict[str, Any]:
    """The same for a sweep. Its rounds are kept there until it has ended, whatever ends the process that measures,
    and not in `lines`."""
    return _measured(place, [open_model(path) for path in asked.models.values()], asked, say)


def _measured(place: str, artifacts: Sequence[Artifact], asked: Asked | Swept, say: Say) -> dict[str, Any]:
    host = Host(place)
    there = host.probe(_shipment.modules(artifacts, asked))
    with tempfile.TemporaryDirectory(prefix="edgestill-") as folder:
        shipment = _shipment.pack(artifacts, asked, there, Path(folder))
        host.again(lambda: _send(host, shipment.contents, there["free_bytes"], say))
    found = _run(host, shipment, say)
    host.again(lambda: host.tell("forget", shipment.name))
    if "error" in found:
        raise refused(found)
    found["machine"]["target"] = place
    return found


def _send(host: Host, contents: Mapping[str, Path], free: int, say: Say) -> None:
    """Send the contents that are not there, each from the byte on that is not."""
    sizes = {name: path.stat().st_size for name, path in contents.items()}
    there = host.tell("have", stdin=[json.dumps(sizes).encode()])
    missing = {name: size - there[name] for name, size in sizes.items() if there[name] != size}
    if not missing:
        return
    amount = sum(missing.values())
    say(f"{host.place}: sending {len(missing)} of {len(sizes)} files, {amount / 1e6:,.1f} MB")
    if amount > free - _SPARE:
        raise EdgestillError(f"{host.place}: {amount:,} bytes are to be sent, and its disk has {free:,} left",
                             "make room there")

    def pieces() -> Iterator[bytes]:
        for name in missing:
            yield from stream(contents[name], name, min(there[name], sizes[name]))

    host.tell("take", stdin=pieces())


def _run(host: Host, shipment: Shipment, say: Say) -> dict[str, Any]:
    """Start the run, or take it up, and hand over what it ends with."""
    host.again(lambda: host.tell("start", shipment.name, stdin=[json.dumps(shipment.run).encode()]))
    known = 0

    def follow() -> dict[str, Any]:
        nonlocal known
        for line in host.call("follow", shipment.name, str(known)):
            event: dict[str, Any] = json.loads(line)
            known += bool(event)
            if "died" in event:
                raise EdgestillError(f"{host.place}: the measuring process there ended: {event['died'].strip()}",
                                     "run the same command again; if it ends again, its memory may be too small")
            if "say" in event:
                say(f"{host.place}: {event['say']}")
            if "end" in event:
                found: dict[str, Any] = event["end"]
                return found
        raise Dropped(f"{host.place}: the connection ended early", "run the same command again")

    try:
        return host.again(follow)
    except KeyboardInterrupt:
        host.tell("forget", shipment.name)  # nothing computes on there that nobody waits for
        raise
