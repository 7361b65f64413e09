"""`edgestill profile`: gates that hold or end it with code 3, and what it writes for continuous integration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from edgestill.cli import main
from edgestill.cli.commands import profile_targets, profiled
from edgestill.models.errors import EdgestillError
from edgestill.runtime.profiling import measure
from edgestill.runtime.profiling.measure import Profile
from edgestill.runtime.profiling.targets import local
from edgestill.runtime.profiling.views import view

Capture = pytest.CaptureFixture[str]
ASKED: dict[str, Any] = {}


def measured(count: int) -> Profile:
    requests = [{"end_ns": 9 * 10**6, "token_ns": [4 * 10**6, 8 * 10**6], "decode_ns": [10**6],
                 "prefill_ns": 10**6, "template_ns": 10, "tokenize_ns": 10, "detokenize_ns": 10, "prompt_tokens": 4,
                 "new_tokens": 2}] * count
    return Profile("generate", 1, 1000, 2000, 3.0, 4.0, 4, {"cpu": "a | b"}, {"per_s_by_threads": {"1": 9.0, "2": 7.0}},
                   views={"as_met": view(requests), "clean": view(requests[1:])}, verdict=["other programs used 1.00"],
                   sustained={"seconds": 60.0, "kept": 0.5, "first_per_s": 8.0, "last_per_s": 4.0,
                              "slowed_after_s": 9.0})


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def profile(path: Path, **asked: Any) -> Profile:
        ASKED.update(asked)
        return measured(asked["repeats"])

    monkeypatch.setattr(measure, "profile", profile)
    monkeypatch.setattr(profile_targets, "task", lambda path: "generate")


def test_a_page_with_pictures_is_written(tmp_path: Path, capsys: Capture) -> None:
    assert main.call(["profile", "model", "--requests", "20", "--html", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "<title>model</title>" in page and "<h2>Measured</h2>" in page and "other programs used 1.00" in page
    out = capsys.readouterr().out
    assert "requests, one after the other" not in out, "this one has no raw values"
    raw = {"requests": [{"end_ns": 10**6}, {"end_ns": 2 * 10**6}]}
    profiled._say({"sustained": None, "verdict": [], "raw": raw}, [])
    assert capsys.readouterr().out == "requests, one after the other, ms: 1 ▁█ 2\n"
    assert main.call(["profile", "a", "b", "--html", "page.html", "-o", "sweep.json"]) == 2
    assert "--html does not go with a sweep" in capsys.readouterr().err


def test_a_gate_that_fails_ends_it_with_code_3_and_by_how_much(tmp_path: Path, capsys: Capture) -> None:
    xml, text = tmp_path / "gates.xml", tmp_path / "gates.md"
    assert main.call(["profile", "model", "--requests", "20", "--sustained", "1m", "--junit", str(xml), "--markdown",
                      str(text), "--gate", "ttft_ms<=2", "--gate", "ttft_ms.p95<=50", "--gate", "file_bytes<=1e3"]) == 3
    assert ASKED["held_to"] == ["ttft_ms.p50", "ttft_ms.p95", "file_bytes"] and ASKED["seconds"] == 60
    out, error = capsys.readouterr()
    assert "2 of 3 gates do not hold: ttft_ms.p50 <= 2: 95 % bound 4, 2 (100.0%) too much" in error
    assert "too few requests: 20 of 59" in error and "--requests 59 would be enough" in error
    assert "FAILS  ttft_ms.p95" in out and "holds  file_bytes <= 1000: 1,000" in out
    assert "clean, undisturbed requests alone" in out and "needs 59" in out and "other programs used 1.00" in out
    assert "after 60 s 50% of the speed was left (8 → 4 a second); below 90 % from 9 s on" in out
    suite = ElementTree.parse(xml).getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("3", "2")
    assert [case.get("name") for case in suite if case.find("failure") is None] == ["file_bytes <= 1000"]
    table = text.read_text(encoding="utf-8")
    assert "| ❌ `ttft_ms.p50 <= 2` | 4 | 4 | 2 (100.0%) too much |" in table and "a \\| b" in table


def test_gates_that_hold_are_told_as_json_too(tmp_path: Path, capsys: Capture) -> None:
    run, out = tmp_path / "run.toml", tmp_path / "profile.json"
    run.write_text("[gates.minimum]\nexact_match = 0.9\ndecode_tokens_per_s = 100\n[gates.maximum]\n"
                   '"ttft_ms.p95" = 60\ntoken_ms_p99 = 1e9\n')
    assert main.call(["profile", "model", "--requests", "300", "--gates", str(run), "--json", "-o", str(out)]) == 0
    printed, error = capsys.readouterr()
    found = json.loads(printed)
    assert [gate["passed"] for gate in found["gates"]] == [True] * 3 and "not held here: exact_match" in error
    assert json.loads(out.read_text())["views"]["as_met"]["requests"] == 300


@pytest.mark.parametrize(("words", "refusal"), [
    (["--junit", "x.xml"], "there is no gate to write about"), (["--sustained", "soon"], "'soon' is no span of time"),
    (["--gate", "speed>=3"], "speed is not measured"), (["--schema", "none.json"], "none.json"),
    (["--target", "loca"], "targets: 'loca' is not known"), (["--target", "local://x"], "this machine has no address"),
    (["--target", "local", "--target", "local"], "local is named twice"),
    (["--gate", "pi5:ttft_ms<=3"], "there is no target 'pi5'")])
def test_what_cannot_be_asked_is_refused_before_anything_is_measured(words: list[str], refusal: str,
                                                                    capsys: Capture) -> None:
    ASKED.clear()
    assert main.call(["profile", "model", *words]) == 2 or "--schema" in words
    assert refusal in capsys.readouterr().err and not ASKED


def test_a_run_file_without_such_gates_is_refused(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "run.toml").write_text("[gates.minimum]\nexact_match = 0.9\n")
    assert main.call(["profile", "model", "--gates", str(tmp_path / "run.toml")]) == 2
    assert "its [gates] limit no number of a profile" in capsys.readouterr().err


def test_a_model_that_lies_here_must_be_named(capsys: Capture) -> None:
    assert main.call(["profile", "--target", "here=local"]) == 2
    assert "--target here: measures a model that lies here, and none is named" in capsys.readouterr().err


def test_every_target_is_held_to_its_own_gates(tmp_path: Path, capsys: Capture) -> None:
    run, xml, text, out = (tmp_path / name for name in ("run.toml", "gates.xml", "gates.md", "profile.json"))
    run.write_text("[gates.maximum]\nttft_ms = 50\n[gates.device.slow.maximum]\nttft_ms = 2\n"
                   "[gates.device.pi5.maximum]\nttft_ms = 2\n")
    words = ["profile", "model", "--target", "slow=local", "--target", "fast=local", "--gates", str(run), "--gate",
             "fast:file_bytes<=1e3", "--junit", str(xml), "--markdown", str(text), "-o", str(out)]
    assert main.call(words) == 3
    printed, error = capsys.readouterr()
    assert "1 of 3 gates do not hold: slow: ttft_ms.p50 <= 2: 95 % bound 4, 2 (100.0%) too much" in error
    assert "devices that are no target here, so their gates are not held: pi5" in error
    head = printed.splitlines()[0].split()
    assert head == ["measure", "slow", "fast"] and "ttft_ms p95 at most" in printed
    suites = ElementTree.parse(xml).getroot()
    assert [(suite.get("name"), suite.get("tests"), suite.get("failures")) for suite in suites] == [
        ("edgestill profile model on slow", "1", "1"), ("edgestill profile model on fast", "2", "0")]
    assert text.read_text(encoding="utf-8").count("### model on ") == 2
    assert list(json.loads(out.read_text())["targets"]) == ["fast", "slow"]
    assert main.call([*words, "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["targets"]["fast"]["gates"][0]["bound"] == 1000


def test_a_target_that_fails_keeps_no_other_from_being_measured(monkeypatch: pytest.MonkeyPatch,
                                                                capsys: Capture) -> None:
    working = local.profile

    def profile(place: str, asked: Any, say: Any) -> dict[str, Any]:
        if asked.held_to:
            raise EdgestillError("the cable is out", "put it in")
        return working(place, asked, say)

    monkeypatch.setattr(local, "profile", profile)
    words = ["profile", "model", "--target", "one=local", "--target", "two=local", "--gate", "one:ttft_ms<=1e9"]
    assert main.call(words) == 1
    printed, error = capsys.readouterr()
    assert "ttft_ms" in printed and "1 of 2 targets could not be measured: one: the cable is out" in error
    assert main.call(["profile", "model", "--gate", "ttft_ms<=1e9"]) == 1
    assert "error: the cable is out\nhint: put it in" in capsys.readouterr().err
