"""Artifacts that the clients load, and the record of what they answered: out/clients.json."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from edgestill.models import files, kinds
from edgestill.models.demo import grammar
from edgestill.models.runfile import kind_config
from edgestill.quantize import export
from edgestill.quantize.grid.scaled_grids import Q4_0

from .. import packed, tiny
from .cases import Case, chats, smollm2_shape

ROOT = Path(__file__).resolve().parent.parent.parent
TEACHER = ROOT / "models" / "demo" / "teacher"
TARGETS = {"demo": ("onnx:fp32", "onnx:int4", "onnx:int8", "onnx:q4f16", "gguf:Q4_0", "gguf:Q8_0"),
           "SmolLM2-135M": ("onnx:int4", "gguf:Q4_0")}


@pytest.fixture(scope="session")
def record() -> Iterator[dict[str, Any]]:
    """{client: {version, files: {case: what was compared}}}, written when all have run."""
    found: dict[str, Any] = {}
    yield found
    files.write_json(ROOT / "out" / "clients.json", found)


@pytest.fixture(scope="session")
def case(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Any:
    """(model, target) → the case, made once."""
    made: dict[tuple[str, str], Case] = {}
    demo: dict[str, Path] = {}
    rtn = kinds.load("quantize.methods", "rtn")
    config = kind_config("quantize.methods", {"kind": "rtn"}, "method")
    requests = [[{"role": "user", "content": row["prompt"]}] for row in itertools.islice(grammar.rows("test", 10), 10)]

    def get(model: str, target: str) -> Case:
        key = model, target
        if model == "demo" and not demo:
            demo.update(export(TEACHER, TARGETS["demo"], tmp_path_factory.mktemp("demo")))
        if key not in made and model == "demo":
            made[key] = Case(f"{model} {target}", demo[target], requests)
        elif key not in made:
            root = tmp_path_factory.getbasetemp() / "smollm2"
            if not root.is_dir():
                smollm2_shape(request.getfixturevalue("shared"), root / "hf")
            folder = packed.pack(root / "hf", root / target.replace(":", "-"), target, dimensions={"context": 8192},
                                 encode=lambda _, weight, grid=Q4_0: rtn.quantize(weight, None, config, grid))
            made[key] = Case(f"{model} {target}", folder, chats(4))
        return made[key]

    return get


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT classifier in int8."""
    source = tiny.classifier(tmp_path_factory.mktemp("bert") / "hf", "bert")
    return export(source, ["onnx:int8"], tmp_path_factory.mktemp("classifier"))["onnx:int8"]
