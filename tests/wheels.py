"""The wheel that this tree makes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ("models/*", "runtime/*", "quantize/*", "distill/*", "cli/*", "__init__.py", "__main__.py",
           ":!models/demo/teacher")
"""What git is asked for to get the files of the package."""


def tracked(*patterns: str) -> list[str]:
    """The files that git tracks, of those that are there."""
    listing = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in listing.stdout.splitlines() if (ROOT / name).is_file()]


def build(folder: Path) -> Path:
    """Write the wheel of the tracked files to `folder`."""
    source = folder / "source"  # a build in the root would leave build/ there, and take what an older one left
    for name in tracked():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, source],
        check=True, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    return wheel
