"""Answers that are tool calls and nothing else: a grammar out of the form in which the chat template writes calls."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...models.errors import UsageError
from ..text.tool_calls import CALL_ID, NAME, ToolFormat, arguments_in

if TYPE_CHECKING:
    from ..text.codec import Codec

FUNCTION_NAME = re.compile(r"[\w.-]{1,64}")


def grammar(form: ToolFormat, codec: Codec, tools: Sequence[Mapping[str, Any]], name: str = "",
            several: bool = True, otherwise: Mapping[str, Any] | None = None) -> str:
    """llguidance's Lark grammar of a call of one of `tools`, or of the one that is called `name`; of one or more calls
    where there is no name, `several` are wanted and several in one answer can be told apart. `otherwise` is the JSON
    schema of an answer that calls nothing, where that may be.

    Raises UsageError for functions that are described wrongly, a name that none of them has, and a template that does
    not write arguments as JSON behind the name.
    """
    functions = dict(_functions(tools))
    if name and name not in functions:
        raise UsageError(f"generate.tool_choice: the function {name!r} is not among the tools: {', '.join(functions)}",
                         "name one of them")
    once, twice = (_parts(_turn(text, codec)) for text in form.written)
    if len(once) != 3:
        raise UsageError(f"generate.tool_choice: the chat template writes calls in a form that cannot be bound: "
                         f"{form.written[0][:200]!r}", "use tool_choice auto")
    before, between, after = once
    opening, closing, middle = (_sequence(text, codec) for text in (before, after, between))
    more = ""
    if several and not name and form.before and len(twice) == 5 and (twice[:2], twice[3:]) == (once[:2], once[1:]):
        more = f"({_sequence(twice[2], codec)} call)*"
    # The blanks that the template writes, and no others: models are trained on them.
    blank = " " if '": ' in form.written[0] else ""
    guidance = {"whitespace_flexible": False, "item_separator": f",{blank}", "key_separator": f":{blank}"}
    chosen = [name] if name else list(functions)
    lines = [f"start: {opening} call {more} {closing}{' | otherwise' if otherwise is not None else ''}",
             "call: " + " | ".join(f"{json.dumps(one)} middle arguments_{place}" for place, one in enumerate(chosen)),
             f"middle: {middle or json.dumps('')}"]
    lines += [f"arguments_{place}: %json {json.dumps({**functions[one], 'x-guidance': guidance}, ensure_ascii=False)}"
              for place, one in enumerate(chosen)]
    if otherwise is not None:
        compact = {"x-guidance": {"whitespace_flexible": False}}
        lines.append(f"otherwise: %json {json.dumps({**otherwise, **compact}, ensure_ascii=False)}")
    return "\n".join(lines)


def _functions(tools: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Names, and the schemas of their arguments."""
    for place, tool in enumerate(tools):
        where = f"tools[{place}].function"
        function = tool.get("function")
        if not isinstance(function, Mapping):
            raise UsageError(f"{where}: an object was expected", 'write {"name": …, "parameters": JSON schema}')
        name, schema = function.get("name"), function.get("parameters")
        if not isinstance(name, str) or not FUNCTION_NAME.fullmatch(name):
            raise UsageError(f"{where}.name: {str(name)[:80]!r}, 1 to 64 letters, digits, _, - and . are the limits",
                             "rename the function")
        if schema is None:
            schema = {"properties": {}, "additionalProperties": False}
        if not isinstance(schema, Mapping) or schema.get("type", "object") != "object":
            raise UsageError(f"{where}.parameters: the JSON schema of an object was expected",
                             'write {"type": "object", "properties": …}')
        yield name, {**schema, "type": "object"}


def _turn(text: str, codec: Codec) -> str:
    """An assistant's turn without what ends it."""
    added = codec.tokenizer.get_added_tokens_decoder()
    ends = [added[token].content for token in codec.stop_ids if token in added] + [codec.turn_end]
    return text[:min((place for end in ends if end and (place := text.find(end)) >= 0), default=len(text))]


def _parts(text: str) -> list[str]:
    """What stands before, between and behind the names and arguments of calls; empty where a name has no arguments."""
    parts, place = [], 0
    while (name := text.find(NAME, place)) >= 0:
        start, end = arguments_in(text, name + len(NAME))
        if end < 0:
            return []
        parts += [text[place:name], text[name + len(NAME):start]]
        place = end
    return [*parts, text[place:]]


def _sequence(text: str, codec: Codec) -> str:
    """A text in the grammar: added tokens are themselves, and calls' ids whatever nine letters and digits."""
    added = {token.content: id for id, token in codec.tokenizer.get_added_tokens_decoder().items() if token.content}
    marks = sorted([*added, CALL_ID], key=len, reverse=True)
    parts = (part for part in re.split(f"({'|'.join(map(re.escape, marks))})", text) if part)
    return " ".join(f"<[{added[part]}]>" if part in added else "/[a-zA-Z0-9]{9}/" if part == CALL_ID
                    else json.dumps(part, ensure_ascii=False) for part in parts)
