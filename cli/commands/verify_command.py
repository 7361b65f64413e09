"""`edgestill verify`: the proof, again."""

from __future__ import annotations

from pathlib import Path

import click

from .. import options, output, quiet


@click.command("verify", epilog=options.example("edgestill verify out/gguf-Q4_0", "edgestill verify out/* --json"))
@click.argument("artifacts", metavar="ARTIFACT...", nargs=-1, required=True, type=click.Path(path_type=Path))
@options.as_json
@options.verbose
def command(artifacts: tuple[Path, ...], as_json: bool) -> int:
    """Prove an artifact again: hashes, tokens, template, agreement.

    Runs the packed file in its engine against the float model's saved answers; needs no torch. Exit code 3 when a
    check fails.
    """
    from ...quantize import verify

    certificates = {}
    for artifact in artifacts:
        with quiet.stdout_kept_clean():
            certificates[str(artifact)] = verify(artifact)
    if as_json:
        output.result(certificates)
    else:
        for name, certificate in certificates.items():
            output.table(["check", "passed", "value", "limit", "n", "detail"], [
                [check.name, "not run" if check.passed is None else check.passed, check.value, check.limit, check.n, check.detail]
                for check in certificate.checks], title=name)
    return 0 if all(certificate.passed for certificate in certificates.values()) else 3
