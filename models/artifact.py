"""An artifact: one folder, one shippable model variant, carrying its own proof.

`manifest.json` is written last, so a folder without it is not an artifact. It lists every other file with
its SHA-256 and size; safetensors, GGUF and ONNX carry no checksum of their own.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from . import config_values, files, origin
from .errors import ArtifactError, UsageError
from .kv_cache import AUTO
from .strict import build
from .task import Task

SCHEMA = 1
MANIFEST = "manifest.json"
_READ = {".jinja", ".onnx", ".onnx_data", ".data", ".gguf", ".safetensors"}
_READ_BY_NAME = {*config_values.RULES, "tokenizer.json", "special_tokens_map.json", "added_tokens.json",
                 "genai_config.json", "certificate.json", "reference.npz", "fixtures.json", "run.toml", "modules.json",
                 "config_sentence_transformers.json", "sentence_bert_config.json", "adapter_config.json",
                 "model.safetensors.index.json", "grammar.gbnf"}
"""Suffixes and names of what is read of an artifact, besides what its manifest names."""
_LARGEST = 2**48
_LONGEST = 255
"""Bytes of a file's name: no file system takes longer ones everywhere."""
FOREIGN = "foreign"
"""The stage of a model that was made elsewhere: its manifest stands in memory alone."""


@dataclass(frozen=True)
class FileEntry:
    """What one file of the artifact must be."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Tokenizer:
    """Tokenizer facts that every engine needs."""

    bos_id: int | None = None
    eos_id: int | None = None
    stop_ids: list[int] = field(default_factory=list)
    """Every id that ends a turn: of the generation config, of the tokenizer and of the chat template."""
    add_bos: bool = False
    template_sha256: str = ""


@dataclass(frozen=True)
class Manifest:
    """The content of manifest.json."""

    stage: str
    """tune, distill, export, or unpack for a GGUF file turned into a folder; FOREIGN where there is no such file."""
    task: Task
    family: str
    """A file name of models/families, such as llama."""
    scheme: str
    """An export target such as gguf:Q4_0, or `hf` for a plain Hugging Face folder."""
    model_file: str
    """The file the engine loads, relative to the folder."""
    dimensions: dict[str, int] = field(default_factory=dict)
    """parameters, layers, hidden, vocabulary, context."""
    tokenizer: Tokenizer = field(default_factory=Tokenizer)
    parents: list[dict[str, Any]] = field(default_factory=list)
    """What it was made from: {role: base | teacher | data | student, name, revision or sha256}."""
    licences: dict[str, str] = field(default_factory=dict)
    """Of model, teacher and data."""
    checks: dict[str, Any] = field(default_factory=dict)
    """Measured numbers with their sample size, or {"not_run": why}."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Seed, threads and precision: what another run needs to make the same bytes."""
    made_by: dict[str, str] = field(default_factory=dict)
    files: dict[str, FileEntry] = field(default_factory=dict)
    schema: int = SCHEMA

    @property
    def kv(self) -> str:
        """The type in which its engine keeps keys and values: one of kv_cache.CHOSEN, or AUTO."""
        return str(self.settings.get("kv", AUTO))


@dataclass(frozen=True)
class Artifact:
    """A folder whose manifest was read and whose file sizes were checked."""

    folder: Path
    manifest: Manifest

    @property
    def model_path(self) -> Path:
        """The file the engine loads."""
        return self.folder / self.manifest.model_file

    def model_files(self) -> list[str]:
        """What an engine maps: the model file and its external data, without tokenizer, proof and card."""
        named = self.manifest.files
        return [name for name in named if self.manifest.stage == FOREIGN or is_of_model(name, self.manifest.model_file)]

    def model_bytes(self) -> int:
        """Bytes of the model files."""
        return sum(self.manifest.files[name].bytes for name in self.model_files())

    def verify(self) -> None:
        """Check the SHA-256 of every file; ArtifactError names the first that differs."""
        for name, entry in self.manifest.files.items():
            found = files.sha256(self.folder / name)
            if found != entry.sha256:
                raise ArtifactError(
                    f"{self.folder / name}: its SHA-256 is {found[:16]}…, the manifest says {entry.sha256[:16]}…",
                    "the file was changed or damaged after it was made: copy the artifact again, or export it again",
                )


def is_of_model(name: str, model_file: str) -> bool:
    """Whether a file of an artifact is its model file or that one's external data; several graphs may share those."""
    suffix = Path(model_file).suffix
    return name == model_file or name.endswith((f"{suffix}_data", f"{suffix}.data"))


