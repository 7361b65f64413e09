"""A page of this folder in headless Chromium: a local server gives it a job, and takes its answers."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from edgestill.quantize.proof import clients
from edgestill.runtime.profiling.targets import _chromium

HERE = Path(__file__).resolve().parent


class _Handler(_chromium.Handler):
    """This folder's files, and those of a folder of models under /models/."""

    def __init__(self, *arguments: Any, models: Path, **known: Any) -> None:
        self.models = models
        super().__init__(*arguments, directory=str(HERE), **known)

    def translate_path(self, path: str) -> str:
        inside = super().translate_path(path)
        if path.startswith("/models/"):
            return str(self.models / Path(inside).relative_to(HERE / "models"))
        if path.startswith("/clients/"):
            return str(Path(clients.__file__).parent / Path(inside).name)
        return inside


def with_package(models: Path, job: dict[str, Any], package: str) -> dict[str, Any]:
    """What browser.html answers with one of npm's packages to `job` about a folder below `models`; errors as in
    `in_chromium`."""
    own = f"{package}/node_modules/onnxruntime-web"  # npm puts it there when another version has the common place
    runtime = own if (HERE / "node_modules" / own).is_dir() else "onnxruntime-web"
    return in_chromium(models, job | {"package": package, "runtime": runtime}, "browser.html")


def in_chromium(models: Path, job: dict[str, Any], name: str, seconds: int = 600) -> dict[str, Any]:
    """What the page `name` answers to `job` about a folder below `models`; AssertionError with the page's error,
    otherwise errors as in _chromium.answer."""
    handler = partial(_Handler, models=models, contents={"/job.json": json.dumps(job).encode()})
    found = _chromium.answer(handler, name, "--disable-gpu", seconds)
    assert "error" not in found, found["error"]
    return found
