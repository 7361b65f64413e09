"""JSON schemas: whatever the model wants to say, what comes out satisfies the schema."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from edgestill.models.errors import EdgestillError, MissingExtra, UsageError
from edgestill.runtime.constrain import Grammars
from edgestill.runtime.text import Codec

from . import tiny

CALL = {"type": "object", "properties": {
    "action": {"enum": ["turn_on", "turn_off"]}, "minutes": {"type": "integer", "minimum": 0, "maximum": 90},
    "rooms": {"type": "array", "items": {"type": "string", "maxLength": 6}, "maxItems": 2}},
    "required": ["action", "minutes"], "additionalProperties": False}
SCHEMAS: list[dict[str, Any]] = [
    CALL, {"type": "array", "items": CALL, "minItems": 1, "maxItems": 2}, {"anyOf": [CALL, {"const": "refused"}]},
    {"type": "object", "properties": {"text": {"type": "string", "pattern": "^[a-c]{2,4}$"}}, "required": ["text"]},
]


@pytest.fixture(scope="module")
def codec(tiny_llama: Path) -> Codec:
    return Codec.from_folder(tiny_llama)


def spoken(codec: Codec, schema: dict[str, Any], seed: int, size: int = 400) -> str:
    """What a model that wants random tokens says under the schema; `size` is larger than the tokenizer's vocabulary."""
    random, constraint, ids = np.random.default_rng(seed), Grammars(codec, size).compile(schema), []
    while not constraint.done and len(ids) < 300:
        logits = random.normal(size=size).astype(np.float32)
        constraint.mask(logits)
        token = int(logits.argmax())
        if token in codec.stop_ids:
            break
        assert token < codec.vocabulary_size
        constraint.accept(token)
        ids.append(token)
    return codec.decode(ids)


@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize("seed", range(5))
def test_random_models_satisfy_the_schema(schema: dict[str, Any], seed: int, codec: Codec) -> None:
    jsonschema.validate(json.loads(spoken(codec, schema, seed)), schema)


@pytest.mark.parametrize("answer", [{"action": "turn_on", "minutes": 5},
                                    {"action": "turn_off", "minutes": 90, "rooms": ["a", "b"]}])
def test_compact_json_is_allowed_as_the_tokenizer_writes_it(answer: dict[str, Any], codec: Codec) -> None:
    constraint = Grammars(codec, codec.vocabulary_size).compile(CALL)
    for token in codec.encode(json.dumps(answer, separators=(",", ":"))):
        logits = np.zeros(codec.vocabulary_size, np.float32)
        constraint.mask(logits)
        assert logits[token] == 0.0
        constraint.accept(token)
    assert constraint.done


def test_blanks_between_tokens_are_ruled_out(codec: Codec) -> None:
    constraint = Grammars(codec, codec.vocabulary_size).compile(CALL)
    constraint.accept(codec.encode("{")[0])
    logits = np.zeros(codec.vocabulary_size, np.float32)
    constraint.mask(logits)
    assert logits[codec.encode(" ")[0]] == logits[codec.encode("\n")[0]] == -np.inf


def test_a_token_that_was_ruled_out_is_an_error(codec: Codec) -> None:
    constraint = Grammars(codec, codec.vocabulary_size).compile(CALL)
    with pytest.raises(EdgestillError, match="the constraint failed"):
        constraint.accept(codec.encode("]")[0])


@pytest.mark.parametrize("schema", [
    {"type": "objekt"}, {"type": "object", "properties": 3}, {"$ref": "#/nowhere"}, {"type": "string", "pattern": "("},
    {"not": {"type": "string"}}, {"type": "string", "minLength": 5, "maxLength": 2}, {"type": {1, 2}}])
def test_schemas_that_cannot_be_enforced_are_refused(schema: dict[str, Any], codec: Codec) -> None:
    with pytest.raises(UsageError, match="^schema: ") as error:
        Grammars(codec, codec.vocabulary_size).compile(schema)
    assert "never generated without it" in error.value.hint


def test_without_llguidance_the_extra_is_named(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(MissingExtra, match="llguidance") as error:
        Grammars(codec, codec.vocabulary_size)
    assert "edgestill[structure]" in error.value.hint


def test_the_template_names_the_tokens_that_end_an_answer(codec: Codec) -> None:
    assert tiny.SPECIAL[0] == codec.tokenizer.id_to_token(min(codec.stop_ids))
    constraint = Grammars(codec, codec.vocabulary_size).compile({"type": "integer"})
    constraint.accept(codec.encode("7")[0])
    logits = np.zeros(codec.vocabulary_size, np.float32)
    constraint.mask(logits)
    assert all(logits[token] == 0.0 for token in codec.stop_ids)
