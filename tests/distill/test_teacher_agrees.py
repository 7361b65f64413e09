"""A teacher and its own copy with fewer tokens say the same: of every position that is learned, in the copy's ids."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from edgestill.distill import prepare_student
from edgestill.distill.batches import Schedule, tokenize
from edgestill.distill.job import Job, text_objectives
from edgestill.distill.loading import load_model
from edgestill.distill.sources import resolve
from edgestill.distill.training_log import Progress
from edgestill.distill.weighted_losses import WeightedLosses, read_losses
from edgestill.models.runfile import Distill, RunFile, read
from edgestill.runtime.data.reader import load_splits
from edgestill.runtime.text.codec import Codec

from ..runtime.test_rows import jsonl

LOSSES = ({"kind": "forward_kl"},)


@pytest.fixture(scope="module")
def losses(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Callable[..., tuple[float, float]]:
    """Loss at step 0 on rows asked for the first time, and on those whose hidden states were kept."""
    folder = tmp_path_factory.mktemp("trimmed")
    turns = [{"role": role, "content": f"{role} {number} light"} for number in range(2)
             for role in ("user", "assistant")]
    jsonl(folder / "rows.jsonl", [{"messages": [{"role": "user", "content": f"row {row}"}, turns[1], *turns]}
                                  for row in range(6)])
    (folder / "run.toml").write_text(
        f"[data]\ntrain = 'rows.jsonl'\nvalidation = 'rows.jsonl'\ntest_share = 0\n"
        f"[student]\nmodel = '{tiny_llama}'\nvocabulary = 'trim'\n[teacher]\nkind = 'local'\nmodel = '{tiny_llama}'\n")
    run: RunFile = read(folder / "run.toml")
    splits = load_splits(run.data, folder)
    student = prepare_student(run, folder / "student", base=folder)
    codec = Codec.from_folder(student)
    assert codec.vocabulary_size < Codec.from_folder(tiny_llama).vocabulary_size
    tokens = tokenize(splits["train"], codec, 512)
    assert len(tokens) == 6 and (torch.tensor(tokens.learned).sum() > 6 * 3)
    schedules = {name: Schedule(tokens, 4, 128, 0, False, pad_id=codec.pad_id or 0) for name in ("train", "validation")}
    source = resolve(str(tiny_llama))
    job = Job("distill", run, folder, splits, resolve(str(student)), Distill(epochs=1.0), LOSSES, source)
    model = load_model(student, run.task).eval()

    def measure() -> tuple[float, float]:
        with torch.no_grad():
            terms = WeightedLosses(read_losses(LOSSES), model, source)
            made = text_objectives(job, model, terms, source, codec, schedules, "fp32", Progress("test"))
            teacher: Any = made["train"]
            assert not teacher.teacher.kept
            return tuple(sum(float(made[name](batch)) for batch in schedules[name].all())
                         / sum(batch.count for batch in schedules[name].all()) for name in ("train", "validation"))

    return measure


def test_a_copy_with_fewer_tokens_has_nothing_to_learn(losses: Callable[..., tuple[float, float]]) -> None:
    assert max(map(abs, losses())) < 1e-5


def test_another_place_or_another_numbering_is_much_to_learn(losses: Callable[..., tuple[float, float]],
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test above would see: a teacher read one position early, and one that is not told whose ids it reads."""
    from edgestill.distill import job as training
    from edgestill.distill import objectives

    read_at = objectives.hidden_states

    def early(model: Any, ids: Any) -> Any:
        found = read_at(model, ids)
        return found if model.config.vocab_size < 350 else found.roll(1, dims=1)

    with monkeypatch.context() as patched:
        patched.setattr(objectives, "hidden_states", early)
        assert min(losses()) > 0.1
    monkeypatch.setattr(training, "token_map", lambda ours, theirs: None)
    assert min(losses()) > 0.1
