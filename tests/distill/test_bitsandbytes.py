"""What bitsandbytes holds in few bits: AdamW's moments, and the matrices under adapters."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import util
from pathlib import Path
from typing import Any

import pytest
import torch
from edgestill.cli.pipeline import costs, packages, resolve
from edgestill.distill import tune
from edgestill.distill.adapters import qlora
from edgestill.distill.loading import load_model
from edgestill.distill.training import loop, optimizers
from edgestill.models.artifact import open_artifact
from edgestill.models.errors import MissingExtra, UsageError
from edgestill.models.runfile import Training
from edgestill.models.task import Task
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel, Qwen2Config, Qwen2ForCausalLM

from .test_loop import SETTINGS, run

IDS = torch.arange(5, 25)[None]
needed = pytest.mark.skipif(util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes")


class Wide(torch.nn.Module):
    """A table and a layer, each with enough weights to be stored in blocks, and dropout."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.table, self.middle = torch.nn.Embedding(64, 64), torch.nn.Linear(64, 64)
        self.dropout = torch.nn.Dropout(0.5)

    def layer(self, inputs: torch.Tensor) -> torch.Tensor:
        """As test_loop's objective asks: from eight numbers a row."""
        return self.middle(self.table(inputs.long() % 64)).sum(-1)


@needed
def test_moments_in_8_bits_go_on_from_a_checkpoint_as_if_nothing_had_happened(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(SETTINGS, optimizer="adamw_8bit")
    whole = run(tmp_path / "whole", settings, model=Wide())[1]
    asked, steps = [], loop.learning_rate

    def stopped(settings: Any, step: int, total: int) -> float:
        asked.append(step)
        if len(asked) == 6:
            raise KeyboardInterrupt
        return steps(settings, step, total)

    monkeypatch.setattr(loop, "learning_rate", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", settings, model=Wide())
    stored = load_file(tmp_path / "cut" / "step-000000005" / "optimizer.safetensors")
    cut = run(tmp_path / "cut", settings, model=Wide())[1]
    assert asked[:7] == [0, 1, 2, 3, 4, 5, 5]
    assert all(torch.equal(value, cut.state_dict()[name]) for name, value in whole.state_dict().items())
    assert {name: stored[f"state1:{name}"].dtype for name in ("table.weight", "middle.weight", "middle.bias")} == {
        "table.weight": torch.float32, "middle.weight": torch.uint8, "middle.bias": torch.float32}
    plain = run(tmp_path / "plain", model=Wide())[1]
    torch.testing.assert_close(cut.middle.weight, plain.middle.weight, atol=0.02, rtol=0)


@needed
def test_moments_in_8_bits_decay_matrices_alone() -> None:
    made = optimizers.adamw({"a": torch.zeros(2, 2), "b": torch.zeros(2)}, replace(SETTINGS, optimizer="adamw_8bit",
                                                                                  weight_decay=0.5, beta2=0.9))
    assert [group["weight_decay"] for group in made.param_groups] == [0.5, 0.0]
    assert {group["betas"] for group in made.param_groups} == {(0.9, 0.9)}


@needed
def test_adapters_are_merged_into_the_rounded_weights() -> None:
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=50, hidden_size=64, intermediate_size=128, num_hidden_layers=1,
                                         num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True)).eval()
    for name, value in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(value)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trained, merge = qlora.attach(model, qlora.Config(rank=4), "generate", 0)
    learned = [value for value in trained.parameters() if value.requires_grad]
    packed = [value for value in trained.parameters() if value.dtype == torch.uint8]
    assert len(packed) == 7 and sum(value.numel() for value in packed) * 2 == sum(
        value.numel() for name, value in before.items() if name.endswith("proj.weight"))
    for value in learned:
        torch.nn.init.normal_(value, std=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        trained(IDS).logits.float().sum().backward()
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in learned)
    with torch.no_grad():
        adapted = trained(IDS).logits
        for value in learned[1::2]:  # B of every pair
            value.zero_()
        bare = trained(IDS).logits
    plain = merge()
    assert type(plain.model.layers[0].mlp.up_proj) is torch.nn.Linear
    with torch.no_grad():
        torch.testing.assert_close(plain(IDS).logits, bare, atol=1e-5, rtol=1e-5)
    assert (adapted - bare).abs().max() > 0.1
    off = {name: (value - before[name]).abs().max() / before[name].abs().max() for name, value in
           plain.state_dict().items()}
    assert all((0 < far < 0.2) if name.endswith("proj.weight") else far == 0 for name, far in off.items())


@needed
def test_a_run_with_4_bit_layers_and_8_bit_moments_ends_in_a_plain_artifact(tiny_llama: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"turn on light {index}", "completion": f"on {index % 2}"} for index in range(24)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "run.toml").write_text(
        f'data.train = "rows.jsonl"\nstudent.model = "{tiny_llama.as_posix()}"\n[tune]\nsteps = 8\n'
        'learning_rate = 5e-3\nadapter = {kind = "qlora", rank = 64}\noptimizer = "adamw_8bit"\n')
    out = tune(tmp_path / "run.toml", tmp_path / "out")
    checks = open_artifact(out).manifest.checks
    losses = [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines() if '"loss"' in line]
    assert losses[-1] < losses[0] and checks["validation"]["step"] > 0
    names = load_model(out, Task()).state_dict().keys()
    assert names == load_model(tiny_llama, Task()).state_dict().keys()


@needed
def test_a_model_without_linear_layers_is_refused() -> None:
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=8))
    with pytest.raises(UsageError, match="GPT2LMHeadModel has none"):
        qlora.attach(model, qlora.Config(), "generate", 0)


@pytest.mark.parametrize("line", ['tune.optimizer = "adamw_8bit"', 'distill.adapter = {kind = "qlora"}',
                                  'grid_aware.optimizer = "adamw_8bit"'])
def test_without_bitsandbytes_a_plan_says_what_to_install(line: str, tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run.toml").write_text(f'data.train = "rows.jsonl"\nstudent.model = "smollm2-135m"\n{line}\n')
    for module in (optimizers, qlora):
        monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="bitsandbytes is not installed") as caught:
        resolve.read(tmp_path / "run.toml")
    assert "edgestill[bitsandbytes]" in str(caught.value.hint)


def test_plans_count_what_8_bits_take_and_who_stores_them() -> None:
    model, rows = costs.Shape(10**9, 1000), costs.Lengths(1, 1, 1)
    whole, few = (costs.training(model, rows, 1.0, "full", 1e9, name).peak_bytes for name in ("adamw", "adamw_8bit"))
    assert whole - few == 6 * 10**9
    assert "bitsandbytes" not in packages.of_training(Training())
    for settings in (Training(optimizer="adamw_8bit"), Training(adapter={"kind": "qlora"})):
        found = packages.of_training(settings)
        assert ("bitsandbytes" in found) == (util.find_spec("bitsandbytes") is not None)
