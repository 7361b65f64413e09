"""Chat templates: messages to text, byte for byte as transformers' `apply_chat_template` renders them.

A template comes with a model and is foreign code, so it runs in jinja2's immutable sandbox and within limits. jinja2 is
imported by the first rendering, not with this file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from ..models.errors import ArtifactError, DataError

_REASONING = ("reasoning_content", "thinking", "reasoning")


class ChatTemplate:
    """One or several named templates of a model, and the special tokens they may print."""

    def __init__(self, sources: Mapping[str, str], variables: Mapping[str, str]) -> None:
        """`sources` are templates by name ("default", "tool_use"); `variables` such as {"bos_token": "<s>"}."""
        self.sources = dict(sources)
        self.variables = dict(variables)
        self._compiled: dict[str, Any] = {}

    def source(self, with_tools: bool = False) -> str:
        """The template's text that is used with or without tools."""
        return self.sources[self._name(with_tools)]

    def render(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = (),
               add_generation_prompt: bool = True) -> str:
        """The text of a conversation.

        Raises DataError when the template refuses these messages or does not come to an end, ArtifactError when it is
        no valid template.
        """
        if not messages:
            raise DataError("a chat template needs at least one message, and there is none", "add a user message")
        template = self._template(self._name(bool(tools)))
        try:
            # Keys without a value are left out: many templates print the word None for them.
            chat = [_alias_reasoning({str(k): _plain(v) for k, v in message.items() if v is not None})
                    for message in messages]
            text: str = template.environment.render_within_limits(template, {
                "messages": chat, "tools": [_plain(tool) for tool in tools] or None, "documents": None,
                "add_generation_prompt": add_generation_prompt, **self.variables})
        except DataError:
            raise
        except Exception as error:  # a template is a program: it can fail in every way a program can
            roles = ", ".join(str(message.get("role")) for message in messages)
            raise DataError(f"the model's chat template refuses these messages (roles: {roles}): {error}",
                            "give the roles in the order this model was trained on") from error
        return text

    def _name(self, with_tools: bool) -> str:
        if with_tools and "tool_use" in self.sources:
            return "tool_use"
        if "default" not in self.sources:
            raise ArtifactError(f"chat templates named {', '.join(self.sources)} and none named default",
                                "name one of the templates default in tokenizer_config.json")
        return "default"

    def _template(self, name: str) -> Any:
        if name not in self._compiled:
            import jinja2

            try:
                self._compiled[name] = _environment().from_string(self.sources[name])
            except jinja2.TemplateSyntaxError as error:
                raise ArtifactError(f"chat template, line {error.lineno}: {error.message}",
                                    "the template is damaged: take it from the model's own repository") from error
            except (RecursionError, MemoryError, SyntaxError, ValueError) as error:
                raise ArtifactError(f"the chat template cannot be compiled: {error}",
                                    "the template is damaged: take it from the model's own repository") from error
        return self._compiled[name]


def _environment() -> Any:
    """The names and switches that chat templates are written for."""
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension, loopcontrols

    from .template_limits import MeteredEnvironment

    class Generation(Extension):
        """`{% generation %}…{% endgeneration %}` marks the assistant's words and prints them as they are."""

        tags = {"generation"}

        def parse(self, parser: Any) -> nodes.Node:
            line = next(parser.stream).lineno
            return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True)).set_lineno(line)

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None,
               separators: tuple[str, str] | None = None, sort_keys: bool = False) -> str:
        # jinja2's own filter escapes <, > and & for HTML, which models were not trained on.
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = MeteredEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda layout: datetime.now().strftime(layout)
    return environment


def _alias_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    """Give a message's reasoning under every name that templates read it by."""
    reasoning = next((message[key] for key in _REASONING if message.get(key) is not None), None)
    return message if reasoning is None else {"thinking": reasoning, **message, "reasoning_content": reasoning}


def _plain(value: Any) -> Any:
    """A copy out of JSON types only: a template must not reach the methods of richer objects."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    raise DataError(f"a message holds a {type(value).__name__}, which is no JSON value",
                    "give text, numbers, true, false, null, lists and tables only")
