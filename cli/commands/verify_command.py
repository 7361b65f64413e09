"""`edgestill verify`: the proof, again."""

from __future__ import annotations

from pathlib import Path

import click

from .. import inputs, options, output, quiet


@click.command("verify", epilog=options.example("edgestill verify out/gguf-Q4_0", "edgestill verify out/* --json"))
@click.argument("artifacts", metavar="ARTIFACT...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--rows", type=click.Path(path_type=Path),
              help="Run file (its test rows) or data file, to prove tokens and the task metric on too.")
@click.option(
    "--column", "columns", multiple=True, metavar="OURS=THEIRS", help="Column of a data file; may be repeated."
)
@options.threads
@options.settings
@options.as_json
@options.verbose
def command(artifacts: tuple[Path, ...], rows: Path | None, columns: tuple[str, ...], threads: int,
            overrides: tuple[str, ...], as_json: bool) -> int:
    """Prove an artifact again: hashes, tokens, template, agreement.

    Runs the packed file in its engine against the float model's saved answers; needs no torch. Exit code 3 when a
    check fails.
    """
    from ...quantize import verify

    chosen = inputs.read_rows(rows, columns, overrides) if rows else None
    certificates = {}
    for artifact in artifacts:
        with quiet.stdout_kept_clean():
            certificates[str(artifact)] = verify(artifact, rows=chosen, threads=threads)
    if as_json:
        output.result({name: {**output.plain(certificate), "passed": certificate.passed}
                       for name, certificate in certificates.items()})
    else:
        for name, certificate in certificates.items():
            output.table(
                ["check", "passed", "value", "limit", "n", "detail"],
                [
                    [
                        check.name,
                        "not run" if check.passed is None else check.passed,
                        check.value,
                        check.limit,
                        check.n,
                        check.detail,
                    ]
                    for check in certificate.checks
                ],
                title=name,
            )
    return 0 if all(certificate.passed for certificate in certificates.values()) else 3
