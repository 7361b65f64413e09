"""Facts about this machine and process that measured times depend on."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

from ...models.artifact import versions
from ..machine.cores import allowed_cores
from ..machine.processor import processor

_UNITS = 1024


def facts() -> dict[str, Any]:
    """Processor, cores, memory, system, versions and how busy the machine is."""
    import psutil

    return {
        "cpu": processor(),
        "cores_logical": os.cpu_count(),
        "cores_physical": psutil.cpu_count(logical=False),
        "cores_allowed": allowed_cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.platform(),
        "machine": platform.machine(),
        "governor": _line(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "versions": versions(),
    }


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
