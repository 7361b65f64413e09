"""Tiny real models, made on the fly once per test process."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Test processes share the cores: a thread that waits for its siblings must sleep, not spin.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import inspect
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from edgestill.models.task import Task
from hypothesis import settings

from . import packed, tiny, traced

if TYPE_CHECKING:
    from .remote_stub import Stub
    from .serving import Running

# What was measured on this machine stays out of the tests, and what they measure out of the user's cache.
CACHE = tempfile.TemporaryDirectory(prefix="edgestill-cache-")
os.environ["XDG_CACHE_HOME"] = os.environ["LOCALAPPDATA"] = CACHE.name

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"

# A shared machine may be slow, so no example has a deadline. What lands is judged on the same examples every time;
# by hand they are drawn anew.
settings.register_profile("edgestill", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("edgestill")


@pytest.fixture(scope="session", autouse=True)
def traced_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Encoders are traced once for all test processes; `untraced` undoes it."""
    from edgestill.quantize.onnx import exporter

    base = tmp_path_factory.getbasetemp()
    kept = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "traced"
    kept.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporter, "exported", traced.once(exporter.exported, kept))
        yield


@pytest.fixture(scope="session", autouse=True)
def few_texts() -> Iterator[None]:
    """Proofs ask about every sixth text of the corpus, and all of those with special tokens; `all_texts` undoes it."""
    from edgestill.quantize.proof import float_answers

    def texts(special_tokens: Iterable[str]) -> list[str]:
        every = corpus.texts(special_tokens)
        plain = len(corpus.texts(()))
        return every[:plain:6] + every[plain:]

    corpus = float_answers.corpus
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(float_answers, "corpus", SimpleNamespace(TEXTS=corpus.TEXTS, texts=texts))
        yield


@pytest.fixture
def all_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proofs ask about the whole corpus."""
    from edgestill.quantize.proof import float_answers
    from edgestill.quantize.source import corpus

    monkeypatch.setattr(float_answers, "corpus", corpus)


@pytest.fixture
def untraced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoders are traced anew."""
    from edgestill.quantize.onnx import exporter

    monkeypatch.setattr(exporter, "exported", inspect.unwrap(exporter.exported))


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


@pytest.fixture(scope="session")
def packed_llama(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny Llama as an artifact of each engine, unquantized: {"gguf": folder, "onnx": folder}."""
    root = tmp_path_factory.mktemp("packed")
    targets = {"gguf": "gguf:F32", "onnx": "onnx:fp32"}
    return {engine: packed.pack(tiny_llama, root / engine, target) for engine, target in targets.items()}


@pytest.fixture
def stub() -> Iterator[Stub]:
    """Somebody else's server of chat completions."""
    from .remote_stub import Stub

    with Stub() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def several(packed_llama: dict[str, Path], packed_bert: Path, packed_vectors: Path) -> Iterator[Running]:
    """A server of one model of each task: "text", "labels" and "vectors"."""
    from edgestill.runtime.loading.load import load_streams
    from edgestill.runtime.server.work_queue import Station

    from .serving import running

    paths = {"text": packed_llama["gguf"], "labels": packed_bert, "vectors": packed_vectors}
    with running([Station(name, load_streams(path, 1, 1), 8) for name, path in paths.items()]) as found:
        yield found


@pytest.fixture(scope="session")
def packed_vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT embedder of 24 tokens of context as an unquantized ONNX artifact."""
    root = tmp_path_factory.mktemp("vectors")
    encoder = tiny.embedder(root / "source", "bert", pooling="mean")
    return packed.pack(encoder, root / "vectors", "onnx:fp32", Task(kind="embed", pooling="mean"), family="bert",
                       dimensions={"context": 24, "hidden": 64})


@pytest.fixture(scope="session")
def packed_bert(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny BERT classifier as an unquantized ONNX artifact, its temperature 2."""
    task = Task(kind="classify", labels=["light", "music", "weather"])
    return packed.pack(tiny_bert, tmp_path_factory.mktemp("packed") / "bert", "onnx:fp32", task, family="bert",
                       dimensions={"context": 24}, settings={"temperature": 2.0})
