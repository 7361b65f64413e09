"""Every id that can end a turn stops generation: in the runtime, and in llama.cpp for a GGUF."""

from __future__ import annotations

from ..certificate import Check
from ..subject import Subject

TASKS = ("generate",)
CAUSE = "stop ids"


def check(subject: Subject) -> list[Check]:
    """The float model's stop ids against the artifact's."""
    wanted = set(subject.reference.fixtures.stop_ids)
    if not wanted:
        return [Check("stop_ids", None, detail="the float model has no token that ends a turn")]
    manifest = subject.artifact.manifest.tokenizer
    found = {"the artifact's tokenizer files": wanted - subject.codec.stop_ids,
             "the manifest": wanted - set(manifest.stop_ids)}
    if subject.inner is not None:
        is_stop = subject.inner.is_stop
        found["the end-of-generation tokens of the GGUF"] = {token for token in wanted if not is_stop(token)}
    missing = {place: sorted(ids) for place, ids in found.items() if ids}
    detail = "; ".join(f"{ids} missing in {place}" for place, ids in missing.items())
    count = float(len(set().union(*missing.values())))
    return [Check("stop_ids", not missing, "stop ids", count, 0.0, len(wanted), detail)]
