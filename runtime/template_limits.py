"""Bounds on what a chat template may compute: it is foreign code, which may loop or grow without end."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection
from contextvars import ContextVar
from itertools import islice
from typing import Any

from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ..models.errors import DataError

STEPS, LONGEST = 2_000_000, 2**24
"""Most steps of one rendering (a turn of a loop, 64 characters written; a call is ten), and most characters of it."""
_LARGEST, _CALL = 1_000_000, 10
_WIDE = re.compile(r"\d{6,}")
_GROWING = ("batch", "center", "format", "indent", "join", "replace", "slice", "truncate", "wordwrap")
_LEFT: ContextVar[list[int]] = ContextVar("steps left of a rendering")


class MeteredEnvironment(ImmutableSandboxedEnvironment):
    """A sandbox in which loops, calls, operators and texts are paid for out of the steps of one rendering."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self, **options: Any) -> None:
        """As jinja2's own."""
        super().__init__(**options)
        self.filters |= {"metered items": _items, "metered text": _text}
        self.filters |= {name: _guarded(self.filters[name]) for name in _GROWING}

    def render_within_limits(self, template: Any, variables: dict[str, Any]) -> str:
        """The template's text; DataError when it takes too many steps or becomes too long."""
        token, parts, size = _LEFT.set([STEPS]), [], 0
        try:
            for part in template.generate(variables):
                size += len(part)
                if size > LONGEST:
                    raise _endless(f"its text is longer than {LONGEST} characters")
                parts.append(part)
        finally:
            _LEFT.reset(token)
        return "".join(parts)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in tree.find_all(nodes.For):
            loop.iter = _filtered("metered items", loop.iter)
        written: Any
        for written in tree.find_all((nodes.Output, nodes.Concat)):
            written.nodes = [one if isinstance(one, nodes.TemplateData) else _filtered("metered text", one)
                             for one in written.nodes]
        return tree

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """An operator; what it will make is paid for before it is made."""
        if operator == "*":
            for one, other in ((left, right), (right, left)):
                if isinstance(one, (str, list, tuple)) and isinstance(other, int):
                    _pay(len(one) * max(0, other) // 64)
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            _pay(left.bit_length() * max(0, right) // 64)
        elif operator == "%" and isinstance(left, str):
            _check_layout(left)
        elif operator == "+" and isinstance(left, (str, list, tuple)):
            _pay(len(left) // 64)
        _pay(1)
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *args: Any, **options: Any) -> Any:  # noqa: N805 - as in jinja2
        """A function or a method of a value."""
        owner = getattr(getattr(__obj, "__wrapped__", __obj), "__self__", None)  # the sandbox wraps str.format
        if isinstance(owner, str):
            _check(owner, *args, *options.values())
            if __obj.__name__ in ("format", "format_map"):
                _check_layout(owner)
        _pay(_CALL)
        result = super().call(__context, __obj, *args, **options)
        return _text(result) if isinstance(result, str) else result


def _items(value: Any) -> Any:
    """What a loop goes over, each turn paid for."""
    if not isinstance(value, Collection):
        value = list(islice(value, STEPS + 1))
    _pay(len(value))
    return value


def _text(value: Any) -> Any:
    """A value that is written, paid for by its length."""
    _pay(1 + len(value) // 64 if isinstance(value, (str, list, tuple, dict)) else 1)
    return value


def _check(*values: Any) -> None:
    """Pay for making a text of these values, as if one of them stood in the place of every character of another."""
    sizes = sorted([1, 1, *(len(value) for value in values if isinstance(value, (str, list, tuple)))])
    _pay(1 + sizes[-1] * sizes[-2] // 64)
    for value in values:
        if isinstance(value, int) and abs(value) > _LARGEST:
            raise _endless(f"it makes a text of the width {value}")


def _check_layout(layout: str) -> None:
    """Refuse a width of more than five digits."""
    if wide := _WIDE.search(layout):
        raise _endless(f"it makes a text of the width {wide[0][:20]}")


def _guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that makes more than it is given."""
    @functools.wraps(function)
    def guarded(*values: Any, **options: Any) -> Any:
        _check(*values, *options.values())
        if function.__name__ == "do_format":
            _check_layout(str(values[0]))
        return function(*values, **options)

    return guarded


def _filtered(name: str, node: Any) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno, environment=node.environment)


def _pay(steps: int) -> None:
    left = _LEFT.get(None) or [STEPS]  # None where a constant is computed while the template is compiled
    left[0] -= steps
    if left[0] < 0:
        raise _endless(f"it takes more than {STEPS} steps")


def _endless(reason: str) -> DataError:
    return DataError(f"the model's chat template does not come to an end: {reason}",
                     "the template is damaged or hostile: take it from the model's own repository")
