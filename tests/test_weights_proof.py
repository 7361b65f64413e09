"""Whether a file of a coarse type is what it claims to be: held to plain rounding, and to what its export measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from edgestill.models.errors import CheckFailed
from edgestill.quantize import certificate, codes, export
from edgestill.quantize.certify import agreement
from edgestill.quantize.methods import scale_search

from . import proving


def test_a_method_that_is_worse_than_plain_rounding_fails(tiny_llama: Path, tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    """Its codes are packed as they are, so nothing else knows: scales that are a quarter too small."""
    found = scale_search.quantize

    def wrong(*given: Any) -> codes.Codes:
        right = found(*given)
        return replace(right, scales=right.scales * np.float16(0.75))
    monkeypatch.setattr(scale_search, "quantize", wrong)
    with pytest.raises(CheckFailed, match="cause: weights.*rtn_kl_nats"):
        export(tiny_llama, "gguf:Q4_0", tmp_path, proving.ROWS, proving.TEST_ROWS)
    checks = {check.name: check for check in certificate.read(tmp_path / "gguf-Q4_0.failed").checks}
    assert checks["codes_kl_nats"].passed and checks["kl_nats"].passed
    assert checks["rtn_kl_nats"].value > 1.2 * checks["rtn_kl_nats"].limit, checks["rtn_kl_nats"]


@pytest.mark.parametrize(("value", "passed"), [(0.2, True), (0.2299, True), (0.1701, True), (0.2305, False),
                                               (0.1695, False)])
def test_a_later_proof_is_held_to_what_the_export_measured(value: float, passed: bool) -> None:
    told = certificate.Check(agreement.AGAIN, True, value=0.2, n=100)
    subject: Any = SimpleNamespace(at_export={agreement.AGAIN: told})
    assert agreement._again(value, 100, subject).passed is passed
    assert agreement._again(9.0, 99, subject).passed  # other tokens: nothing to hold it to
