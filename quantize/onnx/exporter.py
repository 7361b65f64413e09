"""Encoder graphs: transformers' exporter traces them, with every attention layer as one fused node."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from ...models.errors import MissingExtra
from ..source.float_model import FloatModel

ATTENTION = "edgestill_multi_head"
OPSET = 20
"""The first with Gelu as one node; transformers.js and mobile builds read up to 21."""
SAMPLE = (2, 9)
"""Batch and length of the tokens traced: neither is 1, which tracing would take for a constant."""


def exported(source: Path) -> Any:
    """Trace the encoder of a Hugging Face folder into an onnx_ir.Model.

    Inputs int64 [batch_size, sequence_length]: input_ids, attention_mask and, where the model has several segments,
    token_type_ids. Output float32: a classifier's `logits` [batch_size, labels], or without a head the
    `last_hidden_state` [batch_size, sequence_length, hidden], which whoever runs it pools. Raises MissingExtra without
    onnxscript.
    """
    try:
        import onnxscript  # noqa: F401
        import torch
        from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter
    except ModuleNotFoundError as error:
        raise MissingExtra((error.name or "onnxscript").partition(".")[0], "export") from error

    model = FloatModel.from_folder(source)
    module = model.module
    _register()
    module.set_attn_implementation(ATTENTION)
    ids = torch.full(SAMPLE, 5)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if int(getattr(module.config, "type_vocab_size", 0)) > 1:
        inputs["token_type_ids"] = torch.zeros_like(ids)
    longest = torch.export.Dim("sequence_length", max=model.context_length)
    axes = {0: torch.export.Dim("batch_size"), 1: longest}
    with _quiet():
        program = OnnxExporter().export(
            module, inputs, config=OnnxConfig(dynamic_shapes=dict.fromkeys(inputs, axes), opset_version=OPSET)).program
    _name_axes(program.graph)
    _drop_round_trips(program.graph)
    return program


def _register() -> None:
    """Tell transformers our attention; registering the same name again changes nothing."""
    import torch
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, bidirectional_mask_function

    def attention(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float,
                  dropout: float = 0.0, **_: Any) -> tuple[Any, None]:
        batch, heads, length, size = query.shape
        rows = [each.transpose(1, 2).reshape(batch, length, heads * size) for each in (query, key, value)]
        mixed = torch.onnx.ops.symbolic(
            "com.microsoft::MultiHeadAttention", [*rows, None, attention_mask],
            {"num_heads": heads, "scale": float(scaling)}, dtype=query.dtype, shape=rows[0].shape, version=1)
        return mixed.reshape(batch, length, heads, size), None

    def mask(attention_mask: Any, mask_function: Any, q_length: int, **_: Any) -> Any:
        padding = attention_mask.to(torch.int32)
        if mask_function is bidirectional_mask_function:
            return padding
        # Windows and the like depend on the two places alone: 1 where the row may look at the column.
        places = torch.arange(q_length)
        return padding[:, None, :] * mask_function(0, 0, places[:, None], places[None, :]).to(torch.int32)

    AttentionInterface.register(ATTENTION, attention)
    AttentionMaskInterface.register(ATTENTION, mask)


@contextmanager
def _quiet() -> Iterator[None]:
    """Tracing prints progress and notes about its own versions; stdout belongs to the command's result."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _name_axes(graph: Any) -> None:
    import onnx_ir as ir

    traced = dict(zip(map(str, graph.inputs[0].shape), ("batch_size", "sequence_length"), strict=True))
    for value in (*graph.inputs, *graph.outputs):
        value.shape = ir.Shape([traced.get(str(size), size) for size in value.shape])


def _drop_round_trips(graph: Any) -> None:
    """Remove reshapes that lead back to the shape they began with: heads split for torch, and joined again for us."""
    import onnx_ir as ir

    for node in list(graph):
        if node.op_type != "Reshape":
            continue
        source = node.inputs[0]
        while source.producer() is not None and source.producer().op_type == "Reshape":
            source = source.producer().inputs[0]
        if source is node.inputs[0] or source.shape is None or source.shape != node.outputs[0].shape:
            continue
        ir.convenience.replace_all_uses_with(node.outputs[0], source)
