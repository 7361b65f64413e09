"""Bounds on what a chat template may compute: it is foreign code, which may loop or grow without end."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Collection, Iterable
from contextvars import ContextVar
from itertools import islice
from typing import Any

from jinja2 import nodes
from jinja2.filters import do_indent
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ..models.errors import DataError

STEPS, LONGEST = 2_000_000, 2**24
"""Most steps of one rendering (a turn of a loop, 16 characters made; a call is ten), and most characters of a text."""
_STEP, _CALL, _LARGEST, _INDENT = 16, 10, 1_000_000, 64
_WIDTH = re.compile(r"\d+")
_KEPT = ("abs", "batch", "capitalize", "center", "count", "d", "default", "dictsort", "e", "escape", "first", "float",
         "groupby", "int", "items", "last", "length", "list", "lower", "map", "max", "min", "reject", "rejectattr",
         "reverse", "round", "safe", "select", "selectattr", "slice", "sort", "title", "trim", "truncate",
         "unique", "upper", "wordcount")
_GLOBALS = ("cycler", "dict", "joiner", "namespace", "range")
_TESTS = ("!=", "<", "<=", "==", ">", ">=", "boolean", "callable", "defined", "divisibleby", "eq", "equalto", "even",
          "false", "float", "ge", "greaterthan", "gt", "in", "integer", "iterable", "le", "lessthan", "lower", "lt",
          "mapping", "ne", "none", "number", "odd", "sameas", "sequence", "string", "true", "undefined", "upper")
_METHODS: tuple[tuple[Any, frozenset[str]], ...] = (
    (str, frozenset(("capitalize", "casefold", "count", "endswith", "find", "format", "index", "isalnum", "isalpha",
                     "isdecimal", "isdigit", "islower", "isnumeric", "isspace", "istitle", "isupper", "join", "lower",
                     "lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rpartition",
                     "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "swapcase", "title", "upper"))),
    (dict, frozenset(("copy", "get", "items", "keys", "values"))),
    ((list, tuple), frozenset(("copy", "count", "index"))))
_LEFT: ContextVar[list[int]] = ContextVar("steps left of a rendering")


class MeteredEnvironment(ImmutableSandboxedEnvironment):
    """A sandbox with the filters, tests, functions and methods that chat templates use and no other, in which loops,
    calls, operators and texts are paid for out of the steps of one rendering."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self, **options: Any) -> None:
        """As jinja2's own."""
        super().__init__(**options)
        own = {"format": _format, "indent": _indent, "join": _join, "replace": _replace, "string": _string,
               "sum": _sum, "tojson": tojson, "metered items": _items, "metered text": _text}
        self.filters = {**{name: _guarded(self.filters[name]) for name in _KEPT}, **own}
        self.tests = {name: self.tests[name] for name in _TESTS}
        self.globals = {name: self.globals[name] for name in _GLOBALS}

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

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Whether a template may use an attribute."""
        known = next((names for kind, names in _METHODS if isinstance(obj, kind)), None)
        return (known is None or attr in known) and super().is_safe_attribute(obj, attr, value)

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
                    _make(len(one) * max(0, other))
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            _make(left.bit_length() * max(0, right))
        elif operator == "%" and isinstance(left, str):
            check_layout(left, right if isinstance(right, tuple) else (right,))
        elif operator == "+" and isinstance(left, (str, list, tuple)):
            _make(len(left) + (len(right) if isinstance(right, (str, list, tuple)) else 0))
        _pay(1)
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *args: Any, **options: Any) -> Any:  # noqa: N805 - as in jinja2
        """A function or a method of a value."""
        owner = getattr(getattr(__obj, "__wrapped__", __obj), "__self__", None)  # the sandbox wraps str.format
        if isinstance(owner, str):
            if __obj.__name__ == "join" and args:
                args = (_joined(owner, args[0]), *args[1:])
            elif __obj.__name__ == "replace" and len(args) > 1:
                return _replace(owner, *args, **options)
            elif __obj.__name__ in ("format", "format_map"):
                check_layout(owner, (*args, *options.values()))
            else:
                _check(owner, *args, *options.values())
        _pay(_CALL)
        result = super().call(__context, __obj, *args, **options)
        return _text(result) if isinstance(result, str) else result


def tojson(value: Any, ensure_ascii: bool = False, indent: int | str | None = None,
           separators: tuple[str, str] | None = None, sort_keys: bool = False) -> str:
    """JSON as transformers writes it: jinja2's own filter escapes <, > and & for HTML, which models were not trained
    on. Made piece by piece: lists that hold each other twice are short in memory and endless in writing."""
    if (len(indent) if isinstance(indent, str) else abs(indent or 0)) > _INDENT:
        raise _endless(f"it indents JSON by more than {_INDENT}")
    _make(_size(value))
    parts, size = [], 0
    for part in json.JSONEncoder(ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                                 sort_keys=sort_keys).iterencode(value):
        parts.append(part)
        size += len(part)
        _pay(1 + len(part) // _STEP)
        if size > LONGEST:
            raise _endless(f"it makes a text of more than {LONGEST} characters")
    return "".join(parts)


def check_layout(layout: str, values: Iterable[Any] = ()) -> None:
    """Refuse a layout whose widths make a text too long, and pay for what fills it."""
    given = list(values)
    widths = sum(int(width[:9]) for width in _WIDTH.findall(layout))
    widths += sum(abs(value) for value in given if isinstance(value, int)) * layout.count("*")
    if widths > _LARGEST:
        raise _endless(f"it makes a text of the width {widths}")
    # Any value may be written in the place of any field.
    _make(widths + len(layout) + max(map(_size, given), default=0) * layout.count("{") + sum(map(_size, given)))


def _format(layout: Any, *values: Any, **options: Any) -> str:
    check_layout(str(layout), (*values, *options.values()))
    return str(layout) % (options or values)


def _join(values: Any, d: str = "", attribute: Any = None) -> str:
    if attribute is not None:
        values = [one.get(attribute, "") if isinstance(one, dict) else "" for one in _items(values)]
    return str(d).join(_joined(str(d), values))


def _replace(text: Any, old: Any, new: Any, count: Any = None) -> str:
    found, old, new = _string(text), str(old), str(new)
    times = found.count(old)
    if isinstance(count, int) and count >= 0:
        times = min(times, count)
    _make(len(found) + times * len(new))
    return found.replace(old, new, times)


def _indent(text: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    found = _string(text)
    _make(len(found) + (found.count("\n") + 1) * (len(width) if isinstance(width, str) else abs(width)))
    return str(do_indent(found, width, first, blank))


def _sum(values: Any, attribute: Any = None, start: float = 0) -> Any:
    found = _items(values) if attribute is None else [one.get(attribute, 0) for one in _items(values)]
    return sum(found, start + 0)  # numbers alone: lists would be copied again and again


def _joined(between: str, values: Any) -> list[str]:
    """Values as texts that are paid for, with what stands between them."""
    found = [_string(value) for value in _items(values)]
    _make(sum(map(len, found)) + len(between) * len(found))
    return found


def _string(value: Any) -> str:
    return value if isinstance(value, str) else str(_text(value))


def _items(value: Any) -> Any:
    """What a loop goes over, each turn paid for."""
    if not isinstance(value, Collection):
        value = list(islice(value, STEPS + 1))
    _pay(len(value))
    return value


def _text(value: Any) -> Any:
    """A value that is written, paid for by its length."""
    _pay(1)
    _make(_size(value))
    return value


def _size(value: Any) -> int:
    """About the characters that a value takes when it is written; it stops counting where they are too many."""
    left, size = [value], 0
    while left and size <= LONGEST:
        one = left.pop()
        if isinstance(one, str):
            size += len(one)
        elif isinstance(one, dict):
            left += [*one.keys(), *one.values()]
            size += 4 * _STEP * len(one)
        elif isinstance(one, (list, tuple)):
            left += one
            size += 4 * _STEP * len(one)
        else:
            size += one.bit_length() // 3 if isinstance(one, int) else _STEP
    return size


def _check(*values: Any) -> None:
    """Pay for looking at these values once, and for a text as wide as one of them says."""
    for value in values:
        if isinstance(value, int):
            if abs(value) > _LARGEST:
                raise _endless(f"it makes a text of the width {value}")
            _make(abs(value))
        elif isinstance(value, (str, list, tuple, dict)):
            _pay(1 + len(value) // _STEP)


def _guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter, paid for by what it is given."""
    @functools.wraps(function)
    def guarded(*values: Any, **options: Any) -> Any:
        _check(*values, *options.values())
        return function(*values, **options)

    return guarded


def _filtered(name: str, node: Any) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno, environment=node.environment)


def _make(size: int) -> None:
    """Pay for a text or a list of this size before it is made."""
    if size > LONGEST:
        raise _endless(f"it makes a text of more than {LONGEST} characters")
    _pay(size // _STEP)


def _pay(steps: int) -> None:
    left = _LEFT.get(None) or [STEPS]  # None where a constant is computed while the template is compiled
    left[0] -= steps
    if left[0] < 0:
        raise _endless(f"it takes more than {STEPS} steps")


def _endless(reason: str) -> DataError:
    return DataError(f"the model's chat template does not come to an end: {reason}",
                     "the template is damaged or hostile: take it from the model's own repository")
