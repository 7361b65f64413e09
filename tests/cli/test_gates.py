"""Gates, ratios and verdicts know which way each number is better, and no number is no pass."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from edgestill.cli.commands import comparing, starting
from edgestill.cli.output import plain
from edgestill.cli.pipeline import evaluate, gather
from edgestill.cli.pipeline import gates as gating
from edgestill.cli.report import ranking, render
from edgestill.cli.report.summary import FILE, GateResult, Measure, ModelSummary, Summary, read_summary
from edgestill.models.errors import UsageError
from edgestill.models.gates import DeviceGates, Gates
from edgestill.models.runfile import Export, RunFile
from edgestill.runtime.data.reader import Row
from edgestill.runtime.evaluation.evaluate import Evaluation, evaluate_answers
from edgestill.runtime.evaluation.intervals import Interval
from edgestill.runtime.profiling import measures
from edgestill.runtime.profiling.measure import Profile

TEXTS = [Row(text=f"text {index}") for index in range(8)]


def shipped(name: str = "gguf:Q4_0", **metrics: float) -> ModelSummary:
    return ModelSummary(name, "shipped", {key: Measure(value, value, value, 8) for key, value in metrics.items()},
                        model_bytes=1000, profile={"ttft_ms": 5.0, "token_ms": {"p50": 1.0, "p99": 4.0}})


def test_every_gate_is_held_against_every_shipped_file() -> None:
    gates = Gates({"exact_match": 0.5}, {"ttft_ms": 5.0, "token_ms": 2.0, "token_ms_p99": 2.0})
    found = gating.judge(gates, [shipped("a", exact_match=0.5), shipped("b", exact_match=0.4),
                                 *(ModelSummary(role, role) for role in ("teacher", "student", "labels", "baseline"))])
    verdicts = {(one.model, one.name): one.passed for one in found}
    assert verdicts == {("a", "exact_match"): True, ("b", "exact_match"): False, ("a", "ttft_ms"): True,
                        ("b", "ttft_ms"): True, ("a", "token_ms"): True, ("b", "token_ms"): True,
                        ("a", "token_ms_p99"): False, ("b", "token_ms_p99"): False}


@pytest.mark.parametrize(("gates", "reason"), [
    (Gates({"json_validity": 0.0}), "was not measured"),
    (Gates({"ratio_to_teacher": 0.0}), "the teacher's own answers measure 0"),
    (Gates(maximum={"perplexity": 1e9}), "is not a number"),
    (Gates(maximum={"load_ms": 1e9}), "was not measured"),
])
def test_what_was_not_measured_does_not_hold(gates: Gates, reason: str) -> None:
    found, = gating.judge(gates, [shipped(exact_match=1.0, perplexity=math.nan)])
    assert not found.passed and found.value is None and reason in found.reason


def test_a_ratio_is_better_above_one_whatever_the_metric() -> None:
    right = gather.ratio([1.0, 0.0], [1.0, 1.0], "accuracy")
    assert right is not None and right.value == 0.5
    student, teacher = [[4.0, 2, 8]] * 4, [[2.0, 2, 8]] * 4  # twice the teacher's nats
    worse, better = gather.ratio(student, teacher, "bits_per_character"), gather.ratio(teacher, student, "perplexity")
    assert worse is not None and worse.value == pytest.approx(0.5)
    assert better is not None and better.value == pytest.approx(math.e)
    assert gather.ratio([1.0], [0.0], "accuracy") is None
    few = gather.ratio([1.0] * 3, [1.0, 0.0, 0.0], "accuracy")  # of three rows one right is the least there is
    assert few is not None and (few.value, few.high) == (3.0, 3.0)


def test_a_student_may_be_asked_to_beat_its_teacher() -> None:
    ship = [Export("gguf:Q8_0")]
    gating.check(RunFile(teacher={"kind": "local", "model": "x"}, export=ship, gates=Gates({"ratio_to_teacher": 1.5})))
    with pytest.raises(UsageError, match=r"json_validity: -0\.5, and json_validity is a share from 0 to 1"):
        gating.check(RunFile(export=ship, gates=Gates({"json_validity": -0.5})))


def test_a_number_of_the_profile_is_known_with_its_direction() -> None:
    measured = {name for name in Profile.__dataclass_fields__ if name.endswith(("_ms", "_bytes", "_per_s"))}
    assert measured | {"model_bytes"} == set(measures.NUMBERS)
    assert ranking.higher_is_better("decode_tokens_per_s") and not ranking.higher_is_better("latency_ms_p99")
    assert not ranking.higher_is_better("perplexity") and ranking.higher_is_better("field_match:intent")
    assert measures.split("token_ms_max") == ("token_ms", "max")
    assert measures.split("load_ms_p99")[0] not in measures.NUMBERS


@pytest.mark.parametrize(("metric", "low", "high", "verdict"), [
    ("accuracy", 0.1, 0.2, "better"), ("accuracy", -0.2, -0.1, "worse"), ("accuracy", 0.0, 0.1, "no difference shown"),
    ("accuracy", -0.1, 0.3, "cannot tell: some 32 rows would"),
    ("perplexity", 0.1, 0.2, "worse"), ("perplexity", -0.2, -0.1, "better"),
    ("perplexity", math.nan, math.nan, "no difference shown"),
])
def test_a_difference_is_judged_by_the_metrics_direction(metric: str, low: float, high: float, verdict: str) -> None:
    assert comparing.verdict(metric, Interval(low, low, high, 8)) == verdict


def test_the_best_file_of_the_report_is_the_one_with_the_least_loss() -> None:
    models = [shipped("worse", perplexity=9.0), shipped("good", perplexity=3.0), shipped("broken", perplexity=math.nan)]
    page = render(Summary("t", "generate", "perplexity", 8, models,
                          gates=[GateResult("broken", "perplexity", None, 4.0, False, "maximum", "is not a number")]))
    assert "best shipped file (good)" in page and "is not a number" in page


def test_a_diverged_model_is_written_and_read_back(tmp_path: Path) -> None:
    found = evaluate_answers([""] * 8, TEXTS, ["perplexity"], likelihoods=lambda: np.full((8, 3), math.nan))
    evaluate.Kept("student", "student", found).write(tmp_path / "kept.json")
    read = evaluate.Kept.read(tmp_path / "kept.json").evaluation
    assert isinstance(read, Evaluation) and math.isnan(read.metrics["perplexity"].value)
    summary = Summary("t", "generate", "perplexity", 8, [shipped(perplexity=math.nan)])
    (tmp_path / FILE).write_text(json.dumps(plain(summary)))
    assert math.isnan(read_summary(tmp_path).models[0].metrics["perplexity"].value)


def test_a_limit_that_no_file_can_keep_is_refused() -> None:
    for name in ("perplexity", "file_bytes"):
        with pytest.raises(UsageError, match=f"gates.maximum.{name}: -1, and {name} is never below 0"):
            gating.check(RunFile(gates=Gates(maximum={name: -1.0}), export=[Export("gguf:Q4_0")]))


def test_what_a_gate_needs_is_measured_besides_what_suits_the_rows() -> None:
    chats = [Row(messages=({"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}))]
    wanted = ["nats_per_token", "agreement", "field_match:x"]
    assert evaluate.metrics_for(chats, None, None, wanted) == ["exact_match", "nats_per_token", "field_match:x"]
    found = evaluate.metrics_for(chats, None, ["a"], wanted, model=False)
    assert found == ["exact_match", "agreement", "field_match:x"]


@pytest.mark.parametrize("rows", [
    [Row(text=f"some plain text number {index}") for index in range(9)],
    [Row(text=f"text {index}", label="ab"[index % 2]) for index in range(9)],
    [Row(messages=({"role": "user", "content": str(index)}, {"role": "assistant", "content": "a"}))
     for index in range(9)],
], ids=("text", "label", "chat"))
def test_the_gates_that_init_proposes_can_be_measured(rows: list[Row], tmp_path: Path) -> None:
    found = starting.describe(rows, None, None)
    text = starting.run_file(found, tmp_path / "rows.jsonl", None, {}, tmp_path / "run.toml")
    head, _, gates = text.partition("[gates")
    run = starting.check(head + "[gates" + gates.replace("\n# ", "\n"))
    assert run.gates.minimum or run.gates.maximum
    gating.check(run)
    gating.check_rows(run, rows, None)


def test_gates_of_devices_are_held_to_what_a_profile_measures() -> None:
    for limits, refusal in ((DeviceGates({"ttft_ms": 5.0}), "gates.device.pi5.minimum: of ttft_ms lower is better"),
                            (DeviceGates({}, {"accuracy": 1.0}), "pi5.maximum: accuracy is not measured for models")):
        with pytest.raises(UsageError, match=refusal):
            gating.check(RunFile(gates=Gates(device={"pi5": limits})))
    gating.check(RunFile(gates=Gates(device={"pi5": DeviceGates({"decode_tokens_per_s": 1.0}, {"ttft_ms_p95": 9.0})})))
