"""The packages that do a stage's work: what they compute changes with their versions."""

from __future__ import annotations

from ...models import artifact
from ...models.runfile import Export, Loop, Training
from ...models.scheme import Scheme

_TEXT = ("tokenizers", "jinja2", "numpy")
_TORCH = (*_TEXT, "torch", "transformers", "safetensors")
_ENGINES = {"gguf": ("llama-cpp-python",), "onnx": ("onnxruntime",)}
_PACKERS = {"gguf": ("gguf", "llama-cpp-python"), "onnx": ("onnx", "onnxruntime", "onnxruntime-genai")}
_STRUCTURE = ("llguidance", "jsonschema")


def of_training(settings: Loop) -> dict[str, str]:
    """The versions of what trains."""
    adapter = settings.adapter.get("kind") if isinstance(settings, Training) else "full"
    return _versions(*_TORCH, "accelerate", *(() if adapter == "full" else ("peft",)),
                     *(("bitsandbytes",) if adapter == "qlora" or settings.optimizer == "adamw_8bit" else ()))


def of_baseline() -> dict[str, str]:
    """The versions of what answers as a trivial baseline."""
    return _versions("numpy", "scikit-learn")


def of_float(schema: str) -> dict[str, str]:
    """The versions of what runs a float model, held to a schema where there is one."""
    return _versions(*_TORCH, *(_STRUCTURE if schema else ()))


def of_engine(target: str, schema: str = "") -> dict[str, str]:
    """The versions of what runs a shipped file."""
    return _versions(*_TEXT, *_ENGINES[Scheme.parse(target).format], *(_STRUCTURE if schema else ()))


def of_packed_teacher(schema: str) -> dict[str, str]:
    """The versions of what runs a teacher in a GGUF file."""
    return _versions(*_TEXT, *_ENGINES["gguf"], *(_STRUCTURE if schema else ()))


def of_export(export: Export) -> dict[str, str]:
    """The versions of what packs a target and proves it."""
    clients = ("onnxruntime-genai", "llama-cpp-python") if export.clients else ()
    return _versions(*_TORCH, *_PACKERS[Scheme.parse(export.target).format], *clients)


def _versions(*packages: str) -> dict[str, str]:
    found = artifact.versions(sorted(set(packages)))
    return {name: found[name] for name in found if name != "python"}
