"""LoRA, DoRA and rsLoRA weights, merged into the model that they were trained on.

The model is one that the user names. What an adapter says of its base is a stranger's word: shown, never followed.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..models import outputs
from ..models.artifact import is_artifact
from ..models.errors import ArtifactError, UsageError
from ..models.runfile import RunFile, Student
from ..models.task import Task
from ..quantize.source import float_model
from ..quantize.source.folder_checks import ADAPTER, ADAPTER_WEIGHTS, is_adapter
from ..runtime.files import safetensors_header
from ..runtime.files.model_files import classifier_config, read_table
from ..runtime.text.codec import Codec
from . import adapter_settings
from .loading import load_model
from .sources import Source, card_licence, located, resolve, weights_digest
from .training import finish
from .training.checkpoint import locked
from .training.world import world

log = logging.getLogger(__name__)
SAME = 1e-3
"""Largest distance of the logits before and after merging, in their standard deviations: they differ by rounding."""
HINT = "name the model that the adapter was trained on, in the same version"


def merge(adapter: Path | str, base: Path | str, out: Path | str, task: Task | None = None,
          relative_to: Path | None = None, revision: str = "", key: str = "base") -> Path:
    """Merge the folder or hub model `adapter` into `base` (as in sources.resolve), and write the plain model as the
    artifact `out`; one of the same two that stands there is left as it is.

    The adapter's tokenizer is taken where it has one. Without `task` the base's own is kept. Raises UsageError
    for a folder that is no adapter, ArtifactError for one of another kind or of another base.
    """
    whole = resolve(str(base), base=relative_to, key=key)
    folder, name, commit = located(str(adapter), revision, relative_to, key)
    if not is_adapter(folder):
        raise UsageError(f"{key}: {folder} is no LoRA adapter, so it needs no base", f"leave {key} out")
    settings = adapter_settings.read(folder)
    task, out = task or _task_of(whole), Path(out)
    parents = [*whole.lineage, whole.parent("base"), {"role": "adapter", "name": Path(name).name, **(
        {"revision": commit} if commit else {"sha256": weights_digest(folder)})}]
    if is_artifact(out) and json.loads((out / "manifest.json").read_text(encoding="utf-8"))["parents"] == parents:
        return out
    tokenizer = folder if (folder / "tokenizer.json").is_file() else whole.folder
    if tokenizer is folder:
        _check_same_tokens(folder, whole)
    _tell_of_base(folder, whole)
    model = _merged(whole, folder, settings, task)
    licences = {"model": whole.licence, "adapter": card_licence(folder)}
    return finish.write(out, model, tokenizer, RunFile(task=task, student=Student(model=name, base=whole.name)),
                        Path(), finish.Facts("merge", parents, licences))


def merged_student(student: Student, task: Task, base: Path, work: Path) -> Source:
    """The student of [student] with its adapter merged into its base, in the folder `work`."""
    if not student.model:
        raise UsageError("student.base: is given, and student.model names no adapter", "name the adapter's folder")
    name = hashlib.sha256(json.dumps([student.model, student.base, student.revision, task.labels]).encode()).hexdigest()
    folder = work / f"merged-{name[:16]}"

    def make() -> None:
        with locked(work):
            merge(student.model, student.base, folder, task, base, student.revision, "student.base")

    world().by_lead(make)
    return resolve(str(folder.absolute()), key="student.model")


def _check_same_tokens(folder: Path, base: Source) -> None:
    """Refuse an adapter whose tokenizer numbers the base's tokens otherwise: it was trained on another model. Tokens
    that were added may be named anew."""
    own, known = (Codec.from_folder(each).tokenizer for each in (folder, base.folder))
    added = known.get_added_tokens_decoder().keys() | own.get_added_tokens_decoder().keys()
    texts = {index: text for text, index in own.get_vocab().items()}
    for text, index in sorted(known.get_vocab().items(), key=lambda item: item[1]):
        if index not in added and texts.get(index) != text:
            raise ArtifactError(f"{folder}: token {index} is {texts.get(index)!r} in its tokenizer and {text!r} in "
                                f"that of {base.name}: it was trained on another model", HINT)


def _tell_of_base(folder: Path, base: Source) -> None:
    """The weights of an adapter fit every model of the base's shape, so only its own word tells of another."""
    told = str(read_table(folder / ADAPTER).get("base_model_name_or_path") or "")[:80]
    names = {Path(name).name.casefold() for name in (base.name, base.folder.resolve().name)}
    if told and Path(told).name.casefold() not in names:
        log.warning("%s: says it was trained on %r, and is merged into %s; weights of the same shape cannot tell "
                    "whether that is the same model", folder, told, base.name)


def _task_of(base: Source) -> Task:
    """What the base is for, as its config says: a classifier's labels and head are its own."""
    config = classifier_config(base.folder)
    if not any(name.endswith("ForSequenceClassification") for name in config["architectures"]):
        return Task()
    labels = outputs.labels(config)
    return Task("classify", labels=labels, head=outputs.head(config, len(labels)))


