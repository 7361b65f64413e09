"""docs/run-file.md says what the classes say that check run files, and they say something of every key."""

from __future__ import annotations

import runpy
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"
generator = runpy.run_path(str(DOCS / "generate_run_file.py"))


def test_the_page_is_what_the_classes_say() -> None:
    written = (DOCS / "run-file.md").read_text(encoding="utf-8")
    assert written == generator["page"](), "run: python docs/generate_run_file.py"


def test_every_key_has_a_meaning() -> None:
    found = {f"{section.heading} {key.name}": key.meaning for section in generator["sections"]()
             for key in section.keys}
    assert len(found) > 90 and [name for name, meaning in found.items() if not meaning] == []


def test_every_table_that_names_a_kind_leads_to_its_kinds() -> None:
    """What is left as a table of anything is read by others: the variables of a chat template."""
    untold = {key.name for section in generator["sections"]() for key in section.keys if "value" in key.type}
    assert untold == {"template_options"}
    headings = [section.heading for section in generator["sections"]()]
    assert {"## losses", "### `forward_kl`", "## methods", "### `gptq`", "### `lora`", "### `local`"} <= {*headings}
