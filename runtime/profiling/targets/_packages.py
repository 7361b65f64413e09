"""The packages that a model needs on another machine, as wheels for it."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ....models.errors import EdgestillError
from ....models.user_cache import user_cache
from ..machine import features

BASE = {"numpy": "numpy", "jinja2": "Jinja2", "markupsafe": "MarkupSafe", "psutil": "psutil",
        "tokenizers": "tokenizers"}
"""What every model needs, by the names of modules: packages that they import meanwhile, and no others."""
OF_ENGINE = {"gguf": {"llama_cpp": "llama_cpp_python", "typing_extensions": "typing_extensions"},
             "onnx": {"onnxruntime": "onnxruntime"}}
STRUCTURE = {"llguidance": "llguidance"}
COMPILED_HERE = "llama_cpp_python"
"""Is built where it is installed, for the processor there."""
WHEN = (1980, 1, 1, 0, 0, 0)
"""The time of every file in an archive, so that the same files are the same bytes."""


def wheels(needed: Mapping[str, str], there: Mapping[str, Any], folder: Path) -> list[Path]:
    """Archives of the `needed` packages that a machine lacks; `there` is what it said of itself (see _far.probe).

    Copies of those installed here where it is such a machine, written to `folder`; else what pip finds for it. Raises
    EdgestillError for what neither gives.
    """
    lacking = [name for module, name in needed.items() if module not in there["modules"]]
    if not lacking:
        return []
    if not _like_this(there):
        return _found_by_pip(lacking, there)
    if COMPILED_HERE in lacking and (fewer := set(features()) - set(there["features"])):
        raise EdgestillError(f"llama-cpp-python is not installed there, and the one here is compiled for a processor "
                             f"with {', '.join(sorted(fewer))}", "install it there: pip install llama-cpp-python")
    return [_copy(name, folder) for name in lacking]


def _like_this(there: Mapping[str, Any]) -> bool:
    """Whether what is compiled for this machine's system and Python runs on that one."""
    name, version = platform.libc_ver()
    return (tuple(there["version"]) == sys.version_info[:2] and there["implementation"] == sys.implementation.name
            and there["platform"] == sys.platform and there["machine"] == platform.machine()
            and there["libc"][0] == name and _numbers(there["libc"][1]) >= _numbers(version))


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdecimal()]


def _copy(name: str, folder: Path) -> Path:
    """A package that is installed here as an archive."""
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        raise EdgestillError(f"{name} is installed neither there nor here", f"pip install {name}") from None
    path = folder / f"{name}-{found.version}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(found.files or (), key=str):
            if ".." not in file.parts and "__pycache__" not in file.parts and "tests" not in file.parts:
                archive.writestr(zipfile.ZipInfo(file.as_posix(), WHEN), Path(str(file.locate())).read_bytes())
    return path


def _found_by_pip(names: Sequence[str], there: Mapping[str, Any]) -> list[Path]:
    """Wheels for another kind of machine, which pip downloads into the user's cache; of the versions that are installed
    here."""
    libc, version = there["libc"]
    if there["platform"] != "linux" or libc != "glibc" or there["implementation"] != "cpython":
        raise EdgestillError(f"{', '.join(names)}: not installed there, and wheels are sent to Linux with glibc and "
                             "CPython alone", "install them there: pip install " + " ".join(names))
    major, minor = there["version"]
    folder = user_cache() / "wheels" / f"cp{major}{minor}-{there['machine']}"
    folder.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest",
             str(folder), "--implementation", "cp", "--python-version", f"{major}.{minor}",
             *(f"--abi={abi}" for abi in (f"cp{major}{minor}", "abi3", "none")),
             *(f"--platform=manylinux_2_{minor}_{there['machine']}" for minor in range(_numbers(version)[1], 16, -1)),
             f"--platform=manylinux2014_{there['machine']}"]
    paths = []
    for name in names:
        wanted = _version(name)
        if _kept(folder, name, wanted) is None:
            done = subprocess.run([*words, f"{name}=={wanted}" if wanted else name], capture_output=True, text=True,
                                  check=False)
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
                raise EdgestillError(f"{name}: no wheel for Python {major}.{minor} on {there['machine']}: {last}",
                                     f"install it there (pip install {name}), or name a folder with such a wheel in "
                                     "PIP_FIND_LINKS")
        path = _kept(folder, name, wanted)
        assert path is not None  # pip said so
        paths.append(path)
    return paths


def _kept(folder: Path, name: str, version: str) -> Path | None:
    """The wheel of a package among those that were downloaded; its name may be written in other letters."""
    start = f"{name}-{version}".lower()
    return next((path for path in sorted(folder.glob("*.whl")) if path.name.lower().startswith(start)), None)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
