"""Adapters are merged into the model that the user names: what they answer beside it, the merged model answers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edgestill.distill import adapter_settings, merge
from edgestill.distill.sources import check, check_tokenizer, resolve
from edgestill.models.artifact import open_artifact
from edgestill.models.errors import ArtifactError, EdgestillError, UsageError
from edgestill.quantize.source.checkpoint import Checkpoint

from .. import proving, tiny
from ..decoders import IDS, logits
from ..onnx_models import in_torch
from ..quantize.test_unembedded import add_token

STRANGER = "someone/else"
KINDS: dict[str, dict[str, Any]] = {
    "LoRA": {}, "DoRA": {"use_dora": True}, "rsLoRA": {"use_rslora": True, "lora_alpha": 3},
    "head saved whole": {"modules_to_save": ["lm_head"]},
    "embedding saved whole": {"modules_to_save": ["embed_tokens"]},
    "embedding, too": {"target_modules": ["embed_tokens", "q_proj"]},
    "some ranks": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 9}, "bias": "all"},
    "residue": {"init_lora_weights": "pissa"},
    "patterns": {"target_modules": r".*layers\.\d+\..*(q|v|up)_proj", "exclude_modules": r".*\.0\..*up_proj",
                 "rank_pattern": {r"layers\.1\..*_proj": 2, "q_proj": 3}, "alpha_pattern": {r"\w+\.0\..*v_proj": 9}},
}


def train(base: Path, folder: Path, rows: int = 384, **settings: Any) -> Any:
    """An adapter of `base`, all of its own weights away from zero; returns what it answers beside the base."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base)
    if rows != 384:
        model.resize_token_embeddings(rows, mean_resizing=False)
    wrapped = get_peft_model(model, LoraConfig(**({"r": 4, "target_modules": "all-linear"} | settings)))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if parameter.requires_grad and "magnitude" not in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
        answers = wrapped(torch.tensor([IDS])).logits[0].numpy()
    wrapped.save_pretrained(folder)
    proving.edit_json(folder / "adapter_config.json", lambda table: table.update(base_model_name_or_path=STRANGER))
    return answers


