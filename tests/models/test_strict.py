"""The strict builder refuses what a run file must not hold, and names it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
from edgestill.models.errors import UsageError
from edgestill.models.strict import build, limited
from hypothesis import given
from hypothesis import strategies as st


@dataclass(frozen=True)
class Inner:
    rate: float = limited(0.1, minimum=0.0, maximum=1.0)


@dataclass(frozen=True)
class Outer:
    name: str = limited()
    count: int = limited(3, minimum=1)
    inner: Inner = field(default_factory=Inner)
    kind: str = limited("alpha", choices=("alpha", "beta"))
    items: list[int] = limited([])
    several: list[Inner] = limited([])
    maybe: int | None = None


def test_defaults_are_filled_in_and_tables_nest() -> None:
    made = build(Outer, {"name": "x", "inner": {"rate": 1}, "several": [{"rate": 0.5}]})
    assert made == Outer("x", 3, Inner(1.0), "alpha", [], [Inner(0.5)])
    assert build(Outer, {"name": "x", "count": 2**63}).count == 2**63  # seeds are unsigned


@pytest.mark.parametrize(("table", "expected"), [
    ({"name": "x", "cuont": 1}, ["cuont", "did you mean 'count'"]),
    ({}, ["name", "required"]),
    ({"name": 3}, ["name", "3", "int", "text"]),
    ({"name": "x", "count": True}, ["count", "bool", "whole number"]),
    ({"name": "x", "count": 0}, ["count", "0", "below the limit 1"]),
    ({"name": "x", "inner": {"rate": 1.5}}, ["inner.rate", "1.5", "above the limit 1.0"]),
    ({"name": "x", "inner": {"rate": math.nan}}, ["inner.rate", "nan", "finite"]),
    ({"name": "x", "inner": {"rate": 10**400}}, ["inner.rate", "1329 bits", "the limit is 127"]),
    ({"name": "x", "count": 2**127}, ["count", "128 bits"]),
    ({"name": 10**5000}, ["name", "16610 bits"]),
    ({"name": "x", "inner": 3}, ["inner", "table"]),
    ({"name": "x", "kind": "betta"}, ["kind", "'betta'", "did you mean 'beta'"]),
    ({"name": "x", "items": ["y"]}, ["items[0]", "'y'"]),
    ({"name": "x", "items": 3}, ["items", "list"]),
    ({"name": "x", "several": [{"rte": 1}]}, ["several[0].rte", "did you mean 'rate'"]),
])
def test_a_refusal_names_the_key_the_value_and_the_limit(table: dict[str, object], expected: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        build(Outer, table)
    assert all(text in str(caught.value) for text in expected), str(caught.value)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_nothing_but_a_usage_error_escapes(value: object) -> None:
    for table in (value, {"name": "x", "inner": value}, {"name": value}, {"name": "x", "several": value}):
        try:
            build(Outer, table)  # type: ignore[arg-type]
        except UsageError:
            continue
