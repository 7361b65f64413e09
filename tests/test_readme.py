"""What README and docs say can be typed: their commands exist and the help block is the tool's own."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner
from edgestill.cli.main import root
from edgestill.models import kinds, runfile

ROOT = Path(__file__).resolve().parent.parent
PAGES = {path: path.read_text(encoding="utf-8")
         for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))}
ALL = "\n".join(PAGES.values())


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", ALL, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """Every `edgestill …` line of the shell blocks, as words without what follows a pipe or a comment."""
    lines = "\n".join(blocks("sh")).replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    return [line[1:] for line in words if line and line[0] == "edgestill"]


@pytest.mark.parametrize("words", commands(), ids=lambda words: " ".join(words)[:60])
def test_every_command_of_the_pages_parses(words: list[str]) -> None:
    """The verb exists and takes these options; nothing is run."""
    context = root.make_context("edgestill", list(words), resilient_parsing=True)
    verb = root.get_command(context, words[0])
    assert verb is not None, f"no such verb: {words[0]}"
    known = {option for parameter in [*verb.params, *(p for sub in getattr(verb, "commands", {}).values()
                                                      for p in sub.params)] for option in parameter.opts}
    used = {word.split("=")[0] for word in words[1:] if word.startswith("-") and word != "-"}
    assert used <= known | {"--help"}, f"{words[0]} does not take {used - known}"


def test_the_help_block_is_the_tools_own() -> None:
    printed = CliRunner().invoke(root, ["--help"], prog_name="edgestill", terminal_width=100).output
    shown = [block for block in blocks("text") if block.startswith("Usage: edgestill")]
    assert shown == [printed]


def test_every_make_target_of_the_pages_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"^make ([a-z0-9-]+)", "\n".join(blocks("sh")), flags=re.MULTILINE))
    assert {"demo", "test"} <= named
    assert all(re.search(rf"^{name}:", makefile, flags=re.MULTILINE) for name in named)


@pytest.mark.parametrize("text", [text for text in blocks("toml") if not text.startswith("# models/")])
def test_every_run_file_of_the_pages_is_valid(text: str, tmp_path: Path) -> None:
    tomllib.loads(text)
    (tmp_path / "run.toml").write_text(text, encoding="utf-8")
    runfile.read(tmp_path / "run.toml")


@pytest.mark.parametrize("path", sorted([*(ROOT / "benchmarks").glob("*.toml"), ROOT / "models/demo/run.toml"]),
                         ids=lambda path: path.name)
def test_every_shipped_run_file_is_valid(path: Path) -> None:
    run = runfile.read(path)
    for loss in run.distill.losses:
        runfile.kind_config("distill.losses", {key: value for key, value in loss.items() if key != "weight"}, "losses")
    if run.teacher:
        runfile.kind_config("distill.teachers", run.teacher, "teacher")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_links_to_exists(page: Path) -> None:
    linked = [target for target in re.findall(r"\]\(([^)#]+)\)", PAGES[page]) if "://" not in target]
    assert [target for target in linked if not (page.parent / target).exists()] == []


def test_the_losses_there_are_stand_in_the_pages() -> None:
    for name in kinds.names("distill.losses"):
        assert f"`{name}`" in ALL
