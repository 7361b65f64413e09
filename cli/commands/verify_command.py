"""`edgestill verify`: the proof, again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import inputs, options, output, progress_lines, quiet

if TYPE_CHECKING:
    from ...quantize.proof.certificate import Certificate
    from ...quantize.proof.float_answers import Witness
    from ...runtime.data.reader import Row


@click.command("verify", epilog=options.example(
    "edgestill verify out/gguf-Q4_0 --quick", "edgestill verify out/* --json",
    "edgestill verify out/onnx-int4 --client all",
    "edgestill verify downloaded.gguf --against HF_FOLDER --data rows.jsonl"))
@click.argument("artifacts", metavar="ARTIFACT...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--rows", "--data", "rows", type=click.Path(path_type=Path),
              help="Run file (its test rows) or data file, to prove tokens and the task metric on too.")
@click.option("--against", type=click.Path(path_type=Path), metavar="HF_FOLDER",
              help="Hugging Face folder of the float model: proves .gguf files and ONNX folders made elsewhere.")
@click.option("--quick", is_flag=True,
              help="Prove tokens, template, stop ids, cache and KL alone: no answers to rows, no graphs for others.")
@options.clients
@options.columns
@options.threads
@options.settings
@options.skip_bad
@options.as_json
@options.verbose
def command(artifacts: tuple[Path, ...], rows: Path | None, against: Path | None, clients: tuple[str, ...],
            quick: bool, columns: tuple[str, ...], threads: int, overrides: tuple[str, ...], skip_bad: bool,
            as_json: bool) -> int:
    """Prove an artifact again: hashes, tokens, template, agreement.

    Runs the packed file in its engine against the float model's saved answers; needs no torch. With --against the
    float model answers anew, and files made elsewhere are proven in a process of bounded memory and time. A proven file
    also gets a grade: how good it is. Exit code 3 when a check fails.
    """
    from ...quantize import verify
    from ...quantize.proof import grade

    chosen = inputs.read_rows(rows, columns, overrides, skip_bad=skip_bad) if rows else None
    certificates = {}
    with quiet.stdout_kept_clean(), progress_lines.shown():
        witness = _witness(against, chosen) if against else None
        for artifact in artifacts:
            certificates[str(artifact)] = verify(artifact, chosen, threads, witness, clients, quick)
    if as_json:
        output.result({name: {**output.plain(certificate), "passed": certificate.passed, "causes": certificate.causes}
                       for name, certificate in certificates.items()})
    else:
        for name, certificate in certificates.items():
            output.table(
                ["check", "passed", "value", "low", "high", "limit", "n", "detail"],
                [
                    [
                        check.name,
                        "not run" if check.passed is None else check.passed,
                        check.value,
                        check.low,
                        check.high,
                        check.limit,
                        check.n,
                        check.detail,
                    ]
                    for check in certificate.checks
                ] + _graded(certificate),
                title=f"{name} ({certificate.origin})",
            )
            if not certificate.passed:
                output.note(f"{name}: cause: {', '.join(certificate.causes)}")
            elif not certificate.grade.good:
                output.note(grade.told(name, certificate.grade))
    return 0 if all(certificate.passed for certificate in certificates.values()) else 3


def _graded(certificate: Certificate) -> list[list[Any]]:
    """The grade as the last line of the table."""
    found = certificate.grade
    line = ["grade", found.name, found.agree, None, None, None, found.agree_n or None, found.words]
    return [line] * bool(found.words)


def _witness(folder: Path, rows: list[Row] | None) -> Witness:
    from ...quantize.proof.foreign_file import witness

    return witness(folder, rows or [])
