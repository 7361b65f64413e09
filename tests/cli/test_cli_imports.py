"""Start-up is cheap because nothing is imported before it is needed: pinned in fresh processes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from edgestill.cli import lazy

VERBS = [name for section in lazy.SECTIONS.values() for name in section]
HEAVY = {"numpy", "torch", "transformers", "onnx", "onnxruntime", "tokenizers", "jinja2", "rich", "psutil", "llama_cpp",
         "llguidance", "gguf", "datasets", "pyarrow", "sklearn", "scipy", "peft", "accelerate"}
ROOT_HELP = {"edgestill", "edgestill.cli", "edgestill.cli.main", "edgestill.cli.lazy", "edgestill.cli.quiet",
             "edgestill.models", "edgestill.models.errors"}
"""All modules of this project that the root help may load."""


def modules_after(arguments: list[str]) -> set[str]:
    """The modules that are loaded in a fresh process once `edgestill ARGUMENTS` is done."""
    code = f"""
import json, sys
from edgestill.cli.main import call
assert call({arguments!r}) == 0
print("\\n" + json.dumps(sorted(sys.modules)))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    return set(json.loads(found.stdout.splitlines()[-1]))


def test_root_help_imports_no_command() -> None:
    loaded = modules_after(["--help"])
    ours = {name for name in loaded if name.startswith("edgestill")}
    assert ours <= ROOT_HELP, sorted(ours - ROOT_HELP)
    others = (
        {name.partition(".")[0] for name in loaded} - set(sys.stdlib_module_names) - {"edgestill", "click", "__main__"}
    )
    # An editable install brings a finder of its own, and site-packages may load others from .pth files.
    assert not others & HEAVY, sorted(others & HEAVY)


@pytest.mark.parametrize("verbs", [VERBS[:6], VERBS[6:12], VERBS[12:]], ids=["make", "prove", "look"])
def test_help_of_a_verb_imports_nothing_heavy(verbs: list[str]) -> None:
    code = f"""
import contextlib, io, sys
from edgestill.cli.main import call
for verb in {verbs!r}:
    with contextlib.redirect_stdout(io.StringIO()):
        assert call([verb, "--help"]) == 0, verb
    heavy = {HEAVY!r} & set(sys.modules)
    assert not heavy, (verb, heavy)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


def test_telemetry_is_off_before_anything_is_imported() -> None:
    code = """
import os, sys
for name in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY"):
    os.environ.pop(name, None)
import edgestill.cli.main
assert os.environ["ORT_DISABLE_TELEMETRY"] == "1" and os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_users_own_switch_stays() -> None:
    code = """
import os
os.environ["TOKENIZERS_PARALLELISM"] = "true"
import edgestill.cli.main
assert os.environ["TOKENIZERS_PARALLELISM"] == "true"
"""
    subprocess.run([sys.executable, "-c", code], check=True)
