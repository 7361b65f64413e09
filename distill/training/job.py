"""One training job: rows, student and teacher in, an artifact out. `tune` and `distill` differ only in its losses."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...models import files, kinds
from ...models.artifact import is_artifact, open_artifact, versions
from ...models.progress import told
from ...models.runfile import Loop, RunFile, kind_config
from ...models.task import Task
from ...runtime.data.reader import Row, rows_digest
from ...runtime.files.model_files import read_table
from ...runtime.text.codec import Codec
from ..data.batches import Schedule
from ..data.token_sets import TokenSet
from ..loading import load_model
from ..sources import Source, weights_digest
from ..tasks._base import Objective, TaskKind, kind_of
from ..teachers._base import Teacher, Wants
from ..teachers._cache import CachedTeacher
from ..teachers._several import Several
from . import finish, loop, machine
from .checkpoint import locked
from .token_cache import tokenize
from .training_log import Progress, watchers_of
from .weighted_losses import Term, WeightedLosses, read_losses
from .world import world

if TYPE_CHECKING:
    from torch import Tensor

ADAPTERS = "distill.adapters"
SOFT = ("threads", "processes", "versions")
"""What may change between two starts of a run, at the price of bit-identical weights."""


@dataclass(frozen=True)
class Job:
    """Everything one training run needs."""

    stage: str
    run: RunFile
    """With the task's labels filled in."""
    base: Path
    """The folder that the run file's paths are relative to."""
    splits: Mapping[str, Sequence[Row]]
    student: Source
    settings: Loop
    losses: Sequence[Mapping[str, Any]]
    teacher: Teacher | None = None
    teacher_key: str = ""
    """What its signal depends on, as one hash."""
    adapter: Mapping[str, Any] = field(default_factory=lambda: {"kind": "full"})

    @property
    def kind(self) -> TaskKind:
        """The kind of the task."""
        return kind_of(self.run.task)


@dataclass(frozen=True)
class Bench:
    """A job, where it is done, and with what."""

    job: Job
    out: Path
    work: Path
    """What is half done."""
    device: str
    precision: str
    description: Mapping[str, Any]
    """What the weights depend on, as JSON values."""
    fingerprint: str
    """Of the description, less what is SOFT."""
    progress: Progress

    def read_tokens(self, codec: Codec) -> dict[str, TokenSet]:
        """The training and validation rows as ids; splits without rows are left out."""
        job, limit = self.job, self.job.run.data.max_tokens
        sets = {name: tokenize(job.splits[name], codec, job.run.task, limit, job.run.data.learn,
                               self.out.parent / ".tokens") for name in ("train", "validation") if job.splits[name]}
        for name, tokens in sets.items():
            rows = f"of {len(job.splits[name])} {name} rows"
            if tokens.left_out:
                self.progress.note(f"{tokens.left_out} {rows} are longer than max_tokens = {limit} and left out")
            if tokens.unlearned:
                self.progress.note(f"{tokens.unlearned} {rows} have nothing to learn (weight 0) and are left out")
        return sets

    def schedules(self, codec: Codec, sets: Mapping[str, TokenSet]) -> dict[str, Schedule]:
        """The batches of every set."""
        settings, size = self.job.settings, micro_batch_tokens(self.job, self.device)
        groups = self.job.teacher.groups if isinstance(self.job.teacher, Several) else lambda tokens, rows: None
        return {name: Schedule(tokens, settings.batch_size, size, settings.seed, self.job.kind.collate, self.device,
                               codec.pad_id or 0, rows, groups(tokens, rows))
                for name, tokens in sets.items() for rows in [self.job.splits[name]]}

    def objectives(self, model: Any, losses: WeightedLosses, codec: Codec,
                   schedules: Mapping[str, Schedule]) -> dict[str, Objective]:
        """What each set costs; the teacher, where the losses read one, gets ready for all of them."""
        job, found = self.job, dict[str, Objective]()
        kept = any(isinstance(one, CachedTeacher) for one in getattr(job.teacher, "members", [job.teacher]))
        for name, schedule in schedules.items():
            told = None
            if job.teacher is not None and losses.needs:
                epochs = loop.total_steps(job.settings, schedule.steps_per_epoch) / schedule.steps_per_epoch
                wants = Wants(losses.needs, job.run.task, self.precision, name == "validation" or epochs > 1,
                              losses.asks)
                with world().lead_first() if kept else nullcontext():
                    job.teacher.prepare(schedule, codec, wants, self.work)
                told = partial(job.teacher.signal, wants=wants)
            found[name] = job.kind.objective(model, losses, told, self.precision, job.run.task)
        return found

    def train(self, model: Any, objectives: Mapping[str, Objective], schedules: Mapping[str, Schedule],
              check: loop.Validate | None, keep_start: bool = False,
              of_losses: Mapping[str, Tensor] | None = None) -> loop.Outcome:
        """`loop.train` on the training rows, as the job's settings say."""
        return loop.train(model, objectives["train"], schedules["train"], check, self.job.settings, self.work,
                          self.description, self.progress, SOFT, keep_start, of_losses)

    def finish(self, model: Any, outcome: loop.Outcome, sets: Mapping[str, TokenSet], extra: Mapping[str, Any],
               run: RunFile) -> None:
        """Write the artifact, as the lead of all processes; `extra` goes to its settings."""
        if not world().leads:
            return
        job = self.job
        licences = {"model": job.student.licence, "data": "not stated"}
        licences |= {"teacher": job.teacher.licence} if job.teacher else {}
        settings = {"seed": job.settings.seed, "threads": self.description["threads"], "precision": self.precision,
                    "device": self.device, "fingerprint": self.fingerprint, "steps": outcome.steps,
                    **({"processes": world().size} if world().size > 1 else {}),
                    **({"not_reproducible": outcome.changed} if outcome.changed else {}), **extra}
        finish.write(self.out, model, job.student.folder, run, job.base, finish.Facts(
            job.stage, _parents(job), licences, _checks(outcome, sets), settings), self.work)


