"""The catalogue holds only models that can be exported, and kinds are told apart from broken files."""

from __future__ import annotations

from pathlib import Path

import pytest
from edgestill.models import catalogue, family, kinds
from edgestill.models.errors import UsageError


@pytest.mark.parametrize("name", catalogue.names())
def test_every_entry_is_covered_by_an_exporter(name: str) -> None:
    entry = catalogue.entry(name)
    covered = family.load(entry.family)
    assert entry.task in covered.tasks
    assert covered.gguf or covered.onnx


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'smollm2-135m'"):
        catalogue.entry("smollm-135m")


def test_a_kind_that_fails_to_import_is_not_called_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise ImportError(f"{name} needs something that is missing")

    monkeypatch.setattr(kinds.importlib, "import_module", broken)
    with pytest.raises(ImportError, match="missing"):
        kinds.load("distill.losses", "forward_kl")
    with pytest.raises(UsageError, match="did you mean 'forward_kl'"):
        kinds.load("distill.losses", "forward_lk")


def test_names_lists_a_folder_without_importing_it() -> None:
    assert {"forward_kl", "ce"} <= set(kinds.names("distill.losses"))
    assert Path(kinds.folder("distill.losses")).is_dir()
