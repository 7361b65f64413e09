"""A teacher's cache filled before, or without, training."""

from __future__ import annotations

from pathlib import Path

from ...models.errors import UsageError
from ...models.progress import told
from ...runtime.text.codec import Codec
from ..teachers._base import Wants
from . import machine
from .checkpoint import locked
from .job import Bench, Job
from .training_log import Progress
from .weighted_losses import needs, provided, read_losses
from .world import world


def fill(job: Job, out: Path) -> None:
    """Let the job's teacher get ready for all rows as `run_job` would, which writes the artifact `out`: the lead's, of
    several processes.

    Raises UsageError for a teacher that does not fit the student, or says less than the losses read, and for
    losses that read nothing of it.
    """
    world().by_lead(lambda: _fill(job, out))


def _fill(job: Job, out: Path) -> None:
    assert job.teacher is not None
    parts = needs(read_losses(job.losses, f"{job.stage}.losses"), provided(job.teacher))
    if not parts:
        raise UsageError(f"--cache-only: no loss of {job.stage}.losses reads what the teacher says",
                         "add one that does, such as { kind = \"forward_kl\" }")
    device, progress = machine.device(), Progress(job.stage)
    precision, work = machine.resolve_precision(job.settings.precision, device), out.with_name(out.name + ".work")
    with locked(work), told(progress.note), machine.use_threads(machine.threads()):
        bench = Bench(job, out, work, device, precision, {}, "", progress)
        codec = Codec.from_folder(job.student.folder, job.run.task)
        for schedule in bench.schedules(codec, bench.read_tokens(codec)).values():
            job.teacher.prepare(schedule, codec, Wants(parts, job.run.task, precision, False), work)
