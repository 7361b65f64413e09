"""`profile --target browser://…`: the web app in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from edgestill.models.artifact import open_artifact
from edgestill.models.errors import EdgestillError
from edgestill.quantize import apps, export
from edgestill.runtime.data.row import Row
from edgestill.runtime.profiling.targets import browser
from edgestill.runtime.profiling.targets._base import Asked, Target

from .conftest import TEACHER

PACKAGES = Path(__file__).resolve().parent / "node_modules"
ROWS = [Row(messages=({"role": "user", "content": text},)) for text in ("switch on the light", "play some jazz")]


@pytest.mark.timeout(900)
def test_a_generator_in_a_browser(tmp_path: Path) -> None:
    page = apps.write(open_artifact(export(TEACHER, ["onnx:int4"], tmp_path)["onnx:int4"]), "web", tmp_path)
    (page / "node_modules").symlink_to(PACKAGES)
    target = Target.parse(f"web=browser://{page}")
    found = target.kind.profile(target.place, Asked(None, prompts=ROWS, repeats=3, warmup=1), print)
    requests = found["raw"]["requests"]
    assert len(requests) == 3 and all(len(one["token_ns"]) == one["new_tokens"] > 1 for one in requests)
    assert found["ttft_ms"] > 0 and found["token_ms"]["p50"] > 0 and found["file_bytes"] > 1e5
    assert "Chrome" in found["machine"]["system"] and found["machine"]["versions"]["transformers.js"]
    (page / "model" / "config.json").write_text("{}")
    with pytest.raises(EdgestillError, match="the page says: error"):
        browser.profile(target.place, Asked(None, prompts=ROWS, repeats=1), print)
