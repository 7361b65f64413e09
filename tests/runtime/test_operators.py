"""Operators as both engines time them: of every pass, summed up, and as a trace that Perfetto takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from edgestill.models.errors import ArtifactError
from edgestill.runtime.engines import _onnx_engine, onnx
from edgestill.runtime.engines._gguf_context import GgufModel
from edgestill.runtime.profiling import operator_child, operators


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The job runs in this process, and leaves the engines as they were."""
    monkeypatch.setattr(operators, "answer_of", lambda module, job: json.loads(json.dumps(operator_child.run(job))))
    monkeypatch.setattr(GgufModel, "begin", GgufModel.begin)
    monkeypatch.setattr(_onnx_engine, "session", _onnx_engine.session)
    monkeypatch.setattr(onnx, "session", onnx.session)


@pytest.mark.parametrize(("engine", "expected"), [
    ("gguf", {"MUL_MAT", "RMS_NORM", "ROPE"}), ("onnx", {"MatMul", "GroupQueryAttention"})])
def test_operators_of_prompts_and_steps(engine: str, expected: set[str], packed_llama: dict[str, Path],
                                        here: None) -> None:
    found = operators.operators(packed_llama[engine], prompt_tokens=12, steps=3, threads=1)
    assert found["passes"] == ["prompt", "step", "step", "step"] * operator_child.ROUNDS
    assert {span[0] for span in found["spans"]} == set(range(12)) and list(found["phases"]) == ["prompt", "step"]
    for phase in found["phases"].values():
        assert expected <= {one["operator"] for one in phase["operators"]} and phase["undisturbed_ms"] > 0
        for kind in ("operators", "parts"):
            assert sum(one["share"] for one in phase[kind]) == pytest.approx(1)
            assert [one["ms"] for one in phase[kind]] == sorted((one["ms"] for one in phase[kind]), reverse=True)
        # Three layers: every operator of theirs is one part, called three times.
        down = [one for one in phase["parts"] if "ffn_out" in one["name"] or "down_proj" in one["name"]]
        assert [one["calls"] for one in down] == [3] and "*" in down[0]["name"]
        assert sum(one["ms"] for one in phase["operators"]) == pytest.approx(sum(one["ms"] for one in phase["parts"]))


def test_a_classifier_has_texts(packed_bert: Path, here: None) -> None:
    found = operators.operators(packed_bert, prompt_tokens=6, threads=1)
    assert list(found["phases"]) == ["text"] and len(found["passes"]) == operator_child.ROUNDS
    assert "MatMul" in {one["operator"] for one in found["phases"]["text"]["operators"]}


def test_an_interruption_in_one_pass_says_nothing_of_the_operator() -> None:
    spans = [[place, "MatMul", f"layers.{layer}/up", 10, 9_000_000 if (place, layer) == (1, 0) else 1000 * (layer + 1)]
             for place in range(3) for layer in range(2)]
    found = operators._phase({"spans": spans, "undisturbed": [5, 6, 7], "watched": [8, 9, 10]}, {0, 1, 2})
    assert found["operators"] == [{"operator": "MatMul", "calls": 2, "ms": 0.003, "share": 1}]
    assert found["parts"][0]["name"] == "layers.*/up" and found["undisturbed_ms"] == 6e-6


def test_a_trace_has_passes_and_their_operators() -> None:
    spans = [[0, "MatMul", "a", 5000, 2000], [0, "Add", "b", 8000, 500], [1, "MatMul", "a", 9000, 1500]]
    found: dict[str, Any] = {"model": "m", "scheme": "gguf:Q4_0", "threads": 2, "passes": ["prompt", "step"],
                             "spans": spans}
    made = json.loads(json.dumps(operators.trace(found)))
    assert made["displayTimeUnit"] == "ms"
    names = {(event["tid"], event["name"]): event["args"]["name"] for event in made["traceEvents"]
             if event["ph"] == "M"}
    assert names[0, "process_name"] == "m (gguf:Q4_0, 2 threads)" and names[2, "thread_name"] == "operators"
    whole = [event for event in made["traceEvents"] if event["ph"] == "X"]
    assert [(one["name"], one["tid"], one["ts"], one["dur"]) for one in whole] == [
        ("prompt", 1, 0, 3.5), ("step", 1, 4, 1.5), ("a", 2, 0, 2), ("b", 2, 3, 0.5), ("a", 2, 4, 1.5)]
    assert all(one["pid"] == 1 and one["cat"] for one in whole)


def test_what_cannot_be_loaded_is_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError):
        operators.operators(tmp_path / "none.gguf")
