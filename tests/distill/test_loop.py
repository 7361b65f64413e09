"""The loop: schedule, keep-best, early stopping, and what happens when a number is no longer finite."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from edgestill.distill.data.batches import Batch, Schedule, whole_rows
from edgestill.distill.tasks import _temperature as temperature
from edgestill.distill.training import loop, machine
from edgestill.distill.training.checkpoint import Store
from edgestill.distill.training.training_log import METRICS, Metrics, Progress, watchers_of
from edgestill.models.errors import TrainingError, UsageError
from edgestill.models.runfile import Training

from .test_batches import token_set

SETTINGS = Training(epochs=2, batch_size=4, learning_rate=0.05, weight_decay=0.0, evaluate_every=2,
                    checkpoint_seconds=0.0)


class Line(torch.nn.Module):
    """A model of one layer, with dropout so that random numbers matter."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.layer = torch.nn.Linear(8, 1)
        self.dropout = torch.nn.Dropout(0.5)


def objective(model: Line) -> Callable[[Batch], torch.Tensor]:
    def loss(batch: Batch) -> torch.Tensor:
        inputs = (batch.ids[:, :1] * torch.arange(1, 9) % 7).float()
        result: torch.Tensor = (model.dropout(model.layer(inputs)) - 1.0).square().sum()
        return result

    return loss


def schedule() -> Schedule:
    return Schedule(token_set([3 + index % 5 for index in range(24)]), 4, 4096, 0, whole_rows)


def run(work: Path, settings: Training = SETTINGS, validate: loop.Validate | None = None, model: Line | None = None,
        loss: Any = None, description: dict[str, Any] | None = None) -> tuple[loop.Outcome, Line]:
    model = model or Line()
    outcome = loop.train(model, loss or objective(model), schedule(), validate, settings, work, description or {"a": 1},
                         Progress("test"))
    return outcome, model


