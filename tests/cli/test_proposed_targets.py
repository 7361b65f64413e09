"""Which files `init` proposes: the best that fit the time, of formats and types that the family has."""

from __future__ import annotations

import tomllib

import pytest
from edgestill.cli.commands.proposed_targets import IN_GOOD_TIME, lines, propose
from edgestill.cli.pipeline import costs
from edgestill.cli.pipeline.costs import Lengths, Shape
from edgestill.models import catalogue, family
from edgestill.models.runfile import Export

ROWS = Lengths(400, 30_000, 0)
LLAMA, RATE = family.load("llama"), 100e9


@pytest.fixture(autouse=True)
def _rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "matrix_rate", lambda: RATE)


def told(exports: tuple[Export, ...]) -> list[tuple[str, str]]:
    return [(export.target, export.method["kind"]) for export in exports]


@pytest.mark.parametrize(("parameters", "wanted"), [
    (135e6, [("gguf:mixed", "gptq"), ("onnx:mixed", "gptq")]),
    (650e6, [("gguf:Q4_0", "gptq"), ("onnx:mixed", "gptq")]),
    (850e6, [("gguf:Q4_0", "gptq"), ("onnx:int4", "gptq")]),
    (1.5e9, [("gguf:Q4_0", "scale_search"), ("onnx:int4", "scale_search")])])
def test_the_larger_the_model_the_faster_the_method(parameters: float, wanted: list[tuple[str, str]]) -> None:
    found = propose("generate", LLAMA, Shape(int(parameters)), ROWS)
    assert told(found) == wanted
    table = tomllib.loads("\n".join(lines(found)))["export"]
    assert [(each["target"], each.get("method", {"kind": "gptq"})["kind"]) for each in table] == wanted
    for export in found:
        seconds = costs.packing(Shape(int(parameters)), export, ROWS, RATE).seconds
        assert seconds <= IN_GOOD_TIME or export.method["kind"] == "scale_search"


@pytest.mark.parametrize(("tokens", "wanted"), [(75, 128), (256, 128), (1024, 32), (8192, 16)])
def test_of_long_rows_fewer_calibrate(tokens: int, wanted: int) -> None:
    found = propose("generate", LLAMA, Shape(10**8), Lengths(400, 400 * tokens, 0))
    assert [export.calibration_rows for export in found] == [wanted, wanted]
    table = tomllib.loads("\n".join(lines(found)))["export"]
    assert {each.get("calibration_rows", 128) for each in table} == {wanted}


@pytest.mark.parametrize("name", catalogue.names())
def test_every_model_gets_what_its_family_has(name: str) -> None:
    entry = catalogue.entry(name)
    found = propose(entry.task, family.load(entry.family), Shape(entry.parameters), ROWS)
    member = family.load(entry.family)
    assert found
    for export in found:
        format, _, type = export.target.partition(":")
        assert getattr(member, format) is not None or entry.task == "classify"
        assert (format, type) != ("onnx", "mixed") or member.onnx == "builder"


def test_what_is_not_here_yet_gets_what_all_models_can_have() -> None:
    assert told(propose("generate", None, None, ROWS)) == [("gguf:Q4_0", "gptq"), ("onnx:int4", "gptq")]
    assert told(propose("classify", None, None, ROWS)) == [("onnx:int8", "gptq")]
    assert lines(propose("classify", None, None, ROWS)) == ["", "[[export]]", 'target = "onnx:int8"']
