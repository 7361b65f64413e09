"""The training loop: one function, read from top to bottom.

Accelerate chooses the device, places model and optimizer and runs the backward pass. It is not asked for mixed
precision: its choice holds for the whole process, and a pipeline trains a teacher and a student in one.

Several processes (`world`) each take a share of a step's rows, and the lead writes.

Every step seeds the random numbers from its own number, and the order of the rows follows from the seed and the
epoch. So nothing but weights, optimizer and the step's number is needed to go on exactly where a run was cut.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...models.errors import TrainingError
from ...models.runfile import Loop
from ..data.batches import Schedule
from ..tasks._base import Objective
from . import optimizers
from .checkpoint import State, Store
from .training_log import Metrics, Progress
from .world import world

if TYPE_CHECKING:
    from torch import Tensor

Validate = Callable[[], dict[str, float]]
"""Numbers of the model as it stands; `loss` among them is what keep-best and patience look at."""


@dataclass(frozen=True)
class Outcome:
    """What a training run came to. The model holds the best weights, or the last where nothing was validated."""

    steps: int
    best_step: int
    validation: dict[str, float]
    """Numbers of the best validation; empty where nothing was validated."""
    tokens: int
    tokens_per_s: float
    """Real tokens, without padding, a second of training steps."""
    seconds: float
    stopped_early: bool
    changed: list[str]
    """What differed between two starts of the run, so that its weights cannot be made again bit by bit."""


def train(model: Any, objective: Objective, schedule: Schedule, validate: Validate | None, settings: Loop,
          work: Path, description: Mapping[str, Any], progress: Progress, soft: Sequence[str] = (),
          keep_start: bool = False, of_losses: Mapping[str, Tensor] | None = None) -> Outcome:
    """Train the parameters of `model` that require gradients, continuing the work that lies in `work`.

    `of_losses` are parameters of the objective, by names that the model has not: trained and kept in checkpoints.
    `description` says what is trained on what; work of another description is refused (UsageError), unless only
    its `soft` keys differ. With `keep_start` the model as it comes is validated too, and kept where nothing is better.
    Raises TrainingError at the first loss or gradient that is not finite, KeyboardInterrupt after SIGINT or SIGTERM:
    in both cases a checkpoint of the last good state stands.
    """
    import torch
    from accelerate import Accelerator

    accelerator, processes = Accelerator(cpu=schedule.device == "cpu", mixed_precision="no"), world()
    store = Store(work, progress.note, processes.leads)
    changed = processes.of_lead(store.claim(description, soft) if processes.leads else [])
    named = {name: value for name, value in (*model.named_parameters(), *(of_losses or {}).items())
             if value.requires_grad}
    tables = [value for module in model.modules() if isinstance(module, torch.nn.Embedding)
              for value in module.parameters(recurse=False)]
    optimizer = accelerator.prepare_optimizer(optimizers.adamw(named, settings, tables))
    steps = total_steps(settings, schedule.steps_per_epoch)
    every = settings.evaluate_every or max(1, steps // 10)

    state, found = State(), processes.of_lead(store.load() if processes.leads else None)
    if found is not None:
        state, weights, moments = found
        _set_weights(named, weights)
        optimizers.set_moments(optimizer.optimizer, named, moments)
        progress.note(f"continuing at step {state.step} of {steps}")
    metrics = Metrics(work, state.step, processes.leads, settings.watchers, progress.note)
    saved_at = time.monotonic()

    def save() -> None:
        metrics.sync()
        store.save(state, named, optimizers.moments(optimizer.optimizer, named))

    def check() -> None:
        """Validate, and keep the weights when they are the best so far."""
        assert validate is not None
        model.eval()
        with torch.no_grad():
            numbers = validate()
        model.train()
        metrics.write(state.step, **{f"validation_{name}": value for name, value in numbers.items()})
        if not math.isfinite(numbers["loss"]):
            raise TrainingError(f"step {state.step}: the validation loss is {numbers['loss']}", _HINT.format(work=work))
        if state.best_loss is None or numbers["loss"] < state.best_loss:
            state.best_loss, state.best_step, state.not_better = numbers["loss"], state.step, 0
            state.best = numbers
            store.save_best(state, named)
        else:
            state.not_better += 1
            state.stopped = 0 < settings.patience <= state.not_better

    progress.at(state.step, steps, "")
    model.train()
    try:
        if keep_start and found is None:
            check()
        with _asked_to_stop() as asked:
            while state.step < steps and not state.stopped:
                began = time.monotonic()
                torch.manual_seed(settings.seed * 1_000_003 + state.step + processes.rank * 1_000_000_007)
                rate = learning_rate(settings, state.step, steps)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                batches = schedule.step(state.step, processes.share_of_rows)
                seen = processes.total({"count": sum(batch.count for batch in batches),
                                        "tokens": sum(batch.tokens for batch in batches)})
                parts = []
                for batch in batches:
                    parts.append(objective(batch) / max(1, seen["count"]))
                    accelerator.backward(parts[-1])
                    parts[-1] = parts[-1].detach()
                losses = torch.stack(parts).tolist() if parts else []  # a device is waited for here, once for all parts
                bad = [batch for batch, part in zip(batches, losses, strict=True) if not math.isfinite(part)]
                rows = _some(bad[0].rows) if bad else "of another process"
                loss = processes.total({"loss": sum(losses)})["loss"]
                if not math.isfinite(loss):
                    save()
                    raise TrainingError(f"step {state.step + 1}: the loss is {loss} (rows {rows})",
                                        _HINT.format(work=work))
                processes.add_gradients(named.values())
                # A limit of 0 switches clipping off; the norm is wanted all the same.
                norm = float(torch.nn.utils.clip_grad_norm_(named.values(), settings.clip or math.inf, foreach=True))
                if not math.isfinite(norm):
                    save()
                    raise TrainingError(f"step {state.step + 1}: the gradient's norm is {norm} "
                                        f"(rows {_some([row for batch in batches for row in batch.rows])})",
                                        _HINT.format(work=work))
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)

                state.step += 1
                tokens, seconds = int(seen["tokens"]), time.monotonic() - began
                state.tokens += tokens
                state.seconds += seconds
                speed = state.tokens / state.seconds
                metrics.write(state.step, loss=loss, learning_rate=rate, gradient_norm=norm, tokens=tokens,
                              tokens_per_s=round(tokens / seconds, 1))
                progress.at(state.step, steps, f"loss {loss:.4f}, {speed:,.0f} tokens/s")
                if validate is not None and (state.step % every == 0 or state.step == steps):
                    check()
                stop = bool(processes.total({"asked": asked.is_set()})["asked"])
                if time.monotonic() - saved_at >= settings.checkpoint_seconds or stop:
                    save()
                    saved_at = time.monotonic()
                if stop:
                    raise KeyboardInterrupt
        save()  # so that what comes after training can be repeated without it
    finally:
        metrics.close()
    if state.best_step >= 0:
        _set_weights(named, processes.of_lead(store.load_best(state) if processes.leads else {}))
    model.eval()
    return Outcome(state.step, state.best_step, state.best, state.tokens, state.tokens / max(state.seconds, 1e-9),
                   state.seconds, state.stopped, changed)


def total_steps(settings: Loop, steps_per_epoch: int) -> int:
    """Optimizer steps of a run: `steps` where given, else `epochs`; one at least where `epochs` is above 0."""
    if settings.steps or not settings.epochs:
        return settings.steps
    return max(1, round(settings.epochs * steps_per_epoch))


def learning_rate(settings: Loop, step: int, steps: int) -> float:
    """Linear warm-up from 0, then a cosine down to the final share at the last step."""
    warmup = round(settings.warmup * steps)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    share = (step - warmup) / max(1, steps - 1 - warmup)
    floor = settings.final_learning_rate
    return settings.learning_rate * (floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, share))))


_HINT = ("lower the learning rate or look at these rows; the weights as they were before this step lie in the newest "
         "checkpoint of {work}")


def _set_weights(named: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    import torch

    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(weights[name])


def _some(rows: list[int]) -> str:
    return ", ".join(map(str, rows[:8])) + (", …" if len(rows) > 8 else "")


@contextmanager
def _asked_to_stop() -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets; the second one acts as usual.

    Stopping between steps only: inside a step, weights and optimizer do not belong together.
    """
    asked = threading.Event()
    before: dict[int, Any] = {}

    def ask(number: int, frame: Any) -> None:
        asked.set()
        for each, handler in before.items():
            signal.signal(each, handler)

    if threading.current_thread() is threading.main_thread():  # Python allows signal handlers nowhere else
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
