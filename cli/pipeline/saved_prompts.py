"""What a student spares every request that only its teacher was told: tokens of the prompt, and the time that they take
until the first token, measured on the shipped file."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...models.artifact import open_artifact
from ...models.errors import ArtifactError, DataError, UsageError
from ...models.json_values import read_object
from .layout import profile_file

if TYPE_CHECKING:
    from ...distill.teachers._prompt import Told
    from ...models.runfile import Profile
    from ...runtime.data.reader import Row


def file(name: str) -> str:
    """Where this is kept of a shipped file, relative to the output folder."""
    return f"saved/{name}.json"


def measure(folder: Path, name: str, told: Told, rows: Sequence[Row], settings: Profile) -> dict[str, Any]:
    """Of the shipped file `name` in the output folder, which was profiled: tokens of a prompt, the mean over all
    `rows`, without and with what the teacher is told; milliseconds to the first token, the median over
    `settings.repeats` of them, on an empty cache, asked by turns; or why there is no such number (`not_run`)."""
    from ...runtime.data.learned_tokens import prompt_ids
    from ...runtime.profiling.first_token import first_token_ms
    from ...runtime.text.codec import Codec

    artifact = open_artifact(folder / name)
    codec = Codec.from_folder(artifact.folder, artifact.manifest.task)
    try:
        pairs = [(prompt_ids(codec, row), prompt_ids(codec, whole)) for row, whole in
                 zip(rows, map(told.row, rows), strict=True)]
    except DataError as error:
        return {"not_run": f"the student's template has no place for what the teacher is told: {error.message}"}
    found: dict[str, Any] = {"rows": len(rows)}
    for place, key in enumerate(("prompt_tokens", "prompt_tokens_told")):
        found[key] = statistics.mean(len(pair[place]) for pair in pairs)
    count = settings.warmup + settings.repeats
    timed = [prompt for index in range(count) for prompt in pairs[index * len(pairs) // count]]
    try:
        threads = read_object(folder / profile_file(name), ArtifactError, "profile it again")["threads"]
        times = first_token_ms(artifact.folder, timed, threads)[2 * settings.warmup:]
    except UsageError as error:
        return found | {"not_run": f"the time to the first token: {error.message}"}
    return found | {"ttft_ms": statistics.median(times[::2]), "ttft_ms_told": statistics.median(times[1::2]),
                    "repeats": settings.repeats}
