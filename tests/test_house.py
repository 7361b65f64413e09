"""The house rules that a reader relies on: file lengths, layers, names, and a wheel that holds everything."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path

import edgestill
import pytest

from . import wheels
from .wheels import ROOT, tracked

ROOMS = ("models", "runtime", "quantize", "distill", "cli")
LONGEST_FILE, LONGEST_TEST = 300, 400


def test_no_file_is_longer_than_the_limit() -> None:
    lengths = {name: len((ROOT / name).read_text(encoding="utf-8").splitlines()) for name in tracked("*.py")}
    assert lengths and {name: n for name, n in lengths.items()
                        if n > (LONGEST_TEST if name.startswith("tests/") else LONGEST_FILE)} == {}


def test_no_module_imports_one_that_imports_it() -> None:
    """Not at the top, not inside a function, and not for its types alone."""
    files = {tuple(Path(name).with_suffix("").parts): name for name in tracked(*(f"{room}/*.py" for room in ROOMS))}
    modules = {path[:-1] if path[-1] == "__init__" else path: name for path, name in files.items()}
    imports = {module: imported(module, name, modules) for module, name in modules.items()}
    assert circle(imports) == [] and sum(map(len, imports.values())) > 1000
    one, other = ("a", "one"), ("a", "other")
    assert circle({one: {other}, other: {one}}) and circle({one: {other}, other: set()}) == []


def imported(module: tuple[str, ...], name: str, modules: Collection[tuple[str, ...]]) -> set[tuple[str, ...]]:
    """The modules of the project that a file imports anywhere in it."""
    package = module if name.endswith("__init__.py") else module[:-1]
    found = set()
    for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            origin = (*package[:len(package) - node.level + 1], *(node.module or "").split("."))
            origin = tuple(part for part in origin if part)
            targets = [(*origin, alias.name) for alias in node.names]
            found |= {target if target in modules else origin for target in targets}
    return found & set(modules) - {module}


def circle(imports: Mapping[tuple[str, ...], set[tuple[str, ...]]]) -> list[tuple[str, ...]]:
    """What is left when modules without imports are taken away, again and again: circles, and what leads into them."""
    left = {module: set(others) for module, others in imports.items()}
    while free := [module for module, others in left.items() if not others & left.keys()]:
        for module in free:
            del left[module]
    return sorted(left)


def test_the_root_holds_no_other_python_file() -> None:
    assert sorted(name for name in tracked("*.py") if "/" not in name) == ["__init__.py", "__main__.py"]


def test_no_module_shadows_the_standard_library() -> None:
    names = {Path(name).stem for name in tracked(*(f"{room}/*.py" for room in ROOMS))} - {"__init__"}
    # Inside a package only relative or absolute imports of ours reach these, but a script started beside one would not.
    assert names & set(sys.stdlib_module_names) <= {"profile"} - {"profile"}


@pytest.mark.parametrize("room", ROOMS)
def test_heavy_packages_are_imported_inside_functions(room: str) -> None:
    heavy = {"torch", "transformers", "peft", "accelerate", "datasets", "onnx", "onnxruntime_genai", "gguf",
             "llama_cpp", "llguidance", "pyarrow", "sklearn", "optimum", "tensorboard", "onnxscript"}
    found = []
    for name in tracked(f"{room}/*.py"):
        for node in ast.parse((ROOT / name).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                imported = {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported = {(node.module or "").split(".")[0]}
            else:
                continue
            found += [f"{name}: {module}" for module in sorted(imported & heavy)]
    assert found == []


def test_the_wheel_holds_every_file_of_the_package_and_no_weights(tmp_path: Path) -> None:
    """An unlisted sub-package or data file would silently miss the wheel."""
    wheel = wheels.build(tmp_path)
    archive = zipfile.ZipFile(wheel)
    packed = {name.removeprefix("edgestill/") for name in archive.namelist() if name.startswith("edgestill/")}
    assert packed == set(tracked(*wheels.PACKAGE)) and len(packed) > 400
    assert wheel.stat().st_size < 1_500_000  # 771,390 bytes on 2026-11-30
    about = f"edgestill-{edgestill.__version__}"
    assert wheel.name.startswith(f"{about}-")
    assert b"edgestill = edgestill.__main__:main\n" in archive.read(f"{about}.dist-info/entry_points.txt")


def test_the_constraints_pin_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)}
    names = {plain_name(requirement) for requirement in wanted} - {"edgestill"}
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert names - {plain_name(line) for line in lines if "==" in line} == set()


def plain_name(requirement: str) -> str:
    """The package of a requirement, as package indexes compare names."""
    return re.split(r"[\[=<>~! ]", requirement)[0].lower().replace("_", "-")
