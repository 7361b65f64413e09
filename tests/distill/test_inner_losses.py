"""Losses that look inside of both models: hidden states and attention, layer by layer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from edgestill.distill import distill, heads
from edgestill.distill.data.batches import Batch, Schedule, next_tokens
from edgestill.distill.loading import load_model
from edgestill.distill.signals import ATTENTION, HIDDEN, Signal
from edgestill.distill.tasks.generate import TextObjective
from edgestill.distill.teachers import _decoder, local
from edgestill.distill.teachers._base import Wants
from edgestill.distill.training.token_cache import tokenize
from edgestill.distill.training.weighted_losses import WeightedLosses, read_losses
from edgestill.models.errors import UsageError
from edgestill.models.task import Task
from edgestill.runtime.text.codec import Codec
from safetensors.torch import load_file

from .. import tiny
from ..runtime.test_rows import jsonl
from .test_batches import ROWS

LAYERS = [[1, 2], [-1, -1]]


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher of the same tokens with wider layers, more heads and more of them."""
    return tiny.decoder(tmp_path_factory.mktemp("wide"), "llama", seed=7, hidden_size=96, num_attention_heads=6,
                        num_key_value_heads=2, intermediate_size=96, num_hidden_layers=4)


@pytest.fixture(scope="module")
def schedule(tiny_llama: Path) -> Schedule:
    codec = Codec.from_folder(tiny_llama)
    return Schedule(tokenize(ROWS[:6], codec, Task(), 256), 8, 10**5, 0, next_tokens, pad_id=codec.pad_id or 0)


def objective(student: Any, teacher: Path, schedule: Schedule, folder: Path, *tables: dict[str, Any]) -> TextObjective:
    taught = local.open(local.Config(str(teacher)), folder, "cpu")
    losses = WeightedLosses(read_losses(tables), student, taught)
    wants = Wants(losses.needs, Task(), "fp32", False, losses.asks)
    taught.prepare(schedule, Codec.from_folder(teacher), wants, folder)
    made = TextObjective(student, losses, lambda batch: taught.signal(batch, wants))
    made.losses = losses
    return made


def value(made: TextObjective, batch: Batch) -> float:
    with torch.no_grad():
        return float(made(batch)) / batch.count


