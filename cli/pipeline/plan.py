"""The stages of a run file: what each reads, what it writes, and the call that does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ...models import files, progress, toml_text
from ...models.artifact import open_artifact
from ...models.errors import UsageError
from ...models.runfile import Export, Profile, RunFile, Training
from ...models.scheme import CODED, Scheme
from ...runtime.machine.processor import processor
from . import evaluate, gates, packages, resolve, saved_prompts, teacher_answers, teachers
from .engine import Stage
from .layout import BASELINE, DATA, GRID, LABELS, REPORT, STUDENT, SUMMARY, TEACHER, evaluation_file, profile_file
from .stage_inputs import Reads

if TYPE_CHECKING:
    from ...distill.teachers._prompt import Told
    from ...quantize.proof.float_answers import Witness
    from ...runtime.data.reader import Row

NO_VERSIONS: Mapping[str, str] = MappingProxyType({})
SMALL_BYTES = 32_000_000
"""A model file below this is evaluated with one thread; its profile takes the threads of the run file."""


class Plan:
    """All stages of a resolved run file, in order, for the output folder `folder`."""

    def __init__(self, run: RunFile, folder: Path, title: str, say: Callable[[str], None], shown: RunFile | None = None,
                 fetch: bool = True, first: Sequence[Stage] = ()) -> None:
        """`shown` is the run file as the summary tells it, `run` by default; `fetch`: models may be downloaded now;
        `first` are stages that made the rows.

        Raises what reading the rows raises, and UsageError for gates that these rows do not allow.
        """
        self.run, self.folder, self.title, self.say = run, folder, title, say
        self.shown = shown or teachers.shown(run, Path())
        self.teachers = teachers.of(run)
        self.has_teacher = bool(self.teachers)
        self.measures_teacher = not teachers.unmeasured(run)
        self.tunes_teacher = any(table.get("tune") for table in run.teachers)
        self.stages = [*first]
        self._witnesses: dict[str, Witness] = {}
        if not self.rows["test"]:
            raise UsageError("data: there are no test rows to measure on", "name a file in data.test, or set "
                             "data.test_share above 0")
        teachers.check_rows(self.teachers, self.rows, run.data.route)
        self.schema = evaluate.read_schema(run.task)
        gates.check_rows(run, self.rows["test"], self.schema)
        self._build(Reads(run, self.rows, fetch))

    @cached_property
    def splits(self) -> dict[str, list[Row]]:
        """The rows as they were given, read once for all stages of this process."""
        from ...runtime.data.reader import load_splits

        return load_splits(self.run.data, Path("/"), ledger=self.folder / "bad-rows.jsonl")

    @cached_property
    def rows(self) -> dict[str, list[Row]]:
        """The splits to train and to measure on: every turn of a test conversation that is learned is asked."""
        from ...runtime.data.reader import questions

        return questions(self.splits, self.run.data.learn)

    @cached_property
    def spared(self) -> tuple[Told, list[Row]] | None:
        """What the first teacher is told that is told more than the student, and the test rows that it teaches."""
        for teacher in self.teachers:
            told, places = teacher.told(self.run, self.rows["train"]), teacher.places(self.rows["test"])
            if told and places:
                return told, [self.rows["test"][place] for place in places]
        return None

    @cached_property
    def wanted(self) -> list[str]:
        """Metrics that gates name, besides those that suit the rows."""
        reference = [""] if self.measures_teacher else None
        usual = evaluate.metrics_for(self.rows["test"], self.schema, reference, ())
        return sorted(name for name in gates.metrics(self.run.gates) if name not in usual)

    def _witness(self, student: str) -> Witness:
        """The float model of a student's folder, loaded and asked once for all exports of this process."""
        from ...quantize.proof.float_answers import Witness

        if student not in self._witnesses:
            self._witnesses[student] = Witness(self.folder / student, self.rows["train"], self.rows["test"],
                                               test_limit=self._certify_rows())
        return self._witnesses[student]

    def _certify_rows(self) -> int:
        return max((export.certify_rows for export in self.run.export), default=1)

    def _add(self, name: str, output: str, work: Callable[[Path], None], needs: Sequence[str],
             reads: Mapping[str, Any], versions: Mapping[str, str] = NO_VERSIONS) -> str:
        self.stages.append(Stage(name, output, reads, tuple(needs), work, versions))
        return name

    def _build(self, reads: Reads) -> None:
        run = self.run
        task, tests = reads.task(), reads.rows("test") | ({"metrics": self.wanted} if self.wanted else {})
        floats = packages.of_float(run.task.schema)
        everything = [
            self._add("check the data", DATA, self._check_data, (),
                      reads.rows("train", "validation", "test") | reads.places()),
            self._add("answer with a trivial baseline", evaluation_file(BASELINE), self._baseline, (),
                      tests | reads.rows("train", "test") | reads.schema(), packages.of_baseline()),
        ]
        tuned: list[str] = []
        if self.tunes_teacher:
            tuned = [self._add("tune the teacher", TEACHER, self._tune_teacher, (),
                               reads.training(run.tune) | reads.teacher(), packages.of_training(run.tune))]
        graded: list[str] = []
        if self.measures_teacher:
            ways = {not tuned and teacher.packed is not None for teacher in self.teachers}
            runs = (packages.of_packed_teacher(run.task.schema) if True in ways else {}) | (
                floats if False in ways else {})
            graded = [self._add("evaluate the teacher", evaluation_file(TEACHER), self._evaluate_teacher, tuned,
                                tests | task | ({} if tuned else reads.teacher()), runs)]
        models = (reads.teacher() if self.has_teacher else {}) | reads.student()
        settings: Training = run.distill if self.has_teacher else run.tune
        versions = packages.of_training(settings)
        if self.has_teacher:
            student = self._add("distill the student", STUDENT, self._distill, tuned,
                                reads.training(replace(run.distill, labels_control=False)) | models, versions)
        else:
            student = self._add("tune the student", STUDENT, self._tune, (),
                                reads.training(run.tune) | models, versions)
        everything += [*tuned, *graded, student]
        everything.append(self._add("evaluate the student", evaluation_file(STUDENT), self._evaluate_student,
                                    [student, *graded], tests | task, floats))
        if run.distill.labels_control and self.has_teacher:
            alone, of_teacher = resolve.labels_run(run).tune, not run.student.model
            labels = self._add("train the student on labels alone", LABELS, self._tune_labels,
                               tuned if of_teacher else (),
                               reads.training(alone) | (models if of_teacher else reads.student()), versions)
            everything += [labels, self._add("evaluate the student on labels alone", evaluation_file(LABELS),
                                             self._evaluate_labels, [labels, *graded], tests | task, floats)]
        four_bit = (student, STUDENT)
        if run.grid_aware:
            four_bit = (self._add("teach the student its 4-bit grid", GRID, self._grid_aware, [student],
                                  reads.training(run.grid_aware), packages.of_training(run.grid_aware)), GRID)
            everything.append(four_bit[0])
        for export in run.export:
            exported = four_bit if Scheme.parse(export.target).type in CODED else (student, STUDENT)
            everything += self._add_export(export, *exported, graded, reads)
        made = self._add("sum up", SUMMARY, self._summary, everything, {
            "gates": asdict(run.gates), "title": self.title, "run": toml_text.to_toml(self.shown)})
        self._add("write the report", REPORT, self._report, [made], {})

    def _add_export(self, export: Export, student: str, folder: str, graded: Sequence[str], reads: Reads) -> list[str]:
        """Stages of one target of the model that the stage `student` left in `folder`."""
        target, name = export.target, Scheme.parse(export.target).folder_name
        tests, wanted, threads = reads.rows("test"), self.wanted, self.run.profile.threads
        packed = self._add(f"export and certify {target}", name, partial(self._export, export, folder), [student],
                           reads.export(export, self._certify_rows()), packages.of_export(export))
        work = partial(self._evaluate_shipped, name, target)
        evaluated = self._add(f"evaluate {target}", evaluation_file(name), work, [packed, *graded],
                              tests | {"threads": threads} | ({"metrics": wanted} if wanted else {}),
                              packages.of_engine(target, self.run.task.schema))
        profiled = self._add(f"profile {target}", profile_file(name), partial(self._profile, name), [packed],
                             tests | {"profile": asdict(self._profiling()), "machine": processor()},
                             packages.of_engine(target))
        if self.spared is None:
            return [packed, evaluated, profiled]
        saved = self._add(f"measure what {target} spares", saved_prompts.file(name), partial(self._measure_saved, name),
                          [packed, profiled], tests | reads.teacher(), packages.of_engine(target))
        return [packed, evaluated, profiled, saved]

    def _check_data(self, path: Path) -> None:
        from ...runtime.data.checks import check_splits

        report = check_splits(self.splits)
        for finding in report.findings:
            self.say(f"  {finding.level}: {finding.split}: {finding.message}")
        files.write_json(path, report.to_json())

    def _baseline(self, path: Path) -> None:
        kept = evaluate.baseline(self.rows["train"], self.rows["test"], self.schema, self.wanted)
        if kept is None:
            files.write_json(path, {})
        else:
            kept.write(path)

    def _tune_teacher(self, path: Path) -> None:
        from ...distill import tune_teacher

        tune_teacher(self.run, path, splits=self.rows)

    def _distill(self, path: Path) -> None:
        from ...distill import distill

        distill(self.run, path, teacher=self._tuned_teacher(), splits=self.rows)

    def _tune(self, path: Path) -> None:
        from ...distill import tune

        tune(self.run, path, splits=self.rows)

    def _tune_labels(self, path: Path) -> None:
        from ...distill import tune

        tune(resolve.labels_run(self.run), path, teacher=self._tuned_teacher(), splits=self.rows)

    def _tuned_teacher(self) -> Path | None:
        return self.folder / TEACHER if self.tunes_teacher else None

    def _evaluate_teacher(self, path: Path) -> None:
        teacher_answers.measure(self.teachers, self._tuned_teacher(), self.run, self.rows, self.wanted).write(path)

    def _evaluate_student(self, path: Path) -> None:
        self._evaluate_float("student, float", "student", self.folder / STUDENT, path)

    def _evaluate_labels(self, path: Path) -> None:
        self._evaluate_float("labels alone, float", "labels", self.folder / LABELS, path)

    def _evaluate_float(self, name: str, role: str, folder: Path, path: Path) -> None:
        subject = evaluate.FloatSubject(folder, self.run.task)
        found = subject.evaluate(self.rows["test"], self._teacher_answers(), wanted=self.wanted)
        evaluate.Kept(name, role, found, None, subject.parameters, 4 * subject.parameters).write(path)

    def _teacher_answers(self) -> list[str] | None:
        if not self.measures_teacher:
            return None
        kept = evaluate.Kept.read(self.folder / evaluation_file(TEACHER))
        return kept.evaluation.answers or None

    def _grid_aware(self, path: Path) -> None:
        from ...distill import grid_aware

        grid_aware(self.run, path, student=self.folder / STUDENT, splits=self.rows)

    def _export(self, export: Export, folder: str, path: Path) -> None:
        from ...quantize import export as pack
        from ...quantize.proof import certificate, grade

        made = pack(self._witness(folder), [export], path.parent)
        for target, artifact in made.items():
            if line := grade.told(target, certificate.read(artifact).grade):
                self.say(f"  {line}")

    def _evaluate_shipped(self, name: str, target: str, path: Path) -> None:
        artifact = open_artifact(self.folder / name)
        # The threads of a small model wait for each other longer than they compute.
        threads = self.run.profile.threads or (1 if artifact.model_bytes() < SMALL_BYTES else 0)
        free, held = evaluate.shipped(artifact.folder, self.rows["test"], self._teacher_answers(), threads,
                                     bool(self.run.task.schema), self.wanted,
                                     partial(progress.at, f"evaluate {target}"))
        parameters = artifact.manifest.dimensions.get("parameters")
        evaluate.Kept(target, "shipped", free, held, parameters, artifact.model_bytes()).write(path)

    def _profiling(self) -> Profile:
        """How shipped files are timed: with the requests that the gates' bounds take."""
        return replace(self.run.profile, repeats=max(self.run.profile.repeats, gates.requests(self.run.gates)))

    def _profile(self, name: str, path: Path) -> None:
        from ...runtime import profile
        from ..output import plain

        wanted = self._profiling()
        found = profile(self.folder / name, prompt_tokens=wanted.prompt_tokens, new_tokens=wanted.new_tokens,
                        warmup=wanted.warmup, repeats=wanted.repeats, threads=wanted.threads, rows=self.rows["test"],
                        say=lambda line: self.say(f"  {line}"))
        files.write_json(path, plain(found))

    def _measure_saved(self, name: str, path: Path) -> None:
        assert self.spared is not None
        files.write_json(path, saved_prompts.measure(self.folder, name, *self.spared, self.run.profile))

    def _summary(self, path: Path) -> None:
        from ..output import plain
        from .gather import Finished, gather

        files.write_json(path, plain(gather(Finished(self.run, self.folder, self.title, self.shown, self.stages))))

    def _report(self, path: Path) -> None:
        from ..report import write

        write(self.folder, path)