def _merged(base: Source, folder: Path, settings: Mapping[str, Any], task: Task) -> Any:
    """The plain model; ArtifactError when the adapter does not fit."""
    import torch
    from peft import LoraConfig, PeftModel

    shapes = {name: entry.shape for name, entry in safetensors_header.read(folder / ADAPTER_WEIGHTS).items()}
    adapter_settings.check_ranks(folder, settings, shapes)
    model = load_model(base.folder, task)
    names = [name for name, _ in model.named_modules() if name]
    settings = adapter_settings.resolved(folder, settings, names)
    _resize(model, shapes, folder)
    parted = _untie(model, shapes, bool(settings.get("ensure_weight_tying")))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of shared matrices and missing tensors, which are looked at here
            wrapped = PeftModel.from_pretrained(model, str(folder), config=LoraConfig(**copy.deepcopy(dict(settings))))
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError) as error:
        raise ArtifactError(f"{folder}: does not fit {base.name}: {str(error).strip().splitlines()[-1][:200]}",
                            HINT) from error
    _check_all_read(wrapped, shapes, folder, base)
    wrapped.eval()
    rows = int(model.config.get_text_config().vocab_size)
    ids = torch.linspace(0, rows - 1, min(rows, 32), dtype=torch.float64).long()[None]
    with torch.no_grad():
        before = wrapped(input_ids=ids).logits
        plain = wrapped.merge_and_unload()
        distance = float((plain(input_ids=ids).logits - before).abs().max() / before.std().clamp_min(1e-9))
    if not distance <= SAME:
        raise ArtifactError(f"{folder}: merged, it answers otherwise than beside the base (by {distance:.2g} standard "
                            "deviations of the logits)", "merge it with the program that made it, and save the whole "
                            "model")
    float_model.check_finite(folder, plain)
    if parted:
        _tie_again(plain)
    return plain


def _places(model: Any) -> tuple[str, str]:
    """The names of the embedding and of the output layer, which may be none."""
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    names = {id(module): name for name, module in model.named_modules()}
    return names[id(inputs)], names.get(id(outputs), "")


def _rows(shapes: Mapping[str, tuple[int, ...]], place: str) -> int | None:
    """Rows of the adapter's own embedding or output layer at `place`; None where it has none."""
    start = f"base_model.model.{place}."
    for name, shape in shapes.items():
        if place and name.startswith(start) and len(shape) == 2:
            if name.endswith((".lora_B.weight", ".weight")) and not name.endswith((".lora_A.weight", "vector.weight")):
                return shape[0]
            if name.endswith(".lora_embedding_A"):
                return shape[1]
    return None


def _resize(model: Any, shapes: Mapping[str, tuple[int, ...]], folder: Path) -> None:
    """Give the base as many rows as the adapter was trained with."""
    embedding, output = _places(model)
    rows = _rows(shapes, embedding), _rows(shapes, output)
    wanted = next((count for count in rows if count is not None), None)
    if wanted is None or wanted == model.get_input_embeddings().num_embeddings:
        return
    tied = model.get_output_embeddings() is None or \
        model.get_output_embeddings().weight is model.get_input_embeddings().weight
    if None in rows and not tied:
        lacking = embedding if rows[0] is None else output
        raise ArtifactError(f"{folder}: was trained with {wanted} tokens, and holds no {lacking} of that size",
                            "save the adapter again with save_embedding_layers = True")
    model.resize_token_embeddings(wanted, mean_resizing=False)


def _untie(model: Any, shapes: Mapping[str, tuple[int, ...]], together: bool) -> bool:
    """Make two of a shared matrix that the adapter changes in one of its two places; whether it did."""
    import torch

    outputs = model.get_output_embeddings()
    if outputs is None or outputs.weight is not model.get_input_embeddings().weight or together \
            or all(_rows(shapes, place) is None for place in _places(model)):
        return False
    outputs.weight = torch.nn.Parameter(outputs.weight.detach().clone())
    model.config.tie_word_embeddings = False
    return True


def _tie_again(model: Any) -> None:
    """Embedding and output layer that hold the same are one matrix, as they were."""
    import torch

    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    if outputs is not None and torch.equal(inputs.weight, outputs.weight):
        outputs.weight = inputs.weight
        model.config.tie_word_embeddings = True


def _check_all_read(wrapped: Any, shapes: Mapping[str, tuple[int, ...]], folder: Path, base: Source) -> None:
    from peft import get_peft_model_state_dict

    own = set(get_peft_model_state_dict(wrapped, save_embedding_layers=False))
    places = {f"base_model.model.{place}{layer}.weight" for place in _places(wrapped.get_base_model()) if place
              for layer in ("", ".base_layer", ".modules_to_save", ".original_module")}  # the last two say it again
    extra, lacking = sorted(set(shapes) - own - places), sorted(own - set(shapes))
    if extra or lacking:
        told = f"{extra[0]!r} of it has no place there" if extra else f"it lacks {lacking[0]!r}"
        raise ArtifactError(f"{folder}: does not fit {base.name}: {told}", HINT)
