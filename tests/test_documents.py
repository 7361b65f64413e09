"""What README and docs say can be typed and clicked: commands, run files, Python, links, make's targets."""

from __future__ import annotations

import ast
import importlib
import itertools
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from edgestill.cli.main import root
from edgestill.distill.teachers._tables import entries
from edgestill.distill.training.weighted_losses import read_losses
from edgestill.models import runfile
from edgestill.models.errors import UsageError
from edgestill.models.scheme import Scheme
from edgestill.quantize.proof import other_programs

ROOT = Path(__file__).resolve().parent.parent
README_LINES = 150
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
         for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))}
LANGUAGES = {"sh", "python", "toml", "json", "text", "{toctree}", "{eval-rst}"}
"""Of fenced blocks: what can be typed stands in the first three, which are looked into here."""
PLACED = re.compile(r"# (\w+/)+[\w.-]+\n")
"""How a block begins that is a file of the package: tests/test_extending.py runs these."""


def blocks(language: str, pages: dict[str, str] = PAGES) -> Iterator[tuple[str, str]]:
    """(page, text) of the fenced blocks of one language that are no files of the package."""
    for page, text in pages.items():
        for block in re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
            if not PLACED.match(block):
                yield page, block


def commands(program: str, text: str) -> Iterator[list[str]]:
    """The words behind every `program` of a shell block: it may stand behind variables, a pipe or other commands."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split = True
        words: list[str] = []
        for punctuation, group in itertools.groupby(lexer, lambda word: set(word) <= {*"|&;<>"}):
            words = [] if punctuation else [*itertools.dropwhile(re.compile(r"\w+=").match, group)]
            if words[:1] == [program]:
                yield words[1:]


def told(given: tuple[str, object]) -> str:
    page, value = given
    return f"{page} {' '.join(value) if isinstance(value, list) else str(value).splitlines()[0]}"[:70]


TYPED = [(page, words) for page, text in blocks("sh") for words in commands("edgestill", text)]


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], None]:
    """Raises an error of click's or of ours for words that edgestill would not take; no command is run."""
    monkeypatch.setattr(click.Command, "invoke", lambda command, context: None)
    return lambda words: root.main(words, "edgestill", standalone_mode=False)


@pytest.mark.parametrize("given", TYPED, ids=told)
def test_every_command_is_one_that_the_tool_takes(given: tuple[str, list[str]],
                                                  parse: Callable[[list[str]], None]) -> None:
    """With every argument, option and number, by the very verb that it names."""
    parse(given[1])


@pytest.mark.parametrize(("line", "refusal"), [
    ("edgestill generat out", "did you mean 'generate'"), ("edgestill generate", "Missing parameter: artifact"),
    ("A=1 edgestill serve out --port 70000 | tee log", "70000 is not in the range"),
    ("cat x && edgestill data check rows.jsonl --limit 3", "No such option '--limit'"),
    ("edgestill data shows run.toml > x", "No such command 'shows'")])
def test_a_command_that_it_does_not_take_is_found(line: str, refusal: str,
                                                  parse: Callable[[list[str]], None]) -> None:
    with pytest.raises((click.UsageError, UsageError), match=refusal):
        parse(next(commands("edgestill", line)))


def test_every_verb_that_the_text_names_exists() -> None:
    named = {verb for text in PAGES.values() for verb in re.findall(r"`edgestill ([a-z]+)", text)}
    assert len(named) > 5 and named - set(root.list_commands(click.Context(root))) == set()


def test_blocks_are_of_languages_that_are_looked_into() -> None:
    found = {(page, language) for page, text in PAGES.items()
             for language in re.findall(r"^```(\S*)\n.*?^```$", text, flags=re.MULTILINE | re.DOTALL)}
    assert [(page, language) for page, language in found if language not in LANGUAGES] == []
    assert len(TYPED) > 40


def test_the_help_blocks_are_the_tools_own() -> None:
    shown = [block for _, block in blocks("text") if block.startswith("Usage: edgestill")]
    assert shown == [CliRunner().invoke(root, ["--help"], prog_name="edgestill", terminal_width=100).output]


def test_every_make_target_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    typed = [words for _, text in blocks("sh") for words in commands("make", text)]
    typed += [text.split() for page in PAGES.values() for text in re.findall(r"`make ([^`]+)`", page)]
    named = {word for words in typed for word in words if "=" not in word}
    assert {"demo", "test", "docs"} <= named
    assert [name for name in named if not re.search(rf"^{re.escape(name)}:", makefile, flags=re.MULTILINE)] == []


@pytest.mark.parametrize("given", [(page, text) for page, text in blocks("toml") if page != "docs/extending.md"],
                         ids=told)
def test_every_run_file_of_the_pages_is_valid(given: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(given[1], encoding="utf-8")
    check(tmp_path / "run.toml")


@pytest.mark.parametrize("path", sorted([*(ROOT / "benchmarks").glob("*.toml"), ROOT / "models/demo/run.toml"]),
                         ids=lambda path: path.name)
def test_every_shipped_run_file_is_valid(path: Path) -> None:
    check(path)


def check(path: Path) -> None:
    """Raise what a run would for a run file, the kinds that it names included, before there are rows and models."""
    run = runfile.read(path)
    read_losses(run.distill.losses)
    runfile.check_grid_aware(run)
    for adapter in (run.tune.adapter, run.distill.adapter):
        runfile.kind_config("distill.adapters", adapter, "adapter")
    entries(run)
    for export in run.export:
        Scheme.parse(export.target)
        runfile.kind_config(runfile.METHODS, export.method, "export.method")
        other_programs.check_names(export.clients)


@pytest.mark.parametrize("given", list(blocks("python")), ids=told)
def test_python_compiles_and_what_it_imports_of_ours_is_there(given: tuple[str, str]) -> None:
    tree = ast.parse(given[1])
    compile(tree, given[0], "exec")
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "edgestill":
            module = importlib.import_module(node.module or "")
            missing = [each.name for each in node.names if not hasattr(module, each.name)]
            assert missing == [], node.module
        if isinstance(node, ast.Import):
            for name in [each.name for each in node.names if each.name.partition(".")[0] == "edgestill"]:
                importlib.import_module(name)


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    text = re.sub(r"^```.*?^```$|`[^`\n]+`", "", PAGES[page], flags=re.MULTILINE | re.DOTALL)
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"\w+:", link)]
    assert [link for link in links if not leads(page, link)] == []


def leads(page: str, link: str) -> bool:
    """Whether a relative link's file is there, and in it the heading that its anchor names."""
    name, _, anchor = link.partition("#")
    target = (ROOT / page).parent / name if name else ROOT / page
    return target.exists() and (not anchor or anchor in anchors(target.read_text(encoding="utf-8")))


def anchors(text: str) -> set[str]:
    """What GitHub and the site call the headings of a page: small letters, hyphens for blanks, no punctuation."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_a_link_that_leads_nowhere_is_found() -> None:
    assert leads("README.md", "docs/run-file.md#task") and leads("docs/run-file.md", "#export")
    assert not leads("README.md", "docs/run-file.md#tasks") and not leads("docs/run-file.md", "docs/data.md")


def test_the_readme_is_short() -> None:
    assert len(PAGES["README.md"].splitlines()) <= README_LINES
