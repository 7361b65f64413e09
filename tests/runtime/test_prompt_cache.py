"""Prefixes: the same answers from a state that was computed once, in memory and from a file; damaged files."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from edgestill.models import kinds
from edgestill.models.errors import ArtifactError, UsageError
from edgestill.runtime import load
from edgestill.runtime.generation import prompt_cache
from edgestill.runtime.generation.generator import Generator
from edgestill.runtime.generation.prompt_cache import Prefix

LONG = "the light in the kitchen is on, and so is the radio in the hall. " * 4
TALK: list[dict[str, Any]] = [{"role": "system", "content": LONG[:200]}, {"role": "user", "content": "hello"},
                              {"role": "assistant", "content": "what now?"}]


@pytest.fixture(scope="module", params=kinds.names("runtime.engines"))
def model(request: pytest.FixtureRequest, packed_llama: dict[str, Path]) -> Iterator[Generator]:
    with load(packed_llama[request.param], threads=1) as one:
        assert isinstance(one, Generator)
        yield one


@pytest.mark.parametrize("made", [{"text": LONG[:150]}, {"messages": TALK}])
def test_answers_are_the_same_with_and_without(made: dict[str, Any], model: Generator, tmp_path: Path) -> None:
    path = tmp_path / "state"
    model.prefix(**made).save(path)
    prefix = model.load_prefix(path)
    assert len(prefix.ids) >= 64 and len(prefix.ids) % model.engine.block == 0
    for question in ("turn it off", "x"):
        asked = [{"role": "user", "content": made.get("text", "") + question}]
        messages = [*made.get("messages", []), *asked]
        fresh = model.chat(messages, reuse="none", max_new_tokens=12)
        model.engine.truncate(0)
        found = model.generate(question, prefix=prefix, max_new_tokens=12)
        assert (found.ids, found.cached_tokens) == (fresh.ids, len(prefix.ids))
        assert model.generate(question, prefix=prefix, max_new_tokens=12, temperature=1.5, seed=3).ids == model.chat(
            messages, reuse="none", max_new_tokens=12, temperature=1.5, seed=3).ids


def test_a_short_prefix_keeps_nothing_and_does_no_harm(model: Generator, tmp_path: Path) -> None:
    model.prefix("a").save(tmp_path / "state")
    prefix = model.load_prefix(tmp_path / "state")
    assert prefix.ids == []
    assert model.generate("bc", prefix=prefix, max_new_tokens=4).ids == model.generate("abc", max_new_tokens=4).ids


def test_another_models_prefix_is_refused(packed_llama: dict[str, Path], tmp_path: Path) -> None:
    with load(packed_llama["gguf"], threads=1) as first, load(packed_llama["onnx"], threads=1) as second:
        assert isinstance(first, Generator) and isinstance(second, Generator)
        prefix = first.prefix(LONG)
        prefix.save(tmp_path / "state")
        with pytest.raises(UsageError, match="state: made by another model"):
            second.load_prefix(tmp_path / "state")
        with pytest.raises(UsageError, match="prefix: made by another model"):
            second.generate("x", prefix=prefix)
    with pytest.raises(UsageError, match="no such file"):
        Prefix.load(tmp_path / "none")


def test_a_copy_of_the_model_is_the_same_model(packed_llama: dict[str, Path], tmp_path: Path) -> None:
    copy = shutil.copytree(packed_llama["gguf"], tmp_path / "copy")
    with load(packed_llama["gguf"], threads=1) as first, load(copy, threads=1) as second:
        assert isinstance(first, Generator) and isinstance(second, Generator)
        assert second.generate("x", prefix=first.prefix(LONG[:150]), max_new_tokens=3).cached_tokens >= 64


def test_damaged_files_are_refused(model: Generator, tmp_path: Path) -> None:
    path = tmp_path / "state"
    model.prefix(LONG[:150]).save(path)
    content = path.read_bytes()
    for size in (0, 10, 30, 60, 500, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(ArtifactError):
            Prefix.load(path)
    for place in [*range(0, 400, 7), *range(400, len(content), len(content) // 50)]:
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1:])
        with pytest.raises(ArtifactError, match="no saved prefix|changed"):
            Prefix.load(path)


HEAD: dict[str, Any] = {"text": "a", "messages": [], "ids": [1], "model": "", "arrays": []}


@pytest.mark.parametrize("head", [
    b"[" * 10**5, b"\xff", b"[1]", {}, HEAD | {"more": 1}, HEAD | {"ids": "abc"}, HEAD | {"ids": [10**400]},
    HEAD | {"messages": [1]}, HEAD | {"text": 5}, HEAD | {"arrays": [["float32", [10**9, 10**9]]]},
    HEAD | {"arrays": [["float32", ["a"]]]}, HEAD | {"arrays": [["object", [1]]]}, HEAD | {"arrays": [[1]]}])
def test_whoever_writes_a_file_can_write_its_hash(head: Any, tmp_path: Path) -> None:
    def forged(head: bytes) -> Path:
        content = len(head).to_bytes(8, "little") + head
        (tmp_path / "state").write_bytes(b"edgestill prefix 1\n" + hashlib.sha256(content).digest() + content)
        return tmp_path / "state"
    assert Prefix.load(forged(json.dumps(HEAD).encode())).ids == [1]
    with pytest.raises(ArtifactError, match=r"state: no (saved prefix|valid JSON)|state: a JSON object") as caught:
        Prefix.load(forged(head if isinstance(head, bytes) else json.dumps(head).encode()))
    assert caught.value.hint == "save it again"


def test_another_version_of_the_engine_makes_another_state(model: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    assert prompt_cache.model_digest(model.artifact) == prompt_cache.model_digest(model.artifact)
    known = prompt_cache.model_digest(model.artifact)
    monkeypatch.setattr(prompt_cache, "versions", lambda packages: dict.fromkeys(packages, "9.9"))
    assert prompt_cache.model_digest(model.artifact) != known


def test_a_state_of_other_tokens_than_it_says_is_refused(model: Generator, tmp_path: Path) -> None:
    """With a hash that is right: whoever writes a file can write it, too."""
    sound = model.prefix(LONG[:150])
    state = sound.arrays[0]
    forged: dict[str, Any] = {"fewer ids": {"ids": sound.ids[:-1]}, "no arrays": {"arrays": []},
                              "twice": {"arrays": [*sound.arrays, state]},
                              "cut": {"arrays": [state[:-64], *sound.arrays[1:]]},
                              "another type": {"arrays": [state.astype("float64"), *sound.arrays[1:]]}}
    wanted = model.generate("x", max_new_tokens=4).ids
    for name, changes in forged.items():
        model.engine.truncate(0)
        with pytest.raises(ArtifactError, match="cannot restore a state of|does not fit this model"):
            replace(sound, **changes).restore(model.engine)
        assert model.generate("x", max_new_tokens=4, reuse="none").ids == wanted, name


def test_a_prefix_is_a_text_or_messages(model: Generator) -> None:
    for given in ({}, {"text": "x", "messages": TALK}):
        with pytest.raises(UsageError, match="a text or messages"):
            model.prefix(**given)
