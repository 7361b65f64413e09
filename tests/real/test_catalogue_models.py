"""Every catalogue entry at tiny sizes: trained, exported to both formats, proven, loaded and served.

Config, added tokens with their flags, and the kind of template are the published ones (tests/facts).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from edgestill.cli.commands.proposed_targets import propose
from edgestill.cli.pipeline.costs import Lengths, Shape
from edgestill.distill import tune
from edgestill.models import catalogue, family
from edgestill.models.artifact import open_artifact
from edgestill.quantize import export
from edgestill.quantize.proof.prove import verify
from edgestill.runtime import load
from edgestill.runtime.data.reader import read_rows
from edgestill.runtime.loading.load import load_streams
from edgestill.runtime.server.work_queue import Station

from .. import catalogue_models as models
from ..serving import running
from .conftest import SHARED

PUBLISHED = {"chatml": "Qwen-Qwen2.5-7B-Instruct", "qwen3": "Qwen-Qwen3-0.6B", "gemma": "google-gemma-2-2b-it",
             "llama3": "meta-llama-Llama-3.2-3B-Instruct", "phi3": "microsoft-Phi-3.5-mini-instruct"}
"""Templates of the same kind in shared/tokenizers/chat-templates, taken where they are there."""
TEXTS = ["turn off the light", "play some music", "is it warm", "the thing in there", "a song", "another light",
         "read the theatre", "the ring", "what is it", "sing", "the air", "in the hall"]
RUN = """
[data]
train = "rows.jsonl"
max_tokens = 512
test_share = 0.3
[student]
model = "model"
[task]
kind = "{kind}"
max_new_tokens = 8
[tune]
steps = 2
batch_size = 4
learning_rate = 1e-3
"""


def write(folder: Path, name: str) -> tuple[Path, str]:
    """The entry's folder, its rows and its run file."""
    kind = catalogue.entry(name).task
    model = models.make(name, folder / "model")
    kind_of_template = models.facts()[name]["template"]
    published = SHARED / "tokenizers" / "chat-templates" / f"{PUBLISHED.get(kind_of_template, '')}.jinja"
    if published.is_file():
        (model / "chat_template.jinja").write_text(published.read_text(encoding="utf-8"), encoding="utf-8")
    rows: list[dict[str, Any]] = [
        {"text": text, "label": ("light", "other")[index % 2]} if kind == "classify" else
        {"prompt": text, "completion": text[::-1]} for index, text in enumerate(TEXTS)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "run.toml").write_text(RUN.format(kind=kind))
    return folder / "run.toml", kind


def targets(name: str, kind: str) -> list[str]:
    """What `init` proposes for a model so small."""
    member = family.load(catalogue.entry(name).family)
    return [export.target for export in propose(kind, member, Shape(10**6), Lengths(8, 80, 80))]


POOLER = 768 * 769


@pytest.mark.parametrize("name", catalogue.names())
def test_the_published_config_makes_as_many_weights_as_the_catalogue_says(name: str) -> None:
    left = catalogue.entry(name).parameters - models.parameters(name)
    assert left in (0, POOLER), "a pooler at the most, which only embedders keep"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", catalogue.names())
def test_an_entry_is_trained_exported_proven_and_served(name: str, tmp_path: Path) -> None:
    run, kind = write(tmp_path, name)
    student = tune(run, tmp_path / "student")
    assert open_artifact(student).manifest.family == catalogue.entry(name).family
    rows = read_rows(tmp_path / "rows.jsonl")
    templated = bool(models.facts()[name]["template"])
    made = export(student, targets(name, kind), tmp_path / "out", rows=rows[:8], test_rows=rows[8:])
    for target, folder in made.items():
        assert verify(folder, rows[8:]).passed, target
        if kind == "classify":
            with load(folder, threads=1) as model:
                assert model.classify(TEXTS[0]).label in ("light", "other")
            continue
        with load(folder, threads=1) as model:
            question = [{"role": "user", "content": TEXTS[0]}]
            wanted = model.chat(question, max_new_tokens=4) if templated else model.generate(TEXTS[0], max_new_tokens=4)
        with running([Station(target, load_streams(folder, 1, 1), 8)]) as server:
            place, asked = ("chat/completions", {"messages": question}) if templated else (
                "completions", {"prompt": TEXTS[0]})
            status, said, _ = server.ask("POST", f"/v1/{place}", {
                "model": target, "max_tokens": 4, "temperature": 0, **asked})
        assert status == 200, said
        if templated:
            assert said["choices"][0]["message"]["content"] == wanted.text
        assert said["usage"]["completion_tokens"] in range(1, 5) and wanted.ids
