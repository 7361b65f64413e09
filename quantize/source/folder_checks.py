"""What is looked at in a model folder before anything of it is used, for training and for export alike."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...models import files
from ...models.errors import ArtifactError
from ...runtime.files.model_files import read_table

ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
CODE_KEYS = ("auto_map", "_attn_implementation_internal", "custom_pipelines")
"""Keys of a config.json that make transformers load code."""

log = logging.getLogger(__name__)


def check_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse a config.json that asks for code of its own, whose weights are packed, or that names a padding or end
    outside of its vocabulary: ArtifactError naming the key.

    `auto_map` may name the very classes that transformers has itself, as Phi-3.5's and Phi-4-mini's do: its own ones
    are taken.
    """
    path = folder / "config.json"
    code = [key for key in CODE_KEYS if key in config]
    if code and not (code == ["auto_map"] and _known_by_name(config)):
        raise ArtifactError(f"{path}: {code[0]!r} asks to run code that comes with the model",
                            "code of a model is never run here: choose a model that transformers knows by itself")
    packed = config.get("quantization_config")
    if packed is not None:
        kind = packed.get("quant_method") if isinstance(packed, Mapping) else packed
        raise ArtifactError(f"{path}: quantization_config: its weights are packed already, by {str(kind)[:40]!r}",
                            "start from the model that it was made of, in bfloat16 or float32")
    size = config.get("vocab_size")
    for name, key in (("config.json", "pad_token_id"), ("config.json", "eos_token_id"),
                      ("generation_config.json", "eos_token_id")):
        given = read_table(folder / name).get(key)
        for index in given if isinstance(given, list) else [given]:
            if size is not None and index is not None and index >= size:
                raise ArtifactError(f"{folder / name}: {key} = {index}, and the vocabulary has {size} tokens",
                                    "correct it, or remove it")


def _known_by_name(config: Mapping[str, Any]) -> bool:
    """Whether auto_map names the architecture's own classes, beside a tokenizer, which is never asked for."""
    table = config["auto_map"]
    architecture = str((config.get("architectures") or [""])[0])
    own = {architecture, architecture.partition("For")[0] + "Config"}
    return isinstance(table, Mapping) and all(
        str(name).rpartition(".")[2] in own for key, name in table.items() if key != "AutoTokenizer")


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds the weights of an adapter and no model of its own."""
    return (folder / ADAPTER).is_file() and not _whole(folder)


def check_adapter(folder: Path) -> None:
    """Refuse an adapter where a whole model is wanted, and a folder that is both: ArtifactError.

    An adapter_config.json that was left behind beside whole weights is told of, and read by nobody.
    """
    if not (folder / ADAPTER).is_file():
        return
    table = read_table(folder / ADAPTER)
    if is_adapter(folder):
        told = table.get("base_model_name_or_path")
        raise ArtifactError(f"{folder}: a LoRA adapter without its base model",
                            "name the model that it was trained on as its base: --base MODEL, or base in [student]"
                            + (f" (it says {str(told)[:80]!r}; trust that only if you know who wrote it)" if told
                               else ""))
    if not table.get("peft_type"):
        raise ArtifactError(f"{folder / ADAPTER}: beside whole weights, and not the settings of a LoRA adapter: it has "
                            "no peft_type", "remove it if the weights are whole")
    if (folder / ADAPTER_WEIGHTS).is_file():
        raise ArtifactError(f"{folder}: holds a whole model and a LoRA adapter ({ADAPTER_WEIGHTS}), and nothing says "
                            "whether the one is part of the other yet",
                            f"remove {ADAPTER} and {ADAPTER_WEIGHTS} if it is; else put both into a folder of their "
                            "own, and name this one as its base")
    log.warning("%s: left over beside whole weights, and not read", folder / ADAPTER)


def _whole(folder: Path) -> bool:
    return (folder / "config.json").is_file() and any(
        path.name != ADAPTER_WEIGHTS for path in folder.glob("*.safetensors"))


@contextmanager
def as_whole(folder: Path) -> Iterator[Path]:
    """A folder as transformers must see it: beside an adapter_config.json it would look for an adapter's weights."""
    if not (folder / ADAPTER).is_file():
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="edgestill-model-") as aside:
        for path in folder.iterdir():
            if path.name != ADAPTER:
                files.link(path.resolve(), Path(aside) / path.name)
        yield Path(aside)
