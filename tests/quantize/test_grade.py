"""Grades and what they rest on: what few rows, or rows that the float model has wrong, do not show is not shown."""

from __future__ import annotations

from math import comb
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from edgestill import quantize
from edgestill.cli import main
from edgestill.quantize.proof import foreign_file, grade, hopeless, limits, steps
from edgestill.quantize.proof.certificate import Certificate, Check
from edgestill.quantize.proof.checks import task
from edgestill.runtime.data.reader import Row, rows_digest
from edgestill.runtime.evaluation.intervals import bootstrap, matched
from edgestill.runtime.files import limited_process


def agreeing(share: float) -> Check:
    return Check(grade.DECISIVE, True, value=share, n=1000)


def losing(value: float, high: float) -> Check:
    return Check(grade.LOSS, True, value=value, high=high, n=128)


def answered(expected: list[float], found: list[float], target: str = "gguf:Q4_0") -> dict[str, Check]:
    """The checks of a file that has `found` right where the float model has `expected`."""
    rows = [Row(messages=({"role": "user", "content": str(index)}, {"role": "assistant", "content": "yes"}))
            for index in range(len(expected))]
    scores = {rows_digest([row]): score for row, score in zip(rows, expected, strict=True)}
    subject: Any = SimpleNamespace(
        reference=SimpleNamespace(fixtures=SimpleNamespace(scores=scores, metric="exact_match")), test_rows=rows,
        embeds=False, head=None, limits=limits.of(target),
        answers=lambda _: ["yes" if right else "no" for right in found])
    return {check.name: check for check in task.check(subject)}


@pytest.mark.parametrize(("share", "bound", "name"), [
    (1.0, 0.015, "excellent"), (0.99, 0.02, "excellent"), (0.989, 0.0, "good"), (0.95, 0.02, "good"),
    (0.949, 0.0, "noticeable"), (1.0, 0.021, "noticeable"), (0.85, 0.1, "noticeable"), (0.849, 0.0, "poor"),
    (1.0, 0.11, "poor"), (0.99, None, "excellent"), (0.95, None, "good"), (0.5, None, "poor")])
def test_a_grade_needs_both_tokens_and_task(share: float, bound: float | None, name: str) -> None:
    task_check = Check(grade.LOSS, None, detail="no rows") if bound is None else losing(0.0, bound)
    found = grade.of([agreeing(share), task_check], "gguf:Q4_0")
    assert found.name == name and found.good == (name in ("excellent", "good")) == (not found.instead)
    assert f"{100 * share:.1f} %" in found.words and ("rests on this alone" in found.words) == (bound is None)
    assert Certificate("gguf:Q4_0", (), grade=found).summary()["grade"]["name"] == name


def test_nothing_is_graded_where_nothing_was_measured() -> None:
    unsure = Check(grade.DECISIVE, None, detail="nowhere")
    for checks in ([], [unsure], [losing(0.0, 0.01)]):
        assert grade.of(checks, "gguf:Q4_0") == grade.Grade() and grade.told("x", grade.Grade()) == ""


@pytest.mark.parametrize("name", grade.SHARES)
def test_a_few_sure_choices_that_agree_prove_nothing_and_some_that_differ_do(name: str) -> None:
    few = grade.of([Check(name, True, value=1.0, n=limits.LEAST_SURE - 1)], "gguf:Q4_0")
    assert not few.name and "58 choices" in few.words and "59 are needed" in few.words and few.agree_n == 58
    assert grade.told("x", few) == f"x is {few.words}" and grade.told("x", vars(few)) == grade.told("x", few)
    assert Certificate("gguf:Q4_0", (), grade=few).summary()["grade"] == {"name": "", "words": few.words}
    assert grade.of([Check(name, True, value=1.0, n=limits.LEAST_SURE)], "gguf:Q4_0").name == "excellent"
    assert grade.of([Check(name, True, value=0.9, n=20)], "gguf:Q4_0").name == "noticeable"
    assert 0.95 ** limits.LEAST_SURE < 0.05 < 0.95 ** (limits.LEAST_SURE - 1)


def test_what_the_export_measured_of_the_task_counts_until_it_is_measured_again() -> None:
    sealed = [agreeing(0.9), losing(0.05, 0.09)]
    again = grade.of([agreeing(1.0)], "gguf:Q4_0", at_export=sealed)
    assert again.name == "noticeable" and "as measured at export" in again.words and again.loss_bound == 0.09
    assert grade.of([agreeing(1.0), losing(0.0, 0.01)], "gguf:Q4_0", at_export=sealed).name == "excellent"


