"""The float model in torch: what every packed file is measured against. Loaded once per export."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...models import progress
from ...models.errors import ArtifactError
from ...models.family import of_config
from ...models.task import Task
from ...runtime.files.model_files import stored_parameters
from ...runtime.text import unembedded
from .folder_checks import as_whole
from .kept_logits import KeptLogits

MOST_LARGER, MOST_NEW = 4, 2**24
"""Times the stored weights that a model may have, and how many beside: shared ones stand in a file once, a new head not
at all."""
ANSWER_BATCH = 128
"""Most prompts that are answered in one batch: small models spend their time between the layers, not in them."""
ANSWER_TOKENS = 16384
"""Most tokens, answers included, of one batch: bounds the memory of the cache."""


@contextmanager
def made_by_transformers(folder: Path) -> Iterator[None]:
    """What transformers cannot make a model of is told as a fault of the folder's config.json: ArtifactError."""
    from huggingface_hub.errors import StrictDataclassError

    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError, StrictDataclassError) as error:
        raise ArtifactError(f"{folder / 'config.json'}: transformers makes no model of it: "
                            f"{str(error).strip()[:300]}",
                            "copy config.json again from where the model was made") from error


def check_size(folder: Path, made: Callable[[], Any]) -> None:
    """ArtifactError for a config.json by which the model that is `made` would be far larger than its weights: whoever
    loads it takes the memory first, and compares shapes then."""
    import torch

    with torch.device("meta"):
        wanted = sum(parameter.numel() for parameter in made().parameters())
    held = stored_parameters(folder)
    if wanted > MOST_LARGER * held + MOST_NEW:
        raise ArtifactError(f"{folder}: by config.json the model has {wanted:,} weights, there are {held:,}",
                            "save config and weights together again")


def check_shapes(folder: Path, mismatched: Collection[Any]) -> None:
    """ArtifactError for weights (name, stored shape, shape by config.json) that are of another shape."""
    if mismatched:
        key, stored, expected = min(mismatched)
        raise ArtifactError(f"{folder}: {key} is of shape {list(stored)}, by config.json it is {list(expected)}",
                            "save config and weights together again")


def check_finite(folder: Path, module: Any) -> None:
    """ArtifactError for weights that are NaN or infinite."""
    for name, weight in module.named_parameters():
        if not bool(weight.isfinite().all()):
            raise ArtifactError(f"{folder}: {name} holds values that are NaN or infinite",
                                "the training went wrong: take an earlier state of the model")