def is_artifact(path: Path) -> bool:
    """Whether `path` is a folder with a manifest."""
    return (path / MANIFEST).is_file()


def open_artifact(path: Path) -> Artifact:
    """Read the manifest and check schema, presence and size of every file; hashes are `verify`'s work.

    Raises ArtifactError naming the file that is missing or of another size.
    """
    if not path.is_dir():
        raise ArtifactError(f"{path}: no such folder", "give the folder that export, tune or distill wrote")
    if not is_artifact(path):
        raise ArtifactError(f"{path}: no {MANIFEST} in it, so it is not an artifact (or was never finished)",
                            "make it again; a folder is an artifact only once its manifest stands")
    try:
        table = json.loads((path / MANIFEST).read_text(encoding="utf-8"), object_pairs_hook=_once,
                           parse_constant=_no_number)
        if table.get("schema") != SCHEMA:
            raise ArtifactError(f"{path / MANIFEST}: schema {table.get('schema')!r}, this version reads {SCHEMA}",
                                "use the edgestill version that made it, or export it again")
        manifest = build(Manifest, table, MANIFEST)
        config_values.check_settings(path / MANIFEST, manifest.settings)
        _check(path, manifest)
    except (ValueError, AttributeError, RecursionError, UsageError) as error:
        raise ArtifactError(f"{path / MANIFEST}: {error}", "the manifest is damaged: copy it again") from error
    for name, entry in manifest.files.items():
        file = path / name
        if not file.is_file() or not file.resolve().is_relative_to(path.resolve()):
            raise ArtifactError(f"{file}: listed in the manifest and not there", "copy the artifact again, whole")
        if file.stat().st_size != entry.bytes:
            raise ArtifactError(f"{file}: {file.stat().st_size} bytes, the manifest says {entry.bytes}",
                                "the file was cut short or changed: copy the artifact again")
    return Artifact(path, manifest)


def seal(folder: Path, **fields: Any) -> Manifest:
    """Hash every file below `folder` and write the manifest last. `fields` are those of Manifest."""
    listed = {
        path.relative_to(folder).as_posix(): FileEntry(files.sha256(path), path.stat().st_size)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    manifest = Manifest(**fields, files=listed, made_by=versions())
    files.write_json(folder / MANIFEST, asdict(manifest))
    origin.note(folder / MANIFEST)
    return manifest


def _check(folder: Path, manifest: Manifest) -> None:
    """ValueError unless all that is read of an artifact is listed, and lies inside it by a name that says so."""
    if manifest.stage == FOREIGN:
        raise ValueError(f"stage {FOREIGN!r}, which models without a manifest have")
    for name in manifest.files:
        parts = name.split("/")
        if not name.isprintable() or {"", ".", ".."} & set(parts) or any(mark in name for mark in "\\:") \
                or len(name.encode()) > _LONGEST:
            raise ValueError(f"the file name {name[:80]!r}, which is none inside the folder")
    if len({name.casefold() for name in manifest.files}) < len(manifest.files):
        raise ValueError("two file names that differ in capitals alone, and are one on many systems")
    needed = [manifest.model_file, *([Path(manifest.task.schema).name] if manifest.task.schema else [])]
    there = [path for path in folder.rglob("*") if not any(part.startswith(".") for part in
                                                           path.relative_to(folder).parts)]
    linked = next((path for path in there if path.is_symlink() and path.is_dir()), None)
    if linked is not None:
        raise ValueError(f"the folder {linked.name[:80]!r} is a link: what is read lies in the artifact itself")
    needed += [path.relative_to(folder).as_posix() for path in there
               if path.suffix in _READ or path.name in _READ_BY_NAME]
    for name in needed:
        if name not in manifest.files and name != MANIFEST:
            raise ValueError(f"does not list {name[:80]!r}, which would be read")
    if min(manifest.dimensions.values(), default=0) < 0 or max(manifest.dimensions.values(), default=0) > _LARGEST:
        raise ValueError(f"dimensions {manifest.dimensions}, 0 to {_LARGEST} are the limits")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _no_number(name: str) -> None:
    raise ValueError(f"{name}, which is no JSON")


def versions(packages: Sequence[str] = ("edgestill", "numpy", "tokenizers", "onnxruntime", "torch", "transformers",
                                        "llama-cpp-python", "gguf", "onnx", "onnxruntime-genai")) -> dict[str, str]:
    """The installed versions of what can change the bytes of an artifact, read without importing it."""
    from importlib import metadata  # costs 20 ms, and opening an artifact needs it not

    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
