"""Write run-file.md from the dataclasses that a run file is checked against: python docs/generate_run_file.py"""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
import typing
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from edgestill.models import kinds, scheme
from edgestill.models.runfile import RunFile
from edgestill.models.toml_text import inline
from edgestill.runtime.profiling import measures

KINDS = {"cuts": "distill.students", "teacher": "distill.teachers", "losses": "distill.losses",
         "adapter": "distill.adapters", "watchers": "distill.watchers", "starts": "quantize.methods",
         "method": "quantize.methods"}
"""Where the kinds are that tables name, by the key of these tables."""
WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false"}
ABOUT = """# The run file

What `edgestill run` does stands in one TOML file. `edgestill init` writes one that fits your rows, and
`edgestill run --dry-run` shows it with every default filled in; `--set table.key=value` overrides a key. Unknown keys
are refused with the nearest known one, values out of range with the limit. Paths are relative to the run file.

`docs/generate_run_file.py` makes this page from the classes that check run files.
"""


@dataclass(frozen=True)
class Key:
    """One key of a table, as the page shows it."""

    name: str
    type: str
    default: str
    meaning: str


@dataclass(frozen=True)
class Section:
    """A table of the run file, or what a kind takes."""

    heading: str
    text: str
    keys: list[Key]


def sections() -> Iterator[Section]:
    """Every table of a run file, then every kind that a table may name."""
    hints, about = typing.get_type_hints(RunFile), meanings(RunFile)
    for field in fields(RunFile):
        name, hint = field.name, hints[field.name]
        cls = next(filter(is_dataclass, (hint, *typing.get_args(hint))), None)
        heading = f"## `[[{name}]]`" if typing.get_origin(hint) is list else f"## `[{name}]`"
        if cls is None:
            yield Section(heading, f"{about[name]} Kinds: {_link(KINDS[name])}.", [])
        else:
            yield Section(heading, f"{inspect.getdoc(cls)} {about.get(name, '')}".strip(), keys(cls))
    for package in dict.fromkeys(KINDS.values()):
        named = " and ".join(f"`{key}`" for key, home in KINDS.items() if home == package)
        yield Section(f"## {_folder(package)}", f"What {named} may name as `kind`, and the keys beside it.", [])
        for name in kinds.names(package):
            module = kinds.load(package, name)
            yield Section(f"### `{name}`", inspect.getdoc(module).split("\n\n")[0], keys(module.Config))
        for key, cls in inner(package).items():
            yield Section(f"### `{key}` of {_folder(package)}", inspect.getdoc(cls), keys(cls))


def inner(package: str) -> dict[str, type]:
    """The classes of tables inside the tables of a package's kinds, by their keys."""
    return {key: cls for name in kinds.names(package)
            for key, hint in typing.get_type_hints(kinds.load(package, name).Config).items()
            for cls in typing.get_args(hint) if is_dataclass(cls)}


def keys(cls: type) -> list[Key]:
    """The keys of a dataclass."""
    hints, found = typing.get_type_hints(cls), meanings(cls)
    return [Key(each.name, _type(hints[each.name], each), _default(each), found.get(each.name, ""))
            for each in fields(cls)]


def meanings(cls: type) -> dict[str, str]:
    """The texts below the fields of a dataclass; where it has none, those of the dataclass that it extends."""
    found: dict[str, str] = {}
    for owner in filter(is_dataclass, reversed(cls.__mro__)):
        body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0].body
        for field, text in zip(body, body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                found[field.target.id] = inspect.cleandoc(ast.literal_eval(text.value))
    return found


def page() -> str:
    """The whole page. A key that is the same as in a table before is named there alone."""
    parts: list[str] = [ABOUT]
    first: dict[Key, str] = {}
    for section in sections():
        parts.append(f"{section.heading}\n\n{section.text}\n")
        title = section.heading.removeprefix("## ")
        owners = {key: first.setdefault(key, title) if title != section.heading else title for key in section.keys}
        new = [(f"`{key.name}`", key.type, key.default, key.meaning) for key in section.keys if owners[key] == title]
        parts += [_table(("key", "type", "default", "meaning"), new)] * bool(new)
        for owner in dict.fromkeys(owners.values()):
            same = ", ".join(f"`{key.name}`" for key in section.keys if owners[key] == owner != title)
            parts += [f"As in {owner}: {same}.\n"] * bool(same)
        parts += {"`[[export]]`": [_targets()], "`[gates]`": [_gates()]}.get(title, [])
    return "\n".join(parts)


def _targets() -> str:
    return "Targets: " + "; ".join(
        ", ".join(f"`{format}:{type}`" for type in found) for format, found in scheme.TYPES.items()) + ".\n"


def _gates() -> str:
    """What a limit can be set on."""
    lines = []
    for name in kinds.names("runtime.metrics"):
        module = kinds.load("runtime.metrics", name)
        settings = "".join(f":{key.name.upper()}" for key in keys(module.Config))
        lines.append((f"`{name}{settings}`", inspect.getdoc(module).splitlines()[0]))
    lines.append(("`ratio_to_teacher`", "The first metric over the teacher's."))
    for name, number in measures.NUMBERS.items():
        names = [name, *(f"{name}_{part}" for part in measures.SPREAD if number.spread)]
        lines.append((", ".join(f"`{each}`" for each in names), f"Of the profile: {', '.join(number.tasks)}."))
    return _table(("what can be limited", "what it is"), lines)


def _table(head: tuple[str, ...], lines: list[tuple[str, ...]]) -> str:
    rows = [head, ("---",) * len(head), *lines]
    cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in cells)


def _link(package: str) -> str:
    return f"[{_folder(package)}](#{_folder(package)})"


def _folder(package: str) -> str:
    return package.rpartition(".")[2]


def _type(hint: Any, field: Field[Any]) -> str:
    if choices := field.metadata.get("choices"):
        return ", ".join(f"`{choice}`" for choice in choices)
    if type(None) in typing.get_args(hint) and typing.get_args(hint)[0] in WORDS:  # a number that may be left out
        hint = typing.get_args(hint)[0]
    origin, inner = typing.get_origin(hint), [WORDS.get(each, "list" if typing.get_origin(each) is list else "value")
                                              for each in typing.get_args(hint)]
    if field.name in KINDS:
        return f"{'list of tables' if origin is list else 'table'} with a `kind`: {_link(KINDS[field.name])}"
    if table := next(filter(is_dataclass, typing.get_args(hint)), None):
        return "tables by name" if origin is dict else f"table: {table.__name__.lower()} below"
    if origin is types.UnionType:
        return " or ".join(inner)
    if origin is not None:
        return f"list of {inner[0]}s" if origin is list else f"table of {inner[1]}s"
    low, high = (field.metadata.get(bound) for bound in ("minimum", "maximum"))
    bounds = "" if low is None else f", {low:,} or more" if high is None else f", {low:,} to {high:,}"
    return WORDS[hint] + bounds


def _default(field: Field[Any]) -> str:
    value = field.default if field.default_factory is MISSING else field.default_factory()
    return "required" if value is MISSING else "left out" if value is None else f"`{inline(value)}`"


if __name__ == "__main__":
    (Path(__file__).parent / "run-file.md").write_text(page(), encoding="utf-8")
