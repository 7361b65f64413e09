"""GGUF, for llama.cpp and everything built on it."""

from __future__ import annotations

from ...models.errors import UsageError
from ...models.scheme import Scheme
from ...models.task import Task
from ..gguf.tokenizer.write import read as read_tokenizer
from ..gguf.write import write as write
from ..source import sentence_transformers
from ..source.model_folder import Source


def check(source: Source, scheme: Scheme) -> None:
    """UsageError or ArtifactError for a model that cannot be written as GGUF or that llama.cpp would read otherwise."""
    if source.task.kind == "classify":
        raise UsageError(f"{scheme}: classifiers are not exported as gguf", "take another target, such as onnx:int8")
    if source.task.kind == "embed":
        told = sentence_transformers.complete(Task("embed"), source.folder).pooling
        if source.task.pooling != told:
            raise UsageError(f"{scheme}: task.pooling = {source.task.pooling!r}, and beside the model stands {told!r}, "
                             "which goes into the file", "correct 1_Pooling/config.json, or leave task.pooling out")
    source.check_family(scheme)
    read_tokenizer(source.folder, source.checkpoint.vocabulary_size)
