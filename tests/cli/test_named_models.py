"""Models by their catalogue names: found in the hub's cache, packed once, and never taken for a file that is there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from edgestill.cli import main
from edgestill.cli.commands import named_models
from edgestill.models.errors import UsageError

COMMIT = "c" * 40


@pytest.fixture
def downloaded(tiny_llama: Path, packed_llama: dict[str, Path], tmp_path: Path,
               monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """smollm2-135m in the hub's cache, and what was packed of it."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    repository = tmp_path / "hub" / "models--HuggingFaceTB--SmolLM2-135M-Instruct"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    shutil.copytree(tiny_llama, repository / "snapshots" / COMMIT)
    packed: list[Path] = []

    def export(source: Path, targets: Sequence[str], out: Path) -> dict[str, Path]:
        packed.append(source)
        folder = out / "gguf-Q8_0"
        shutil.copytree(packed_llama["gguf"], folder)
        return {targets[0]: folder}

    monkeypatch.setattr("edgestill.quantize.export", export)
    return packed


def test_a_catalogue_name_is_packed_once(downloaded: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    call = ["generate", "smollm2-135m", "turn on the light", "--max-new-tokens", "2", "--json"]
    for _ in range(2):
        assert main.call(call) == 0
        assert json.loads(capsys.readouterr().out)["text"] is not None
    assert [path.name for path in downloaded] == [COMMIT]
    made = named_models.model(Path("smollm2-135m"))
    assert made.name == "smollm2-135m" and made.parent.name == COMMIT and len(list(made.parent.iterdir())) == 1


def test_what_lies_here_comes_before_the_catalogue(downloaded: list[Path], tmp_path: Path) -> None:
    (tmp_path / "smollm2-135m").mkdir()
    here = Path("smollm2-135m")
    assert named_models.model(here) == named_models.source(here) == here and not downloaded
    assert named_models.model(Path("out/gguf")) == Path("out/gguf")


def test_export_starts_from_a_catalogue_name(downloaded: list[Path]) -> None:
    assert named_models.source(Path("smollm2-135m")).name == COMMIT and not downloaded


@pytest.mark.parametrize(("name", "message"), [
    ("smollm2-153m", "did you mean 'smollm2-135m'"), ("minilm-l6", "answers nothing before it is trained")])
def test_names_that_lead_nowhere(downloaded: list[Path], name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        named_models.model(Path(name))


def test_a_model_that_is_not_here_is_asked_of_the_hub(downloaded: list[Path], tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[str] = []

    def unreachable(name: str, **options: Any) -> None:
        asked.append(name)
        raise OSError("no network")

    shutil.rmtree(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    assert main.call(["chat", "smollm2-135m"]) == 2 and asked == ["HuggingFaceTB/SmolLM2-135M-Instruct"]
