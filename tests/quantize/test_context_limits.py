"""Texts beyond a model's window and original context: planned where they can be tried, and a wrong border is caught."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from edgestill.models.artifact import Artifact, Manifest
from edgestill.models.task import Task
from edgestill.quantize.proof import reference
from edgestill.quantize.proof.checks import beyond as check_beyond
from edgestill.quantize.proof.packed_file import Subject
from edgestill.quantize.source import context_limits
from edgestill.quantize.source.float_model import FloatModel

from .. import gguf_files, proving, tiny


@pytest.mark.parametrize(("config", "found"), [
    ({}, {}), ({"sliding_window": 4096}, {"window": 4096}), ({"sliding_window": None}, {}),
    ({"sliding_window": 4096, "use_sliding_window": False}, {}),
    ({"rope_scaling": {"original_max_position_embeddings": 8192}, "sliding_window": 512},
     {"window": 512, "original context": 8192}),
    ({"rope_parameters": {"rope_type": "yarn", "original_max_position_embeddings": 32768}},
     {"original context": 32768}), ({"original_max_position_embeddings": 4096}, {"original context": 4096})])
def test_borders_are_read_from_the_config(config: dict[str, Any], found: dict[str, int]) -> None:
    assert context_limits.borders(config) == found


@pytest.mark.parametrize(("found", "context", "longest", "tokens", "word"), [
    ({}, 2048, 0, 0, ""), ({"window": 16}, 256, 40, 144, ""), ({"window": 16}, 256, 144, 0, ""),
    ({"window": 16}, 100, 40, 100, ""), ({"window": 4096}, 4096, 512, 0, ""),
    ({"window": 512, "original context": 4096}, 32768, 512, 4224, ""),
    ({"window": 4096, "original context": 32768}, 131072, 512, 4224, "original context of 32,768 takes 32,896 tokens"),
    ({"original context": 8192}, 131072, 512, 8320, ""), ({"window": 32768}, 40000, 512, 0, "window of 32,768")])
def test_the_text_is_as_long_as_it_must_and_may_be(found: dict[str, int], context: int, longest: int, tokens: int,
                                                   word: str) -> None:
    length, untried = context_limits.plan(found, context, longest)
    assert length == tokens and word in untried and bool(untried) == bool(word)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.decoder(tmp_path_factory.mktemp("gemma") / "hf", "gemma3_text", sliding_window=64, layer_types=[
        "sliding_attention", "full_attention", "sliding_attention"], query_pre_attn_scalar=16)


@pytest.mark.parametrize(("type_name", "most"), [("F32", 1e-5), ("Q8_0", 0.01)])
@pytest.mark.parametrize("window", [64, 48, 200])
def test_a_wrong_window_is_caught_where_no_row_is_as_long(window: int, type_name: str, most: float, source: Path,
                                                          tmp_path: Path) -> None:
    asked = [np.random.default_rng(seed).integers(5, 380, 40).tolist() for seed in range(6)]
    known = reference.make(FloatModel.from_folder(source), ["light"], [(ids, ()) for ids in asked], None, {}, "")
    known.write(tmp_path)
    stored = reference.read(tmp_path)
    assert stored.fixtures.borders == {"window": 64}
    assert [len(ids) for ids in stored.beyond_ids] == [192] and len(stored.beyond_tails[0]) == context_limits.POSITIONS
    folder = source.with_name(f"window-{window}")
    if not folder.exists():
        shutil.copytree(source, folder)
    proving.edit_json(folder / "config.json", lambda table: table.update(sliding_window=window))
    path = gguf_files.write(folder, tmp_path / "packed", type_name)
    manifest = Manifest("export", Task(), "gemma3", f"gguf:{type_name}", path.name, {"context": 256})
    with Subject(Artifact(path.parent, manifest), stored, tokenizer_folder=source) as subject:
        (found,) = check_beyond.check(subject)
        assert subject.prefill.mean < most  # nothing of the kind shows in rows
    assert found.passed is (window == 64) and found.n == context_limits.POSITIONS
    assert window == 64 or ("window 64" in found.detail and found.value > 0.01)


def test_what_is_too_long_to_try_is_said() -> None:
    fixtures = SimpleNamespace(borders={"window": 32768})
    subject: Any = SimpleNamespace(reference=SimpleNamespace(fixtures=fixtures, beyond_ids=[]),
                                   artifact=SimpleNamespace(manifest=SimpleNamespace(dimensions={"context": 131072})))
    (found,) = check_beyond.check(subject)
    assert found.passed is None and "8,448 are the most" in found.detail
    fixtures.borders = {}
    assert check_beyond.check(subject) == []


def test_a_file_that_ends_at_its_window_is_not_read_beyond(tmp_path: Path) -> None:
    source = tiny.decoder(tmp_path / "hf", "mistral", sliding_window=64)
    ids = list(range(5, 45))
    known = reference.make(FloatModel.from_folder(source), ["light"], [(ids, ())], None, {}, "")
    path = gguf_files.write(source, tmp_path / "packed")
    manifest = Manifest("export", Task(), "mistral", "gguf:F32", path.name, {"context": 256})
    with Subject(Artifact(path.parent, manifest), known, tokenizer_folder=source) as subject:
        (found,) = check_beyond.check(subject)
    assert found.passed is None and "ends at 64 tokens" in found.detail


class Elsewhere(torch.nn.Module):
    """A decoder on another device, whose numbers numpy cannot read before they are copied."""

    class Numbers(torch.Tensor):
        def numpy(self, **_: Any) -> Any:
            raise TypeError("copy it to host memory first")

        def cpu(self, **_: Any) -> torch.Tensor:
            return self.as_subclass(torch.Tensor)

    def __init__(self) -> None:
        super().__init__()
        self.config, self.weight = SimpleNamespace(), torch.nn.Parameter(torch.zeros(1, device="meta"))

    def forward(self, input_ids: Any, use_cache: bool, logits_to_keep: int) -> Any:
        assert input_ids.device == self.weight.device and input_ids.shape == (1, 4) and logits_to_keep == 2
        return SimpleNamespace(logits=torch.arange(12.0).reshape(1, 2, 6).as_subclass(Elsewhere.Numbers))


def test_the_last_logits_come_from_where_the_model_computes(source: Path) -> None:
    found = FloatModel(source, Elsewhere()).last_logits([5, 6, 7, 8], 2)
    assert found.tolist() == np.arange(12.0).reshape(2, 6).tolist()
    model = FloatModel.from_folder(source)
    assert np.allclose(model.last_logits([5, 6, 7, 8], 2), model.logits([5, 6, 7, 8])[-2:], atol=1e-5)
