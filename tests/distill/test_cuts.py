"""Cuts: what was dead goes and nothing else, in every family; what cannot be cut is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from edgestill.distill.loading import load_model, parameters, save_model
from edgestill.distill.students import depth, vocabulary, width
from edgestill.distill.students._base import Context, Cut, layers_path, parts
from edgestill.models.errors import UsageError
from edgestill.models.family import Family, load
from edgestill.models.task import Task
from edgestill.runtime.data.shapes import Row

from .. import decoders, tiny

LABELS = Task("classify", labels=list(tiny.LABELS))
CHATS = [Row(({"role": "user", "content": text}, {"role": "assistant", "content": "on"}))
         for text in tiny.SENTENCES[:6]]
TEXTS = [Row((), text=text, label="light") for text in tiny.SENTENCES[:6]]
IDS = torch.tensor([decoders.IDS])
CHANNELS, LEFT = 128, 96


def opened(folder: Path, family: str, task: Task = Task()) -> tuple[Cut, Context]:  # noqa: B008 (a frozen dataclass)
    rows = CHATS if task.kind == "generate" else TEXTS
    cut = Cut(load_model(folder, task).eval())
    return cut, Context(load(family), folder, task, {"train": rows, "validation": []})


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(IDS.clamp(max=model.config.vocab_size - 1)).logits
    return found


def kill(cut: Cut, reader: str, units: int, dead: int) -> None:
    """Let the layers' output lose nothing of some units, others in each layer, which all else still computes."""
    for place, layer in enumerate(cut.model.get_submodule(layers_path(cut.model))):
        inside = dict(layer.named_modules())
        if reader in inside:
            chosen = torch.randperm(units, generator=torch.Generator().manual_seed(place))[:dead]
            matrix = inside[reader]
            with torch.no_grad():
                turned = matrix.weight if hasattr(matrix, "nf") else matrix.weight.T
                turned.unflatten(0, (units, -1))[chosen] = 0


def assert_same_model(cut: Cut, before: torch.Tensor, folder: Path, task: Task) -> None:
    torch.testing.assert_close(logits(cut.model), before, rtol=1e-4, atol=1e-4)
    save_model(cut.model, folder)
    torch.testing.assert_close(logits(load_model(folder, task).eval()), before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "phi3", "lfm2", "gpt2", "gpt_neox"])
def test_feed_forward_channels_that_add_nothing_go(name: str, tmp_path: Path) -> None:
    changes = {"n_inner": CHANNELS} if name == "gpt2" else {"block_auto_adjust_ff_dim": False} if name == "lfm2" else {}
    cut, context = opened(decoders.make(tmp_path / "whole", name, changes)[0], name)
    kill(cut, context.family.feed_forward.narrow, CHANNELS, CHANNELS - LEFT)
    before, whole = logits(cut.model), parts(cut.model, context.family)
    assert width.apply(cut, width.Config(feed_forward=LEFT, rows=3), context) == {"feed_forward": LEFT}
    assert_same_model(cut, before, tmp_path / "cut", Task())
    left = parts(cut.model, context.family)
    assert 0.74 < left["feed_forward"] / whole["feed_forward"] < 0.76 and left["attention"] == whole["attention"]
    assert sum(left.values()) == parameters(cut.model)


@pytest.mark.parametrize("name", ["bert", "distilbert", "modernbert"])
def test_channels_of_encoders_go_too(name: str, tmp_path: Path) -> None:
    changes = {} if name == "distilbert" else {"intermediate_size": CHANNELS}
    folder = tiny.classifier(tmp_path / "whole", name, **changes)
    cut, context = opened(folder, name, LABELS)
    kill(cut, context.family.feed_forward.narrow, CHANNELS, CHANNELS - LEFT)
    before = logits(cut.model)
    width.apply(cut, width.Config(feed_forward=LEFT), context)
    assert_same_model(cut, before, tmp_path / "cut", LABELS)


@pytest.mark.parametrize(("name", "biases"), [("llama", {"attention_bias": True}), ("qwen3", {}), ("gemma3", {})])
def test_whole_groups_of_heads_go(name: str, biases: dict[str, bool], tmp_path: Path) -> None:
    changes = {"num_attention_heads": 6, "num_key_value_heads": 3, "hidden_size": 48, **biases}
    cut, context = opened(decoders.make(tmp_path / "whole", name, changes)[0], name)
    kill(cut, "self_attn.o_proj", 3, 1)
    before = logits(cut.model)
    assert width.apply(cut, width.Config(groups=2, rows=3), context) == {"groups": 2}
    config = cut.model.config
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (4, 2, 16)
    assert_same_model(cut, before, tmp_path / "cut", Task())


