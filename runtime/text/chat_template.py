"""Chat templates: messages to text, byte for byte as transformers' `apply_chat_template` renders them.

A template comes with a model and is foreign code, so it runs in jinja2's immutable sandbox and within limits. jinja2 is
imported by the first rendering, not with this file.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ...models.errors import ArtifactError, DataError, UsageError

if TYPE_CHECKING:
    from .template_process import TemplateProcess

REASONING = ("reasoning_content", "thinking", "reasoning")
"""Names that a message's reasoning goes by."""
THINKING = "enable_thinking"
"""The option that switches reasoning on or off; false also where a template itself knows no such switch."""
NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})
CLOSED = "\n</think>\n\n"
"""What DeepSeek's R1 writes behind its thoughts, which its template leaves out of answered conversations."""
_OPENED = re.compile(r"<think>\s*\Z")
_OWN = ("messages", "tools", "documents", "add_generation_prompt")


class ChatTemplate:
    """One or several named templates of a model, and the special tokens they may print."""

    def __init__(self, sources: Mapping[str, str], variables: Mapping[str, str], apart: bool = False) -> None:
        """`sources` are templates by name ("default", "tool_use"); `variables` such as {"bos_token": "<s>"}. `apart`
        renders them in a process of its own, with a deadline."""
        self.sources = dict(sources)
        self.variables = dict(variables)
        self.apart = apart
        self._compiled: dict[str, Any] = {}

    def source(self, with_tools: bool = False) -> str:
        """The template's text that is used with or without tools."""
        return self.sources[self._name(with_tools)]

    def reads(self, name: str) -> bool:
        """Whether a template of the model speaks of `name` at all: of a role, a key of messages, a variable."""
        return any(re.search(rf"\b{re.escape(name)}\b", source) for source in self.sources.values())

    def check_options(self, options: Mapping[str, Any], where: str) -> None:
        """UsageError for a variable that the template does not read, or that is not the caller's to set; `where`
        names the options."""
        for name, value in options.items():
            if name in _OWN or name in self.variables:
                raise UsageError(f"{where}.{name}: is set by the program itself", "leave it out")
            if name == THINKING and not isinstance(value, bool):
                raise UsageError(f"{where}.{name}: {value!r} is neither true nor false", "write true or false")
            if name not in self._read and not (name == THINKING and value is False):
                near = difflib.get_close_matches(name, sorted(self._read), n=1)
                raise UsageError(f"{where}.{name}: the model's chat template reads no variable of this name",
                                 f"did you mean {near[0]!r}?" if near else "leave it out")

    @cached_property
    def _read(self) -> set[str]:
        """The variables that the templates read and a caller may set."""
        found = self._child.ask("undeclared") if self.apart else self.undeclared()
        return set(found) - {*_OWN, *self.variables}

    def undeclared(self) -> list[str]:
        """The variables that the templates read and do not set themselves, the caller's and the program's."""
        from jinja2 import meta

        from .template_budget import budget

        for name in self.sources:
            self._template(name)
        environment = _environment()
        with budget():
            found = [meta.find_undeclared_variables(environment.parse(source)) for source in self.sources.values()]
        return sorted(set().union(*found) - set(environment.globals))

    def render(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = (),
               add_generation_prompt: bool = True, options: Mapping[str, Any] = NO_OPTIONS) -> str:
        """The text of a conversation; `options` are variables of the template.

        A developer's message is the system's in a template that knows no such role. Raises DataError when the template
        refuses these messages or does not come to an end, ArtifactError when it is no valid template.
        """
        if not messages:
            raise DataError("a chat template needs at least one message, and there is none", "add a user message")
        # Keys without a value are left out: many templates print the word None for them.
        chat = [_alias_reasoning(_plain({str(k): v for k, v in message.items() if v is not None}))
                for message in messages]
        if not self.reads("developer"):
            chat = [message | {"role": "system"} if message.get("role") == "developer" else message
                    for message in chat]
        name, given = self._name(bool(tools)), {
            "messages": chat, "tools": [_plain(tool) for tool in tools] or None, "documents": None,
            "add_generation_prompt": add_generation_prompt, **self.variables, **_plain(options)}
        return str(self._child.ask("filled", name, given)) if self.apart else self.filled(name, given)

    def filled(self, name: str, variables: Mapping[str, Any]) -> str:
        """The text of one of the templates, in this process; errors as in `render`."""
        template = self._template(name)
        try:
            text: str = template.environment.render_within_limits(template, variables)
        except DataError:
            raise
        except Exception as error:  # a template is a program: it can fail in every way a program can
            roles = ", ".join(str(message.get("role")) for message in variables["messages"])
            raise DataError(f"the model's chat template refuses these messages (roles: {roles}): "
                            f"{str(error) or type(error).__name__}",
                            "give the roles in the order this model was trained on") from error
        return text

    @cached_property
    def _child(self) -> TemplateProcess:
        from .template_process import TemplateProcess

        return TemplateProcess(self.sources)

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
                self._compiled[name] = _environment().compiled(self.sources[name])
            except jinja2.TemplateSyntaxError as error:
                raise ArtifactError(f"chat template, line {error.lineno}: {error.message}",
                                    "the template is damaged: take it from the model's own repository") from error
            except (RecursionError, MemoryError, SyntaxError, ValueError) as error:
                raise ArtifactError(f"the chat template cannot be compiled: {error}",
                                    "the template is damaged: take it from the model's own repository") from error
        return self._compiled[name]


def continued(prompt: str, whole: str, thoughts: str = "") -> str | None:
    """The answered conversation `whole` as it goes on from `prompt`; None where it does not.

    The prompts of some templates (DeepSeek-R1's) end inside of thoughts that they leave out once there is an answer:
    the thoughts are then put between, as the model itself writes them.
    """
    if whole.startswith(prompt):
        return whole
    opened = _OPENED.search(prompt)
    if opened is None or not whole.startswith(prompt[:opened.start()]):
        return None
    rest = whole[opened.start():]  # behind thoughts that stood in the words there may be line ends already
    return prompt + thoughts + CLOSED + (rest.lstrip("\n") if thoughts else rest)


def _environment() -> Any:
    """The names and switches that chat templates are written for."""
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension, loopcontrols

    from .template_budget import check_layout
    from .template_limits import MeteredEnvironment

    class Generation(Extension):
        """`{% generation %}…{% endgeneration %}` marks the assistant's words and prints them as they are."""

        tags = {"generation"}

        def parse(self, parser: Any) -> nodes.Node:
            line = next(parser.stream).lineno
            return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True)).set_lineno(line)

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def strftime_now(layout: str) -> str:
        check_layout(layout)
        return datetime.now().strftime(layout)

    environment = MeteredEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = strftime_now
    return environment


def _alias_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    """Give a message's reasoning under every name that templates read it by."""
    reasoning = next((message[key] for key in REASONING if message.get(key) is not None), None)
    return message if reasoning is None else {"thinking": reasoning, **message, "reasoning_content": reasoning}


def _plain(value: Any) -> Any:
    """A copy out of JSON types only: a template must not reach the methods of richer objects."""
    try:
        return _copy(value)
    except RecursionError:
        raise DataError("a message is nested too deeply", "take out the levels that no model reads") from None


def _copy(value: Any) -> Any:
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_copy(item) for item in value]
    raise DataError(f"a message holds a {type(value).__name__}, which is no JSON value",
                    "give text, numbers, true, false, null, lists and tables only")
