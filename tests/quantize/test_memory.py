"""Memory is asked about before an export begins."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from edgestill.models.errors import UsageError
from edgestill.quantize import export
from edgestill.quantize.ship import memory
from edgestill.quantize.source.checkpoint import Checkpoint
from edgestill.quantize.source.float_model import FloatModel


def test_a_model_that_does_not_fit_is_refused_with_both_numbers_before_it_is_read(
        tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 600_000_000)
    monkeypatch.setattr(FloatModel, "from_folder", lambda *_: pytest.fail("the model was loaded"))
    with pytest.raises(UsageError, match=r"takes about 0\.7 GB of memory, 0\.6 GB are free"):
        export(tiny_llama, "gguf:Q4_0", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: SimpleNamespace(available=5_000))
    assert memory.available_bytes(tmp_path) == 5_000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available_bytes(tmp_path) == 5_000
    (tmp_path / "memory.max").write_text("3000\n")
    assert memory.available_bytes(tmp_path) == 3_000


def test_what_is_needed_grows_with_the_float_model_and_its_widest_matrix(tiny_llama: Path) -> None:
    checkpoint = Checkpoint.open(tiny_llama)
    needed = memory.needed_bytes(checkpoint) - memory.PROCESS_BYTES
    assert 4 * checkpoint.parameters() < needed < 16 * checkpoint.parameters()
