"""A student with another chat template than its model came with: one that has a place for tools, say."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ..models import files, kinds
from ..models.errors import UsageError
from ..runtime.text.codec import Codec
from .loading import TEMPLATES
from .sources import Source

PACKAGE = "models.templates"
TEMPLATE = "chat_template.jinja"
MARKS = {"chatml": ("<|im_start|>", "<|im_end|>")}
"""Tokens that turns of a built-in template begin and end with."""


def read(template: str, base: Path) -> str:
    """The text of a template: a file, relative to `base`, or a name of models/templates; UsageError for neither."""
    if template in kinds.names(PACKAGE, ".jinja"):
        return (kinds.folder(PACKAGE) / f"{template}.jinja").read_text(encoding="utf-8")
    path = base / template
    if not path.is_file():
        raise UsageError(f"student.template: {template!r} is no file and no template that is built in",
                         f"built in: {', '.join(kinds.names(PACKAGE, '.jinja'))}")
    return path.read_text(encoding="utf-8")


@contextmanager
def templated(source: Source, template: str, base: Path) -> Iterator[Source]:
    """`source` with that template while the block lasts, or as it is where `template` is empty; errors as of
    `with_template`."""
    with tempfile.TemporaryDirectory() as aside:
        yield with_template(source, template, base, Path(aside) / "student") if template else source


def with_template(source: Source, template: str, base: Path, folder: Path) -> Source:
    """`source` with that template in the new `folder`, whose other files are links to its own.

    Raises UsageError for a template that is not there, and for a built-in one whose marks are no tokens of the model.
    """
    text = read(template, base)
    vocabulary = Codec.from_folder(source.folder).tokenizer.get_vocab(with_added_tokens=True)
    lacking = [mark for mark in MARKS.get(template, ()) if mark not in vocabulary]
    if lacking:
        raise UsageError(f"student.template: {template} writes {lacking[0]!r}, which is no token of {source.name}",
                         "give a template of your own, written for this model's special tokens")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in source.folder.iterdir():
        if path.is_file() and path.name not in (TEMPLATE, "tokenizer_config.json", "manifest.json"):
            files.link(path.resolve(), folder / path.name)
    settings = source.folder / "tokenizer_config.json"
    if settings.is_file():
        table = json.loads(settings.read_text(encoding="utf-8"))
        table.pop("chat_template", None)  # some readers prefer it to the file
        files.write_json(folder / settings.name, table)
    files.write_text(folder / TEMPLATE, text)
    assert not (folder / TEMPLATES).exists()  # other templates of the model are for other conversations
    return replace(source, folder=folder)
