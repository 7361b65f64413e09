"""Decoder graphs written node by node, in blocks: the codes, a tied table, onnxruntime-genai. Float: family proof."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgestill.models.errors import UsageError
from edgestill.models.scheme import Scheme
from edgestill.quantize.grid import codes
from edgestill.quantize.onnx import blocks, plain, rotation
from edgestill.quantize.onnx import write as onnx_format
from edgestill.quantize.source.checkpoint import Checkpoint
from edgestill.runtime.engines._onnx_engine import OnnxEngine

from .. import tiny
from ..onnx_models import LIMIT, distance, encode, graph_file, in_torch
from .test_onnx import at_accuracy, places

IDS = np.random.default_rng(0).integers(5, 300, 24).tolist()
CHANGES: dict[str, dict[str, Any]] = {"gpt2": {}, "gpt_neox": {"tie_word_embeddings": False}}


def write(source: Path, folder: Path, type: str) -> Path:
    folder.mkdir()
    onnx_format.write(source, folder, Scheme("onnx", type), encode)
    return folder


def requantized(bits: int) -> Any:
    """Put into a torch model the weights that the export's blocks stand for."""
    import torch
    from transformers.pytorch_utils import Conv1D

    def change(model: Any) -> None:
        head = model.get_output_embeddings()
        head.weight = torch.nn.Parameter(head.weight.detach().clone())
        for name, module in model.named_modules():
            if not isinstance(module, (torch.nn.Linear, torch.nn.Embedding, Conv1D)) or name.endswith("wpe"):
                continue
            weight = module.weight.detach().numpy()
            weight = np.ascontiguousarray(weight.T) if isinstance(module, Conv1D) else weight
            packed = blocks.eight_bit(weight)
            if bits == 4 and module is not head and not isinstance(module, torch.nn.Embedding) \
                    and codes.fits(weight.shape[1]):
                packed = blocks.four_bit([encode(name, weight)])
            whole = blocks.dequantize(packed)
            module.weight.data = torch.tensor(whole.T.copy() if isinstance(module, Conv1D) else whole)

    return change


@pytest.mark.parametrize("family", CHANGES)
@pytest.mark.parametrize("type", ["int8", "int4"])
def test_blocks_hold_exactly_the_codes(family: str, type: str, tmp_path: Path) -> None:
    import torch

    source = tiny.decoder(tmp_path / "source", family, **CHANGES[family])
    folder = write(source, tmp_path / "packed", type)
    (tmp_path / "exact").mkdir()
    exact = at_accuracy(graph_file(folder), tmp_path / "exact", 1)
    with torch.no_grad():
        wanted = in_torch(source, requantized(onnx_format.BITS[type]))(torch.tensor([IDS])).logits[0].numpy()
    engine = OnnxEngine(next((exact / "onnx").glob("*.onnx")), source, 1, 64)
    assert distance(engine.logits(IDS), wanted) < LIMIT
    engine.truncate(10)
    assert distance(np.array([engine.decode(token).copy() for token in IDS[10:]]), wanted[10:]) < LIMIT
    engine.close()


def test_a_tied_table_is_stored_once(tmp_path: Path) -> None:
    found = places(graph_file(write(tiny.decoder(tmp_path / "source", "gpt2"), tmp_path / "packed", "int4")))
    assert found["head.codes"] == found["embedding.table"]
    assert found["head.scales"] == found["embedding.table.scales"]


@pytest.mark.parametrize("family", CHANGES)
def test_onnxruntime_genai_generates_what_torch_does(family: str, tmp_path: Path) -> None:
    import onnxruntime_genai
    import torch

    source = tiny.decoder(tmp_path / "source", family, **CHANGES[family])
    model = onnxruntime_genai.Model(str(write(source, tmp_path / "packed", "fp32")))
    parameters = onnxruntime_genai.GeneratorParams(model)
    parameters.set_search_options(max_length=36, do_sample=False)
    generator = onnxruntime_genai.Generator(model, parameters)
    generator.append_tokens(np.array([IDS], np.int32))
    while not generator.is_done():
        generator.generate_next_token()
    found = generator.get_sequence(0).tolist()
    with torch.no_grad():
        wanted = in_torch(source).generate(torch.tensor([IDS]), max_new_tokens=12, do_sample=False)[0].tolist()
    assert found == wanted


def test_a_stretched_rotation_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tiny.decoder(tmp_path / "source", "gpt_neox", **CHANGES["gpt_neox"])
    scaled = {"": rotation.Rotation(np.ones(2, np.float32), np.float32(1.2))}
    monkeypatch.setattr(rotation, "read", lambda folder: scaled)
    with pytest.raises(UsageError, match="rotated channels are scaled"):
        plain.built(Checkpoint.open(source), 32, encode)
