"""`generate` and `chat` on the command line: every option reaches the model."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edgestill.cli import main
from edgestill.runtime import load
from edgestill.runtime.generation.generator import Generator

from ..runtime.test_constraints import CALL

Run = Callable[..., Any]


@pytest.fixture
def run(packed_llama: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(tmp_path)

    def call(verb: str, *arguments: str, code: int = 0, engine: str = "gguf") -> Any:
        found = main.call([verb, str(packed_llama[engine]), *arguments, "--threads", "1", "--json"])
        captured = capsys.readouterr()
        assert found == code, captured.err
        return captured.err if code else json.loads(captured.out)

    return call


def test_structures_and_files(run: Run, tmp_path: Path) -> None:
    (tmp_path / "call.json").write_text(json.dumps(CALL))
    (tmp_path / "word.gbnf").write_text('root ::= "yes" | "no"')
    assert set(run("generate", "x", "--schema", "call.json", "--max-new-tokens", "90")["parsed"]) >= {"action"}
    assert run("generate", "x", "--choice", "on", "--choice", "off")["text"] in ("on", "off")
    assert run("generate", "x", "--grammar", "word.gbnf")["text"] in ("yes", "no")
    assert len(run("generate", "x", "--regex", "[ab]{3}", "--repetition-penalty", "1.5")["text"]) == 3
    assert len(run("generate", "x", "--logprobs", "2", "--max-new-tokens", "3")["logprobs"][0]["top"]) == 2
    assert "cannot both bind" in run("generate", "x", "--regex", "a", "--choice", "b", code=2)
    assert "no such file" in run("generate", "x", "--grammar", "missing", code=2)
    (tmp_path / "list.json").write_text("[]")
    assert "a JSON object was expected" in run("generate", "x", "--schema", "list.json", code=1)
    assert "did not" not in run("generate", "x", "--schema", "none")["text"]


def test_the_line_end_of_the_shell_is_no_part_of_a_prompt(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    monkeypatch.setattr(Generator, "generate", lambda self, prompt, **_: found.append(prompt) or {})
    for written in ("a b\n", "a b\r\n", "a b", "a b\n\n"):
        monkeypatch.setattr("sys.stdin", io.StringIO(written, newline=""))
        run("generate", "-")
    assert found == ["a b", "a b", "a b", "a b\n"]


@pytest.mark.parametrize("engine", ["gguf", "onnx"])
def test_a_state_is_made_once_and_read_after(engine: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "page.txt").write_text("the light in the kitchen is on. " * 8)
    plain = run("generate", "what?", "--prefix", "page.txt", engine=engine)
    first = run("generate", "what?", "--prefix", "page.txt", "--state", "page.state", engine=engine)
    again = run("generate", "what?", "--prefix", "page.txt", "--state", "page.state", engine=engine)
    assert plain["ids"] == first["ids"] == again["ids"] and plain["cached_tokens"] == 0 < again["cached_tokens"]
    assert "holds another beginning" in run("generate", "what?", "--state", "page.state", engine=engine, code=2)
    assert "no such file" in run("generate", "what?", "--prefix", "none.txt", engine=engine, code=2)


def test_guessing_changes_nothing(run: Run, packed_llama: dict[str, Path]) -> None:
    plain = run("generate", "abc abc abc")["ids"]
    assert run("generate", "abc abc abc", "--lookup")["ids"] == plain
    assert run("generate", "abc abc abc", "--draft", str(packed_llama["onnx"]))["ids"] == plain


def test_a_talk_goes_on_past_the_context(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                         packed_llama: dict[str, Path]) -> None:
    lines = ["light " * 20, "and now?", "/reset", *["light " * 20] * 12]
    for arguments in ([], ["--state", "talk.state"], ["--state", "talk.state"]):
        monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
        talk = run("chat", "--system", "Be short. " * 9, "--max-new-tokens", "8", *arguments)["messages"]
        assert [message["role"] for message in talk] == ["system", *["user", "assistant"] * 12]
    with load(packed_llama["gguf"], threads=1) as model:
        assert isinstance(model, Generator)
        assert model.load_prefix(tmp_path / "talk.state").messages[0]["role"] == "system"
