"""Real pretrained models, as benchmarks/real_models.py fetched them; what lacks one skips with the command for it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest

ROOT = Path(__file__).resolve().parents[2]
REAL = ROOT / "out" / "real"
SHARED = ROOT.parent / "shared"
sys.path.insert(0, str(ROOT / "benchmarks"))  # their rows are the tests'


def _real(name: str) -> Path:
    if not (REAL / name).exists():
        pytest.skip(f"needs out/real/{name}: python benchmarks/real_models.py --out out/real")
    return REAL / name


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct as a Hugging Face folder."""
    return _real("smollm2-135m-instruct")


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """The Q4_1 file that the folder was written from, made by another converter."""
    return _real("SmolLM2-135M-Instruct.Q4_1.gguf")


@pytest.fixture(scope="session")
def minilm() -> Path:
    """all-MiniLM-L6-v2 as a Hugging Face folder."""
    return _real("minilm-l6")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real rows and tokenizers beside the repository."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the real inputs in {SHARED.name}/ beside the repository")
    return SHARED
