"""Minutes and memory that a plan states before it spends them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from edgestill.cli.pipeline import costs, forecast, resolve
from edgestill.cli.pipeline.costs import Cost, Lengths, Shape
from edgestill.cli.pipeline.plan import Plan
from edgestill.distill.training import machine
from edgestill.models.errors import UsageError
from edgestill.models.runfile import Export, RunFile, Student
from edgestill.runtime.data import learned_tokens
from edgestill.runtime.data.reader import Row
from edgestill.runtime.text.codec import Codec

SMOLLM2 = Shape(134_515_008, 49152)
CONFIG = {"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 30, "hidden_size": 576, "intermediate_size": 1536}


def test_training_that_was_measured_is_foretold_within_a_factor_of_two() -> None:
    """SmolLM2-135M with adapters: 140 tokens/s on two cores of 47 GFLOP/s each, 1.9 GB."""
    found = costs.training(SMOLLM2, Lengths(400, 20_000, 12_000), 1.0, "lora", rate=94e9)
    assert found.seconds == pytest.approx(32_000 / 140, rel=0.5)
    assert found.peak_bytes == pytest.approx(2.2e9, rel=0.3)
    whole = costs.training(SMOLLM2, Lengths(400, 20_000, 12_000), 1.0, "full", rate=94e9)
    assert whole.seconds == pytest.approx(1.5 * found.seconds)
    assert whole.peak_bytes - found.peak_bytes == 12 * SMOLLM2.parameters


def test_packing_that_was_measured_is_foretold_within_a_half() -> None:
    """SmolLM2-135M as gguf:mixed and onnx:mixed, proofs included: 16 minutes on two cores, 3.6 GB."""
    found = [costs.packing(SMOLLM2, Export(target), Lengths(342, 25_700, 0), rate=131e9)
             for target in ("gguf:mixed", "onnx:mixed")]
    assert sum(cost.seconds for cost in found) == pytest.approx(975, rel=0.5)
    assert found[1].peak_bytes == pytest.approx(3.57e9, rel=0.3)


def test_answers_are_slower_than_prompts_and_few_rows_calibrate_on_what_there_is() -> None:
    asked, said = (costs.answering(SMOLLM2, Lengths(1, *tokens), rate=94e9).seconds for tokens in ((900, 0), (0, 900)))
    assert said == pytest.approx(asked * costs.FORWARD / costs.DECODING)
    assert asked == pytest.approx(2 * SMOLLM2.parameters * 900 / (costs.FORWARD * 94e9))
    two, many = (costs.packing(SMOLLM2, Export("gguf:Q4_0", calibration_rows=rows), Lengths(2, 500, 0), rate=94e9)
                 for rows in (2, 128))
    assert two == many  # there are two rows
    (one,) = (costs.packing(SMOLLM2, Export("gguf:Q4_0", calibration_rows=1), Lengths(2, 500, 0), rate=94e9),)
    passes = costs.CALIBRATION_PASSES["gptq"] * 250
    assert two.seconds - one.seconds == pytest.approx(2 * SMOLLM2.parameters * passes / (costs.FORWARD * 94e9))


def test_micro_batches_are_as_large_as_a_gigabyte_of_activations() -> None:
    assert machine.micro_batch_tokens(CONFIG) == 301
    assert machine.micro_batch_tokens(CONFIG, "cuda:0") == 8 * 301 + 3
    small = CONFIG | {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128}
    assert machine.micro_batch_tokens(small) == 8192
    huge = CONFIG | {"num_hidden_layers": 800, "hidden_size": 8192, "intermediate_size": 29568}
    assert machine.micro_batch_tokens(huge) == 16


def test_lengths_are_the_codecs_where_it_is_there_and_by_characters_elsewhere(tiny_llama: Path) -> None:
    turns = ({"role": "user", "content": "12345678901234"}, {"role": "assistant", "content": "1234567"})
    row, twice = Row(messages=turns), Row(messages=(*turns, *turns))
    assert costs.lengths([row]) == Lengths(1, round(len(str(turns[0])) / 3.5), 2)
    tools = ({"type": "function", "function": {"name": "light", "description": "x" * 350}},)
    assert costs.lengths([replace(row, tools=tools)]).prompt_tokens > costs.lengths([row]).prompt_tokens + 100
    codec = Codec.from_folder(tiny_llama)
    ids, start = learned_tokens.training_ids(codec, row)
    assert costs.lengths([row] * 401, codec) == Lengths(401, 401 * start, 401 * (len(ids) - start))
    last, both = (costs.lengths([twice], codec, learn) for learn in ("last", "all"))
    assert both.answer_tokens == 2 * last.answer_tokens and both.tokens == last.tokens
    assert costs.lengths([], codec) == Lengths(0, 0, 0)
    assert costs.lengths([Row(messages=turns[:1])], codec) == Lengths(1, 0, 0)  # nothing in it is learned


def test_a_plan_tells_stages_that_take_long_and_what_they_need(tiny_llama: Path, tmp_path: Path,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"prompt": f"question {index}", "completion": f"answer {index}"} for index in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "run.toml").write_text(
        f'[data]\ntrain = "rows.jsonl"\n[student]\nmodel = "{tiny_llama}"\n[[export]]\ntarget = "gguf:Q4_0"\n', "utf-8")
    plan = Plan(resolve.read(tmp_path / "run.toml"), tmp_path / "out", "", print)
    found = forecast.forecast(plan)
    assert set(found) == {"tune the student", "evaluate the student", "export and certify gguf:Q4_0",
                          "evaluate gguf:Q4_0"}
    assert all(cost.seconds > 0 and cost.peak_bytes > costs.PROCESS_BYTES for cost in found.values())
    short = forecast.forecast(Plan(resolve.read(tmp_path / "run.toml", ["tune.steps=1"]), tmp_path / "out", "", print))
    assert short["tune the student"].seconds < found["tune the student"].seconds / 2  # 3 epochs are 6 or more steps
    monkeypatch.setattr(costs, "matrix_rate", lambda: 1e9)
    plans = [Plan(resolve.read(tmp_path / "run.toml", ["tune.steps=5", f"tune.batch_size={size}"]), tmp_path / "out",
                  "", print) for size in (2, 8)]
    small, large = (forecast.forecast(plan)["tune the student"].seconds for plan in plans)
    assert large == pytest.approx(4 * small)
    told = forecast.lines({"tune": Cost(600, 2 * 10**9), "check": Cost(1, 10**9)}, ["tune", "check", "report"])
    assert told == ["about 10 min and 2 GB of memory on this machine, roughly:", "  tune: 10 min, 2 GB"]
    assert forecast.lines(found, []) == []


def test_what_cannot_fit_is_refused_with_its_stage() -> None:
    found = {"tune": Cost(1, 8 * 10**9, 3 * 10**9), "export": Cost(1, 10**9, 10**9)}
    forecast.check(found, ["tune", "export", "report"], 8 * 10**9, 4 * 10**9)
    forecast.check(found, ["export"], 10**9, 10**9)
    with pytest.raises(UsageError, match="tune: takes about 8 GB of memory, and this machine has 7 GB"):
        forecast.check(found, ["tune"], 7 * 10**9, 10**12)
    with pytest.raises(UsageError, match="leave about 4 GB on the disk, and it has room for 3 GB"):
        forecast.check(found, ["tune", "export"], 10**12, 3 * 10**9)


def test_downloads_are_models_that_lie_nowhere_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    run = RunFile(student=Student(model="smollm2-135m"), teacher={"kind": "local", "model": "owner/name"})
    assert forecast.downloads(run) == ["smollm2-135m: about 269 MB", "owner/name: of a size that the hub says"]
    assert forecast.downloads(RunFile(student=Student(model=str(tmp_path)))) == []


def test_what_is_not_here_yet_is_not_foretold(tmp_path: Path) -> None:
    assert costs.shape("someone/some-model") is None
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    assert costs.shape(str(tmp_path)) is None
    assert costs.shape("smollm2-135m") == Shape(134_515_008)
