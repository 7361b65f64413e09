"""How many threads an engine should use: the physical cores that this process may run on."""

from __future__ import annotations

import math
import os
from pathlib import Path

_ROOT = Path("/")
_SPINS = "500"
"""Looks at a barrier before a thread sleeps: some 10 us. Beside a busy loop on two cores GGUF decodes .55 as fast as
alone and training .61 (.39 and .49 with 5000); alone both are as fast as with more.
"""


def wait_briefly() -> None:
    """Let OpenMP's threads look at a barrier for a moment only before they sleep, unless the environment says how they
    wait. It must be said before the library loads that brings OpenMP: torch, llama.cpp.

    GNU's own 300,000 looks take 13 ms, all of them in vain where the awaited thread's core is another program's.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = _SPINS


def allowed_cores(root: Path = _ROOT) -> int:
    """Physical cores within this process's affinity mask and its container's CPU quota; at least 1.

    Two hardware threads of one core share its arithmetic units, so matrix products gain nothing from the second.
    `root` is the folder that holds `sys` and `proc`.
    """
    allowed = allowed_cpus()
    cores = _physical(allowed, root / "sys/devices/system/cpu")
    if cores is None:
        cores = _physical_elsewhere(len(allowed))
    limit = quota(root)
    return max(1, cores if limit is None else min(cores, math.floor(limit)))


def candidates(root: Path = _ROOT) -> list[int]:
    """Numbers of threads worth trying, upwards: powers of two, the fastest kinds of cores alone, all cores allowed."""
    most = allowed_cores(root)
    counts = {2**power for power in range(most.bit_length())} | _of_the_fastest(root / "sys/devices/system/cpu")
    return sorted({most} | {count for count in counts if count < most})


def _of_the_fastest(folder: Path) -> set[int]:
    """How many of the allowed CPUs are of the fastest kind, of the two fastest, and so on, as the kernel of a
    processor with several kinds says it."""
    capacities = []
    for cpu in allowed_cpus():
        try:
            capacities.append(int((folder / f"cpu{cpu}" / "cpu_capacity").read_text()))
        except (OSError, ValueError):  # cores that are all alike have none
            continue
    return {sum(capacity >= least for capacity in capacities) for least in capacities}


def allowed_cpus() -> set[int]:
    """The numbers of the CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def _physical(allowed: set[int], folder: Path) -> int | None:
    """Distinct cores among `allowed` by the kernel's list of hardware threads; None where it has none."""
    siblings = set()
    for cpu in allowed:
        try:
            siblings.add((folder / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text().strip())
        except OSError:
            return None
    return len(siblings)


def _physical_elsewhere(allowed: int) -> int:
    """macOS and Windows: psutil knows the machine's cores, but not which of them are allowed."""
    import psutil

    physical, logical = psutil.cpu_count(logical=False), psutil.cpu_count(logical=True)
    if not physical or not logical:
        return allowed
    return max(1, min(physical, math.ceil(allowed * physical / logical)))


def quota(root: Path = _ROOT) -> float | None:
    """The smallest CPU quota, in cores, of the control groups this process is in; None without a quota."""
    limits = [limit for folder in group_folders("cpu", root) for limit in (
        _read_quota(folder / "cpu.max"), _read_quota(folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us"))]
    return min((limit for limit in limits if limit is not None), default=None)


def group_folders(controller: str, root: Path = _ROOT) -> list[Path]:
    """The folders of the control groups this process is in that limit `controller`, its own first."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            found += _upwards(root / "sys/fs/cgroup", path)
        elif controller in controllers.split(","):
            found += _upwards(root / "sys/fs/cgroup" / controller, path)
    return found


def _upwards(top: Path, path: str) -> list[Path]:
    """The control group's folder and those above it: each may set a limit. Inside a container the path named in
    /proc may lie outside what is mounted, so `top` is always among them."""
    folder = top / path.strip("/")
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(top))]


def _read_quota(*paths: Path) -> float | None:
    try:
        quota, period = " ".join(path.read_text() for path in paths).split()
        return float(quota) / float(period) if float(quota) > 0 else None
    except (OSError, ValueError):  # no such file, or "max": no limit here
        return None