def run_job(job: Job, out: Path) -> Path:
    """Train and write the artifact `out`; what is half done lies in `<out>.work`, and the same job continues there.

    An artifact of the very same job is left as it is. Raises what loop.train raises, and UsageError for a teacher
    that does not fit.
    """
    terms = read_losses(job.losses, f"{job.stage}.losses")
    adapter = kinds.load(ADAPTERS, str(job.adapter.get("kind")))
    adapter_config = kind_config(ADAPTERS, job.adapter, f"{job.stage}.adapter")
    return once(job, out, lambda bench: _train(bench, terms, (adapter, adapter_config)))


def once(job: Job, out: Path, work_at: Callable[[Bench], None]) -> Path:
    """Let `work_at` make the artifact `out` in `<out>.work`, unless an artifact of the very same job stands there."""
    progress = Progress(job.stage, world().leads)
    watchers_of(job.settings.watchers, f"{job.stage}.watchers")
    if job.run.task.schema:
        finish.read_schema(job.base / job.run.task.schema)
    device = machine.device()
    precision = machine.resolve_precision(job.settings.precision, device)
    threads = machine.threads()
    description = _describe(job, precision, threads, device)
    fingerprint = hashlib.sha256(json.dumps({key: value for key, value in description.items() if key not in SOFT},
                                            sort_keys=True).encode()).hexdigest()
    work = out.with_name(out.name + ".work")
    with locked(work) if world().leads else nullcontext():
        done = world().of_lead(is_artifact(out) and
                             open_artifact(out).manifest.settings.get("fingerprint") == fingerprint)
        if done:
            progress.note(f"{out}: already made by this very run")
        else:
            files.refuse_non_empty(out)
            with told(progress.note), machine.use_threads(threads), machine.freed_memory_kept():
                work_at(Bench(job, out, work, device, precision, description, fingerprint, progress))
        world().wait()
    if world().leads:
        shutil.rmtree(work)
    return out


