from __future__ import annotations

import pytest
from edgestill.models import family
from edgestill.models.errors import ArtifactError, UsageError


@pytest.mark.parametrize("name", family.names())
def test_every_family_is_complete_and_found_by_each_of_its_architectures(name: str) -> None:
    member = family.load(name)
    assert member.gguf or member.onnx, "no exporter covers it"
    assert {"layers", "hidden", "heads", "context"} <= set(member.keys)
    for architecture in member.architectures + member.embeds:
        assert family.of_config({"architectures": [architecture]}) is member
    for architecture in member.starts:
        assert family.of_config({"architectures": [architecture]}, training=True) is member


def test_no_architecture_belongs_to_two_families() -> None:
    listed = [a for name in family.names() for a in family.load(name).architectures + family.load(name).starts
              + family.load(name).embeds]
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize("config", [{"architectures": ["T5ForConditionalGeneration"]}, {"architectures": None}, {}])
def test_an_unknown_architecture_is_refused_with_the_list(config: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="not one that can be exported") as caught:
        family.of_config(config)
    assert "LlamaForCausalLM" in caught.value.hint and "BertForSequenceClassification" in caught.value.hint


def test_an_encoder_without_a_head_is_sent_to_training() -> None:
    with pytest.raises(UsageError) as caught:
        family.of_config({"architectures": ["BertForMaskedLM"]})
    assert "train it" in caught.value.hint
    assert family.of_config({"architectures": ["BertForMaskedLM"]}, training=True).name == "bert"


def test_positions_that_are_never_used_are_no_context() -> None:
    config = {"max_position_embeddings": 514, "pad_token_id": 1}
    assert (family.load("xlm-roberta").context(config), family.load("bert").context(config)) == (512, 514)


def test_an_unknown_family_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        family.load("lama")
    assert "'llama'" in caught.value.hint


def test_a_variation_the_exporters_do_not_carry_is_refused() -> None:
    family.load("llama").check({"hidden_act": "silu"})
    family.load("llama").check({})
    with pytest.raises(UsageError, match="hidden_act is 'relu'"):
        family.load("llama").check({"hidden_act": "relu"})


def test_a_missing_config_key_is_named() -> None:
    with pytest.raises(ArtifactError, match="'num_hidden_layers' is missing"):
        family.load("llama").of({}, "layers")
    assert family.load("llama").of({"head_dim": None}, "head_dim", 64) == 64
