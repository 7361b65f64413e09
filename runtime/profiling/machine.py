"""Facts about this machine and process that measured times depend on."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

from ...models.artifact import versions
from ..machine.cores import allowed_cores, allowed_cpus, group_folders, quota
from ..machine.processor import processor

_UNITS = 1024
_NO_LIMIT = 1 << 60
"""What the first version of control groups says where there is none."""
_FEATURES = ("sse4_2", "avx", "f16c", "fma", "amx", "neon", "asimd", "sve", "smei", "sme2", "i8mm", "bf16")
"""How the names of instructions begin that engines have kernels for."""
_SETTINGS = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "GOMP_CPU_AFFINITY", "MKL_NUM_THREADS")
"""Variables that change how engines compute."""


def facts(root: Path = Path("/")) -> dict[str, Any]:
    """Processor, cores, memory, limits, system, versions and how busy the machine is."""
    import psutil

    return {
        "cpu": processor(root),
        "cpu_features": features(root),
        "cores_logical": os.cpu_count(),
        "cores_physical": psutil.cpu_count(logical=False),
        "cores_allowed": allowed_cores(root),
        "cores_quota": quota(root),
        "memory_bytes": psutil.virtual_memory().total,
        "memory_limit_bytes": _memory_limit(root),
        "swap_used_bytes": psutil.swap_memory().used,
        "system": platform.platform(),
        "machine": platform.machine(),
        "governor": _line(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "versions": versions(),
        "environment": {name: os.environ[name] for name in _SETTINGS if name in os.environ},
    }


def memory_bytes(root: Path = Path("/")) -> int:
    """Of RAM that this machine has, or that this process may have of it."""
    import psutil

    return min(psutil.virtual_memory().total, _memory_limit(root) or _NO_LIMIT)


def features(root: Path = Path("/")) -> list[str]:
    """The instructions for matrix products that the processor has; empty where the system does not say it."""
    try:
        lines = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    named = next((line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))), [])
    return [name for name in dict.fromkeys(named) if name.startswith(_FEATURES)]


def affinity() -> list[int]:
    """The CPUs that this process may run on, as the kernel says them."""
    return sorted(allowed_cpus())


def memory(process: Path = Path("/proc/self")) -> dict[str, int]:
    """Bytes of this process in RAM: now (rss), now with its share of what others hold, too (pss, where the system says
    it), and the most there ever was (peak); and bytes that it had read from the disk (where the system says it)."""
    found = {"rss_bytes": resident_bytes(), "peak_rss_bytes": peak_resident_bytes(process / "status")}
    for line in _lines(process / "smaps_rollup"):
        if line.startswith("Pss:"):
            found["pss_bytes"] = int(line.split()[1]) * _UNITS
    for line in _lines(process / "io"):
        if line.startswith("read_bytes:"):
            found["disk_bytes"] = int(line.split()[1])
    return found


def resident_bytes() -> int:
    """Memory of this process that is in RAM now."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def peak_resident_bytes(status: Path = Path("/proc/self/status")) -> int:
    """The most memory of this process that ever was in RAM: of this process alone, not of the machine."""
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * _UNITS
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(most) * (1 if sys.platform == "darwin" else _UNITS)


def _line(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _memory_limit(root: Path) -> int | None:
    """The smallest limit on memory of the control groups that this process is in; None without one."""
    limits = [_line(folder / name) for folder in group_folders("memory", root) for name in ("memory.max",
                                                                                  "memory.limit_in_bytes")]
    return min((int(limit) for limit in limits if limit and limit.isdecimal() and int(limit) < _NO_LIMIT), default=None)


def _lines(path: Path) -> list[str]:
    return (_line(path) or "").splitlines()
