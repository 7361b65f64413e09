"""`edgestill inspect`: the manifest for a human."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ...models.artifact import FOREIGN, Manifest
from .. import options, output


@click.command("inspect", epilog=options.example("edgestill inspect out/gguf-Q4_0"))
@click.argument("artifact", type=click.Path(path_type=Path))
@options.as_json
@options.verbose
def command(artifact: Path, as_json: bool) -> None:
    """Show what an artifact is, holds and has proven.

    Reads the manifest and checks that every file stands with its size; `edgestill verify` checks the hashes. Of a
    .gguf file, an ONNX folder or a Hugging Face folder it shows what the headers say.
    """
    from ...runtime.loading.foreign import open_model

    opened = open_model(artifact)
    if as_json:
        output.result({"folder": artifact, "model_bytes": opened.model_bytes(), **output.plain(opened.manifest)})
        return
    output.table(["fact", "value"], _facts(opened.manifest) + [["model bytes", opened.model_bytes()]])
    output.table(["file", "bytes", "sha256"], [
        [name, entry.bytes, f"{entry.sha256[:16]}…" if entry.sha256 else None]
        for name, entry in opened.manifest.files.items()], title="\nfiles")
    if opened.manifest.checks:
        output.table(["check", "passed", "value", "limit", "n"], _checks(opened.manifest.checks), title="\nchecks")
    if opened.manifest.parents:
        output.table(["role", "name", "revision or sha256"], [
            [parent.get("role"), parent.get("name"), parent.get("revision") or parent.get("sha256")]
            for parent in opened.manifest.parents], title="\nmade from")


def _facts(manifest: Manifest) -> list[list[Any]]:
    facts: list[list[Any]] = [
        ["stage", manifest.stage],
        ["origin", "unverified" if manifest.stage == FOREIGN else None],
        ["task", manifest.task.kind],
        ["family", manifest.family],
        ["scheme", manifest.scheme],
        ["model file", manifest.model_file],
        *([key, value] for key, value in manifest.dimensions.items()),
        ["stop ids", ", ".join(map(str, manifest.tokenizer.stop_ids))],
        ["labels", f"{len(manifest.task.labels)}" if manifest.task.labels else None],
        *([f"licence of {key}", value] for key, value in manifest.licences.items()),
        *([f"made by {key}", value] for key, value in manifest.made_by.items()),
    ]
    return [[name, str(value)] for name, value in facts if value not in (None, "")]


def _checks(checks: dict[str, Any]) -> list[list[Any]]:
    """Certificate lines as columns; the numbers that training leaves behind as name and value."""
    lines: list[list[Any]] = []
    for name, found in checks.items():
        if not isinstance(found, dict):
            lines.append([name, None, found, None, None])
        elif "not_run" in found:
            lines.append([name, f"not run: {found['not_run']}", None, None, None])
        elif "value" in found:
            lines.append([name, found.get("passed"), found["value"], found.get("limit"), found.get("n")])
        else:
            lines += [[f"{name} {key}", None, value, None, None] for key, value in found.items()
                      if not isinstance(value, (dict, list))]
    return lines
