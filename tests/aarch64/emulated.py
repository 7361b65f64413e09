"""Commands in the aarch64 Python, on processors that people have."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .. import cpuinfo

FOLDER = Path(__file__).resolve().parent.parent.parent / ".aarch64"
BIN = FOLDER / "venv" / "bin"


@dataclass(frozen=True)
class Processor:
    """What the emulator is told to be, and what the kernel then says of it."""

    emulated: str
    cpuinfo: Callable[[int], str]
    features: frozenset[str]
    """Of those that choose between matrix kernels."""


PROCESSORS = {
    "Pi 4": Processor("cortex-a72", cpuinfo.raspberry_pi_4, frozenset()),
    "Pi 5": Processor("cortex-a76", cpuinfo.raspberry_pi_5, frozenset({"dot products"})),
    # Without SME, whose outer products qemu 7.2 gets wrong (10.0 does not).
    "Armv9": Processor("max,sme=off", cpuinfo.armv9, frozenset({"dot products", "sve", "i8mm", "bf16"})),
}


def run(processor: str, program: str, *words: str | Path, script: str = "",
        seconds: int = 1500) -> subprocess.CompletedProcess[str]:
    """`program` of the aarch64 environment on `processor`, with `script` as its standard input."""
    chosen = PROCESSORS[processor]
    # The emulator shows this machine's own /proc/cpuinfo, in which onnxruntime finds no ARM core and ends.
    (FOLDER / "root" / "proc" / "cpuinfo").write_text(chosen.cpuinfo(os.cpu_count() or 1))
    settings = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run([BIN / program, *words], input=script, capture_output=True, text=True, cwd=FOLDER,
                          timeout=seconds, check=False, env={**settings, "QEMU_CPU": chosen.emulated})


def output(processor: str, program: str, *words: str | Path, script: str = "") -> str:
    """What a command that succeeds prints."""
    done = run(processor, program, *words, script=script)
    said = done.stdout[-2000:] + done.stderr[-3000:]
    assert done.returncode == 0, f"{program} {words}: code {done.returncode}\n{said}"
    return done.stdout