@pytest.mark.parametrize("name", ["bert", "gpt2", "gpt_neox", "phi3", "lfm2", "modernbert", "qwen2", "qwen3_5"])
def test_heads_that_no_config_can_count_are_refused(name: str) -> None:
    family = load(name)
    with pytest.raises(UsageError, match=f"attention heads of the {name} family cannot be cut"):
        width.apply(Cut(StubModel()), width.Config(groups=1), StubContext(family))  # type: ignore[arg-type]


def test_heads_that_no_model_of_the_family_can_have_are_refused(tmp_path: Path) -> None:
    folder = tiny.decoder(tmp_path / "whole", "llama", num_attention_heads=8, num_key_value_heads=4, head_dim=8)
    cut, context = opened(folder, "llama")
    with pytest.raises(UsageError, match=r"groups = 3: no llama model can be so: .*not a multiple"):
        width.apply(cut, width.Config(groups=3), context)


class StubModel:
    """A model that is refused before anything of it is read but its config."""

    config = type("Config", (), {"to_dict": staticmethod(dict)})()


class StubContext:
    def __init__(self, family: Family) -> None:
        self.family = family


@pytest.fixture(scope="module")
def llama(tiny_llama: Path) -> tuple[Any, Context]:
    cut, context = opened(tiny_llama, "llama")
    return cut.model, context


@pytest.mark.parametrize(("module", "config", "message"), [
    (width, width.Config(), "neither feed_forward nor groups"),
    (width, width.Config(feed_forward=129), "feed_forward = 129, and the model has 128"),
    (width, width.Config(groups=3), "groups = 3, and the model has 2"),
    (depth, depth.Config(), "one of keep and layers is needed, and none is"),
    (depth, depth.Config(keep=[0], layers=1), "both are given"),
    (depth, depth.Config(layers=4), "4 layers cannot be kept of 3"),
])
def test_what_the_model_has_not_is_refused(module: Any, config: Any, message: str, llama: tuple[Any, Context]) -> None:
    with pytest.raises(UsageError, match=message):
        module.apply(Cut(llama[0]), config, llama[1])


def test_the_layer_that_turns_least_goes_but_never_an_end(tiny_llama: Path) -> None:
    def still(cut: Cut, place: int) -> None:
        with torch.no_grad():
            cut.model.model.layers[place].self_attn.o_proj.weight.zero_()
            cut.model.model.layers[place].mlp.down_proj.weight.zero_()

    for place, ends, wanted in ((1, True, [0, 2]), (2, True, [0, 2]), (2, False, [0, 1]), (0, False, [1, 2])):
        cut, context = opened(tiny_llama, "llama")
        still(cut, place)
        before = logits(cut.model)
        found = depth.apply(cut, depth.Config(layers=2, ends=ends, rows=2), context)
        assert found["layers"] == wanted and found["influence"][place] == 0 < min(
            value for layer, value in enumerate(found["influence"]) if layer != place)
        assert torch.equal(logits(cut.model), before) == (place not in wanted)


@pytest.mark.parametrize(("count", "ends", "wanted"), [
    (3, True, [0, 2, 3]), (2, True, [0, 3]), (2, False, [1, 2]), (1, True, [2]), (4, True, [0, 1, 2, 3])])
def test_the_most_influential_stay(count: int, ends: bool, wanted: list[int]) -> None:
    assert depth.most_influential([0.1, 0.5, 0.9, 0.2], count, ends) == wanted


def test_influence_is_read_in_the_new_numbering_of_a_trimmed_vocabulary(llama: tuple[Any, Context],
                                                                        tiny_llama: Path) -> None:
    cut, context = opened(tiny_llama, "llama")
    before = depth.influence(cut, context, 6)
    vocabulary.apply(cut, vocabulary.Config(), context)
    assert cut.kept and len(cut.kept) < 384 and depth.influence(cut, context, 6) == pytest.approx(before, abs=1e-6)
    with pytest.raises(UsageError, match="trimmed to the rows before"):
        vocabulary.apply(cut, vocabulary.Config(), context)


def test_a_cut_model_answers_and_stops_as_the_model_did(tiny_llama: Path, tmp_path: Path) -> None:
    cut, context = opened(tiny_llama, "llama")
    cut.model.generation_config.update(do_sample=False, temperature=0.6, eos_token_id=[0, 2])
    depth.apply(cut, depth.Config(keep=[0, 2]), context)
    save_model(cut.model, tmp_path / "cut")
    generation = load_model(tmp_path / "cut", Task()).generation_config
    assert generation.eos_token_id == [0, 2] and generation.temperature in (None, 1.0)
