"""What binds an answer, in the words of OpenAI, vLLM, llama-server and our own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from . import known, validation
from .validation import Refusal


def structure(body: Mapping[str, Any]) -> dict[str, Any]:
    """At most one of the runtime's options schema (False frees an answer of the task's own), regex, choices and
    grammar. Refusal names the field that is wrong, and two that bind one answer."""
    asked = list(_asked(body))
    if len(asked) > 1:
        raise Refusal(f"{asked[0][0]} and {asked[1][0]} cannot both bind one answer", asked[1][0])
    if asked:
        return {asked[0][1]: asked[0][2]}
    return {"schema": False} if validation.object_(body, "response_format").get("type") == "text" else {}


def fields(body: Mapping[str, Any]) -> dict[str, str]:
    """By the runtime's options, the fields of a checked request that set them."""
    return {option: field for field, option, _ in _asked(body)}


def _asked(body: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """The field, the option that it sets, and the value, of each that binds the answer."""
    yield from _formats(validation.object_(body, "response_format"))
    yield from _spelled(body, {"regex": "regex", "choices": "choices", "grammar": "grammar"}, "")
    yield from _spelled(body, {"guided_json": "schema", "guided_regex": "regex", "guided_choice": "choices",
                               "guided_grammar": "grammar", "json_schema": "schema"}, "")
    outputs = validation.object_(body, "structured_outputs")
    known.check(outputs, known.STRUCTURED, "structured_outputs")
    yield from _spelled(outputs, {"json": "schema", "regex": "regex", "choice": "choices", "grammar": "grammar"},
                        "structured_outputs.")
    wanted_object = {"structured_outputs.json_object": outputs.get("json_object")}
    if validation.flag(wanted_object, "structured_outputs.json_object"):
        yield "structured_outputs.json_object", "schema", {"type": "object"}


def _formats(wanted: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    known.check(wanted, known.RESPONSE_FORMAT, "response_format")
    kind = wanted.get("type")
    if wanted and kind not in ("text", "json_object", "json_schema"):
        raise Refusal(f"response_format.type: {str(kind)[:40]!r}, known are text, json_object and json_schema",
                      "response_format.type")
    where = "response_format.json_schema"
    outer = validation.object_(wanted, "json_schema", where)
    known.check(outer, known.JSON_SCHEMA, where)
    validation.text(outer, "name", 1024, f"{where}.name")
    validation.flag({f"{where}.strict": outer.get("strict")}, f"{where}.strict")
    given = outer.get("schema") if "schema" in outer else wanted.get("schema")  # the latter is llama-server's place
    if kind == "json_schema":
        if not given:
            raise Refusal(f"{where}.schema: a JSON schema is needed", f"{where}.schema")
        yield "response_format", "schema", validation.object_({"schema": given}, "schema", f"{where}.schema")
    elif outer or (kind == "text" and given is not None):
        raise Refusal(f"response_format.type: {kind!r} takes no schema, json_schema does", "response_format.type")
    elif kind == "json_object":
        schema = validation.object_({"schema": given}, "schema", "response_format.schema")
        yield "response_format", "schema", schema or {"type": "object"}


def _spelled(table: Mapping[str, Any], options: Mapping[str, str], before: str) -> Iterator[tuple[str, str, Any]]:
    for name, option in options.items():
        value, where = table.get(name), before + name
        if value is None or (option != "schema" and value == "") or (option == "choices" and value == []):
            continue
        if option == "schema":
            if isinstance(value, str):  # vLLM takes a schema written out, too
                try:
                    value = json.loads(value)
                except (ValueError, RecursionError):
                    raise Refusal(f"{where}: no JSON schema", where) from None
            yield where, option, validation.object_({where: value}, where)
        elif option == "choices":
            yield where, option, validation.texts({where: value}, where, validation.INPUTS)
        else:
            yield where, option, validation.text({where: value}, where)
