"""Profiles held against what the machine can do: parts of a step and a prompt, and what holds them back, in words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from edgestill.models.device import Kernel, Rates
from edgestill.models.shape import Shape
from edgestill.runtime.profiling.machine_rates import MachineRates
from edgestill.runtime.profiling.roofline import roofline
from edgestill.runtime.profiling.variants import Variant

SHAPE = Shape(layers=10, hidden=100, inner=300, heads=10, heads_kv=5, head_size=10, vocabulary=1000, context=512)
VARIANT = Variant("gguf:file", {"Q4_0": 16_000_000}, {"Q8_0": 1_600_000}, 0, 0, 0)
"""9 and 1.7 MB."""
ENGINE = Rates({"Q4_0": Kernel(1e9, 4e9), "Q8_0": Kernel(1e9, 2e9)}, layer_s=1e-4, step_s=1e-4,
               attention_multiply_adds_per_s=1e9, prompt_attention_multiply_adds_per_s=1e9)
RATES = MachineRates(2, 2e9, {"1": 1.9e9, "2": 2e9}, {"gguf": ENGINE})


def profile(prompt: float, step: float, clean: bool = True) -> dict[str, Any]:
    view = {"requests": 5, "prefill_ms": {"p50": prompt}, "decode_ms": {"p50": step}}
    return {"prompt_tokens": 100, "new_tokens": 40,
            "views": {"as_met": view, "clean": view if clean else {"requests": 0}}}


def test_a_step_and_a_prompt_are_taken_apart() -> None:
    found = roofline(profile(600.0, 15.0), SHAPE, VARIANT, RATES)
    step, prompt = found["decode"], found["prefill"]
    assert step["parts"] == pytest.approx({"weights": 10.7, "attention": 0.24, "layers": 1.1, "rest": 2.96})
    assert step["possible_ms"] == pytest.approx(12.04) and step["share"] == pytest.approx(12.04 / 15)
    assert (step["bytes"], step["multiply_adds"]) == (10_700_000, 17_600_000)
    assert step["roof_ms"] == pytest.approx(5.35)  # memory alone
    # 100 tokens × 16 M at 4 G/s, the last one's head, 10 × 100 × 100² products of attention, one pass' overhead
    assert prompt["parts"] == pytest.approx({"weights": 401.7, "attention": 10.0, "layers": 1.1, "rest": 187.2})
    assert prompt["roof_ms"] == pytest.approx(1000 * (16e8 + 16e5) / 4e9)
    assert found["threads"] == 2 and found["read_bytes_per_s"] == 2e9 and found["multiply_adds_per_s"] == 4e9


@pytest.mark.parametrize(("engine", "step", "held_by", "words"), [
    (ENGINE, 13.0, "weights", "reading 10.7 MB of weights holds it back, at 1 GB/s where memory gives 2"),
    (ENGINE, 13.0, "weights", "more threads would not, for one reads as fast"),
    (replace(ENGINE, layer_s=5e-3), 64.0, "layers", "fewer layers would help, fewer bits would not"),
    (replace(ENGINE, attention_multiply_adds_per_s=1e7), 36.0, "attention", "attention to 120 tokens holds it back"),
    (ENGINE, 40.0, "rest", "neither bytes nor arithmetic hold it back"),
    (ENGINE, 6.0, "weights", "faster than this machine was when it was measured")])
def test_what_takes_most_is_named(engine: Rates, step: float, held_by: str, words: str) -> None:
    found = roofline(profile(600.0, step), SHAPE, VARIANT, replace(RATES, engines={"gguf": engine}))
    assert found["decode"]["held_by"] == held_by and words in found["words"][1]
    assert found["words"][1].startswith(f"a step takes {step:.3g} ms (weights ")
    assert "a prompt of 100 tokens takes 600 ms" in found["words"][0]
    assert "multiplying holds it back" in found["words"][0]


def test_answers_of_one_token_have_no_step() -> None:
    asked = profile(600.0, 1.0)
    del asked["views"]["clean"]["decode_ms"]
    found = roofline(asked, SHAPE, VARIANT, RATES)
    assert "decode" not in found and len(found["words"]) == 1


def test_where_nothing_was_undisturbed_others_are_named() -> None:
    found = roofline(profile(600.0, 40.0, clean=False), SHAPE, VARIANT, RATES)
    assert "other programs hold it back" in found["words"][1] and found["decode"]["achieved_ms"] == 40
