"""llama.cpp as a teacher: the same bits in whatever order it is asked, and a next step where it cannot teach."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edgestill.distill.data.batches import Schedule, next_tokens
from edgestill.distill.data.token_sets import token_set
from edgestill.distill.teachers import gguf
from edgestill.distill.teachers._base import Wants
from edgestill.models.errors import ArtifactError, UsageError
from edgestill.models.task import Task
from edgestill.runtime.data.learned_tokens import Learned
from edgestill.runtime.engines._gguf_engine import GgufEngine
from edgestill.runtime.files import limited_process
from edgestill.runtime.text.codec import Codec

WANTS = Wants(frozenset({"logits"}), Task(), "fp32", True)


@pytest.fixture(scope="module")
def codec(tiny_llama: Path) -> Codec:
    return Codec.from_folder(tiny_llama)


@pytest.fixture(scope="module")
def batches(codec: Codec) -> Schedule:
    """Rows that begin alike, of more than a block; of some, two parts are learned."""
    random = np.random.default_rng(0)
    start, ends = (random.integers(5, codec.vocabulary_size, size).tolist() for size in (70, 160))
    rows = [Learned(start + ends[place:place + 90], [(75, 80), (100, 110 + 12 * place)]) for place in range(4)]
    return Schedule(token_set(rows, [0] * 4, range(4)), 2, 400, 0, next_tokens)


@pytest.fixture(scope="module")
def teacher(packed_llama: dict[str, Path], batches: Schedule, codec: Codec) -> Iterator[gguf.GgufTeacher]:
    found = gguf.open(gguf.Config(str(packed_llama["gguf"])), Path(), "cpu")
    found.prepare(batches, codec, WANTS, Path())
    yield found
    found._model.close()


def test_what_it_says_of_a_row_depends_on_nothing_else(teacher: gguf.GgufTeacher, batches: Schedule) -> None:
    def said(order: int, size: int) -> dict[int, torch.Tensor]:
        found = {}
        for batch in [*batches.all()][::order]:
            signal = teacher.signal(batch, WANTS)
            parts = [signal[start:start + size].logits for start in range(0, batch.count, size)]
            assert all(part.shape[0] <= size for part in parts)
            found.update(zip(batch.rows, torch.cat(parts).split(batch.counts), strict=True))
        return found

    first = said(1, 1000)
    for other in (said(1, 7), said(-1, 13)):
        assert all(torch.equal(first[row], other[row]) for row in first)
    ids = batches.tokens.row(3).tolist()
    whole = teacher._model.engine.logits(ids)[np.flatnonzero(batches.tokens.learned[-len(ids):]) - 1]
    torch.testing.assert_close(first[3], torch.from_numpy(whole), atol=1e-4, rtol=1e-4)


def test_what_rows_have_in_common_is_read_once(teacher: gguf.GgufTeacher, batches: Schedule,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    prefill = GgufEngine.prefill
    monkeypatch.setattr(GgufEngine, "prefill", lambda self, ids: read.append(len(ids)) or prefill(self, ids))
    teacher._model.engine.truncate(0)
    for batch in batches.all():
        teacher.signal(batch, WANTS).logits  # noqa: B018 - reads it
    assert [count for count in read if count != 20] == [74, *[74 - 64] * 3]  # and what is not learned between parts


def test_a_file_made_elsewhere_is_tried_in_a_limited_process_once(
        packed_llama: dict[str, Path], tmp_path: Path, batches: Schedule, codec: Codec,
        monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.gguf"
    shutil.copyfile(packed_llama["gguf"] / "model.gguf", path)
    teacher = gguf.open(gguf.Config(path.name), tmp_path, "cpu")
    tried: list[Any] = []
    monkeypatch.setattr(limited_process, "run", lambda *job: tried.append(job) or limited_process.Outcome([]))
    teacher.prepare(batches, codec, WANTS, tmp_path)
    teacher.prepare(batches, codec, WANTS, tmp_path)
    teacher._model.close()
    assert len(tried) == 1 and tried[0][1] == {"path": str(path)}
    assert teacher.parents[-1]["name"] == "model.gguf" and len(teacher.parents[-1]["sha256"]) == 64
    before = gguf.key(gguf.Config(path.name), tmp_path)
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    assert gguf.key(gguf.Config(path.name), tmp_path) != before
    monkeypatch.setattr(limited_process, "run", lambda *job: limited_process.Outcome([], "the engine crashed"))
    with pytest.raises(ArtifactError, match="the engine crashed"):
        gguf.open(gguf.Config(path.name), tmp_path, "cpu").prepare(batches, codec, WANTS, tmp_path)


def test_where_it_cannot_teach_it_says_so(packed_llama: dict[str, Path], tmp_path: Path, batches: Schedule,
                                          codec: Codec, tiny_llama: Path) -> None:
    for folder in (packed_llama["onnx"], tiny_llama):
        with pytest.raises(UsageError, match="which is no decoder in a GGUF file"):
            gguf.open(gguf.Config(str(folder)), Path(), "cpu")
    with pytest.raises(ArtifactError, match="no such file"):
        gguf.key(gguf.Config("nowhere.gguf"), tmp_path)
    teacher = gguf.open(gguf.Config(str(packed_llama["gguf"])), Path(), "cpu")
    with pytest.raises(UsageError, match="gguf is for decoders, and task.kind is 'classify'"):
        teacher.prepare(batches, codec, Wants(WANTS.parts, Task("classify"), "fp32", True), tmp_path)
    long = Schedule(token_set([Learned([5] * 257, [(1, 257)])], [0], [0]), 1, 400, 0, next_tokens)
    with pytest.raises(UsageError, match="reads 256 tokens, and a row has 257"):
        teacher.prepare(long, codec, WANTS, tmp_path)


def test_its_float_model_is_what_a_student_is_cut_from(packed_llama: dict[str, Path]) -> None:
    with pytest.raises(ArtifactError, match="packed as gguf:F32"):
        gguf.source(gguf.Config(str(packed_llama["gguf"])), Path())
