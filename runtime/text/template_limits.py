"""The sandbox of chat templates: they are foreign code, which may loop or grow without end."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

from jinja2 import nodes, pass_context
from jinja2.filters import do_indent
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from ...models.errors import ArtifactError
from . import template_budget as budget
from .template_budget import CALL, INDENT, LONGEST, STEP, endless, items, make, pay, size, string

SOURCE = 2**17
"""Most characters of a template: the longest that are published have some 30,000."""
_KEPT = ("abs", "batch", "capitalize", "center", "count", "d", "default", "dictsort", "e", "escape", "first", "float",
         "groupby", "int", "items", "last", "length", "lower", "map", "max", "min", "reject", "rejectattr",
         "reverse", "round", "safe", "select", "selectattr", "slice", "sort", "title", "trim", "truncate",
         "unique", "upper", "wordcount")
_COMPARES = ("dictsort", "groupby", "max", "min", "sort", "unique")
_COMPARING = ("!=", "<", "<=", "==", ">", ">=", "eq", "equalto", "ge", "greaterthan", "gt", "in", "le", "lessthan",
              "lt", "ne")
"""Filters and tests that look through the values they are given."""
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


class MeteredEnvironment(ImmutableSandboxedEnvironment):
    """A sandbox with the filters, tests, functions and methods that chat templates use and no other, in which loops,
    calls, operators and texts are paid for out of the steps of one rendering."""

    intercepted_binops = frozenset(["+", "-", "*", "/", "//", "**", "%"])

    def __init__(self, **options: Any) -> None:
        """As jinja2's own, but that nothing is computed while a template is compiled."""
        super().__init__(optimized=False, **options)
        own = {"format": _format, "indent": _indent, "join": _join, "list": _list, "replace": _replace,
               "string": string, "sum": _sum, "tojson": tojson, "metered items": items, "metered text": _text,
               "metered look": budget.look, "metered part": _part, "metered turn": _turn}
        filters: dict[str, Any] = self.filters
        tests: dict[str, Any] = self.tests
        self.filters = {**{name: _guarded(filters[name], name in _COMPARES) for name in _KEPT}, **own}
        self.tests = {name: _guarded(tests[name], name in _COMPARING) for name in _TESTS}
        self.globals = {name: self.globals[name] for name in _GLOBALS}

    def compiled(self, source: str) -> Any:
        """The template of a text; ArtifactError for one longer than any."""
        if len(source) > SOURCE:
            raise ArtifactError(f"the chat template has {len(source)} characters, the limit is {SOURCE}",
                                "the template is damaged: take it from the model's own repository")
        with budget.budget():
            return self.from_string(source)

    def render_within_limits(self, template: Any, variables: dict[str, Any]) -> str:
        """The template's text; DataError when it takes too many steps or too long, or becomes too long."""
        parts, length = [], 0
        with budget.budget():
            for part in template.generate(variables):
                length += len(part)
                if length > LONGEST:
                    raise endless(f"its text is longer than {LONGEST} characters")
                parts.append(part)
        return "".join(parts)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Whether a template may use an attribute."""
        known = next((names for kind, names in _METHODS if isinstance(obj, kind)), None)
        return (known is None or attr in known) and super().is_safe_attribute(obj, attr, value)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """An entry of a value."""
        budget.look(argument)  # a key of tuples in tuples is hashed through
        return super().getitem(obj, argument)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in tree.find_all(nodes.For):
            loop.iter = _filtered("metered items", loop.iter)
            turn: Any = nodes.ExprStmt(_filtered("metered turn", nodes.Const(0, lineno=loop.lineno,
                                                                             environment=self)), lineno=loop.lineno)
            loop.body = [turn, *loop.body]
            loop.test = loop.test and _filtered("metered turn", loop.test)
        for compared in tree.find_all(nodes.Compare):
            compared.expr = _filtered("metered look", compared.expr)
            for operand in compared.ops:
                operand.expr = _filtered("metered look", operand.expr)
        for table in tree.find_all(nodes.Pair):
            table.key = _filtered("metered look", table.key)
        written: Any
        for written in tree.find_all((nodes.Output, nodes.Concat)):
            written.nodes = [one if isinstance(one, nodes.TemplateData) else _filtered("metered text", one)
                             for one in written.nodes]
        changed: nodes.Template = _Parts().visit(tree)
        return changed

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """An operator; what it will make is paid for before it is made."""
        budget.number(left)
        budget.number(right)
        if operator == "*":
            for one, other in ((left, right), (right, left)):
                if isinstance(other, int) and isinstance(one, (str, list, tuple)):
                    (make if isinstance(one, str) else budget.extend)(len(one) * max(0, other))
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            make(left.bit_length() * max(0, right))
        elif operator == "%" and isinstance(left, str):
            budget.check_layout(left, right if isinstance(right, tuple) else (right,))
        elif operator == "+" and isinstance(left, str):
            make(len(left) + (len(right) if isinstance(right, str) else 0))
        elif operator == "+" and isinstance(left, (list, tuple)):
            budget.extend(len(left) + (len(right) if isinstance(right, (list, tuple)) else 0))
        pay(1)
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *args: Any, **options: Any) -> Any:  # noqa: N805 - as in jinja2
        """A function or a method of a value."""
        pay(CALL + len(args) + len(options))
        owner = getattr(getattr(__obj, "__wrapped__", __obj), "__self__", None)  # the sandbox wraps str.format
        name = getattr(__obj, "__name__", "")
        if isinstance(owner, str):
            if name == "join" and args:
                args = (_joined(owner, args[0]), *args[1:])
            elif name == "replace" and len(args) > 1:
                return _replace(owner, *args, **options)
            elif name in ("format", "format_map"):
                budget.check_fields(owner)
                budget.check_layout(owner, (*args, *options.values()))
            else:
                budget.check(owner, *args, *options.values())
                if name in ("split", "rsplit", "splitlines"):
                    budget.extend(owner.count(args[0]) if args and isinstance(args[0], str) and args[0]
                                  else len(owner) // 2)
        elif isinstance(owner, (list, tuple, dict)):
            for one in (owner if name in ("count", "index") else (), *args):
                budget.look(one)
        result = super().call(__context, __obj, *args, **options)
        if isinstance(result, (list, tuple, dict)):
            budget.extend(len(result))
        return budget.text(result) if isinstance(result, str) else result


class _Parts(NodeTransformer):
    """Has copies of parts of values paid for."""

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802 - as in jinja2
        self.generic_visit(node)
        return _filtered("metered part", node) if isinstance(node.arg, nodes.Slice) else node


def tojson(value: Any, ensure_ascii: bool = False, indent: int | str | None = None,
           separators: tuple[str, str] | None = None, sort_keys: bool = False) -> str:
    """JSON as transformers writes it: jinja2's own filter escapes <, > and & for HTML, which models were not trained
    on. Made piece by piece: lists that hold each other twice are short in memory and endless in writing."""
    if (len(indent) if isinstance(indent, str) else abs(indent or 0)) > INDENT:
        raise endless(f"it indents JSON by more than {INDENT}")
    make(size(value))
    parts, length = [], 0
    for part in json.JSONEncoder(ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                                 sort_keys=sort_keys).iterencode(value):
        parts.append(part)
        length += len(part)
        pay(1 + len(part) // STEP)
        if length > LONGEST:
            raise endless(f"it makes a text of more than {LONGEST} characters")
    return "".join(parts)


def _format(layout: Any, *values: Any, **options: Any) -> str:
    budget.check_layout(str(layout), (*values, *options.values()))
    return str(layout) % (options or values)


def _join(values: Any, d: str = "", attribute: Any = None) -> str:
    if attribute is not None:
        values = [one.get(attribute, "") if isinstance(one, dict) else "" for one in items(values)]
    return str(d).join(_joined(str(d), values))


def _replace(text: Any, old: Any, new: Any, count: Any = None) -> str:
    found, old, new = string(text), str(old), str(new)
    times = found.count(old)
    if isinstance(count, int) and count >= 0:
        times = min(times, count)
    make(len(found) + times * len(new))
    return found.replace(old, new, times)


def _indent(text: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    found = string(text)
    make(len(found) + (found.count("\n") + 1) * (len(width) if isinstance(width, str) else abs(width)))
    return str(do_indent(found, width, first, blank))


def _sum(values: Any, attribute: Any = None, start: float = 0) -> Any:
    found = items(values) if attribute is None else [one.get(attribute, 0) for one in items(values)]
    return sum(found, start + 0)  # numbers alone: lists would be copied again and again


def _joined(between: str, values: Any) -> list[str]:
    """Values as texts that are paid for, with what stands between them."""
    found = [string(value) for value in items(values)]
    make(sum(map(len, found)) + len(between) * len(found))
    return found


def _list(value: Any) -> list[Any]:
    return list(items(value))


@pass_context  # so that jinja2 computes nothing that is written while it compiles
def _text(_context: Any, value: Any) -> Any:
    return budget.text(value)


def _part(value: Any) -> Any:
    """A part of a text or a list, after it was made."""
    if isinstance(value, str):
        make(len(value))
    elif isinstance(value, (list, tuple)):
        budget.extend(len(value))
    return value


def _turn(value: Any) -> Any:
    """A turn of a loop: it is paid for already, and takes time."""
    pay(0)
    return value


def _guarded(function: Callable[..., Any], compares: bool) -> Callable[..., Any]:
    """A filter or test, paid for by what it is given, and by all that is in it where it `compares` that."""
    @functools.wraps(function)
    def guarded(*values: Any, **options: Any) -> Any:
        budget.check(*values, *options.values())
        for value in values if compares else ():
            budget.look(value)
        return function(*values, **options)

    return guarded


def _filtered(name: str, node: Any) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno, environment=node.environment)
