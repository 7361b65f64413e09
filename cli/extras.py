"""Which package belongs to which optional extra, for hints and for `doctor`."""

from __future__ import annotations

import sys

from ..models.errors import MissingExtra

EXTRAS: dict[str, dict[str, str]] = {
    "base": {
        "numpy": "numpy",
        "tokenizers": "tokenizers",
        "jinja2": "jinja2",
        "psutil": "psutil",
    },
    "gguf": {"llama_cpp": "llama-cpp-python"},
    "onnx": {"onnxruntime": "onnxruntime"},
    "cli": {"click": "click", "rich": "rich"},
    "structure": {"llguidance": "llguidance", "jsonschema": "jsonschema"},
    "label": {"aiolimiter": "aiolimiter", "genai_prices": "genai-prices", "openai": "openai", "pypdf": "pypdf",
              "stamina": "stamina"},
    # uvicorn takes uvloop by itself where it is there; it is not for Windows.
    "serve": {"prometheus_client": "prometheus-client", "starlette": "starlette", "uvicorn": "uvicorn"} | (
        {"uvloop": "uvloop"} if sys.platform != "win32" else {}),
    "train": {
        "torch": "torch",
        "transformers": "transformers",
        "accelerate": "accelerate",
        "peft": "peft",
        "datasets": "datasets",
        "pyarrow": "pyarrow",
        "regex": "regex",
        "safetensors": "safetensors",
        "sklearn": "scikit-learn",
        "tensorboard": "tensorboard",
        "optimum": "optimum",
        "zstandard": "zstandard",
    },
    "bitsandbytes": {"bitsandbytes": "bitsandbytes"},
    "export": {
        "gguf": "gguf",
        "onnx": "onnx",
        "onnxruntime_genai": "onnxruntime-genai",
        "onnxscript": "onnxscript",
        "onnx_ir": "onnx-ir",
    },
}
"""Extra → {import name: distribution name}, as in pyproject.toml (a test compares the two)."""


def missing(module: str) -> MissingExtra | None:
    """The error for a module of one of our dependencies; None for any other module."""
    top = module.partition(".")[0]
    for extra, packages in EXTRAS.items():
        if top in packages:
            return MissingExtra(packages[top], extra)
    return None
