"""A teacher of any kind and its own copy with fewer tokens say the same, of every place that is learned from."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edgestill.distill import alignment, prepare_student
from edgestill.distill.loading import load_model
from edgestill.distill.sources import resolve
from edgestill.distill.teachers import _classifier, _decoder, local
from edgestill.distill.teachers._base import Teacher
from edgestill.distill.teachers._cache import Cache, CachedTeacher, about
from edgestill.distill.teachers._shards import Shards
from edgestill.distill.teachers.gguf import GgufTeacher
from edgestill.distill.training import machine
from edgestill.distill.training.fill import fill
from edgestill.distill.training.job import Bench, Job
from edgestill.distill.training.training_log import Progress
from edgestill.distill.training.weighted_losses import WeightedLosses, read_losses
from edgestill.distill.verbs import read_run
from edgestill.models import kinds
from edgestill.models.runfile import Distill
from edgestill.runtime.text.codec import Codec
from safetensors.numpy import load_file, save_file

from .. import packed, proving, tiny
from ..runtime.test_rows import jsonl

LOSSES = ({"kind": "forward_kl"},)
TABLES: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
    "local": lambda model, folder: {"model": str(model)},
    "gguf": lambda model, folder: {"model": str(packed.pack(model, folder / "gguf", "gguf:F32"))},
    "cached": lambda model, folder: {"folder": "kept"},
}
"""The [teacher] table by kind, for a Hugging Face folder: a kind that is not here is not tested."""
TASKS_OF: dict[str, tuple[str, ...]] = {"gguf": ("generate",), "cached": ("generate",), "api": ()}
"""Where a kind does not teach every task; one whose word stands in the rows gives no signal."""
Losses = tuple[str, str, Callable[[], dict[str, float]]]


def chats(folder: Path, tiny_llama: Path, tiny_bert: Path) -> tuple[list[dict[str, Any]], Path]:
    """Chats of several turns, of which every answer is learned."""
    turns = [{"role": role, "content": f"{role} {number} light"} for number in range(2)
             for role in ("user", "assistant")]
    rows = [{"messages": [{"role": "user", "content": f"row {row}"}, turns[1], *turns]} for row in range(6)]
    return rows, tiny_llama


def texts(folder: Path, tiny_llama: Path, tiny_bert: Path) -> tuple[list[dict[str, Any]], Path]:
    """Texts and a teacher whose labels stand in another order than the student's."""
    rows = [{"text": text, "label": tiny.LABELS[place % 3]} for place, text in enumerate(tiny.SENTENCES[:9])]
    shutil.copytree(tiny_bert, folder / "turned")
    order = [2, 0, 1]
    weights = load_file(tiny_bert / "model.safetensors")
    save_file({name: value[order] if name.startswith("classifier.") else value for name, value in weights.items()},
              folder / "turned" / "model.safetensors", {"format": "pt"})
    names = [tiny.LABELS[place] for place in order]
    proving.edit_json(folder / "turned" / "config.json", lambda table: table.update(
        id2label=dict(enumerate(names)), label2id={name: place for place, name in enumerate(names)}))
    return rows, folder / "turned"


TASKS = {"generate": chats, "classify": texts}


@pytest.fixture(scope="module", params=[(kind, task) for kind in kinds.names("distill.teachers")
                                         for task in TASKS_OF.get(kind, TASKS)],
                ids="-".join)
def losses(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path,
           tiny_bert: Path) -> Losses:
    """The kind, the task, and the loss at step 0 on rows that are asked about once and on those that come again."""
    kind, task = request.param
    folder = tmp_path_factory.mktemp("trimmed")
    rows, model = TASKS[task](folder, tiny_llama, tiny_bert)
    start = tiny_llama if task == "generate" else tiny_bert
    jsonl(folder / "rows.jsonl", rows)
    (folder / "run.toml").write_text(
        f"task.kind = '{task}'\n[data]\ntrain = 'rows.jsonl'\nvalidation = 'rows.jsonl'\ntest_share = 0\n"
        f"[student]\nmodel = '{start}'\nvocabulary = 'trim'\n")
    student = prepare_student(folder / "run.toml", folder / "student")
    run, _, splits = read_run(folder / "run.toml", (), None, folder / "out")
    codec = Codec.from_folder(student, run.task)
    assert codec.vocabulary_size < Codec.from_folder(start).vocabulary_size
    module = kinds.load("distill.teachers", kind)
    config = module.Config(**TABLES[kind](model, folder))
    settings = Distill(epochs=1.0, batch_size=4, micro_batch_tokens=128)
    device = machine.device()

    def kept() -> None:
        """A cache of what a local teacher says, made anew."""
        shutil.rmtree(folder / "kept", ignore_errors=True)
        said = local.open(local.Config(str(model)), folder, device)
        teacher = CachedTeacher(folder / "kept", about(said, "key", Cache()), said)
        fill(Job("distill", run, folder, splits, resolve(str(student)), settings, LOSSES, teacher), folder / "out")

    def measure() -> dict[str, float]:
        if kind == "cached":
            kept()
        teacher: Teacher = module.open(config, folder, device)
        job = Job("distill", run, folder, splits, resolve(str(student)), settings, LOSSES, teacher)
        bench = Bench(job, folder / "out", folder / "work", device, "fp32", {}, "", Progress("test"))
        schedules = bench.schedules(codec, bench.read_tokens(codec))
        learner = load_model(student, run.task).to(device).eval()
        with torch.no_grad():
            terms = WeightedLosses(read_losses(LOSSES), learner, teacher)
            made = bench.objectives(learner, terms, codec, schedules)
            return {name: sum(float(made[name](batch)) for batch in schedules[name].all())
                    / sum(batch.count for batch in schedules[name].all()) for name in schedules}

    return kind, task, measure


def test_a_copy_with_fewer_tokens_has_nothing_to_learn(losses: Losses) -> None:
    found = losses[2]()
    assert len(found) == 2 and max(map(abs, found.values())) < 1e-5


def early(function: Callable[..., torch.Tensor], dimension: int) -> Callable[..., torch.Tensor]:
    """The same, each place read one early."""
    return lambda *given: function(*given).roll(1, dims=dimension)


def same_numbers(student: Any, teacher: Any) -> list[int]:
    """The student's numbers, taken for the teacher's."""
    return list(range(len(student) if isinstance(student, list) else student.vocabulary_size))


FAULTS: dict[tuple[str, str], tuple[Any, str, Any]] = {
    ("local", "generate"): (_decoder, "hidden_states", early(_decoder.hidden_states, 1)),
    ("local", "classify"): (_classifier, "class_logits", early(_classifier.class_logits, 0)),
    ("gguf", "generate"): (GgufTeacher, "_logits", early(GgufTeacher._logits, 0)),
    ("cached", "generate"): (Shards, "places", lambda shards, rows: np.roll(places(shards, rows), 1)),
}
places = Shards.places
MAPS = {"generate": "of_tokens", "classify": "of_labels"}


@pytest.mark.parametrize("fault", ["one position early", "numbers ignored"])
def test_a_planted_fault_is_much_to_learn(losses: Losses, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, task, measure = losses
    monkeypatch.setattr(*(FAULTS[kind, task] if fault == "one position early" else
                          (alignment, MAPS[task], same_numbers)))
    assert min(measure().values()) > 0.01
