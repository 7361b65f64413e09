"""The runtime on a device: no torch, no transformers, nothing before it is used."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from edgestill.cli.extras import EXTRAS
from edgestill.models import kinds

ENGINES = {"gguf": "llama_cpp", "onnx": "onnxruntime", "classifier": "onnxruntime"}
FORBIDDEN = {name for extra, packages in EXTRAS.items() if extra not in ("base", "structure") for name in packages}
GENERATE = """
import json, sys
for name in json.loads(sys.argv[2]):
    sys.modules[name] = None  # importing it is an error
from edgestill.runtime import load
model = load(sys.argv[1], threads=1)
if hasattr(model, "classify"):
    assert model.classify("turn off the light").label in model.labels
else:
    assert model.chat([{"role": "user", "content": "turn off the light"}], max_new_tokens=4).ids
    assert model.generate("x", schema={"enum": ["on", "off"]}).text in ('"on"', '"off"')
model.close()
print(json.dumps(sorted(name for name, module in sys.modules.items() if module is not None)))
"""


def modules(code: str, *arguments: str) -> set[str]:
    """What a fresh interpreter has imported after `code`."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("poisoned", [False, True])
@pytest.mark.parametrize("name", [*kinds.names("runtime.engines"), "classifier"])
def test_a_real_answer_needs_none_of_the_training_packages(
        name: str, poisoned: bool, packed_llama: dict[str, Path], packed_bert: Path) -> None:
    folder = packed_bert if name == "classifier" else packed_llama[name]
    forbidden = FORBIDDEN - {ENGINES[name]} | {"huggingface_hub"}
    loaded = modules(GENERATE, str(folder), json.dumps(sorted(forbidden) if poisoned else []))
    assert not {module for module in loaded if module.split(".")[0] in forbidden}
    assert name != "classifier" or "jinja2" not in loaded
    if name == "gguf":  # what costs more than a small model and is not needed for an answer
        assert not loaded & {"importlib.metadata", "logging", "llama_cpp.llama", "llguidance.gbnf_to_lark"}


@pytest.mark.parametrize("first", ["", "import llguidance, llama_cpp\n"])
def test_the_whole_packages_can_be_imported_before_and_after(first: str) -> None:
    modules(f"import json\n{first}from edgestill.runtime.generation.constraints import _library\n"
            "from edgestill.runtime.engines._llama import library\nlean = _library(), library()\n"
            "import llguidance, llama_cpp.llama_cpp\n"
            "assert llguidance.LLMatcher is lean[0].LLMatcher and llama_cpp.llama_cpp is lean[1]\n"
            "print(json.dumps([]))")


def test_the_front_door_imports_nothing_heavy() -> None:
    loaded = modules("import json, sys, edgestill.runtime, edgestill.runtime.profiling\n"
                     "print(json.dumps(sorted(sys.modules)))")
    assert not {module.split(".")[0] for module in loaded} & {"numpy", "onnxruntime", "tokenizers", "llama_cpp",
                                                              "jinja2", "psutil"}


def test_the_verbs_stay_verbs_whatever_is_imported_first() -> None:
    modules("import json, edgestill.runtime.evaluation.evaluate\n"
            "from edgestill.runtime import evaluate, load, profile\n"
            "assert callable(evaluate) and callable(load) and callable(profile)\nprint(json.dumps([]))")


def test_an_unknown_name_is_an_attribute_error() -> None:
    import edgestill.runtime

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = edgestill.runtime.nothing


def test_telemetry_is_off_before_onnxruntime_is_imported(packed_llama: dict[str, Path]) -> None:
    code = ("import json, os, sys\nos.environ.pop('ORT_DISABLE_TELEMETRY', None)\nfrom edgestill.runtime import load\n"
            "seen = []\nclass Watch:\n    def find_spec(self, name, path=None, target=None):\n"
            "        if name == 'onnxruntime': seen.append(os.environ.get('ORT_DISABLE_TELEMETRY'))\n"
            "sys.meta_path.insert(0, Watch())\nload(sys.argv[1])\nassert seen[0] == '1'\nprint(json.dumps([]))")
    modules(code, str(packed_llama["onnx"]))
