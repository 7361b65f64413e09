"""Tiny decoders of every family, and what torch says about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import tiny
from .onnx_models import in_torch

IDS = [int(i) for i in np.random.default_rng(0).integers(5, 380, 60)]
Made = tuple[Path, NDArray[np.float32]]

KINDS = {"gemma3": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
         "lfm2": ["conv", "full_attention", "conv"],
         "qwen3_5": ["linear_attention", "linear_attention", "full_attention", "linear_attention"]}

BASES: dict[str, dict[str, Any]] = {
    "smollm3": {"num_hidden_layers": 4},
    "gemma3": {"num_hidden_layers": 4, "layer_types": KINDS["gemma3"], "sliding_window": 8,
               "query_pre_attn_scalar": 16},
    "phi3": {"original_max_position_embeddings": 256},
    "lfm2": {"layer_types": KINDS["lfm2"]},
    "gpt_neox": {"tie_word_embeddings": False},
    "qwen3_5": {"num_hidden_layers": 4, "layer_types": KINDS["qwen3_5"], "head_dim": 32, "linear_num_key_heads": 4,
                "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
                "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25,
                                    "mrope_section": [2, 1, 1], "mrope_interleaved": True}},
}
"""What a family needs beside the tiny decoder's own shape."""


def make(folder: Path, name: str, changes: dict[str, Any]) -> Made:
    """A tiny checkpoint whose norms and biases are not one and zero, so that a lost one is seen; its logits of IDS."""
    import torch

    model_type = {"gemma3": "gemma3_text", "qwen3_5": "qwen3_5_text"}.get(name, name)
    tiny.decoder(folder, model_type, **(BASES.get(name, {}) | changes))
    model = in_torch(folder)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
            assert parameter.abs().max() > 0, parameter_name
    model.save_pretrained(folder)
    return folder, logits(model, IDS)


def logits(model: Any, ids: list[int]) -> NDArray[np.float32]:
    import torch

    with torch.inference_mode():
        return np.asarray(model(torch.tensor([ids])).logits[0].numpy())
