"""What is exported: a tuned or distilled artifact, or a plain Hugging Face folder, checked before weights load."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...models import files
from ...models.artifact import MANIFEST, is_artifact, open_artifact
from ...models.errors import UsageError
from ...models.json_values import read_object
from ...models.scheme import Scheme
from ...models.task import Task
from ...runtime.encoders.head import Head
from ...runtime.files.model_files import classifier_config
from ...runtime.text import unembedded
from ...runtime.text.tokenizer_files import PROCESSOR_TEMPLATE
from . import sentence_transformers
from .checkpoint import Checkpoint

SCHEMA = "schema.json"
INHERITED = ("temperature", "grid_aware")
"""Settings of a trained artifact that its exports keep: what a classifier's runtime needs, how far weights on the grid
are from the float ones they learned from."""
COPIED = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
          "added_tokens.json", "chat_template.jinja", PROCESSOR_TEMPLATE, "run.toml", "metrics.jsonl",
          *sentence_transformers.FILES)


@dataclass(frozen=True)
class Source:
    """A model to export and what is known of where it comes from."""

    folder: Path
    checkpoint: Checkpoint
    task: Task
    schema: dict[str, Any] | None
    """The JSON schema that answers must satisfy."""
    parents: list[dict[str, Any]]
    licences: dict[str, str]
    settings: dict[str, Any]
    """The source's own settings that are INHERITED."""

    @classmethod
    def open(cls, path: Path, task: Task | None = None) -> Source:
        """Read everything but the weights; `task` stands in for the artifact's own.

        Raises ArtifactError for a folder that is incomplete or was changed, UsageError for a model that cannot be
        exported or not for this task.
        """
        parents: list[dict[str, Any]] = []
        licences: dict[str, str] = {}
        settings: dict[str, Any] = {}
        if is_artifact(path):
            artifact = open_artifact(path)
            if artifact.manifest.scheme != "hf":
                raise UsageError(f"{path}: is packed already, as {artifact.manifest.scheme}",
                                 "export the folder that tune or distill wrote")
            artifact.verify()
            task = task or artifact.manifest.task
            settings = {key: value for key, value in artifact.manifest.settings.items() if key in INHERITED}
            parents, licences = list(artifact.manifest.parents), dict(artifact.manifest.licences)
        checkpoint = Checkpoint.open(path)
        parents.append({"role": "source", "name": path.resolve().name, "sha256": _identity(path)})
        task = _complete(task, checkpoint)
        return cls(path, checkpoint, task, _schema(task, path), parents, licences, settings)

    @property
    def head(self) -> Head | None:
        """How a classifier's logits become answers."""
        if self.task.kind != "classify":
            return None
        return Head.of(self.task, {}, None, float(self.settings.get("temperature", 1.0)))

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    def check_family(self, scheme: Scheme) -> None:
        """Raise UsageError when this model's family cannot be written in the scheme's format."""
        family = self.checkpoint.family
        if (family.gguf if scheme.format == "gguf" else family.onnx) is None:
            other = "onnx:int8" if scheme.format == "gguf" else "gguf:Q4_0"
            raise UsageError(f"{scheme}: models of the {family.name} family are not exported as {scheme.format}",
                             f"take another target, such as {other}")
        family.check(self.checkpoint.config, scheme.format)

    def dimensions(self) -> dict[str, int]:
        """Parameters, layers, hidden size, vocabulary and context, for the manifest."""
        config, family = self.checkpoint.config, self.checkpoint.family
        context = family.context(config)
        if self.task.kind == "embed":
            context = min(context, sentence_transformers.longest_text(self.folder) or context)
        return {"parameters": self.checkpoint.parameters(), "vocabulary": self.checkpoint.vocabulary_size,
                "context": context, **{key: int(family.of(config, key)) for key in ("layers", "hidden")}}

    def copy_files(self, folder: Path) -> None:
        """Put tokenizer, template, configs and the schema into an artifact."""
        unembedded.copy_files(self.folder, folder, COPIED)
        if (self.folder / "additional_chat_templates").is_dir():
            shutil.copytree(self.folder / "additional_chat_templates", folder / "additional_chat_templates")
        if self.schema is not None:
            # Keys in their own order: it is the order in which a constrained answer must write them.
            files.write_text(folder / SCHEMA, json.dumps(self.schema, indent=2, ensure_ascii=False) + "\n")

    def shipped_task(self) -> Task:
        """The task as the artifact states it: its schema lies inside."""
        return replace(self.task, schema=SCHEMA if self.schema is not None else "")


def _identity(folder: Path) -> str:
    """SHA-256 of an artifact's manifest, which names every byte; else over the hashes of the weight files."""
    if is_artifact(folder):
        return files.sha256(folder / MANIFEST)
    weights = sorted(folder.glob("*.safetensors"))
    return hashlib.sha256("".join(f"{path.name} {files.sha256(path)}\n" for path in weights).encode()).hexdigest()


def _complete(task: Task | None, checkpoint: Checkpoint) -> Task:
    """The task with the labels and the head that the config names, checked against family and weights."""
    family, architecture = checkpoint.family, checkpoint.config["architectures"][0]
    kinds = ["embed"] if architecture in family.embeds else [kind for kind in family.tasks if kind != "embed"]
    task = task or Task(kind=kinds[0])
    if task.kind not in kinds:
        raise UsageError(f"task.kind = {task.kind!r}: a {architecture} can {', '.join(kinds)}",
                         "choose a model that was made for this task, or train it for the task first")
    if task.kind != "classify" and (task.head != "auto" or task.thresholds):
        key = "thresholds" if task.thresholds else "head"
        raise UsageError(f"task.{key}: of classifiers alone, and task.kind is {task.kind!r}",
                         'leave it out, or say kind = "classify"')
    if task.kind == "embed":
        return sentence_transformers.complete(task, checkpoint.folder)
    if task.kind != "classify":
        return task
    count = checkpoint.outputs
    if task.labels and count is not None and len(task.labels) != count:
        raise UsageError(f"task.labels: {len(task.labels)} labels, the model has {count} outputs",
                         "give the labels the model was trained with, in the order of their ids")
    head = Head.of(task, classifier_config(checkpoint.folder), count)
    return replace(task, labels=list(head.labels), head=head.kind)


def _schema(task: Task, folder: Path) -> dict[str, Any] | None:
    if not task.schema:
        return None
    places: Sequence[Path] = (folder / task.schema, Path(task.schema))
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise UsageError(f"task.schema: {task.schema}: no such file", f"looked in {folder} and in the working folder")
    return read_object(path, UsageError, "correct the file of task.schema")