def test_the_learning_rate_rises_and_falls_as_said() -> None:
    settings = replace(SETTINGS, learning_rate=1.0, warmup=0.1, final_learning_rate=0.2)
    rates = [loop.learning_rate(settings, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == rates[10] == 1.0
    assert rates[-1] == pytest.approx(0.2) and rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[10 + 89 // 2] == pytest.approx(0.6, abs=0.02)
    assert loop.learning_rate(replace(settings, warmup=0.0), 0, 1) == 1.0


def test_steps_come_from_epochs_or_from_the_run_file() -> None:
    assert loop.total_steps(SETTINGS, 6) == 12
    assert loop.total_steps(replace(SETTINGS, epochs=0.01), 6) == 1
    assert loop.total_steps(replace(SETTINGS, steps=5), 6) == 5
    assert loop.total_steps(replace(SETTINGS, epochs=0.0), 6) == 0


def test_training_learns_and_writes_down_what_it_did(tmp_path: Path) -> None:
    outcome, model = run(tmp_path, replace(SETTINGS, epochs=20))
    records = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    assert [record["step"] for record in records] == list(range(1, 121))
    assert records[-1]["loss"] < records[0]["loss"]
    assert {"learning_rate", "gradient_norm", "tokens", "tokens_per_s"} <= set(records[0])
    assert outcome.tokens == sum(record["tokens"] for record in records) == 20 * int(schedule().tokens.lengths.sum())
    assert outcome.best_step == -1 and outcome.validation == {} and not model.training


def test_matrices_are_decayed_and_biases_are_not(tmp_path: Path) -> None:
    model, settings = Line(), replace(SETTINGS, steps=1, warmup=0.0, weight_decay=0.5)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    run(tmp_path, settings, model=model, loss=lambda batch: 0.0 * (model.layer.weight.sum() + model.layer.bias.sum()))
    torch.testing.assert_close(model.layer.weight.detach(), before["layer.weight"] * (1 - 0.05 * 0.5))
    torch.testing.assert_close(model.layer.bias.detach(), before["layer.bias"])


def test_accumulation_gives_the_gradient_of_the_whole_batch(tmp_path: Path) -> None:
    weights = []
    for name, tokens in (("one", 4096), ("many", 5)):
        model = Line()
        model.dropout.p = 0.0
        parts = Schedule(schedule().tokens, 4, tokens, 0, whole_rows)
        assert (len(parts.step(0)) > 1) == (name == "many")
        loop.train(model, objective(model), parts, None, SETTINGS, tmp_path / name, {}, Progress("test"))
        weights.append(model.layer.weight.detach())
    torch.testing.assert_close(weights[0], weights[1])


def scripted(losses: list[float]) -> loop.Validate:
    values: Iterator[float] = iter(losses)
    return lambda: {"loss": next(values), "accuracy": 0.5}


def test_the_best_weights_are_kept(tmp_path: Path) -> None:
    snapshots: list[torch.Tensor] = []
    model = Line()
    losses = scripted([3.0, 1.0, 2.0, 5.0, 4.0, 6.0])

    def validate() -> dict[str, float]:
        snapshots.append(model.layer.weight.detach().clone())
        return losses()

    outcome, model = run(tmp_path, validate=validate, model=model)
    assert (outcome.best_step, outcome.validation) == (4, {"loss": 1.0, "accuracy": 0.5})
    assert torch.equal(model.layer.weight, snapshots[1])


def test_patience_stops_early(tmp_path: Path) -> None:
    outcome, _ = run(tmp_path, replace(SETTINGS, patience=2), scripted([3.0, 1.0, 2.0, 1.5, 0.0]))
    assert (outcome.steps, outcome.best_step, outcome.stopped_early) == (8, 4, True)
    again, _ = run(tmp_path, replace(SETTINGS, patience=2), scripted([]))
    assert (again.steps, again.best_step) == (8, 4), "a finished run is only read back"


@pytest.mark.parametrize("planted", [math.nan, math.inf])
def test_the_first_loss_that_is_not_finite_stops_the_run_and_keeps_the_state_before_it(
        tmp_path: Path, planted: float) -> None:
    model = Line()
    good = objective(model)
    calls = []

    def loss(batch: Batch) -> torch.Tensor:
        calls.append(1)
        return good(batch) * (planted if len(calls) == 4 else 1.0)

    with pytest.raises(TrainingError, match="step 4: the loss is (nan|inf).*rows"):
        run(tmp_path, replace(SETTINGS, checkpoint_seconds=1000.0), model=model, loss=loss)
    found = Store(tmp_path, print).load()
    assert found is not None and found[0].step == 3
    torch.testing.assert_close(found[1]["layer.weight"], model.layer.weight.detach())


def test_a_loss_that_is_not_finite_names_the_rows_of_its_pass(tmp_path: Path) -> None:
    model, calls = Line(), []
    good, passes = objective(model), Schedule(token_set([3] * 8), 4, 6, 0, whole_rows)
    first, second = passes.step(0)

    def loss(batch: Batch) -> torch.Tensor:
        calls.append(batch.rows)
        return good(batch) * (math.nan if batch.rows == second.rows else 1.0)

    with pytest.raises(TrainingError, match=f"rows {', '.join(map(str, second.rows))}\\)"):
        loop.train(model, loss, passes, None, SETTINGS, tmp_path, {"a": 1}, Progress("test"))
    assert calls == [first.rows, second.rows]


def test_a_gradient_that_is_not_finite_stops_the_run_before_it_is_used(tmp_path: Path) -> None:
    model = Line()
    good = objective(model)

    def loss(batch: Batch) -> torch.Tensor:
        # Its value is 0, its slope infinite.
        return good(batch) + (model.layer.weight - model.layer.weight.detach()).square().sum().sqrt()

    with pytest.raises(TrainingError, match="gradient"):
        run(tmp_path, model=model, loss=loss)
    assert torch.equal(model.layer.weight, Line().layer.weight)


def test_a_validation_loss_that_is_not_finite_is_never_the_best(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="validation loss is nan"):
        run(tmp_path, validate=scripted([2.0, math.nan]))


def test_work_of_another_run_is_refused_with_what_differs(tmp_path: Path) -> None:
    run(tmp_path, description={"seed": 0, "data": "abc"})
    with pytest.raises(UsageError, match=r"seed: 0 → 1"):
        run(tmp_path, description={"seed": 1, "data": "abc"})


def test_another_number_of_threads_is_noted_and_goes_on(tmp_path: Path) -> None:
    model = Line()
    for threads in (1, 2, 2):
        outcome = loop.train(model, objective(model), schedule(), None, SETTINGS, tmp_path, {"threads": threads},
                             Progress("test"), ("threads",))
    assert outcome.changed == ["threads: 1 → 2"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_and_leaves_a_checkpoint(tmp_path: Path, number: signal.Signals) -> None:
    model = Line()
    good = objective(model)
    calls = []

    def loss(batch: Batch) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), number)
        return good(batch)

    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, replace(SETTINGS, checkpoint_seconds=1000.0), model=model, loss=loss)
    found = Store(tmp_path, print).load()
    assert found is not None and found[0].step == 3
    assert signal.getsignal(number) == before
    resumed, continued = run(tmp_path)
    _, undisturbed = run(tmp_path / "other")
    assert torch.equal(continued.layer.weight, undisturbed.layer.weight) and resumed.steps == 12


def test_records_of_a_lost_attempt_go(tmp_path: Path) -> None:
    path = tmp_path / METRICS
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n{"step": 3, "lo')
    metrics = Metrics(tmp_path, 1)
    metrics.write(2, loss=1.5)
    metrics.close()
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert records == [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5}]


def test_tensorboard_gets_the_same_numbers(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    records = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    wanted = [(record["step"], record["loss"]) for record in records if "loss" in record]
    assert [(one.step, pytest.approx(one.value)) for one in events.Scalars("loss")] == wanted


def test_watchers_change_no_weight(tmp_path: Path) -> None:
    _, watched = run(tmp_path / "watched")
    _, alone = run(tmp_path / "alone", replace(SETTINGS, watchers=[]))
    assert torch.equal(watched.layer.weight, alone.layer.weight) and not (tmp_path / "alone" / "tensorboard").exists()
    assert (tmp_path / "alone" / METRICS).is_file()


def test_a_watcher_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgestill.distill.watchers.tensorboard.find_spec", lambda name: None)
    notes: list[str] = []
    metrics = Metrics(tmp_path, 0, True, SETTINGS.watchers, notes.append)
    metrics.write(1, loss=1.0)
    metrics.close()
    assert notes == ["tensorboard is not installed, so nothing is written for it"]


@pytest.mark.parametrize(("tables", "message"), [
    ([{"kind": "tensorbord"}], "watchers: 'tensorbord' is not known"),
    ([{"kind": "tensorboard", "port": 1}], r"tune.watchers\[0\].port"),
    ([{"kind": "tensorboard"}] * 2, r"tune.watchers\[1\]: tensorboard is named twice")])
def test_watchers_that_cannot_be_are_refused(tables: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        watchers_of(tables, "tune.watchers")


def test_nothing_is_drawn_where_there_is_no_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(tmp_path)
    assert capfd.readouterr().out == "" and "█" not in capfd.readouterr().err


def test_a_temperature_brings_overconfident_logits_back() -> None:
    torch.manual_seed(0)
    true = torch.randn(4000, 5).double() * 2
    labels = torch.distributions.Categorical(logits=true).sample()
    assert temperature.fit((true * 3).numpy(), labels.numpy()) == pytest.approx(3.0, rel=0.1)
    few = torch.eye(4).double() * 5
    assert temperature.fit(few.numpy(), torch.arange(4).numpy()) > 0.5, "four right answers do not prove certainty"


def test_precision_follows_the_machine_and_refuses_what_it_cannot() -> None:
    assert machine.resolve_precision("auto", "cpu") in ("fp32", "bf16")
    assert machine.resolve_precision("fp32", "cpu") == "fp32"
    with pytest.raises(UsageError, match="bf16"):
        machine.resolve_precision("bf16", "mps")


def test_threads_are_the_users_choice_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert machine.threads() == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert 1 <= machine.threads() <= (os.cpu_count() or 1)
    before = torch.get_num_threads()
    with machine.use_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
