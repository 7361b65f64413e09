"""Low-rank adapters on all linear layers, merged into the weights at the end (Hu and others 2021, arXiv 2106.09685).

Defaults as in "LoRA Without Regret" (Schulman 2025): all linear layers, with ten times the learning rate of full
training. Below 500M parameters it forgets less than full training.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...models.strict import limited


@dataclass(frozen=True)
class Config:
    """Size and strength of the adapters."""

    rank: int = limited(16, minimum=1, maximum=1024)
    """Of what is added to each matrix: a larger one can learn more and takes more memory."""
    alpha: float = limited(32.0, minimum=0.01)
    """The adapters' output is scaled by alpha / rank."""
    dropout: float = limited(0.0, minimum=0.0, maximum=0.9)
    """Share of the adapters' inputs that is left out at random in training."""


def attach(model: Any, config: Config, task_kind: str, seed: int) -> tuple[Any, Callable[[], Any]]:
    """The model to train, and a function that gives the plain trained model.

    A classifier's head is new, so it is trained whole beside the adapters.
    """
    import torch
    from peft import LoraConfig, TaskType, get_peft_model

    kind = TaskType.SEQ_CLS if task_kind == "classify" else TaskType.CAUSAL_LM
    settings = LoraConfig(task_type=kind, r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout,
                          target_modules="all-linear", fan_in_fan_out=model.config.model_type == "gpt2")
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers for a name that will change
        torch.manual_seed(seed)
        wrapped = get_peft_model(model, settings)
    return wrapped.get_base_model(), wrapped.merge_and_unload