def _train(bench: Bench, terms: list[Term], adapter: tuple[Any, Any]) -> None:
    job, task = bench.job, bench.job.run.task
    codec = Codec.from_folder(job.student.folder, task)
    sets = bench.read_tokens(codec)
    schedules = bench.schedules(codec, sets)
    model = load_model(job.student.folder, task, job.settings.seed).to(bench.device)
    job.kind.ready(model, codec)
    machine.recompute_layers(model, int(sets["train"].lengths.max()), schedules["train"].micro_batch_tokens)
    model, merge = adapter[0].attach(model, adapter[1], task.kind, job.settings.seed)
    losses = WeightedLosses(terms, model, job.teacher, job.settings.seed)
    objectives = bench.objectives(model, losses, codec, schedules)

    check = partial(validate, objectives["validation"], schedules["validation"]) if "validation" in sets else None
    outcome = bench.train(model, objectives, schedules, check, of_losses=losses.parameters)
    extra: dict[str, Any] = {}
    if "validation" in sets:
        task, extra = job.kind.calibrate(model, schedules["validation"], bench.precision, task)
    bench.finish(merge(), outcome, sets, extra, replace(job.run, task=task))


def micro_batch_tokens(job: Job, device: str) -> int:
    """Padded tokens of a forward pass: what the run file says, or what the model's activations leave room for."""
    config = read_table(job.student.folder / "config.json")
    return job.settings.micro_batch_tokens or machine.micro_batch_tokens(config, device)


def validate(objective: Objective, schedule: Schedule) -> dict[str, float]:
    """The loss and what else the objective measures, each the mean over every row, or learned token, of a set."""
    totals, count = dict.fromkeys(objective.measures, 0.0), 0
    for batch in schedule.all(world().share_of_rows):
        for name, value in objective.measure(batch).items():
            totals[name] += value
        count += batch.count
    summed = world().total({**totals, "": count})
    return {name: summed[name] / max(1, summed[""]) for name in totals}


def _describe(job: Job, precision: str, threads: int, device: str) -> dict[str, Any]:
    """What the weights depend on, as JSON values."""
    settings: dict[str, Any] = asdict(job.settings) | {"adapter": dict(job.adapter)}
    for changes_nothing in ("checkpoint_seconds", "watchers"):
        settings.pop(changes_nothing)
    settings["losses"] = [dict(table) for table in job.losses]
    return {
        "stage": job.stage, "settings": settings, "task": task_facts(job.run.task, job.base),
        "max_tokens": job.run.data.max_tokens, "learn": job.run.data.learn,
        "data": {name: rows_digest(job.splits[name]) for name in ("train", "validation")},
        "student": weights_digest(job.student.folder),
        "teacher": job.teacher_key, "precision": precision, "device": device,
        "threads": threads, "processes": world().size,
        "versions": {name: version for name, version in versions().items()
                     if name in ("torch", "transformers", "tokenizers", "numpy")},
    }


def task_facts(task: Task, base: Path) -> dict[str, Any]:
    """A task as JSON values, its schema by content: where that file lies changes nothing."""
    schema = finish.read_schema(base / task.schema) if task.schema else ""
    return asdict(task) | {"schema": hashlib.sha256(schema.encode()).hexdigest()}


def _parents(job: Job) -> list[dict[str, Any]]:
    """What a model is made from, for its manifest: student, teacher, data, and what those were made from."""
    found = [*job.student.lineage, job.student.parent("student")]
    if job.teacher:
        found += [dict(parent) for parent in job.teacher.parents]
    found += [{"role": "data", "name": name, "rows": len(rows), "sha256": rows_digest(rows)}
              for name, rows in job.splits.items() if rows]
    return [parent for place, parent in enumerate(found) if parent not in found[:place]]


def _checks(outcome: loop.Outcome, sets: Mapping[str, TokenSet]) -> dict[str, Any]:
    """What was measured while training, for a manifest."""
    found: dict[str, Any] = {
        "training": {"steps": outcome.steps, "tokens": outcome.tokens, "seconds": round(outcome.seconds, 3),
                     "tokens_per_s": round(outcome.tokens_per_s, 1), "rows": len(sets["train"]),
                     "rows_left_out": sets["train"].left_out, "stopped_early": outcome.stopped_early}}
    measured = {**outcome.validation, "n": len(sets["validation"]), "step": outcome.best_step} \
        if outcome.validation else {"not_run": "there are no validation rows"}
    return {**found, "validation": measured}
