"""The wheel, installed by pip on aarch64, and artifacts that are made here."""

from __future__ import annotations

from pathlib import Path

import pytest
from edgestill.quantize import export

from .. import tiny, wheels
from . import emulated

TARGETS = ("onnx:fp32", "onnx:int4", "onnx:int8")


@pytest.fixture(scope="session", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What pip says of ONNX and the command line, for which it may build nothing."""
    wheel = wheels.build(tmp_path_factory.mktemp("wheel"))
    emulated.output("Pi 5", "pip", "uninstall", "--quiet", "--yes", "edgestill")  # an older tree's
    return emulated.output("Pi 5", "pip", "install", "--only-binary=:all:", "--no-compile", "-c",
                           wheels.ROOT / "constraints.txt", f"{wheel}[cli,onnx]")


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The demo's teacher for every target."""
    return export(wheels.ROOT / "models" / "demo" / "teacher", TARGETS, tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny BERT classifier, as float32 and as int8."""
    source = tiny.classifier(tmp_path_factory.mktemp("bert") / "hf", "bert")
    return export(source, ["onnx:fp32", "onnx:int8"], tmp_path_factory.mktemp("classifier"))
