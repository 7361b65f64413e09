"""Hugging Face folders in and out of memory, for training."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..models.errors import ArtifactError
from ..models.task import Task
from ..quantize.source import float_model, folder_checks
from ..runtime.text import unembedded
from ..runtime.text.tokenizer_files import PROCESSOR_TEMPLATE
from .tasks._base import TaskKind, kind_of

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
                   PROCESSOR_TEMPLATE)
TEMPLATES = "additional_chat_templates"


def load_model(folder: Path, task: Task, seed: int = 0) -> Any:
    """The model of a folder in float32, with the head that the task asks for.

    A head that the folder lacks is initialised from `seed` where the task's kind allows it. Raises ArtifactError when
    weights other than such a head are missing or do not fit, UsageError for a classifier without labels.
    """
    import torch
    from transformers import AutoConfig

    kind = kind_of(task)
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    with _quiet_transformers(), folder_checks.as_whole(folder) as whole, float_model.made_by_transformers(folder):
        config = AutoConfig.from_pretrained(folder, **options)
        kind.configure(config, task)
        float_model.check_size(folder, lambda: auto_class(kind).from_config(config))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model, info = auto_class(kind).from_pretrained(
                whole, config=config, use_safetensors=True, dtype=torch.float32, output_loading_info=True,
                ignore_mismatched_sizes=True, **options)
    body = getattr(model, model.base_model_prefix, None)
    inside = f"{model.base_model_prefix}."
    missing = [name for name in info["missing_keys"] if name.startswith(inside) and ".pooler." not in name]
    wrong = [key for key in info["mismatched_keys"] if not kind.new_head or str(key[0]).startswith(inside)]
    float_model.check_shapes(folder, wrong)
    if body is None or missing or (not kind.new_head and info["missing_keys"]):
        lacking = (sorted(missing) or sorted(info["missing_keys"]) or ["its body"])[0]
        raise ArtifactError(f"{folder}: the weights do not hold {lacking}, which {type(model).__name__} needs",
                            "the checkpoint is incomplete or of another kind of model")
    # What stands in no other place than a layer would be learned around, and lost when the model is saved.
    layer = re.compile(rf"{re.escape(inside)}(layers|h)\.\d+\.")
    unread = sorted(name for name in info["unexpected_keys"] if layer.match(name))
    if unread:
        raise ArtifactError(f"{folder}: {len(unread)} tensors that {type(model).__name__} does not read by its "
                            f"config.json, the first is {unread[0]}", "copy config.json again from where the model was "
                            "made: a setting of it, such as one for biases, is not that of the weights")
    float_model.check_finite(folder, model)
    return model


def new_model(config: Any, task: Task, seed: int) -> Any:
    """A model of the shape that `config` describes with new weights drawn from `seed`."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return auto_class(kind_of(task)).from_config(config, dtype=torch.float32)


def auto_class(kind: TaskKind) -> Any:
    """The transformers auto class of a kind of task, from optimum's table of tasks."""
    from optimum.exporters.tasks import TasksManager

    return TasksManager.get_model_class_for_task(kind.hub_task)


def save_model(model: Any, folder: Path) -> None:
    """Write config, generation config and weights, the weights as one file."""
    with _quiet_transformers():
        model.save_pretrained(folder, max_shard_size="1000GB")


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy tokenizer and chat template as they are, but for tokens that have no row in the embedding."""
    unembedded.copy_files(source, folder, TOKENIZER_FILES)
    if (source / TEMPLATES).is_dir():
        shutil.copytree(source / TEMPLATES, folder / TEMPLATES)


def positions_of(model: Any) -> int:
    """Tokens that a model with learned positions can read at once: RoBERTa's begin behind the padding's."""
    table = getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    return int(model.config.max_position_embeddings) - (0 if padding is None else padding + 1)


def parameters(model: Any) -> int:
    """Distinct parameters; tied ones count once."""
    return sum(value.numel() for value in {id(value): value for value in model.parameters()}.values())


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """transformers draws bars of its own, and reports a fresh head as if it were a mistake; `load_model` checks it."""
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