@pytest.fixture(scope="module")
def adapter(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapters") / "lora"
    train(tiny_llama, folder)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_the_merged_model_answers_as_the_adapter_does(kind: str, tiny_llama: Path, tmp_path: Path) -> None:
    wanted = train(tiny_llama, tmp_path / "adapter", **KINDS[kind])
    out = merge(tmp_path / "adapter", tiny_llama, tmp_path / "merged")
    assert abs(logits(in_torch(out), IDS) - wanted).max() < 1e-3 * wanted.std()
    assert abs(logits(in_torch(tiny_llama), IDS) - wanted).max() > 0.1 * wanted.std()
    own_head = "lm_head.weight" in Checkpoint.open(out).entries
    assert own_head == (kind in ("head saved whole", "embedding saved whole", "embedding, too"))
    assert json.loads((out / "config.json").read_text())["tie_word_embeddings"] != own_head
    roles = [parent["role"] for parent in open_artifact(out).manifest.parents]
    assert roles == ["base", "adapter"] and STRANGER not in (out / "manifest.json").read_text()


@pytest.mark.parametrize("tied", [True, False])
def test_an_embedding_with_new_tokens_comes_with_its_tokenizer(tied: bool, tmp_path: Path) -> None:
    base = tiny.decoder(tmp_path / "base", "llama", tie_word_embeddings=tied)
    whole = {"modules_to_save": ["embed_tokens", "lm_head"]}
    wanted = train(base, tmp_path / "adapter", rows=386, **whole)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(base / name, tmp_path / "adapter")
    add_token(tmp_path / "adapter", "<call>", 384, special=False)
    out = merge(tmp_path / "adapter", base, tmp_path / "merged")
    assert Checkpoint.open(out).vocabulary_size == 386 == json.loads((out / "config.json").read_text())["vocab_size"]
    assert abs(logits(in_torch(out), IDS) - wanted).max() < 1e-3 * wanted.std()
    assert "<call>" in (out / "tokenizer.json").read_text()
    check_tokenizer(out)


def test_new_tokens_without_an_output_layer_for_them_are_refused(tmp_path: Path) -> None:
    base = tiny.decoder(tmp_path / "base", "llama", tie_word_embeddings=False)
    train(base, tmp_path / "adapter", rows=386, modules_to_save=["embed_tokens"])
    strip(tmp_path / "adapter", "lm_head")
    with pytest.raises(ArtifactError, match="was trained with 386 tokens, and holds no lm_head of that size"):
        merge(tmp_path / "adapter", base, tmp_path / "merged")


def strip(folder: Path, part: str, change: Callable[[str], str] | None = None) -> None:
    """Take tensors out of an adapter, or give them other names."""
    from safetensors.numpy import load_file, save_file

    path = folder / "adapter_model.safetensors"
    stored = {(change(name) if change and part in name else name): value for name, value in load_file(path).items()
              if change or part not in name}
    save_file(stored, path)


def configure(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: proving.edit_json(folder / "adapter_config.json", lambda table: table.update(changes))


def poison(folder: Path, value: float) -> None:
    from safetensors.numpy import load_file, save_file

    path = folder / "adapter_model.safetensors"
    stored = load_file(path)
    min(stored.items())[1][0, 0] = value
    save_file(stored, path)


ENDLESS = r"(.*)(.*)(.*)(.*)(.*)(.*)(.*)(.*)\8\7\6[A-Z]"
BAD: list[tuple[str, Callable[[Path], object]]] = [
    ("peft_type = 'PROMPT_TUNING'; only LoRA", configure(peft_type="PROMPT_TUNING")),
    ("alora_invocation_tokens", configure(alora_invocation_tokens=[1])),
    ("megatron_config", configure(megatron_config={"a": 1})),
    ("init_lora_weights = loftq", configure(init_lora_weights="loftq")),
    ("an_unknown_one = 3", configure(an_unknown_one=3)),
    ("init_lora_weights = pissa_niter_4", configure(init_lora_weights="pissa_niter_4")),
    ("init_lora_weights = \\[", configure(init_lora_weights=["pissa"])),
    ("r = nan, and it must be a whole number above 0", configure(r=float("nan"))),
    ("r = -4, and it must be a whole number above 0", configure(r=-4)),
    ("q_proj = True, and it must be a whole number", configure(rank_pattern={"q_proj": True})),
    ("lora_alpha = inf, and it must be a finite number", configure(lora_alpha=float("inf"))),
    ("q_proj = nan, and it must be a finite number", configure(alpha_pattern={"q_proj": float("nan")})),
    ("alpha_pattern = .*, and it must be null or a JSON object", configure(alpha_pattern=[1])),
    ("the rank 1000000000 of 'r' is beyond", configure(r=10**9)),
    ("the rank 1000000000 of 'q_proj' is beyond", configure(rank_pattern={"q_proj": 10**9})),
    ("target_modules = .* is no pattern", configure(target_modules="(")),
    ("target_modules = .* is not matched with the names", configure(target_modules=ENDLESS)),
    ("exclude_modules = .* is not matched with", configure(exclude_modules=ENDLESS)),
    ("alpha_pattern = .* is not matched with", configure(alpha_pattern={ENDLESS: 3})),
    ("modules_to_save = .*, and names of modules are read", configure(modules_to_save=[ENDLESS])),
    ("layers_pattern = .*, and names of modules are read", configure(layers_pattern=ENDLESS, layers_to_transform=[1])),
    ("does not fit", configure(target_modules="none_of_these")),
    ("does not fit", configure(trainable_token_indices=[10**6])),
    ("has no place there", configure(target_modules=["q_proj", "v_proj"])),
    ("NaN or infinite|by nan|not finite", lambda folder: poison(folder, float("nan"))),
    ("only .safetensors are read", lambda folder: (folder / "adapter_model.safetensors").rename(
        folder / "adapter_model.bin")),
    ("does not fit", configure(r=8)),
    ("does not fit .*: it lacks 'base_model.model.model.layers.1.mlp.up_proj.lora_A.weight'",
     lambda folder: strip(folder, "layers.1.mlp.up_proj.lora_A")),
    ("has no place there", lambda folder: strip(folder, "layers.1.", lambda name: name.replace("rs.1.", "rs.7."))),
]


@pytest.mark.parametrize(("message", "spoil"), BAD, ids=[message for message, _ in BAD])
def test_an_adapter_that_cannot_be_merged_is_refused(message: str, spoil: Callable[[Path], object], adapter: Path,
                                                     tiny_llama: Path, tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter_settings, "SECONDS", 0.05)
    folder = Path(shutil.copytree(adapter, tmp_path / "adapter"))
    spoil(folder)
    with pytest.raises(ArtifactError, match=message) as caught:
        merge(folder, tiny_llama, tmp_path / "merged")
    assert caught.value.hint and not (tmp_path / "merged").exists()


def test_a_base_of_another_shape_and_no_adapter_are_refused(adapter: Path, tiny_llama: Path, tmp_path: Path) -> None:
    other = tiny.decoder(tmp_path / "other", "llama", hidden_size=32)
    with pytest.raises(ArtifactError, match="does not fit"):
        merge(adapter, other, tmp_path / "merged")
    with pytest.raises(UsageError, match="is no LoRA adapter, so it needs no base"):
        merge(tiny_llama, tiny_llama, tmp_path / "merged")


def test_a_base_of_the_same_shape_is_told_by_its_name_and_its_tokens(
        adapter: Path, tiny_llama: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = Path(shutil.copytree(adapter, tmp_path / "adapter"))
    merge(folder, tiny_llama, tmp_path / "merged")
    assert f"says it was trained on {STRANGER!r}, and is merged into {tiny_llama}" in caplog.text
    caplog.clear()
    configure(base_model_name_or_path=f"/elsewhere/{tiny_llama.name}")(folder)
    shutil.copy(tiny_llama / "tokenizer.json", folder)
    merge(folder, tiny_llama, tmp_path / "again")
    assert "says it was trained" not in caplog.text

    def exchanged(table: dict[str, Any]) -> None:
        vocabulary = table["model"]["vocab"]
        one, other = sorted(vocabulary, key=vocabulary.get)[-2:]
        vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
    proving.edit_json(folder / "tokenizer.json", exchanged)
    with pytest.raises(ArtifactError, match="in its tokenizer and .* it was trained on another model"):
        merge(folder, tiny_llama, tmp_path / "third")


def test_what_an_adapter_says_of_its_base_is_shown_and_not_followed(adapter: Path, tmp_path: Path) -> None:
    for read in (check, Checkpoint.open, lambda folder: resolve(str(folder))):
        with pytest.raises(ArtifactError, match="a LoRA adapter without its base") as caught:
            read(adapter)
        assert "--base MODEL" in caught.value.hint and STRANGER in caught.value.hint
    with pytest.raises(EdgestillError, match="'nowhere' is no folder"):
        merge(adapter, "nowhere", tmp_path / "merged")


def test_an_adapter_s_settings_beside_whole_weights_are_not_read(adapter: Path, tiny_llama: Path, tmp_path: Path,
                                                                 caplog: pytest.LogCaptureFixture) -> None:
    folder = Path(shutil.copytree(tiny_llama, tmp_path / "whole"))
    shutil.copy(adapter / "adapter_config.json", folder)
    from edgestill.distill.loading import load_model
    from edgestill.models.task import Task
    from edgestill.quantize.source.float_model import FloatModel

    wanted = logits(in_torch(tiny_llama), IDS)
    assert (logits(load_model(resolve(str(folder)).folder, Task()), IDS) == wanted).all()
    assert (FloatModel.from_folder(Checkpoint.open(folder).folder).logits(IDS) == wanted).all()
    assert "left over beside whole weights" in caplog.text
    shutil.copy(adapter / "adapter_model.safetensors", folder)
    for read in (check, Checkpoint.open):
        with pytest.raises(ArtifactError, match="holds a whole model and a LoRA adapter"):
            read(folder)


def test_an_adapter_of_a_classifier_keeps_the_labels_of_its_base(tiny_bert: Path, tmp_path: Path) -> None:
    """By the command, as a user has it: nothing but the two folders."""
    import torch
    from edgestill.cli.main import call
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(1)
    wrapped = get_peft_model(AutoModelForSequenceClassification.from_pretrained(tiny_bert), LoraConfig(
        r=4, target_modules=["query", "value"], task_type="SEQ_CLS", modules_to_save=["classifier"]))
    ids = torch.tensor([[2, 9, 8, 7, 3]])
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
        wanted = wrapped.eval()(ids).logits
    wrapped.save_pretrained(tmp_path / "adapter")
    assert call(["export", str(tmp_path / "adapter"), "--base", str(tiny_bert), "--to", "onnx:fp32", "--out",
                 str(tmp_path / "out")]) == 0
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out" / "merged").eval()
    with torch.no_grad():
        assert torch.allclose(merged(ids).logits, wanted, atol=1e-4)
    task = open_artifact(tmp_path / "out" / "onnx-fp32").manifest.task
    assert (task.kind, task.labels, task.head) == ("classify", list(tiny.LABELS), "softmax")
