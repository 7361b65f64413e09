"""A trained model becomes artifacts that ship: packed, proven in their engines, sealed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models import files, kinds
from ..models.artifact import Artifact, Manifest, Tokenizer, seal, versions
from ..models.errors import DataError, UsageError
from ..models.runfile import Export, Task, kind_config
from ..models.scheme import Scheme
from ..runtime.evaluate import evaluate_answers
from ..runtime.rows import Row, rows_digest
from ..runtime.text import Codec
from . import card, corpus, reference
from .calibration import Calibration, measure
from .certificate import Certificate, manifest_hash
from .codes import Codes
from .float_model import FloatModel
from .proof import certify
from .reference import Reference
from .source import Source
from .subject import Subject, answer_tokens

METRIC = "exact_match"


def export(source: Path | str, to: Sequence[str | Export] | str, out: Path | str, rows: Sequence[Row] = (),
           test_rows: Sequence[Row] = (), task: Task | None = None) -> dict[str, Path]:
    """Pack `source` for every target of `to`, prove each file, and return {target: artifact folder} below `out`.

    `rows` calibrate; `test_rows`, less those that also stand in `rows`, are what the task metric is measured on.
    The float model is loaded once. All refusals (targets, folders, family, labels) come before that.
    Raises CheckFailed naming the cause when a packed file is not the float model: what was made then lies in
    `<folder>.failed`, with its certificate and without a manifest, so nothing takes it for an artifact.
    """
    targets = _targets(to)
    origin = Source.open(Path(source), task)
    for scheme in targets:
        origin.check_target(scheme)
        files.refuse_non_empty(Path(out) / scheme.folder_name)
    held_out = _held_out(rows, test_rows, max(target.certify_rows for target in targets.values()))
    codec = Codec.from_folder(origin.folder, origin.task)
    run = _Run(origin, FloatModel.from_folder(origin.folder), codec, tuple(rows), held_out)
    return {str(scheme): run.make(scheme, target, Path(out) / scheme.folder_name) for scheme, target in targets.items()}


class _Run:
    """One export of several targets: the float model, and what is measured on it once."""

    def __init__(self, origin: Source, model: FloatModel, codec: Codec, rows: tuple[Row, ...],
                 test_rows: list[Row]) -> None:
        self.origin, self.model, self.codec, self.rows = origin, model, codec, rows
        self.test_rows = [row for row in test_rows if self._fits(row, test_rows)]
        self.reference = self._reference()
        self.calibration: Callable[[int], Calibration | None] = cache(self._calibrate)

    @property
    def classifies(self) -> bool:
        return self.origin.task.kind == "classify"

    def make(self, scheme: Scheme, target: Export, folder: Path) -> Path:
        """Write, prove and seal one target."""
        calibration = self.calibration(target.calibration_rows)
        with files.new_folder(folder) as temporary:
            self.origin.copy_files(temporary)
            _write_grammar(self.origin, scheme, temporary)
            writer = kinds.load("quantize.formats", scheme.format)
            model_file = writer.write(self.origin.folder, temporary, scheme, _encoder(target, calibration), calibration)
            self.reference.write(temporary)
            manifest = self._manifest(scheme, target, model_file, calibration)
            packed = Artifact(temporary, manifest)
            with Subject(packed, self.reference, self.model, self.rows, self.test_rows) as subject:
                checks = certify(subject)
            proven = replace(manifest, checks=Certificate(str(scheme), checks).summary())
            certificate = Certificate(str(scheme), checks, manifest_hash(proven))
            certificate.write(temporary)
            size = sum(path.stat().st_size for path in temporary.glob(f"{model_file}*")) / 1e6
            name = f"{self.origin.name} · {scheme}"
            files.write_text(temporary / "README.md", card.render(name, proven, certificate, size))
            if not certificate.passed:
                failed = _keep_failed(temporary, folder)
                certificate.require(f"look at {failed / 'certificate.json'}: every check, the packed file beside it")
            written_by_seal = ("files", "made_by", "schema")
            seal(temporary, **{key: value for key, value in vars(proven).items() if key not in written_by_seal})
        return folder

    def _fits(self, row: Row, rows: list[Row]) -> bool:
        if self.classifies:
            return row.kind == "label"
        room = self.model.context_length - answer_tokens(self.codec, rows, self.origin.task)
        return row.kind == "chat" and bool(row.answer) and len(self.codec.prompt_ids(row)) <= room

    def _reference(self) -> Reference:
        added = [token.content for token in self.codec.tokenizer.get_added_tokens_decoder().values()]
        scores = self._float_scores()
        metric = METRIC if scores else ""
        return reference.make(self.model, corpus.texts(added), self._sequences(), self.classifies, scores, metric)

    def _sequences(self) -> Iterator[list[int]]:
        """Held-out rows first: calibration was fitted to the others. Without any rows, the built-in corpus."""
        rows = (*self.test_rows, *self.rows)
        if self.classifies:
            yield from (self.model.class_ids(text) for text in ([row.text for row in rows] or corpus.TEXTS))
        elif rows:
            yield from (_ids(self.codec, row) for row in rows)
        else:
            yield from (self.codec.plain_ids(text) for text in corpus.TEXTS)

    def _float_scores(self) -> dict[str, float]:
        """The float model's score on every test row, by the row's digest."""
        rows = self.test_rows
        if not rows:
            return {}
        if self.classifies:
            labels = self.origin.task.labels
            answers = [labels[int(self.model.logits(self.model.class_ids(row.text)).argmax())] for row in rows]
        else:
            ids = self.model.answers([self.codec.prompt_ids(row) for row in rows], sorted(self.codec.stop_ids),
                                     answer_tokens(self.codec, rows, self.origin.task))
            answers = [self.codec.decode(answer) for answer in ids]
        scores = evaluate_answers(answers, rows, [METRIC]).scores[METRIC]
        return {rows_digest([row]): float(score) for row, score in zip(rows, scores, strict=True)}

    def _calibrate(self, count: int) -> Calibration | None:
        """Importance from the first `count` rows; none for classifiers, whose int8 needs none."""
        rows = self.rows[:count]
        return None if self.classifies or not rows else measure(self.model, [_ids(self.codec, row) for row in rows])

    def _manifest(self, scheme: Scheme, target: Export, model_file: str, calibration: Calibration | None) -> Manifest:
        codec, origin = self.codec, self.origin
        template = reference.text_hash(codec.template) if codec.template else ""
        settings: dict[str, Any] = origin.settings | {
            "method": target.method if scheme.type in ("Q4_0", "int4") else {},
            "calibration_tokens": calibration.tokens if calibration else 0,
            "calibration_rows_sha256": rows_digest(self.rows[: target.calibration_rows]) if calibration else "",
            "certify_rows": len(self.test_rows), "reference_tokens": self.reference.tokens}
        return Manifest(
            stage="export", task=origin.shipped_task(), family=origin.checkpoint.family.name, scheme=str(scheme),
            model_file=model_file, dimensions=origin.dimensions(),
            tokenizer=Tokenizer(codec.bos_id, codec.eos_id, sorted(codec.stop_ids), codec.adds_bos, template),
            parents=origin.parents, licences=origin.licences, settings=settings, made_by=versions())


def _targets(to: Sequence[str | Export] | str) -> dict[Scheme, Export]:
    """Targets by scheme; UsageError for none, an unknown one, one given twice or a method that is not known."""
    found: dict[Scheme, Export] = {}
    for item in [to] if isinstance(to, str) else to:
        target = item if isinstance(item, Export) else Export(item)
        scheme = Scheme.parse(target.target)
        if scheme in found:
            raise UsageError(f"export target {scheme} is given twice", "name every target once")
        kind_config("quantize.methods", target.method, "export.method")
        found[scheme] = target
    if not found:
        raise UsageError("no export target was given", "name one, such as gguf:Q4_0")
    return found


def _held_out(rows: Sequence[Row], test_rows: Sequence[Row], count: int) -> list[Row]:
    """The first `count` test rows that do not stand in `rows`; DataError when all of them do."""
    seen = {rows_digest([row]) for row in rows}
    kept = {digest: row for row in test_rows if (digest := rows_digest([row])) not in seen}
    if test_rows and not kept:
        raise DataError(f"all {len(test_rows)} test rows also stand in the rows for calibration",
                        "give test rows that the model was not trained on, or none")
    return list(kept.values())[:count]


def _ids(codec: Codec, row: Row) -> list[int]:
    ends = not row.messages or row.messages[-1].get("role") == "assistant"
    return codec.training_ids(row)[0] if ends else codec.prompt_ids(row)


def _encoder(target: Export, calibration: Calibration | None) -> Callable[[str, NDArray[np.float32]], Codes]:
    """4-bit codes of a weight by the target's method, weighted by what its layer sees."""
    config = kind_config("quantize.methods", target.method, "export.method")
    method = kinds.load("quantize.methods", target.method["kind"])
    importance = calibration.importance if calibration else {}

    def encode(name: str, weight: NDArray[np.float32]) -> Codes:
        codes: Codes = method.quantize(weight, importance.get(name), config)
        return codes
    return encode


def _write_grammar(origin: Source, scheme: Scheme, folder: Path) -> None:
    """The schema as llama.cpp's grammar, for programs that constrain answers by one."""
    if origin.schema is None or scheme.format != "gguf":
        return
    import json

    from llama_cpp.llama_grammar import json_schema_to_gbnf

    files.write_text(folder / "grammar.gbnf", json_schema_to_gbnf(json.dumps(origin.schema)) + "\n")


def _keep_failed(temporary: Path, folder: Path) -> Path:
    """Move what failed beside its target, replacing an earlier failure."""
    failed = folder.with_name(f"{folder.name}.failed")
    shutil.rmtree(failed, ignore_errors=True)
    os.rename(temporary, failed)
    return failed
