"""Where transformers.js has a graph of its own over the same weights, it predicts what the other one predicts."""

from __future__ import annotations

from dataclasses import replace

from ....models import kinds
from ....models.scheme import Scheme
from ....runtime.loading.foreign import is_foreign
from ...layouts import transformers_js
from ..certificate import Check, at_most
from ..divergence import first, over
from ..limits import SECOND_GRAPH_KL_NATS
from ..packed_file import Subject

TASKS = ("generate",)
CAUSE = "weights"
QUICK = False
TOKENS = 512
"""Tokens that both graphs are compared on."""


def check(subject: Subject) -> list[Check]:
    """Both graphs in one pass each; nothing where one graph is for all."""
    artifact = subject.artifact
    if subject.format != "onnx" or is_foreign(artifact):
        return []
    name = transformers_js.model_file(Scheme.parse(artifact.manifest.scheme).type)
    if name == artifact.manifest.model_file:
        return []
    other = replace(artifact, manifest=replace(artifact.manifest, model_file=name))
    sequences = [ids for ids in subject.reference.sequences if len(ids)]
    longest = max(map(len, sequences), default=1)
    engine = kinds.load("runtime.engines", subject.format).open(other, threads=subject.threads, context=longest)
    lost = over(first(sequences, TOKENS), subject.engine.logits, engine.logits)
    engine.close()
    return [at_most("second_graph_kl_nats", lost.mean, SECOND_GRAPH_KL_NATS, lost.n,
                    f"nats between {name} and {artifact.manifest.model_file}")]
