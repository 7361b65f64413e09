"""What held a measured model back, by what its process noted of the machine: causes for every window, and in words.

A window lies between two looks (see watch); a request lies in one. What the system does not tell is no cause.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

OTHERS, STEAL, WAITED, DISK, QUOTA, HEAT, CLOCK = "others", "steal", "waited", "disk", "quota", "heat", "clock"
SHORT = {OTHERS: "other programs", STEAL: "the hypervisor", WAITED: "no free core", DISK: "the disk",
         QUOTA: "the container's share", HEAT: "heat", CLOCK: "a slow clock"}
"""The causes in a table."""
NOT_AVAILABLE = "not available"
_OTHERS = 0.25
"""Cores that others use from which on a window is disturbed: they take memory bandwidth where they take no core."""
_STEAL, _WAITED = 0.02, 0.03
"""The same for cores that the hypervisor takes, and for the share of the time in which our threads wait for a core."""
_SLOW_CLOCK = 0.9
"""Of the fastest clock that was seen, below which a window is slow."""
_SHORTEST = 0.1
"""Seconds; the kernel counts in hundredths, so shorter windows say nothing of others."""
Looks = Sequence[Mapping[str, Any]]


def causes(looks: Looks, threads: int) -> list[list[str]]:
    """What disturbed each window between two of `looks`; empty lists where nothing did."""
    fastest = max((look["mhz"] for look in looks if "mhz" in look), default=0.0)
    return [_of_window(before, after, threads, fastest) for before, after in zip(looks, looks[1:], strict=False)]


def _of_window(before: Mapping[str, Any], after: Mapping[str, Any], threads: int, fastest: float) -> list[str]:
    seconds = after["at_s"] - before["at_s"]
    rates = _rates(before, after)
    found = {
        OTHERS: seconds >= _SHORTEST and rates.get("others_cores", 0) > _OTHERS,
        STEAL: seconds >= _SHORTEST and rates.get("steal_cores", 0) > _STEAL,
        WAITED: rates.get("waited_cores", 0) > _WAITED * threads,
        DISK: _grown("major_faults", before, after) > 0,
        QUOTA: _grown("quota_holds", before, after) > 0,
        HEAT: _grown("throttles", before, after) > 0 or bool(after.get("throttled_now")),
        CLOCK: after.get("mhz", fastest) < _SLOW_CLOCK * fastest,
    }
    return [name for name, is_so in found.items() if is_so]


def summary(looks: Looks, others: Mapping[str, float], requests: int) -> dict[str, Any]:
    """What was so while the requests ran: `looks` from before the first one on, `others` the busiest other programs
    with the cores that they used."""
    first, last = looks[0], looks[-1]
    seconds = last["at_s"] - first["at_s"]
    running = [look["running"] for look in looks if "running" in look]
    found: dict[str, Any] = {"seconds": seconds, **_rates(first, last), "programs": dict(others)}
    found |= {name: _grown(name, first, last) for name in ("major_faults", "quota_holds", "throttles") if name in last}
    if running:
        found["running"] = statistics.mean(running)
    clocks = [look["mhz"] for look in looks if "mhz" in look]
    found["mhz"] = {"first": clocks[0], "lowest": min(clocks), "highest": max(clocks)} if clocks else NOT_AVAILABLE
    heat = {name: {"first": first["celsius"][name], "highest": max(look["celsius"][name] for look in looks)}
            for name in first.get("celsius", {}) if all(name in look.get("celsius", {}) for look in looks)}
    return found | {"celsius": heat or NOT_AVAILABLE, "energy": _energy(looks, requests)}


def verdict(conditions: Mapping[str, Any], marks: Sequence[Sequence[str]], machine: Mapping[str, Any],
            threads: int, affinity: Sequence[int]) -> list[str]:
    """What held the figures back, in words; `marks` are the causes that disturbed each request."""
    disturbed = sum(map(bool, marks))
    named = {cause: sum(cause in mark for mark in marks) for mark in marks for cause in mark}
    programs = ", ".join(f"{name} {cores:.2f}" for name, cores in conditions["programs"].items())
    heat = conditions["celsius"]
    hottest = f" at up to {max(one['highest'] for one in heat.values()):.0f} °C" if isinstance(heat, Mapping) else ""
    clock = conditions["mhz"]
    words = {
        OTHERS: f"other programs used {conditions.get('others_cores', 0):.2f} of {machine['cores_allowed']} cores"
                + (f" ({programs})" if programs else ""),
        STEAL: f"the hypervisor gave {conditions.get('steal_cores', 0):.2f} cores to other machines",
        WAITED: f"its threads were ready and had no core for {conditions.get('waited_cores', 0) / threads:.0%} of "
                "the time",
        DISK: f"{conditions.get('major_faults', 0):,} pages had to be read from the disk: memory is short, or the file "
              "was not yet read",
        QUOTA: f"the container's share of the processor ({machine.get('cores_quota')} cores) was used up "
               f"{conditions.get('quota_holds', 0)} times",
        HEAT: f"heat or a weak supply slowed the processor down{hottest}",
        CLOCK: f"the clock fell to {clock['lowest']:.0f} of {clock['highest']:.0f} MHz" if isinstance(clock, Mapping)
               else "",
    }
    found = [f"{words[cause]}: {count} of {len(marks)} requests" for cause, count in named.items()]
    if disturbed:
        found.insert(0, f"{disturbed} of {len(marks)} requests were disturbed")
    if machine.get("governor") in ("powersave", "conservative"):
        found.append(f"the governor is {machine['governor']}, which keeps the clock low")
    if threads > len(affinity):
        found.append(f"{threads} threads share the {len(affinity)} CPUs that the process may use")
    return found or ["nothing that this machine tells of held it back"]


def _rates(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, float]:
    """Cores that others used and that were stolen, and threads of ours that waited, on average between two looks."""
    seconds = max(after["at_s"] - before["at_s"], 1e-9)
    found = {}
    if "busy_s" in before and "busy_s" in after:
        busy, own = (after[name] - before[name] for name in ("busy_s", "own_s"))
        found["others_cores"] = max(0.0, busy - own) / seconds
        found["steal_cores"] = (after["steal_s"] - before["steal_s"]) / seconds
    if "waited_s" in before and "waited_s" in after:  # threads that ended take their share along
        found["waited_cores"] = max(0.0, after["waited_s"] - before["waited_s"]) / seconds
    return found


def _grown(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> int:
    return int(after[name] - before[name]) if name in before and name in after else 0


def _energy(looks: Looks, requests: int) -> dict[str, Any] | str:
    """Joules a request by each counter; of meters without one, by their mean power. NOT_AVAILABLE without either."""
    first, last = looks[0], looks[-1]
    seconds = last["at_s"] - first["at_s"]
    used = {name: last["joules"][name] - value for name, value in first.get("joules", {}).items()
            if last.get("joules", {}).get(name, -1) >= value}  # a counter that began anew says nothing
    for name in first.get("watts", {}):
        power = [look["watts"][name] for look in looks if name in look.get("watts", {})]
        used.setdefault(name, statistics.mean(power) * seconds)
    return {name: {"joules": value, "joules_per_request": value / requests, "watts": value / seconds}
            for name, value in used.items()} or NOT_AVAILABLE
