"""Training: data sets, teachers, losses, students and the loop. The only room, with the exporters, that needs torch."""

from __future__ import annotations

from ..runtime.machine.cores import wait_briefly
from .grid_aware import grid_aware
from .merge import merge
from .verbs import distill, fill_cache, plan_student, prepare_student, tune, tune_teacher

wait_briefly()  # before anything of it imports torch

__all__ = ["distill", "fill_cache", "grid_aware", "merge", "plan_student", "prepare_student", "tune", "tune_teacher"]
