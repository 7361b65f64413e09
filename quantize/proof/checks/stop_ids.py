"""Every id that can end a turn stops generation, and no word does: in the runtime, in llama.cpp, and in what other
programs read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ....runtime.loading.foreign import is_foreign
from ..certificate import Check
from ..packed_file import Subject

TASKS = ("generate",)
CAUSE = "stop ids"

PLACES = {"genai_config.json": ("model", "eos_token_id"), "generation_config.json": ("eos_token_id",)}
"""Files that onnxruntime-genai and transformers.js take stop ids from alone. A GGUF carries its own, and nobody's
graph has to be for transformers.js."""


def check(subject: Subject) -> list[Check]:
    """The float model's stop ids against the artifact's."""
    wanted = set(subject.reference.fixtures.stop_ids)
    if not wanted:
        return [Check("stop_ids", None, detail="the float model has no token that ends a turn")]
    manifest = subject.artifact.manifest.tokenizer
    found = {"the artifact's tokenizer files": set(subject.codec.stop_ids), "the manifest": set(manifest.stop_ids)}
    folder = subject.artifact.folder
    for name, keys in PLACES.items():
        read = subject.inner is None and (name == "genai_config.json" or not is_foreign(subject.artifact))
        if read and (folder / name).is_file():
            table = json.loads((folder / name).read_text(encoding="utf-8"))
            found[name] = _listed(table, keys)
    words = _words(subject)
    if subject.inner is not None:
        is_stop = subject.inner.is_stop
        found["the end-of-generation tokens of the GGUF"] = {token for token in wanted | words if is_stop(token)}
    missing = {place: sorted(wanted - ids) for place, ids in found.items() if wanted - ids}
    # Engines may end at further special tokens of their own accord; a word that ends an answer cuts it short.
    extra = {place: sorted(ids & words - wanted) for place, ids in found.items() if ids & words - wanted}
    told = [f"{ids} missing in {place}" for place, ids in missing.items()]
    told += [f"{ids} are parts of ordinary texts, and end one by {place}" for place, ids in extra.items()]
    count = float(len(set().union(*missing.values(), *extra.values())))
    return [Check("stop_ids", not count, "stop ids", count, 0.0, len(wanted), "; ".join(told))]


def _words(subject: Subject) -> set[int]:
    """The tokens of the corpus that are none of the added ones, at some of which llama.cpp ends of its own accord."""
    ids = {int(token) for text in subject.reference.text_ids for token in text}
    return ids - set(subject.codec.tokenizer.get_added_tokens_decoder())


def _listed(table: Any, keys: Sequence[str]) -> set[int]:
    """The ids below nested keys: one, several or none."""
    for key in keys:
        table = table.get(key) if isinstance(table, dict) else None
    return set(table) if isinstance(table, list) else {table} if isinstance(table, int) else set()
