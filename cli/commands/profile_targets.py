"""The places that `edgestill profile` measures at, one after the other."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...models.errors import EdgestillError, UsageError
from .. import output

if TYPE_CHECKING:
    from ...runtime.profiling.targets._base import Target

HELP = ("Where to measure: local (default), ssh://user@host, adb://SERIAL?server=PATH, browser://APP, "
        "http://localhost:8080 (OpenAI's API). May be repeated: gates and tables call it NAME.")


def parse(places: Sequence[str], artifact: Path | None) -> list[Target]:
    """The targets; UsageError as in `_base.parse`, and without a model where one is needed."""
    from ...runtime.profiling.targets import _base

    targets = _base.parse(places)
    if artifact is None and (needy := [target.name for target in targets if target.kind.NEEDS_MODEL]):
        raise UsageError(f"--target {needy[0]}: measures a model that lies here, and none is named",
                         "edgestill profile ARTIFACT --target …")
    from ...runtime.profiling.targets import server

    servers = [target.place for target in targets if target.kind is server]
    if len(servers) > 1 and os.environ.get(server.KEY):
        raise UsageError(f"the key in {server.KEY} would be sent to each of {len(servers)} servers",
                         "profile one server at a time")
    return targets


def task(path: Path | None) -> str:
    """What the model does; those of servers generate."""
    if path is None:
        return "generate"
    from ...runtime.loading.foreign import open_model

    return str(open_model(path).manifest.task.kind)


def title(artifact: Path | None, target: str) -> str:
    """What was measured where, as files for others say it."""
    return str(artifact) if target == "local" else f"{artifact} on {target}" if artifact else target


def measure(targets: Sequence[Target], held_to: Mapping[str, Sequence[str]],
            **asked: Any) -> tuple[dict[str, dict[str, Any]], dict[str, EdgestillError]]:
    """The profile of each target as a table, or why there is none: one that fails keeps no other from being
    measured. `held_to` names the limits' numbers by target, `asked` are fields of `Asked`."""
    from ...runtime.profiling.targets._base import Asked

    found, failed = {}, {}
    for target in targets:
        if len(targets) > 1:
            output.note(f"{target.name}: measuring")
        try:
            table = target.kind.profile(target.place, Asked(held_to=held_to[target.name], **asked), output.note)
        except EdgestillError as error:
            failed[target.name] = error
            continue
        found[target.name] = output.plain(table)
        if speeds := table["raw"]["per_s_by_threads"]:
            output.note(f"{table['threads']} threads; steps/s by threads: " + ", ".join(
                f"{count}: {speed:,.0f}" for count, speed in speeds.items()))
    return found, failed


def check(failed: Mapping[str, EdgestillError], targets: int) -> None:
    """Raise the error of a single target as it is, those of some of several as one."""
    if not failed:
        return
    first = next(iter(failed.values()))
    if targets == 1:
        raise first
    raise EdgestillError(f"{len(failed)} of {targets} targets could not be measured: "
                         + "; ".join(f"{name}: {error.message}" for name, error in failed.items()), first.hint)
