"""The catalogue holds only models that can be exported, and kinds are told apart from broken files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from edgestill.distill.sources import check, check_tokenizer
from edgestill.models import catalogue, family, kinds
from edgestill.models.errors import UsageError
from edgestill.models.scheme import Scheme
from edgestill.quantize.source.model_folder import Source

from .. import catalogue_models as models
from .. import tiny
from ..gguf_vocabulary import assert_same_but, both


@pytest.mark.parametrize("name", catalogue.names())
def test_every_entry_is_covered_by_an_exporter(name: str) -> None:
    entry = catalogue.entry(name)
    covered = family.load(entry.family)
    assert entry.task in covered.tasks
    assert covered.gguf or covered.onnx


def test_every_entry_has_its_facts() -> None:
    assert set(models.facts()) == set(catalogue.names())
    for name, told in models.facts().items():
        found = family.of_config(told["config"], training=True)
        assert found.name == catalogue.entry(name).family and told["source"]
        assert catalogue.entry(name).context <= max(found.context(told["config"]), 512)


SERIES = sorted({told["source"]: name for name, told in models.facts().items()}.values())


@pytest.mark.parametrize("name", SERIES)
def test_the_published_config_tokens_and_template_pass_every_door(name: str, tmp_path: Path) -> None:
    """Once a series, at tiny sizes: its entries differ in sizes alone. The rest of the way is walked in tests/real."""
    source = models.make(name, tmp_path / "model")
    check(source)
    check_tokenizer(source)
    if catalogue.entry(name).task == "classify":
        return
    origin = Source.open(source)
    for scheme in map(Scheme.parse, ("gguf:Q4_0", "onnx:int4")):
        kinds.load("quantize.formats", scheme.format).check(origin, scheme)
    rows = origin.checkpoint.vocabulary_size
    with both(source, tmp_path / "v.gguf", rows) as (codec, loaded, _):
        assert codec.stop_ids <= loaded.ends()  # more that llama.cpp knows by their texts, such as <|repo_name|>
        chat = [{"role": "user", "content": "turn off the light"}, {"role": "assistant", "content": "the light is off"}]
        texts = [*tiny.SENTENCES[:12], codec.render(chat) if codec.template else "plain text"]
        assert len(assert_same_but(codec, loaded, texts)) <= 3
        assert max(max(codec.encode(text), default=0) for text in texts) < rows


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'smollm2-135m'"):
        catalogue.entry("smollm-135m")


def test_a_kind_that_fails_to_import_is_not_called_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise ImportError(f"{name} needs something that is missing")

    monkeypatch.setattr(kinds.importlib, "import_module", broken)
    with pytest.raises(ImportError, match="missing"):
        kinds.load("distill.losses", "forward_kl")
    with pytest.raises(UsageError, match="did you mean 'forward_kl'"):
        kinds.load("distill.losses", "forward_lk")


def test_names_lists_a_folder_without_importing_it() -> None:
    code = ("import sys\nfrom edgestill.models import kinds\n"
            "print({'ce', 'forward_kl'} <= set(kinds.names('distill.losses')), 'edgestill.distill' in sys.modules)")
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout == "True False\n"