def test_vectors_scores_and_labels_are_graded_too() -> None:
    for name, values in (("cosine_distance", (0.002, 0.01, 0.05, 0.06)), ("score_error", (0.05, 0.15, 0.5, 0.6))):
        names = [grade.of([Check(name, True, value=value, n=9)], "onnx:int8").name for value in values]
        assert names == ["excellent", "good", "noticeable", "poor"]
    labels = Check("same_decisions_decisive", True, value=0.94, n=9)
    assert grade.of([labels], "onnx:int8").name == "noticeable" and grade.of([labels], "onnx:int8").agree == 0.94


@pytest.mark.parametrize(("target", "method", "flags"), [
    ("gguf:Q4_0", "scale_search", ["--to gguf:Q4_0 --method gptq", "--to gguf:Q4_K_M", "--to gguf:Q6_K"]),
    ("gguf:Q4_0", "gptq", ["--to gguf:Q4_K_M", "--to gguf:Q6_K", "--to gguf:Q8_0"]),
    ("gguf:Q6_K", "", ["--to gguf:Q8_0", "--to gguf:F16", "--to gguf:F32"]), ("gguf:F32", "", []),
    ("onnx:int4", "rtn", ["--to onnx:int4 --method gptq", "--to onnx:int8", "--to onnx:fp32"]),
    # What files made elsewhere are of.
    ("gguf:Q4_K", "", ["--to gguf:Q6_K", "--to gguf:Q8_0", "--to gguf:F16"]),
    ("gguf:IQ2_XXS", "", ["--to gguf:Q4_K_M", "--to gguf:Q6_K", "--to gguf:Q8_0"]),
    ("onnx:fp16", "", ["--to onnx:fp32"])])
def test_a_better_target_is_named_as_it_is_typed(target: str, method: str, flags: list[str]) -> None:
    assert grade.instead(target, method) == flags
    found = grade.of([agreeing(0.9)], target, method)
    assert found.instead == flags and all(flag in grade.told(target, found) for flag in flags)
    assert grade.told(target, vars(found)).startswith(f"{target} is noticeable: ")


def test_twelve_lost_answers_of_160_show() -> None:
    found = answered([1.0] * 160, [0.0] * 12 + [1.0] * 148)
    loss = found[grade.LOSS]
    assert loss.value == 12 / 160 and loss.high > 0.11 and found["flips_to_wrong"].value == 12
    assert grade.of([agreeing(1.0), loss], "gguf:Q4_0").name == "poor"
    exact = answered([1.0] * 160, [0.0] * 12 + [1.0] * 148, "gguf:Q8_0")[grade.LOSS]
    assert exact.passed is False and "at least" in exact.detail


def test_a_few_lost_answers_are_neither_proof_nor_fault() -> None:
    loss = answered([1.0] * 160, [0.0] * 2 + [1.0] * 158, "gguf:F32")[grade.LOSS]
    assert loss.passed is None and "undecided" in loss.detail
    assert grade.of([agreeing(1.0), loss], "gguf:F32").name == "noticeable"  # nothing shows that it is 2 points or less
    many = answered([1.0] * 2000, [0.0] * 4 + [1.0] * 1996, "gguf:F32")[grade.LOSS]
    assert many.passed is True and many.high < 0.02


@pytest.mark.parametrize(("rows", "right", "why"), [
    (160, 0, "has 0 of 160 rows right"), (160, 29, "has 29 of 160"), (148, 148, "148 rows are too few")])
def test_rows_that_show_no_loss_are_not_asked(rows: int, right: int, why: str) -> None:
    found = answered([1.0] * right + [0.0] * (rows - right), [])  # would not do for as many rows
    assert found.keys() == {grade.LOSS} and found[grade.LOSS].passed is None and why in found[grade.LOSS].detail
    words = grade.of([agreeing(0.97), found[grade.LOSS]], "gguf:Q4_0").words
    assert why in words and "not run" in words


def test_the_fewest_rows_are_just_enough() -> None:
    found = answered([1.0] * limits.LEAST_ROWS, [1.0] * limits.LEAST_ROWS)[grade.LOSS]
    assert found.passed and found.value == 0 and 0.018 < found.high <= 0.02
    assert answered([1.0] * 30 + [0.0] * 130, [1.0] * 30 + [0.0] * 130)[grade.LOSS].high < 0.02


