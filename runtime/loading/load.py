"""Open an artifact for inference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...models import kinds
from ...models.errors import ArtifactError, UsageError
from ..generation.generator import Generator
from ..machine.remembered_threads import recall
from .foreign import codec_of, is_stranger, open_model, try_out

if TYPE_CHECKING:
    from ..encoders.classifier import Classifier
    from ..encoders.embedder import Embedder

MAX_THREADS = 512
"""An engine that asks the system for more threads than it can give ends the whole process."""


def load(path: Path | str, threads: int = 0, context: int = 0,
         check_hashes: bool = True) -> Generator | Classifier | Embedder:
    """Load an exported artifact, a .gguf file or an ONNX folder; `threads` 0 means as many as `profile` or `serve`
    measured to be fastest here, or else the physical cores this process may use, `context` 0 the model's own length
    up to 2048 tokens.

    What was made elsewhere has no hashes to check: it is tried in a limited process before it is opened in this one.
    `check_hashes` False leaves out either.
    Raises ArtifactError when a file is missing or changed or the engine refuses it, UsageError for an artifact that
    was not exported or a context longer than the model's, MissingExtra when its engine is not installed.
    """
    return load_streams(path, 1, threads, context, check_hashes)[0]


def load_streams(path: Path | str, count: int, threads: int = 0, context: int = 0,
                 check_hashes: bool = True) -> list[Generator] | list[Classifier] | list[Embedder]:
    """As `load`, a generator `count` times over the same weights, each for a thread of its own; what answers in one
    pass, and models whose state cannot be kept apart, once. Close all of them together."""
    if not 0 <= threads <= MAX_THREADS:
        raise UsageError(f"threads: {threads} is outside the limits 0 to {MAX_THREADS}",
                         "use as many as the machine has cores, or 0 for the physical cores this process may use")
    artifact = open_model(Path(path))
    task, format = artifact.manifest.task, artifact.manifest.scheme.partition(":")[0]
    if format not in kinds.names("runtime.engines"):
        raise UsageError(f"{path}: its weights are stored as {artifact.manifest.scheme!r}, which no engine here runs",
                         f"edgestill export {path} --to gguf:Q4_0")
    if check_hashes:
        if is_stranger(artifact):
            try_out(artifact)
        else:
            artifact.verify()
    codec = codec_of(artifact, task)
    threads = threads or recall(artifact)
    if task.kind == "classify":
        if format != "onnx":
            raise UsageError(f"{path}: classifiers run as onnx only, this one is {artifact.manifest.scheme}",
                             "edgestill export --to onnx:int8")
        from ..encoders.classifier import Classifier

        return [Classifier(artifact, codec, threads)]
    if task.kind == "embed":
        from ..encoders.embedder import Embedder

        return [Embedder(artifact, codec, threads)]
    kind = kinds.load("runtime.engines", format)
    engines = ([kind.open(artifact, threads=threads, context=context)] if count == 1
               else kind.open_streams(artifact, threads, context, count))
    engine = engines[0]
    if codec.vocabulary_size > engine.vocabulary_size:
        for one in engines:
            one.close()
        raise ArtifactError(f"{path}: the tokenizer has {codec.vocabulary_size} tokens, "
                            f"the model {engine.vocabulary_size}",
                            "the tokenizer is another model's: export the artifact again")
    return [Generator(engine, codec, artifact, task.max_new_tokens) for engine in engines]
