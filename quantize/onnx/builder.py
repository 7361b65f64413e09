"""Decoder graphs: onnxruntime_genai's model builder makes them, attention, rotation and cache in one fused node."""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from ...models.errors import MissingExtra
from ..layouts import CACHE_LENGTH
from ..source.checkpoint import Checkpoint
from ..source.folder_checks import as_whole
from .storage import let_go

PLAIN = {"rope_type": "default", "rope_theta": 10000.0}
KEPT = ("partial_rotary_factor", "mrope_section")
"""What the builder needs of the rotary embedding beside the tables: how many channels turn."""


@dataclass(frozen=True)
class Built:
    """A float32 decoder graph (onnx_ir.Model, its weights in a temporary file) and its genai_config.json."""

    model: Any
    genai: dict[str, Any]


@contextmanager
def built(checkpoint: Checkpoint) -> Iterator[Built]:
    """Build the float32 graph of a checkpoint for CPUs; the weights are gone when the block ends.

    Raises MissingExtra without onnxruntime-genai.
    """
    with tempfile.TemporaryDirectory(prefix="edgestill-onnx-") as temporary:
        folder = Path(temporary)
        _run(checkpoint, folder)
        import onnx_ir as ir

        model = ir.load(folder / "model.onnx")
        genai = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))
        weights = [*model.graph.initializers.values()]
        yield Built(model, genai)
        for weight in weights:
            let_go(weight)


def _run(checkpoint: Checkpoint, folder: Path) -> None:
    source, rules = checkpoint.folder, checkpoint.family.builder
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when the native library loads
    said = StringIO()
    with ExitStack() as stack:
        # It prints its progress; stdout belongs to the command's result.
        stack.enter_context(redirect_stdout(said))
        stack.enter_context(redirect_stderr(said))
        try:
            import onnxruntime_genai

            # It imports its parts as top-level modules: a quantization.py beside the user's script must not stand in.
            own = str(Path(onnxruntime_genai.__file__).parent / "models")
            sys.path.insert(0, own)
            stack.callback(sys.path.remove, own)
            from onnxruntime_genai.models import builder
        except ModuleNotFoundError as error:
            raise MissingExtra("onnxruntime-genai", "export") from error
        stack.enter_context(_true_head(builder.Model))
        source = stack.enter_context(as_whole(source))
        # The plain cache: a windowed one has another layout, which only onnxruntime-genai drives.
        options = builder.parse_extra_options(
            "", str(source), str(folder), "fp32", "cpu", str(folder), ["windowed_kv_cache=false"])
        config = options["hf_details"]["hf_config"]
        # Its rotary tables are replaced afterwards; plain ones spare it the scalings it does not know.
        config.rope_parameters = PLAIN | {key: config.rope_parameters[key] for key in KEPT
                                          if key in config.rope_parameters}
        config.max_position_embeddings = checkpoint.family.context(checkpoint.config)
        config.architectures = [rules.architecture or config.architectures[0]]
        for key, value in rules.config.items():
            setattr(config, key, getattr(config, value) if isinstance(value, str) else value)
        builder.create_model("", str(source), str(folder), "fp32", "cpu", str(folder), **options)
    gc.collect()  # the model that it loaded is in circles of references, with its file mapped


@contextmanager
def _true_head(model_class: Any) -> Iterator[None]:
    """Let the builder know the output layer by identity.

    It takes any linear layer as wide as the vocabulary for it, which a trimmed vocabulary of, say, 1,024 tokens beside
    a feed-forward of 1,024 makes wrong.
    """
    original = model_class.has_lm_head
    model_class.has_lm_head = lambda self, module: module is self.weights.get_output_embeddings()
    try:
        yield
    finally:
        model_class.has_lm_head = original


def genai_config(built_config: dict[str, Any], model_file: str) -> dict[str, Any]:
    """onnxruntime-genai's configuration for `model_file`, with a cache that fits small devices."""
    config: dict[str, Any] = json.loads(json.dumps(built_config))
    config["model"]["decoder"]["filename"] = model_file
    config["search"]["max_length"] = min(int(config["model"]["context_length"]), CACHE_LENGTH)
    return config
