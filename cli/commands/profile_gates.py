"""Limits on a profile: read from options and a run file for every target, held, and written for others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...models.errors import CheckFailed, UsageError
from .. import output

if TYPE_CHECKING:
    from ...models.gates import DeviceGates, Gates
    from ...runtime.profiling.limits import Judged, Limit


def read(task: str, gates: Sequence[str], run_file: Path | None, written: bool,
         targets: Sequence[str]) -> dict[str, list[Limit]]:
    """The limits to hold a model for `task` to, by the names of the targets; a gate `NAME:…` and [gates.device.NAME]
    are of one target. Errors as in `Limit.parse`, and UsageError for a target that is not measured, a run file that
    has no limit on a profile, or where there are none and they are to be `written`."""
    found: dict[str, list[Limit]] = {name: [] for name in targets}
    if not gates and run_file is None:
        if written:
            raise UsageError("--junit and --markdown: there is no gate to write about",
                             "add --gate 'ttft_ms.p95<=300'")
        return found
    from ...runtime.profiling.limits import Limit

    for gate in gates:
        name, colon, text = gate.rpartition(":")
        if colon and name not in found:
            raise UsageError(f"--gate {gate!r}: there is no target {name!r}", f"targets: {', '.join(targets)}")
        for one in [name] if colon else targets:
            found[one].append(Limit.parse(text, task))
    if run_file is not None:
        _of_file(run_file, task, found)
    return found


def _of_file(run_file: Path, task: str, found: dict[str, list[Limit]]) -> None:
    from ...models import runfile

    limits = runfile.read(run_file).gates
    common, left = _limits(limits, task, f"{run_file}: [gates]")
    some = bool(common)
    for name in found:
        own = limits.device.get(name)
        read, more = _limits(own, task, f"{run_file}: [gates.device.{name}]") if own else ([], [])
        found[name] += [one for one in common if one.name not in {each.name for each in read}] + read
        some, left = some or bool(read), left + more
    if not some:
        raise UsageError(f"--gates {run_file}: its [gates] limit no number of a profile of {', '.join(found)}",
                         "for example [gates.maximum] ttft_ms_p95 = 300, or a target of a device that it names, "
                         "--target NAME=ADDRESS")
    if left:
        output.note(f"{run_file}: no numbers of a profile, so not held here: {', '.join(left)}")
    if others := sorted(limits.device.keys() - found.keys()):
        output.note(f"{run_file}: devices that are no target here, so their gates are not held: {', '.join(others)}")


def _limits(gates: Gates | DeviceGates, task: str, where: str) -> tuple[list[Limit], list[str]]:
    """The limits on numbers of a profile, and the names of the others."""
    from ...runtime.profiling import measures
    from ...runtime.profiling.limits import Limit

    named = [(name, side == "maximum", value) for side in ("minimum", "maximum")
             for name, value in getattr(gates, side).items()]
    ours = [one for one in named if measures.split(one[0])[0] in measures.NUMBERS]
    return [Limit.of(*one, task, where) for one in ours], [one[0] for one in named if one not in ours]


def judge(limits: Sequence[Limit], profile: Mapping[str, Any]) -> list[Judged]:
    """Every limit held against the profile."""
    if not limits:
        return []
    from ...runtime.profiling.limits import judge as hold

    return [hold(limit, profile) for limit in limits]


def write(judged: Mapping[str, Sequence[Judged]], profiles: Mapping[str, Mapping[str, Any]], junit: Path | None,
          markdown: Path | None) -> None:
    """Write the files for continuous integration, a suite or a section for everything that was measured, by name."""
    if junit is None and markdown is None:
        return
    from ..report import gate_files

    if junit is not None:
        gate_files.junit(junit, judged)
    if markdown is not None:
        gate_files.markdown(markdown, judged, profiles)


def check(judged: Mapping[str, Sequence[Judged]]) -> None:
    """CheckFailed (exit code 3) for gates that do not hold: which, where, and by how much."""
    broken = [(name, one) for name, found in judged.items() for one in found if not one.passed]
    if not broken:
        return
    from ..report.gate_files import told

    few = max(one.needed for _, one in broken)
    total = sum(map(len, judged.values()))
    raise CheckFailed(f"{len(broken)} of {total} gates do not hold: "
                      + "; ".join(f"{name}: {told(one)}" if len(judged) > 1 else told(one) for name, one in broken),
                      f"--requests {few} would be enough, or a machine that does nothing else" if few else
                      "the verdict above says what held the model back; edgestill profile -o keeps every value")
