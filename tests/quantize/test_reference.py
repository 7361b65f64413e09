"""What a packed file is compared with, stored and read again."""

from __future__ import annotations

import contextlib
import gc
import json
import weakref
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgestill.models.errors import ArtifactError
from edgestill.quantize.proof import limits, reference
from edgestill.quantize.source import kept_logits
from edgestill.quantize.source.float_model import FloatModel


def test_conversations_keep_the_order_of_their_keys(tmp_path: Path) -> None:
    """Templates write tools and arguments as they stand: Qwen's would render them otherwise when verified."""
    tools = [{"type": "function", "function": {"name": "z", "description": "a", "arguments": {"b": 1, "a": 2}}}]
    messages = [{"role": "user", "content": "x"}]
    small(reference.Rendering(messages, tools, True, "0")).write(tmp_path)
    read = reference.read(tmp_path).fixtures.renderings[0]
    assert json.dumps([read.messages, read.tools]) == json.dumps([messages, tools])


def small(*renderings: reference.Rendering) -> reference.Reference:
    ids = [np.zeros(1, np.int32)]
    return reference.Reference(reference.Fixtures(["a"], {}, list(renderings), False, [0], {}), ids, ids, ids, ids,
                               [np.zeros(1, np.float16)], [np.zeros(1, np.float32)], np.zeros((0, 0), np.float32))


def test_an_archive_that_unfolds_beyond_all_measure_is_not_unfolded(tmp_path: Path) -> None:
    small().write(tmp_path)
    assert reference.read(tmp_path).tokens == 1
    with zipfile.ZipFile(tmp_path / reference.ARRAYS, "a", zipfile.ZIP_DEFLATED) as archive, \
            archive.open("bomb.npy", "w") as part:
        for _ in range(17):
            part.write(bytes(2**24))
    with pytest.raises(ArtifactError, match="unfolds to 285,.* bytes, the limit is 268,435,456"):
        reference.read(tmp_path)


def test_a_damaged_archive_is_an_error_of_the_artifact(tmp_path: Path) -> None:
    small().write(tmp_path)
    sound = (tmp_path / reference.ARRAYS).read_bytes()
    for place in range(0, len(sound), 37):
        (tmp_path / reference.ARRAYS).write_bytes(sound[:place] + bytes([sound[place] ^ 255]) + sound[place + 1:])
        with contextlib.suppress(ArtifactError):
            reference.read(tmp_path)


def test_a_text_is_read_by_the_float_model_once(tiny_llama: Path) -> None:
    """Of wide vocabularies the logits of all texts would not fit, and every target is compared with them again."""
    import torch

    model, bodies = FloatModel.from_folder(tiny_llama), []
    model.module.model.register_forward_hook(lambda *given: bodies.append(given))
    first = model.logits([1, 2, 3])
    with torch.inference_mode():
        assert np.array_equal(first, model.module(input_ids=torch.tensor([[1, 2, 3]])).logits[0].numpy())
    bodies.clear()
    assert np.array_equal(model.logits([1, 2, 3]), first) and not bodies
    weight = weakref.ref(next(model.module.parameters()))
    model.unload()
    gc.collect()
    assert weight() is None  # 6 GB of them at 1.5B stood beside the next ones
    assert np.array_equal(model.logits([1, 2, 3]), first)
    assert not np.array_equal(model.logits([1, 3, 2]), first)


def test_logits_that_are_changed_behind_the_output_layer_stay_so(tiny_llama: Path) -> None:
    model = FloatModel.from_folder(tiny_llama)
    forward = model.module.forward

    def capped(**given: Any) -> Any:
        found = forward(**given)
        found.logits = (found.logits / 2).tanh() * 2
        return found

    model.module.forward = capped
    first = model.logits([1, 2, 3])
    assert abs(first).max() <= 2 and np.array_equal(model.logits([1, 2, 3]), first)


def test_texts_that_are_read_together_get_the_logits_of_each_alone(tiny_llama: Path,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_logits, "READ_AT_ONCE", 12)
    texts = [[1, 2, 3], [5] * 7, [4, 3, 2, 1], [9, 8], [7, 7, 1]]
    alone = FloatModel.from_folder(tiny_llama)
    model, bodies = FloatModel.from_folder(tiny_llama), []
    model.module.model.register_forward_hook(lambda *given: bodies.append(given))
    model.read(texts)
    passes = len(bodies)
    for ids in texts:
        np.testing.assert_allclose(model.logits(ids), alone.logits(ids), atol=1e-5)
    assert len(bodies) == passes == 4  # one text alone, then 2, 3, 3 · 4 · 7 tokens in three
    model.module.lm_head.register_forward_hook(lambda layer, given, found: found + 1)  # no product any more
    changed = FloatModel(tiny_llama, model.module)
    changed.read(texts)
    np.testing.assert_allclose(changed.logits(texts[1]), alone.logits(texts[1]) + 1, atol=1e-5)


def test_large_models_are_judged_on_fewer_tokens() -> None:
    assert [limits.tokens_of(count) for count in (10**6, 5 * 10**8, 10**9, 10**10)] == [10_000, 10_000, 5_000, 3_000]