@pytest.mark.parametrize(("text", "wanted", "never"), [
    ("", "yes", False), ("ye", "yes", False), (" yes ", "yes", False), ("yes!", "yes", True), ("no", "yes", True),
    ("K\u00f6\ufffd", "K\u00f6ln", False), ("a  b", "a b", True), ('{"b"', '{"a": 1, "b": 2}', False),
    ("Sure, ", '{"a": 1}', True), ("[", '{"a": 1}', True), ("```", "[1]", True), ("1.", "1", False),
    ("5e", "0.5", False)])
def test_an_answer_is_given_up_only_where_nothing_could_make_it_right(text: str, wanted: str, never: bool) -> None:
    assert hopeless.hopeless(text, wanted) is never


def test_quick_proves_tokens_template_stop_ids_cache_and_kl_alone() -> None:
    manifest = SimpleNamespace(task=SimpleNamespace(kind="generate"))
    subject: Any = SimpleNamespace(artifact=SimpleNamespace(manifest=manifest), quick=True)
    quick = {"opens", "agreement", "cache", "codes", "kv", "stop_ids", "template", "tokens"}  # codes: at export alone
    assert {step.name for step in steps.steps(subject)} == quick
    subject.quick = False
    whole = quick | {"beyond", "metadata", "rtn", "second_graph", "task", "tensors"}
    assert {step.name for step in steps.steps(subject)} == whole


def test_verify_tells_the_grade_and_takes_quick(monkeypatch: pytest.MonkeyPatch,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[bool] = []

    def verify(*given: Any) -> Certificate:
        asked.append(given[-1])
        return Certificate("gguf:Q4_0", (agreeing(0.9),), grade=grade.of([agreeing(0.9)], "gguf:Q4_0"))
    monkeypatch.setattr(quantize, "verify", verify)
    assert main.call(["verify", "x", "--quick"]) == 0 and main.call(["verify", "x", "--json"]) == 0
    captured = capsys.readouterr()
    assert asked == [True, False] and "noticeable" in captured.out
    assert "better: --to gguf:Q4_0 --method gptq" in captured.err
    assert '"name": "noticeable"' in captured.out and '"instead"' in captured.out


def test_a_proof_that_takes_too_long_is_no_fault_of_the_file() -> None:
    late = limited_process.Outcome([{"needs_s": 5400.0}], "it took longer than 1800 s", late=True)
    found = foreign_file._late("task", late)
    assert found.passed is None and "longer than 1800 s; all checks take about 5,400 s" in found.detail
    assert Certificate("gguf:Q4_0", (found,)).passed
    slow = limited_process.run("edgestill.quantize.proof.foreign_file", {}, seconds=0.0)
    assert slow.late and "longer than 0 s" in slow.crash


def test_a_matched_interval_keeps_the_doubt_of_few_rows() -> None:
    same = [1.0] * 10
    assert matched(same, same).value == 0 and matched(same, same).high == pytest.approx(1.96 * 2**0.5 / 12, abs=1e-4)
    random = np.random.default_rng(0)
    a, b = (random.random((2, 5000)) < 0.6).astype(float)
    exact, resampled = matched(a, b), bootstrap(a - b)
    assert (exact.low, exact.high) == pytest.approx((resampled.low, resampled.high), abs=0.002)
    assert exact.value == resampled.value and exact.n == 5000
    inside = 0
    for _ in range(300):  # 5 % of answers are lost and 3 % won: 2 points
        draw = random.random(128)
        found = matched(draw < 0.95, (draw < 0.9) | (draw > 0.97))
        inside += found.low <= 0.02 <= found.high
    assert inside >= 280
    # Enumerated: sets of rows whose upper bound lies above a true loss of 2 points, nothing won.
    for n in (96, 128, limits.LEAST_ROWS, 300):
        covered = sum(comb(n, lost) * 0.02**lost * 0.98**(n - lost) for lost in range(n + 1)
                      if matched([1.0] * n, [0.0] * lost + [1.0] * (n - lost)).high >= 0.02)
        assert covered > 0.93, n


@pytest.mark.parametrize(("why", "cause"), [
    ("/my-tokens/model.gguf: cannot be opened", "weights"), ("/m/model.gguf: 3 tokens of the vocabulary", "tokenizer"),
    ("/m/tokenizer.json: is not there", "tokenizer")])
def test_a_folders_name_is_not_taken_for_a_cause(why: str, cause: str) -> None:
    assert steps.Step("opens", "weights", list).failed(why).cause == cause
