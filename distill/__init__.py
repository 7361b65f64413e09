"""Training: data sets, teachers, losses, students and the loop. The only room, with the exporters, that needs torch."""

from __future__ import annotations

from .stages import distill, prepare_student, tune, tune_teacher

__all__ = ["distill", "prepare_student", "tune", "tune_teacher"]
