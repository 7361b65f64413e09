"""What pages are made of: the document around sections, tables, figures and what is folded away."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib import resources

STYLE = resources.files(__package__) / "style.css"


def document(title: str, sections: Sequence[str]) -> str:
    """A whole page of the sections that are not empty."""
    told = escape(title)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{told}</title>\n<style>\n{STYLE.read_text(encoding='utf-8')}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{told}</h1>\n" + "\n".join(section for section in sections if section)
        + "\n</main>\n</body>\n</html>\n")


def folded(title: str, content: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{content}</details>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], wide: Sequence[int] = ()) -> str:
    """A table that scrolls sideways by itself; cells come escaped, heads do not."""
    titles = "".join(f'<th{_text_class(index)}>{escape(title)}</th>' for index, title in enumerate(head))
    body = "".join(
        "<tr>" + "".join(f"<td{_text_class(place, place in wide)}>{value}</td>" for place, value in enumerate(row))
        + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>'


def _text_class(index: int, wide: bool = False) -> str:
    return ' class="text wrap"' if wide else ' class="text"' if index == 0 else ""


def figure(drawing: str, caption: str) -> str:
    note = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{drawing}{note}</figure>" if drawing else ""