@pytest.mark.parametrize("kind", ["hidden", "attention"])
def test_a_copy_has_nothing_to_learn_and_one_that_is_read_early_has(kind: str, tiny_llama: Path, schedule: Schedule,
                                                                    tmp_path: Path,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    student = load_model(tiny_llama, Task()).eval()
    made = objective(student, tiny_llama, schedule, tmp_path, {"kind": kind, "layers": [[1, 1], [-1, -1]]})
    (batch,) = schedule.all()
    assert abs(value(made, batch)) < 1e-6
    inner = _decoder.inner_states
    monkeypatch.setattr(_decoder, "inner_states", lambda *given: (
        inner(*given)[0], {what: state.roll(1, dims=1) for what, state in inner(*given)[1].items()}))
    assert value(made, batch) > 0.01


@pytest.mark.parametrize("kind", ["hidden", "attention"])
def test_the_value_is_that_of_what_the_models_themselves_give(kind: str, tiny_llama: Path, wide: Path,
                                                              schedule: Schedule, tmp_path: Path) -> None:
    student = load_model(tiny_llama, Task()).eval()
    made = objective(student, wide, schedule, tmp_path, {"kind": kind, "layers": LAYERS})
    (batch,) = schedule.all()
    models = student, load_model(wide, Task()).eval()
    for model in models:
        model.set_attn_implementation("eager")
    with torch.no_grad():
        ours, theirs = (model(input_ids=batch.ids, output_hidden_states=True, output_attentions=True)
                        for model in models)
    maps = [*made.losses.parameters.values()] or [None, None]
    total = 0.0
    for (our, their), learned in zip([(1, 2), (len(ours.hidden_states) - 1, 4)], maps, strict=True):
        if kind == "hidden":
            states = ours.hidden_states[our].flatten(0, 1)[batch.positions].double().numpy()
            wanted = theirs.hidden_states[their].flatten(0, 1)[batch.positions].double().numpy()
            states = states @ learned.detach().double().numpy().T
            cosine = (states * wanted).sum(-1) / np.linalg.norm(states, axis=-1) / np.linalg.norm(wanted, axis=-1)
            total += float((1 - cosine).mean())
        else:
            q, p = (found.attentions[layer - 1].double().mean(1).flatten(0, 1)[batch.positions].numpy()
                    for found, layer in ((ours, our), (theirs, their)))
            total += float(np.where(p > 0, p * np.log(np.where(p > 0, p, 1) / np.where(q > 0, q, 1)), 0).sum(-1).mean())
    assert value(made, batch) == pytest.approx(total / 2, rel=1e-4)


@pytest.mark.parametrize("kind", ["hidden", "attention"])
def test_padding_cannot_matter_and_gradients_are_right(kind: str, tiny_llama: Path, wide: Path, schedule: Schedule,
                                                       tmp_path: Path) -> None:
    student = load_model(tiny_llama, Task()).eval()
    made = objective(student, wide, schedule, tmp_path, {"kind": kind, "layers": LAYERS})
    (batch,) = schedule.all()
    alone = Schedule(schedule.tokens, 1, 1, 0, next_tokens)
    with torch.no_grad():
        whole = float(made(batch))
        assert batch.mask is not None and sum(float(made(row)) for row in alone.all()) == pytest.approx(whole, rel=1e-4)
    weight = student.model.layers[0].mlp.down_proj.weight
    made(batch).backward()
    step = weight.grad / weight.grad.norm() * 1e-2
    with torch.no_grad():
        weight += step
        above = float(made(batch))
        weight -= 2 * step
        below = float(made(batch))
    assert above - below == pytest.approx(2e-2 * float(weight.grad.norm()), rel=0.05)


def test_they_are_trained_beside_logits_and_ship_as_the_student_alone(tiny_llama: Path, wide: Path,
                                                                      tmp_path: Path) -> None:
    rows = [{"prompt": f"turn on the light {index}", "completion": "on"} for index in range(16)]
    jsonl(tmp_path / "rows.jsonl", rows)
    (tmp_path / "run.toml").write_text(
        f"data.train = 'rows.jsonl'\nstudent.model = '{tiny_llama}'\nteacher = {{ kind = 'local', model = '{wide}' }}\n"
        "[distill]\nsteps = 12\nbatch_size = 8\nlearning_rate = 1e-2\nlosses = [{ kind = 'forward_kl' }, "
        f"{{ kind = 'hidden', layers = {LAYERS} }}, {{ kind = 'attention', weight = 0.5 }}]\n")
    out = distill(tmp_path / "run.toml", tmp_path / "out")
    curve = [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()
             if '"loss"' in line]
    assert curve[-1] < 0.7 * curve[0]
    assert load_file(out / "model.safetensors").keys() == load_file(tiny_llama / "model.safetensors").keys()
    config = json.loads((out / "config.json").read_text())
    assert not any("attn_implementation" in name for name in config)


@pytest.mark.parametrize(("table", "why"), [
    ({"kind": "hidden", "layers": [[9, 1]]}, "the student has no layer 9"),
    ({"kind": "hidden", "layers": [[0, -6]]}, "the teacher has no layer -6: it has 4"),
    ({"kind": "attention", "layers": [[0, 1]]}, "the student has no layer 0"),
    ({"kind": "attention", "layers": []}, "no pair of layers is given"),
    ({"kind": "attention", "layers": [[1]]}, "is not one layer of the student and one of the teacher"),
])
def test_layers_that_are_not_there_are_refused(table: dict[str, Any], why: str, tiny_llama: Path, wide: Path) -> None:
    teacher: Any = local.open(local.Config(str(wide)), Path(), "cpu")
    with pytest.raises(UsageError, match=why):
        WeightedLosses(read_losses([table]), load_model(tiny_llama, Task()), teacher)


def test_what_has_no_inside_is_refused_by_name(tiny_bert: Path, schedule: Schedule, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="hidden needs hidden of the teacher, which provides logits"):
        WeightedLosses(read_losses([{"kind": "hidden"}]), None, SimpleNamespace(provides={"logits"}))  # type: ignore
    taught = local.open(local.Config(str(tiny_bert)), tmp_path, "cpu")
    wants = Wants(frozenset({HIDDEN}), Task("classify", labels=list(tiny.LABELS)), "fp32", False,
                  frozenset({(HIDDEN, 1)}))
    with pytest.raises(UsageError, match="hidden: classifiers are compared by what they say of whole rows"):
        taught.prepare(schedule, Codec.from_folder(tiny_bert), wants, tmp_path)


def test_attention_of_a_model_that_has_it_in_some_layers_is_refused() -> None:
    states = torch.zeros(1, 2, 4)
    config = SimpleNamespace(num_hidden_layers=3)
    config.get_text_config = lambda: config
    base: Callable[..., Any] = lambda **given: SimpleNamespace(  # noqa: E731
        last_hidden_state=states, hidden_states=(states,) * 4, attentions=(torch.zeros(1, 2, 2, 2),))
    with pytest.raises(UsageError, match="1 layers of SimpleNamespace have one"):
        heads.inner_states(SimpleNamespace(config=config, base_model=base), torch.zeros(1, 2), {(ATTENTION, 1)})


def test_a_part_of_a_signal_has_its_inside() -> None:
    whole = Signal(torch.zeros(5, 2), inside={(HIDDEN, 1): torch.arange(10.0).reshape(5, 2)})
    assert whole[1:3].inside[HIDDEN, 1].tolist() == [[2.0, 3.0], [4.0, 5.0]]
