"""What an adapter's adapter_config.json asks for: what is merged, and the modules that a stranger's patterns mean."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..models.errors import ArtifactError
from ..quantize.source.folder_checks import ADAPTER, ADAPTER_WEIGHTS
from ..runtime.files.model_files import read_table

IGNORED = {"base_model_name_or_path", "revision", "auto_mapping", "peft_version", "inference_mode", "task_type",
           "peft_type", "megatron_core", "qalora_group_size", "lora_dropout", "eva_config"}
"""Keys that change nothing in the merged weights."""
CARRIED = {"r", "lora_alpha", "target_modules", "exclude_modules", "fan_in_fan_out", "bias", "use_rslora", "use_dora",
           "modules_to_save", "init_lora_weights", "layers_to_transform", "layers_pattern", "rank_pattern",
           "alpha_pattern", "ensure_weight_tying", "trainable_token_indices", "target_parameters", "lora_bias"}
"""Keys of peft's LoraConfig that are merged; the rest must be empty."""
HARMLESS = (True, False, None, "gaussian", "orthogonal", "eva")
"""Ways to initialise an adapter that leave the base as it is."""
RESIDUES = ("pissa", "olora")
"""Those that take parts of the base's weights over, always the same ones, so that peft takes them out of it again. The
fast `pissa_niter_…` draws lots for them."""
ALL_LINEAR = "all-linear"
SECONDS = 2.0
"""For one pattern and the names of all modules."""
_CORRECT = "correct it, or save the adapter again with peft"
_PLAIN = r"[\w.\-]+"


def read(folder: Path) -> dict[str, Any]:
    """The adapter's settings that are carried; ArtifactError naming one that cannot be merged, or that is none."""
    path = folder / ADAPTER
    table = read_table(path)
    kind = table.get("peft_type")
    if kind != "LORA":
        raise ArtifactError(f"{path}: peft_type = {kind!r}; only LoRA, DoRA and rsLoRA ('LORA') are merged",
                            "merge it with the program that made it, and save the whole model")
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise ArtifactError(f"{folder}: no {ADAPTER_WEIGHTS} in it; only .safetensors are read",
                            "save the adapter again with safe_serialization = True")
    odd = next((key for key, value in table.items() if value and key not in IGNORED | CARRIED), None)
    way = table.get("init_lora_weights", True)
    if not isinstance(way, (bool, str, type(None))) or way not in (*HARMLESS, *RESIDUES):
        odd = "init_lora_weights"
    if odd:
        raise ArtifactError(f"{path}: {odd} = {str(table[odd])[:80]}: adapters of this kind are not merged here",
                            "merge it with the program that made it, and save the whole model")
    found = {key: value for key, value in table.items() if key in CARRIED and value is not None}
    _check_numbers(path, found)
    return found | ({} if way in RESIDUES else {"init_lora_weights": True})


def check_ranks(folder: Path, settings: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a rank beyond those of the adapter's own tensors, for which the memory would be taken: ArtifactError."""
    most = max((max(shape, default=0) for name, shape in shapes.items() if ".lora_" in name), default=0)
    ranks = {"r": settings.get("r", 1), **settings.get("rank_pattern", {})}
    large = next((key for key, rank in ranks.items() if rank > most), None)
    if large is not None:
        raise ArtifactError(f"{folder / ADAPTER}: the rank {ranks[large]} of {large!r} is beyond the adapter's largest "
                            f"tensor, {most}", _CORRECT)


def resolved(folder: Path, settings: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The settings with names of modules in place of patterns, which peft would match without a limit of time.

    `names` are all modules of the base. Raises ArtifactError for a pattern that is none, that takes too long, or where
    a name was expected.
    """
    import re

    def matching(key: str, pattern: str) -> list[str]:
        return _matching(folder / ADAPTER, key, pattern, names)

    def of_endings(key: str, pattern: str) -> list[str]:
        return matching(key, rf"(?:.*\.)?(?:{pattern})")
    found = dict(settings)
    for key in ("target_modules", "exclude_modules"):
        if isinstance(found.get(key), str) and found[key] != ALL_LINEAR:
            found[key] = matching(key, found[key])
    for key in ("rank_pattern", "alpha_pattern"):
        if found.get(key):
            found[key] = _by_name(found[key], partial(of_endings, key))
    for key in ("modules_to_save", "layers_pattern"):
        given = found.get(key) or []
        odd = next((each for each in ([given] if isinstance(given, str) else given)
                    if not re.fullmatch(_PLAIN, each)), None)
        if odd is not None:
            raise ArtifactError(f"{folder / ADAPTER}: {key} = {odd[:80]!r}, and names of modules are read there",
                                _CORRECT)
    return found


def _by_name(patterns: Mapping[str, Any], matching: Callable[[str], list[str]]) -> dict[str, Any]:
    """Patterns in their order, of which the first that fits counts; plain names stay as they are."""
    import re

    found: dict[str, Any] = {}
    for pattern, value in patterns.items():
        for each in [pattern] if re.fullmatch(_PLAIN, pattern) else map(re.escape, matching(pattern)):
            found.setdefault(each, value)
    return found


def _matching(path: Path, key: str, pattern: str, names: Sequence[str]) -> list[str]:
    import regex

    try:
        compiled, until = regex.compile(pattern), time.monotonic() + SECONDS
        return [name for name in names
                if compiled.fullmatch(name, timeout=max(until - time.monotonic(), 1e-3))]
    except (regex.error, RecursionError, OverflowError, MemoryError) as error:
        raise ArtifactError(f"{path}: {key} = {pattern[:80]!r} is no pattern: {error}", _CORRECT) from error
    except TimeoutError:
        raise ArtifactError(f"{path}: {key} = {pattern[:80]!r} is not matched with the names of the modules "
                            f"within {SECONDS:g} s",
                            "write the names of the modules instead") from None


def _check_numbers(path: Path, settings: Mapping[str, Any]) -> None:
    """Whole ranks above 0, and finite alphas."""
    for key in ("rank_pattern", "alpha_pattern"):
        if not isinstance(settings.get(key, {}), dict):
            raise ArtifactError(f"{path}: {key} = {str(settings[key])[:80]}, and it must be null or a JSON object",
                                _CORRECT)
    ranks = {"r": settings.get("r", 8), **settings.get("rank_pattern", {})}
    alphas = {"lora_alpha": settings.get("lora_alpha", 8), **settings.get("alpha_pattern", {})}
    for key, value in [*ranks.items(), *alphas.items()]:
        whole = type(value) is int and value > 0
        if not whole and (key in ranks or type(value) not in (int, float) or not math.isfinite(value)):
            raise ArtifactError(f"{path}: {key[:80]} = {str(value)[:80]}, and it must be a "
                                f"{'whole number above 0' if key in ranks else 'finite number'}", _CORRECT)
