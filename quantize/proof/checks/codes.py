"""The packed file predicts what its own weights predict in the float model, but for its engine's rounding."""

from __future__ import annotations

from contextlib import AbstractContextManager

from ....models.scheme import MIXED
from ....runtime.files import gguf_header
from ...gguf.llama_quantizer import MIXTURES
from ...gguf.tensors import FLOATS, as_in_checkpoint, plan, stored
from ...source.checkpoint import Checkpoint
from ...source.float_model import FloatModel
from ...source.replaced_weights import placed
from ..certificate import Check, at_most
from ..divergence import first, over
from ..limits import CODES_KL_NATS
from ..packed_file import Subject

TASKS = ("generate",)
CAUSE = "weights"
NAME = "codes_kl_nats"
TOKENS = 2048
"""Tokens that are compared."""


def check(subject: Subject) -> list[Check]:
    """At export only, where the float model is at hand, and for types too coarse for a fixed distance from it."""
    if subject.float_model is None or (subject.coded is None and not _mixture(subject)):
        return []
    coded = subject.coded
    with coded.placed(subject.float_model) if coded else _unpacked(subject, subject.float_model) as model:
        if model is None:
            return [Check(NAME, None, detail="the float model has no matrices of the shapes that were packed")]
        texts = first(subject.reference.sequences, TOKENS)
        model.read(texts)  # each pass puts every weight in its place
        lost = over(texts, model.logits, subject.engines.plain.logits)
    return [at_most(NAME, lost.mean, CODES_KL_NATS, lost.n, "nats from its own weights in the float model")]


def _mixture(subject: Subject) -> bool:
    """Whether the file is a GGUF of several types, which stand in the file alone."""
    format, _, type = subject.artifact.manifest.scheme.partition(":")
    return format == "gguf" and type in (*MIXTURES, MIXED)


def _unpacked(subject: Subject, model: FloatModel) -> AbstractContextManager[FloatModel | None]:
    """The float model on the matrices of the file."""
    path, checkpoint = subject.artifact.model_path, Checkpoint.open(model.folder)
    found = {tensor.name: tensor for tensor in gguf_header.read(path).tensors}
    packed = {tensor.source: tensor for tensor in plan(checkpoint, "Q8_0")[0]
              if len(tensor.shape) == 2 and tensor.source and found[tensor.name].type not in FLOATS}
    return placed(model, packed, lambda name, _: as_in_checkpoint(
        packed[name], stored(path, found[packed[name].name]), checkpoint))