class FloatModel:
    """A Hugging Face folder's model in float32, in evaluation mode, with the tokenizer that belongs to it."""

    def __init__(self, folder: Path, module: Any) -> None:
        self.folder = folder
        self._module = module
        self._kept = KeptLogits()
        configs = (getattr(module, "generation_config", None), module.config)
        given = [getattr(config, "eos_token_id", None) for config in configs]
        lists = [value if isinstance(value, list) else [value] for value in given if value is not None]
        self.end_ids = frozenset(int(item) for items in lists for item in items)
        """Ids that the model's configs name as ends."""

    @classmethod
    def from_folder(cls, folder: Path) -> FloatModel:
        """Load the class that config.json names.

        Raises ArtifactError for a config that is no model's, and for weights that are missing or of another shape than
        config.json says (they would be random numbers) or hold values that are not finite.
        """
        import torch
        import transformers

        transformers.utils.logging.disable_progress_bar()
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        name = config["architectures"][0]
        kind = getattr(transformers, name)
        with as_whole(folder) as whole, made_by_transformers(folder):
            check_size(folder, lambda: kind(kind.config_class.from_pretrained(whole, local_files_only=True)))
            module, report = kind.from_pretrained(
                whole, dtype=torch.float32, local_files_only=True, trust_remote_code=False, use_safetensors=True,
                output_loading_info=True, ignore_mismatched_sizes=True)
        check_shapes(folder, report["mismatched_keys"])
        if getattr(module, "pooler", None) is not None:
            module.pooler = None  # of an encoder without a head: embedders read the last hidden states
        missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
        if missing:
            raise ArtifactError(f"{folder}: {len(missing)} weights that {name} needs are not in the file, "
                                f"the first is {missing[0]}", "copy the whole model folder again")
        unread = sorted(key for key in report["unexpected_keys"] if ".weight" in key or ".bias" in key)
        if unread:
            raise ArtifactError(f"{folder}: {len(unread)} tensors that {name} does not read by its config.json, the "
                                f"first is {unread[0]}", "copy config.json again from where the model was made, or "
                                "save the model again without them")
        check_finite(folder, module)
        return cls(folder, module.to("cuda" if torch.cuda.is_available() else "cpu").eval())

    @property
    def module(self) -> Any:
        """The model in torch; loaded again after `unload`."""
        if self._module is None:
            self._module = FloatModel.from_folder(self.folder).module
        return self._module

    def unload(self) -> None:
        """Give the memory back until the model is asked again; only a folder's own model can be."""
        self._module = None
        self._kept.release()

    @property
    def device(self) -> Any:
        """Where the model computes: the first GPU where there is one."""
        return next(self.module.parameters()).device

    @property
    def vocabulary_size(self) -> int:
        """Width of the logits, padding included."""
        return int(self.module.config.vocab_size)

    @property
    def context_length(self) -> int:
        """Tokens the model can read at once."""
        config = self.module.config.to_dict()
        return of_config(config, training=True).context(config)

    @property
    def parameters(self) -> int:
        """Weights, a tied matrix counted once."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    @cached_property
    def tokenizer(self) -> Any:
        """The folder's tokenizer.json and template as transformers reads them, not as this project does.

        AutoTokenizer is no witness: for llama and qwen2 it replaces the file's normalizer by one of its own, so that a
        leading blank or a letter in parts (NFD) gets other ids than the model was trained with.
        """
        from transformers import PreTrainedTokenizerFast

        patterns = ("*.json", "*.jinja", "*/*.jinja")
        with tempfile.TemporaryDirectory(prefix="edgestill-tokenizer-") as aside:
            unembedded.copy_files(self.folder, Path(aside), sorted(
                path.relative_to(self.folder).as_posix() for pattern in patterns for path in self.folder.glob(pattern)))
            return PreTrainedTokenizerFast.from_pretrained(aside, local_files_only=True)

    def linear_layers(self) -> Iterator[tuple[str, Any]]:
        """Name and module of every layer that multiplies its input's last dimension with a matrix."""
        import torch
        from transformers.pytorch_utils import Conv1D

        for name, module in self.module.named_modules():
            if isinstance(module, (torch.nn.Linear, Conv1D)):
                yield self._head.removesuffix(".weight") if module is self._output else name, module

    def parameter(self, name: str) -> Any:
        """The parameter of a checkpoint's name: classes call the output layer otherwise than some files do."""
        return self._output.weight if name == self._head and self._output is not None else \
            self.module.get_parameter(name)

    @property
    def _output(self) -> Any:
        return getattr(self.module, "get_output_embeddings", lambda: None)()

    @cached_property
    def _head(self) -> str:
        return of_config(self.module.config.to_dict(), training=True).head

    def logits(self, ids: Sequence[int], types: Sequence[int] = ()) -> NDArray[np.float32]:
        """One forward pass without a cache: float32 [len(ids), vocabulary] for a decoder, [outputs] for a classifier.

        `types` says which of a pair's texts each token belongs to, for models that tell them apart.
        Results are kept: every target of an export is compared on the same sequences.
        """
        import torch

        given: dict[str, Any] = {"input_ids": torch.tensor([list(ids)], device=self.device)}
        if self.segments > 1 and any(types):
            given["token_type_ids"] = torch.tensor([list(types)], device=self.device)
        key = (*ids, *(-1 - kind for kind in types)) if len(given) > 1 else tuple(ids)
        return self._kept.of(key, given, self.module, self._output)

    def read(self, sequences: Sequence[Sequence[int]]) -> None:
        """Read a decoder's texts together: afterwards `logits` of each takes the output layer alone."""
        self._kept.read(sequences, self.module, self._output, self.device)

    def last_logits(self, ids: Sequence[int], count: int) -> NDArray[np.float32]:
        """A decoder's logits [count, vocabulary] of the last `count` tokens, where those of all would not fit."""
        import torch

        only = {"logits_to_keep": count} if "logits_to_keep" in signature(self.module.forward).parameters else {}
        with torch.inference_mode():
            found: NDArray[np.float32] = self.module(
                input_ids=torch.tensor([list(ids)], device=self.device), use_cache=False,
                **only).logits[0, -count:].float().cpu().numpy()
        return found

    def vector(self, ids: Sequence[int], task: Task) -> NDArray[np.float32]:
        """An embedder's vector [hidden] of a text's ids, pooled as the task says."""
        import torch

        with torch.inference_mode():
            states = self.module(
                input_ids=torch.tensor([list(ids)], device=self.device)).last_hidden_state[0].float()
            found = states[0] if task.pooling == "cls" else states.mean(dim=0)
            if task.normalise:
                found = torch.nn.functional.normalize(found, dim=0)
            result: NDArray[np.float32] = found.cpu().numpy()
        return result

    @property
    def segments(self) -> int:
        """How many texts of one input the model tells apart."""
        return int(getattr(self.module.config, "type_vocab_size", None) or 1)

    def text_ids(self, text: str | tuple[str, str], limit: int) -> tuple[list[int], list[int]]:
        """An encoder's input for a text or a pair: ids with special tokens, cut to `limit`, and the tokens' types."""
        both = (text,) if isinstance(text, str) else text
        found = self.tokenizer(*both, truncation=True, max_length=limit, return_token_type_ids=True)
        return found.input_ids, found.token_type_ids

    def answers(self, prompts: Sequence[Sequence[int]], stop_ids: Sequence[int], max_new_tokens: int,
                processor: Callable[[], Any] | None = None) -> list[list[int]]:
        """The greedy continuation of every prompt, without the stop id that ended it.

        `processor` makes one transformers logits processor for each batch, such as one that holds answers to a schema.
        """
        import torch
        from transformers import GenerationConfig

        # The model's own generation config may ask for sampling or a repetition penalty.
        self.module.generation_config = GenerationConfig()
        config = GenerationConfig(do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=sorted(stop_ids) or None,
                                  pad_token_id=0)
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        found: dict[int, list[int]] = {}
        longest = max(map(len, prompts), default=0) + max_new_tokens
        size = max(1, min(ANSWER_BATCH, ANSWER_TOKENS // longest))
        for start in range(0, len(order), size):
            progress.at("answers of the float model", start, len(order))
            batch = order[start : start + size]
            width = max(len(prompts[index]) for index in batch)
            ids = torch.tensor([[0] * (width - len(prompts[index])) + list(prompts[index]) for index in batch],
                               device=self.device)
            mask = torch.tensor([[0] * (width - len(prompts[index])) + [1] * len(prompts[index]) for index in batch],
                                device=self.device)
            with torch.inference_mode():
                output = self.module.generate(input_ids=ids, attention_mask=mask, generation_config=config,
                                              logits_processor=[processor()] if processor else None)
            for index, row in zip(batch, output[:, width:].tolist(), strict=True):
                end = next((position for position, token in enumerate(row) if token in stop_ids), len(row))
                found[index] = row[:end]
        return [found[index] for index in range(len(prompts))]
