"""Tiny real models, made on the fly once per test process."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from pathlib import Path

import pytest

from . import tiny

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain Hugging Face folder of a Llama of some 60,000 parameters, with tokenizer and chat template."""
    return tiny.decoder(tmp_path_factory.mktemp("models") / "llama", "llama")


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain Hugging Face folder of a BERT classifier of three labels, with a WordPiece tokenizer."""
    return tiny.classifier(tmp_path_factory.mktemp("models") / "bert", "bert")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and models beside the repository; tests that need it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the real inputs in {SHARED.name}/ beside the repository")
    return SHARED
