"""`edgestill doctor`: what is installed, what is missing, and what would slow or surprise a run."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from .. import options, output
from ..extras import EXTRAS
from ..quiet import SWITCHES


@click.command("doctor", epilog=options.example("edgestill doctor", "edgestill doctor --json"))
@options.as_json
@options.verbose
def command(as_json: bool) -> int:
    """Check this installation and say what is missing.

    Exit code 1 when a package of the base install is missing; a missing extra is a line with its remedy.
    """
    packages = {extra: {dist: _version(dist) for dist in group.values()} for extra, group in EXTRAS.items()}
    machine, switches = _machine(), {key: os.environ.get(key) for key in SWITCHES}
    notes = _notes(packages)
    if as_json:
        output.result({"machine": machine, "packages": packages, "telemetry": switches, "notes": notes})
    else:
        output.table(["fact", "value"], [[key, str(value)] for key, value in machine.items()])
        output.table(["extra", "package", "version"], [
            [extra, dist, version or "missing"]
            for extra, group in packages.items() for dist, version in group.items()], title="\npackages")
        output.table(["switch", "value"], list(switches.items()), title="\ntelemetry")
        click.echo("\n" + "\n".join(f"• {line}" for line in notes or ["nothing is missing"]))
    return 0 if all(packages["base"].values()) else 1


def _machine() -> dict[str, Any]:
    import psutil

    from ...runtime.machine.cores import allowed_cores
    from ...runtime.machine.processor import processor

    return {
        "python": platform.python_version(), "python_path": sys.executable, "system": platform.platform(),
        "processor": processor(), "physical_cores": psutil.cpu_count(logical=False), "logical_cores": os.cpu_count(),
        "allowed_cores": allowed_cores(), "memory_bytes": psutil.virtual_memory().total, "gpu": _gpu(),
        "torch_build": torch_build(),
    }


def _notes(packages: dict[str, dict[str, str | None]]) -> list[str]:
    notes = []
    for extra, group in packages.items():
        absent = [dist for dist, version in group.items() if version is None]
        if absent:
            remedy = "pip install edgestill" if extra == "base" else f"pip install 'edgestill[{extra}]'"
            notes.append(f"{extra}: {', '.join(absent)} missing: {remedy}")
    build, gpu = torch_build(), _gpu()
    if build == "cpu" and gpu:
        notes.append(f"torch is a CPU build and there is a GPU ({gpu}): training would not use it; install torch with "
                     "the index of your CUDA version, see https://pytorch.org/get-started/locally")
    if not gpu and (cuda := cuda_packages()):
        notes.append(f"{len(cuda)} CUDA packages ({', '.join(cuda[:3])}…) and no GPU here: several GB without use; "
                     "reinstall torch with --index-url https://download.pytorch.org/whl/cpu")
    on = [name for name, value in SWITCHES.items() if os.environ.get(name) != value]
    if on:
        notes.append(f"telemetry or threads set by your environment: {', '.join(on)}")
    return notes


def torch_build() -> str | None:
    """`cpu`, or the CUDA version torch was built for, read from its files without importing it."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    text = (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
    cuda = re.search(r"^cuda\b.*=\s*['\"]([\d.]+)['\"]", text, re.MULTILINE)
    return f"cuda {cuda.group(1)}" if cuda else "cpu"


def cuda_packages() -> list[str]:
    """Installed distributions that hold CUDA libraries."""
    names = {str(item.metadata["Name"]).lower() for item in metadata.distributions() if item.metadata["Name"]}
    return sorted(name for name in names if re.match(r"nvidia-.*(cu\d+|cublas|cudnn|cuda|nccl)", name))


def _gpu() -> str | None:
    driver = Path("/proc/driver/nvidia/gpus")
    if driver.is_dir() and any(driver.iterdir()):
        return "NVIDIA"
    return "NVIDIA" if shutil.which("nvidia-smi") and Path("/dev/nvidia0").exists() else None


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
