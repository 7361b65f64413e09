"""A trained model becomes artifacts that ship: packed, proven in their engines, sealed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...models import files, kinds, kv_cache
from ...models.artifact import Artifact, Manifest, Tokenizer, is_of_model, open_artifact, seal, versions
from ...models.errors import UsageError
from ...models.runfile import Export, check_export, kind_config
from ...models.scheme import CODED, MIXED, Scheme
from ...models.task import Task
from ...runtime.data.reader import Row, rows_digest
from .. import apps, layouts
from ..grid.calibration import Calibration
from ..grid.codes_in_torch import Coded
from ..mixed.choose_types import Mixer
from ..proof import grade, other_programs
from ..proof.certificate import Certificate, manifest_hash
from ..proof.float_answers import Witness
from ..proof.packed_file import Subject
from ..proof.prove import ran_with
from ..proof.reference import text_hash
from ..proof.steps import certify
from ..source.model_folder import Source
from ..unpack.folder import unpacked
from . import memory, model_card


def export(source: Path | str | Witness, to: Sequence[str | Export] | str, out: Path | str, rows: Sequence[Row] = (),
           test_rows: Sequence[Row] = (), task: Task | None = None, with_apps: Sequence[str] = ()) -> dict[str, Path]:
    """Pack `source` for every target of `to`, prove each file, and return {target: artifact folder} below `out`.

    `source` is a folder, or a GGUF file, whose weights are packed anew. `rows` calibrate; `test_rows`, less those that
    also stand in `rows`, are what the task metric is measured on.
    The float model is loaded and asked once; a Witness (which brings its own rows and task) shares it between calls.
    All refusals (targets, folders, family, labels) come before that.
    `with_apps` names programs that are written for each artifact they run, in `out`/apps: see `quantize.apps`.
    Raises CheckFailed naming the cause when a packed file is not the float model: what was made then lies in
    `<folder>.failed`, with its certificate and without a manifest, so nothing takes it for an artifact.
    """
    targets = _targets(to)
    if not isinstance(source, Witness):
        source = Witness(unpacked(Path(source)), rows, test_rows, task,
                         max(target.certify_rows for target in targets.values()))
    for scheme, target in targets.items():
        kinds.load("quantize.formats", scheme.format).check(source.origin, scheme)
        _check_cache(source.origin, target)
        files.refuse_non_empty(Path(out) / scheme.folder_name)
    wanted = apps.fitting(with_apps, source.origin.task.kind, targets)
    for name, scheme in wanted:
        files.refuse_non_empty(apps.place(Path(out), scheme.folder_name, name))
    for name in with_apps:
        apps.check(name, source.origin.task.kind, source.codec)
        apps.check_texts(name, source.origin.folder)
    memory.check(source.origin.checkpoint)
    made = {str(scheme): _make(source, scheme, target, Path(out) / scheme.folder_name)
            for scheme, target in targets.items()}
    for name, scheme in wanted:
        apps.write(open_artifact(made[str(scheme)]), name, Path(out))
    return made


def _make(witness: Witness, scheme: Scheme, target: Export, folder: Path) -> Path:
    """Write, prove and seal one target."""
    origin = witness.origin
    calibration = witness.calibration(target.calibration_rows)
    with files.new_folder(folder) as temporary:
        origin.copy_files(temporary)
        _write_grammar(origin, scheme, temporary)
        writer = kinds.load("quantize.formats", scheme.format)
        choose = Mixer(witness.model, witness.calibration_ids(target.calibration_rows), calibration, target) \
            if scheme.type == MIXED else None
        encode = witness.encoder(target)
        coded = Coded(encode, origin.checkpoint.family.plain.turned) if scheme.type in CODED else None
        if scheme.format == "onnx" and origin.checkpoint.family.onnx == "builder":
            # Its builder loads a model of its own: two would not fit. Dealing out types loads ours again.
            if scheme.type in CODED:
                encode.prepare(origin.checkpoint)
            witness.release()
        model_file = writer.write(origin.folder, temporary, scheme, coded or encode, calibration, choose)
        witness.reference.write(temporary)
        manifest = _manifest(witness, scheme, target, model_file, calibration, choose.told if choose else {})
        packed = Artifact(temporary, manifest)
        for layout in layouts.of(str(scheme)):
            layout.write(packed, witness.codec)
        with Subject(packed, witness.reference, witness.model, witness.rows, witness.test_rows,
                     coded=coded) as subject:
            checks = certify(subject, target.clients)
        method = target.method["kind"] if scheme.type in CODED else ""
        found = grade.of(checks, str(scheme), method)
        proven = replace(manifest, checks=Certificate(str(scheme), checks, grade=found).summary())
        certificate = Certificate(str(scheme), checks, manifest_hash(proven), ran_with(packed, target.clients),
                                  grade=found)
        certificate.write(temporary)
        size = sum(path.stat().st_size for path in temporary.rglob("*")
                   if is_of_model(path.relative_to(temporary).as_posix(), model_file)) / 1e6
        name = f"{origin.name} · {scheme}"
        files.write_text(temporary / "README.md", model_card.render(name, proven, certificate, size))
        if not certificate.passed:
            failed = _keep_failed(temporary, folder)
            certificate.require(f"look at {failed / 'certificate.json'}: every check, the packed file beside it")
        written_by_seal = ("files", "made_by", "schema")
        seal(temporary, **{key: value for key, value in vars(proven).items() if key not in written_by_seal})
    return folder


def _manifest(witness: Witness, scheme: Scheme, target: Export, model_file: str,
              calibration: Calibration | None, allocation: dict[str, Any]) -> Manifest:
    codec, origin = witness.codec, witness.origin
    template = text_hash(codec.template) if codec.template else ""
    settings: dict[str, Any] = origin.settings | {
        "method": target.method if scheme.type in (*CODED, MIXED) else {},
        **({"allocation": allocation} if allocation else {}),
        **({"kv": target.kv} if target.kv != kv_cache.AUTO else {}),
        "calibration_tokens": calibration.tokens if calibration else 0,
        "calibration_rows_sha256": rows_digest(witness.rows[: target.calibration_rows]) if calibration else "",
        "certify_rows": len(witness.test_rows), "reference_tokens": witness.reference.tokens}
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
        check_export(target)
        other_programs.check_names(target.clients)
        found[scheme] = target
    if not found:
        raise UsageError("no export target was given", "name one, such as gguf:Q4_0")
    return found


def _check_cache(origin: Source, target: Export) -> None:
    """UsageError for a cache of keys and values that the model cannot have."""
    if target.kv == kv_cache.AUTO:
        return
    if origin.task.kind != "generate":
        raise UsageError(f"{target.target}: kv = {target.kv!r}, and a model that {origin.task.kind}s keeps no keys and "
                         "values", "leave kv out")
    kv_cache.check(target.kv, origin.checkpoint.family.head_size(origin.checkpoint.config))


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
