"""JSON schemas: whatever the model wants to say, what comes out satisfies the schema."""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any, Literal

import jsonschema
import numpy as np
import pytest
from edgestill.models.errors import DataError, EdgestillError, MissingExtra, UsageError
from edgestill.runtime import load
from edgestill.runtime.generation.constraints import Grammars
from edgestill.runtime.generation.generator import Generator
from edgestill.runtime.text.codec import Codec

from .. import packed, tiny

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


def spoken(codec: Codec, schema: Any, seed: int, size: int = 400, kind: str = "schema") -> str:
    """What a model that wants random tokens says under the schema; `size` is larger than the tokenizer's vocabulary."""
    random, constraint, ids = np.random.default_rng(seed), Grammars(codec, size).compile(schema, kind), []
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
    for name in ("llguidance", "llguidance._lib"):
        monkeypatch.setitem(sys.modules, name, None)
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


@pytest.mark.parametrize(("kind", "value", "pattern"), [
    ("regex", "[a-c]{2,4}x?", "[a-c]{2,4}x?"), ("choices", ["turn on", 'say "no"', "ünï\n"], 'turn on|say "no"|ünï\n'),
    ("grammar", 'start: "a" x+ "b"\nx: "-" | /[0-9]/', "a[-0-9]+b"),
    ("grammar", 'root ::= "a" x+ "b"\nx ::= "-" | [0-9]', "a[-0-9]+b")])
@pytest.mark.parametrize("seed", range(3))
def test_other_structures_are_kept_too(kind: str, value: Any, pattern: str, seed: int, codec: Codec) -> None:
    text = spoken(codec, value, seed, kind=kind)
    assert re.fullmatch(pattern, text) or len(text) > 100


@pytest.mark.parametrize(("kind", "value"), [
    ("regex", "a("), ("regex", "(" * 60000 + "a" + ")" * 60000), ("regex", "[" * 60000), ("choices", []),
    ("choices", [""]), ("choices", [1]), ("grammar", "start: ("), ("grammar", "start: " + "(" * 60000),
    ("grammar", "root ::= " + "(" * 60000), ("grammar", "root ::= [a"), ("grammar", "hello"),
    ("schema", json.loads('{"type":"array","items":' * 400 + "{}" + "}" * 400)), ("grammar", "x" * 300_000)])
def test_grammars_that_are_invalid_or_explode_are_refused(kind: str, value: Any, codec: Codec) -> None:
    started = time.perf_counter()
    with pytest.raises(UsageError, match=f"^{kind}: ") as error:
        Grammars(codec, codec.vocabulary_size).compile(value, kind)
    assert time.perf_counter() - started < 5 and len(error.value.message) < 400
    assert value != "a(" or "unclosed group" in error.value.message


def test_a_schema_without_end_is_refused(codec: Codec) -> None:
    deep: dict[str, Any] = {}
    for _ in range(60000):
        deep = {"items": deep}
    with pytest.raises(UsageError, match="nested too deeply, the limit is 100"):
        Grammars(codec, codec.vocabulary_size).compile(deep)


def test_a_grammar_is_compiled_once_and_starts_anew(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    grammars = Grammars(codec, codec.vocabulary_size)
    first = grammars.compile(["ab", "cd"], "choices")
    first.accept(codec.encode("a")[0])
    monkeypatch.setattr(grammars, "_matcher", None)
    second = grammars.compile(["ab", "cd"], "choices")
    assert second.allows(codec.encode("c")[0]) and not first.allows(codec.encode("c")[0])
    monkeypatch.undo()
    for number in range(40):
        grammars.compile([str(number)], "choices")
    assert len(grammars._compiled) == 32


def test_forced_text_comes_as_the_tokenizer_writes_it(codec: Codec) -> None:
    constraint = Grammars(codec, codec.vocabulary_size).compile(CALL)
    forced = constraint.forced()
    assert forced == codec.encode('{"action":"turn_on"')[:len(forced)] and len(forced) > 3
    assert not constraint.done and not constraint.complete and constraint.forced() == []


@pytest.mark.parametrize("engine", ["gguf", "onnx"])
def test_structures_bind_whole_answers(engine: str, packed_llama: dict[str, Path]) -> None:
    with load(packed_llama[engine], threads=1) as model:
        assert isinstance(model, Generator)
        found = model.generate("x", schema=CALL, max_new_tokens=100)
        assert found.finish_reason == "stop" and found.parsed == json.loads(found.text)
        assert model.generate("x", choices=["yes", "no"], temperature=1.0).text in ("yes", "no")
        assert re.fullmatch("[0-9]{3}", model.generate("x", regex="[0-9]{3}").text)
        assert model.generate("x", regex="[0-9]{3}").parsed is None
        assert model.generate("x", schema=CALL, max_new_tokens=3).parsed is None
        # Token by token: log-probabilities are asked for, so nothing is skipped.
        assert json.loads(model.generate("x", schema=CALL, logprobs=0, max_new_tokens=100).text) == found.parsed


def test_a_pydantic_class_is_a_schema_and_its_object_comes_back(packed_llama: dict[str, Path]) -> None:
    pydantic = pytest.importorskip("pydantic")
    call = pydantic.create_model("Call", action=(str, pydantic.Field(pattern="^(on|off)$")),
                                 minutes=(int, pydantic.Field(ge=0, le=90)))
    with load(packed_llama["gguf"], threads=1) as model:
        assert isinstance(model, Generator)
        found = model.generate("x", schema=call, max_new_tokens=100)
        assert isinstance(found.parsed, call) and found.parsed == call.model_validate_json(found.text)
        picky = pydantic.create_model("Picky", word=(Literal["a"], ...), __validators__={
            "never": pydantic.field_validator("word")(lambda word: int(word))})
        with pytest.raises(DataError, match="satisfies the JSON schema of Picky and not the class"):
            model.generate("x", schema=picky, max_new_tokens=100)


def test_the_tasks_schema_binds_unless_told_not_to(tiny_llama: Path, packed_llama: dict[str, Path],
                                                   tmp_path: Path) -> None:
    folder = Path(shutil.copytree(packed_llama["gguf"], tmp_path / "bound"))
    (folder / "schema.json").write_text(json.dumps(CALL))
    packed.resealed(folder, task={"schema": "schema.json", "max_new_tokens": 24})
    with load(folder, threads=1) as model:
        assert isinstance(model, Generator)
        assert set(model.generate("x", max_new_tokens=100).parsed) >= {"action", "minutes"}
        assert model.generate("x", schema=False).parsed is None
        assert model.generate("x", choices=["yes"]).text == "yes"
        assert model.generate("x", tools=[{"type": "function", "function": {"name": "f"}}]).parsed is None
    (folder / "schema.json").write_text("[]")
    packed.resealed(folder)
    with load(folder, threads=1, check_hashes=False) as model, pytest.raises(UsageError, match="object was expected"):
        model.generate("x")  # type: ignore[union-attr]
