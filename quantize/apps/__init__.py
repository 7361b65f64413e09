"""What runs an artifact elsewhere, mostly where Python does not: one file per place, and the name is `--app`'s.

A kind names in `FITS` what it runs: {(task, format): folder of `templates` that is copied}. `write(packed, codec,
folder)` adds to the copy what this artifact needs. `check(task, codec)` refuses a tokenizer or template that the app
cannot run; `NOTE` is what the user is told about the app, or empty. With `READS_PAIRS` it
runs models of pairs of texts, too.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from ...models import files, kinds, outputs
from ...models.artifact import FOREIGN, Artifact
from ...models.errors import UsageError
from ...models.scheme import Scheme
from ...runtime.files.model_files import classifier_config
from ...runtime.loading.foreign import codec_of

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from ...runtime.text.codec import Codec

TEMPLATES = resources.files(__package__) / "templates"
_WORDS = {"generate": "generator", "classify": "classifier", "embed": "embedder"}


def place(out: Path, artifact_name: str, name: str) -> Path:
    """Where the app `name` of an artifact goes, below the export's folder `out`."""
    return out / "apps" / f"{artifact_name}-{name}"


def fitting(names: Iterable[str], task: str, targets: Iterable[Scheme]) -> list[tuple[str, Scheme]]:
    """Every app with every export target that it runs for the task.

    Raises UsageError for an app that is not known, or that runs none of the targets.
    """
    targets, found = list(targets), []
    for name in dict.fromkeys(names):
        fits = [(name, target) for target in targets if (task, target.format) in _kind(name).FITS]
        if not fits:
            raise UsageError(f"--app {name}: runs no {_WORDS[task]}s in {' or '.join(map(str, targets))}",
                             _next(name))
        found += fits
    return found


def check(name: str, task: str, codec: Codec) -> None:
    """Raise UsageError for a tokenizer, DataError for a chat template, that the app `name` cannot run."""
    _kind(name).check(task, codec)


def check_texts(name: str, folder: Path) -> None:
    """Raise UsageError for a model of pairs of texts where the app reads one text."""
    if not getattr(_kind(name), "READS_PAIRS", False) and outputs.reads_pairs(classifier_config(folder)):
        raise UsageError(f"--app {name}: apps read one text, and {folder} is a cross-encoder, which scores pairs of "
                         "texts",
                         "leave it out: edgestill classify and serve take pairs, and so does transformers.js")


def checked_place(packed: Artifact, name: str, out: Path) -> Path:
    """Where the app `name` of an artifact goes; UsageError where it does not run the artifact."""
    manifest = packed.manifest
    if manifest.stage == FOREIGN or manifest.scheme == "hf":
        raise UsageError(f"{packed.folder}: an app runs a packed artifact, and this is none",
                         "give a folder that export wrote, or add a target, such as --to gguf:Q4_0, to pack this model")
    fitting([name], manifest.task.kind, [Scheme.parse(manifest.scheme)])
    check_texts(name, packed.folder)
    folder = place(out, packed.folder.resolve().name, name)
    files.refuse_non_empty(folder)
    return folder


def write(packed: Artifact, name: str, out: Path) -> Path:
    """Write the app `name` for an artifact and return its folder, `place(out, …)`, which must be new or empty.

    Raises ArtifactError for an artifact that was changed; UsageError where the app does not run the artifact, or does
    not know its tokenizer; DataError where its chat template does more than put text around a prompt.
    """
    kind, folder, manifest = _kind(name), checked_place(packed, name, out), packed.manifest
    packed.verify()
    with files.new_folder(folder) as temporary:
        copy(TEMPLATES / kind.FITS[manifest.task.kind, Scheme.parse(manifest.scheme).format], temporary)
        kind.write(packed, codec_of(packed, manifest.task), temporary)
    return folder


def copy(source: Traversable, target: Path, leave_out: Container[str] = ()) -> None:
    """Write a folder of this package, which may lie in a zip, into the folder `target`, but for what has a name of
    `leave_out`."""
    target.mkdir(parents=True, exist_ok=True)
    for item in source.iterdir():
        if item.name in leave_out:
            continue
        if item.is_dir():
            copy(item, target / item.name, leave_out)
        else:
            (target / item.name).write_bytes(item.read_bytes())


def _kind(name: str) -> ModuleType:
    return kinds.load("quantize.apps", name)


def _next(name: str) -> str:
    runs = ", ".join(f"{_WORDS[task]}s in {format}" for task, format in _kind(name).FITS)
    return f"the {name} app runs {runs}: add a target such as --to gguf:Q4_0 or --to onnx:int8"
