"""The name of this machine's processor, for whoever reads measured times."""

from __future__ import annotations

import platform
from pathlib import Path

_CORES = {
    "0xd03": "Cortex-A53", "0xd04": "Cortex-A35", "0xd05": "Cortex-A55", "0xd07": "Cortex-A57", "0xd08": "Cortex-A72",
    "0xd09": "Cortex-A73", "0xd0a": "Cortex-A75", "0xd0b": "Cortex-A76", "0xd0c": "Neoverse-N1",
    "0xd0d": "Cortex-A77", "0xd0e": "Cortex-A76AE", "0xd40": "Neoverse-V1", "0xd41": "Cortex-A78",
    "0xd42": "Cortex-A78AE", "0xd44": "Cortex-X1", "0xd46": "Cortex-A510", "0xd47": "Cortex-A710",
    "0xd48": "Cortex-X2", "0xd49": "Neoverse-N2", "0xd4b": "Cortex-A78C", "0xd4d": "Cortex-A715",
    "0xd4e": "Cortex-X3", "0xd4f": "Neoverse-V2", "0xd80": "Cortex-A520", "0xd81": "Cortex-A720",
    "0xd82": "Cortex-X4", "0xd84": "Neoverse-V3", "0xd85": "Cortex-X925", "0xd87": "Cortex-A725",
    "0xd8e": "Neoverse-N3",
}
"""Part numbers of Arm's own 64-bit cores, which the kernel gives instead of names."""


def processor(root: Path = Path("/")) -> str:
    """The processor's name as the system gives it; on ARM boards the board's, and its cores.

    `root` is the folder that holds `proc`.
    """
    try:
        text = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    pairs = [(key.strip(), value.strip()) for key, _, value in (line.partition(":") for line in text.splitlines())]
    found = dict(pairs)
    # 32-bit ARM has a "model name" too, the architecture's; "Hardware" is BCM2835 on every older Raspberry Pi.
    name = found.get("Model") or _board(root) or found.get("Hardware") or found.get("model name")
    cores = ", ".join(_cores(pairs))
    if name and cores:
        return f"{name} ({cores})"
    return name or cores or platform.processor() or platform.machine()


def _board(root: Path) -> str:
    """The board's name in the device tree, which most ARM boards have and servers have not."""
    try:
        return (root / "proc/device-tree/model").read_text(encoding="utf-8", errors="replace").strip("\0 \n")
    except OSError:
        return ""


def _cores(pairs: list[tuple[str, str]]) -> list[str]:
    """The kinds of ARM cores, each once: a phone has two or three. Empty elsewhere."""
    names = []
    implementer = ""
    for key, value in pairs:
        if key == "CPU implementer":
            implementer = value
        elif key == "CPU part":
            known = _CORES.get(value) if implementer == "0x41" else None
            names.append(known or f"implementer {implementer} part {value}")
    return list(dict.fromkeys(names))
