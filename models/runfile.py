"""The run file: run.toml as frozen dataclasses, checked before any weight is read.

Tables that name a kind (`teacher`, `losses`, `adapter`, `method`) stay plain tables here and are checked
against that kind's own `Config` by `kind_config`, so this room needs to know none of them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from . import kinds
from . import overrides as overrides_of
from .errors import UsageError
from .export_settings import Export as Export
from .export_settings import check_export as check_export
from .gates import Gates
from .scheme import Scheme
from .strict import build, limited
from .task import Task

METHODS = "quantize.methods"


@dataclass(frozen=True)
class Data:
    """Where rows come from. Paths are relative to `dir`, and `dir` to the run file."""

    dir: str = "."
    """Where the files below lie."""
    train: str = ""
    """A file, a folder written by `datasets`, or a data set on the hub (`owner/name`, `owner/name:split`)."""
    validation: str = ""
    """Rows to validate on, as `train` is named; empty: a share of the training rows."""
    test: str = ""
    """Rows to measure on, held out; empty: a share of the training rows."""
    columns: dict[str, str] = field(default_factory=dict)
    """Our column name → the file's: prompt, completion, messages, text, pair (a second text), label, score; beside a
    conversation tools, system, input, history, reasoning, weight, where an empty name leaves a column out."""
    route: str = ""
    """The column, such as the language of a row, that says which `[[teacher]]` teaches it."""
    private: list[str] = field(default_factory=list)
    """Columns that a teacher alone reads, as [teacher] context says; that one is among them."""
    learn: str = limited("all", choices=("all", "last"))
    """Of a conversation: every turn of the assistant's, or the last one alone."""
    validation_share: float = limited(0.05, minimum=0.0, maximum=0.5)
    """Of the training rows, where `validation` names no file; rows of one prompt stay together."""
    test_share: float = limited(0.1, minimum=0.0, maximum=0.5)
    """Of the training rows, where `test` names no file."""
    max_tokens: int = limited(512, minimum=8, maximum=131072)
    """Rows that are longer are left out of training and counted."""
    skip_bad: bool = False
    """Leave bad rows out and list them in a ledger instead of stopping."""


@dataclass(frozen=True)
class Student:
    """The model to train."""

    model: str = ""
    """A folder, a catalogue name or a hub name; empty means the teacher's model."""
    revision: str = ""
    """The hub's commit, branch or tag; empty: main, as it was downloaded last."""
    base: str = ""
    """Where `model` is a LoRA adapter: the model it was trained on, which it is merged into."""
    layers: list[int] = field(default_factory=list)
    """The layers of `model` to keep, from 0; empty keeps all."""
    vocabulary: str = limited("all", choices=("all", "trim"))
    """trim: keep only the tokens that the rows use, all bytes and all special tokens."""
    cuts: list[dict[str, Any]] = field(default_factory=list)
    """Each names a file of distill/students; done in this order, after `layers` and `vocabulary`."""
    to: str = ""
    """Most parameters (40M) or bytes of its file (26 MB): tokens are trimmed, then layers and channels cut alike."""
    format: str = ""
    """Of the file that `to` gives the bytes of: gguf:Q4_0, gguf:Q8_0, gguf:F16, gguf:BF16 or gguf:F32."""
    initialise: str = limited("weights", choices=("weights", "random"))
    """random: the model's shape and tokenizer with new weights."""
    template: str = ""
    """Chat template to train with and ship in place of the model's own: a file, or `chatml`, which has tools."""


@dataclass(frozen=True)
class Loop:
    """What every training run can be told."""

    epochs: float = limited(3.0, minimum=0.0, maximum=1000.0)
    """Passes over the training rows."""
    steps: int = limited(0, minimum=0)
    """Optimizer steps; above 0 it replaces `epochs`."""
    batch_size: int = limited(16, minimum=1, maximum=65536)
    """Rows per optimizer step."""
    micro_batch_tokens: int = limited(0, minimum=0)
    """Padded tokens of a forward pass; a step takes as many as it needs. 0: as many as 1 GB of activations hold."""
    learning_rate: float = limited(2e-4, minimum=0.0, maximum=1.0)
    """Its highest value."""
    warmup: float = limited(0.03, minimum=0.0, maximum=1.0)
    """Share of the steps over which the learning rate rises from 0; it then falls along a cosine."""
    final_learning_rate: float = limited(0.1, minimum=0.0, maximum=1.0)
    """Share of the learning rate that is left at the last step."""
    weight_decay: float = limited(0.01, minimum=0.0, maximum=1.0)
    """AdamW's; biases and norms are not decayed."""
    beta2: float = limited(0.95, minimum=0.0, maximum=1.0)
    """AdamW's memory of squared gradients."""
    optimizer: str = limited("adamw", choices=("adamw", "adamw_8bit"))
    """adamw_8bit: AdamW whose moments take 2 bytes a weight, not 8, those of embeddings aside; needs bitsandbytes."""
    clip: float = limited(1.0, minimum=0.0)
    """Largest norm of the gradient; 0 switches clipping off."""
    precision: str = limited("auto", choices=("auto", "fp32", "bf16"))
    """auto: bf16 autocast where this machine computes it faster than fp32."""
    evaluate_every: int = limited(0, minimum=0)
    """Steps between validations; 0 means ten times a run."""
    patience: int = limited(0, minimum=0)
    """Validations without a better loss after which training stops; 0 never stops early."""
    checkpoint_seconds: float = limited(60.0, minimum=0.0)
    """Seconds between checkpoints; 0 writes one after every step."""
    seed: int = limited(0, minimum=0, maximum=2**32 - 1)
    """Of the rows' order, new weights and dropout: the same seed makes the same model."""
    watchers: list[dict[str, Any]] = field(default_factory=lambda: [{"kind": "tensorboard"}])
    """Each names a file of distill/watchers, which is told the numbers of every step; they change no weight."""


@dataclass(frozen=True)
class Training(Loop):
    """Training of weights; `[tune]` and `[distill]` share these keys."""

    adapter: dict[str, Any] = field(default_factory=lambda: {"kind": "full"})
    """Names a file of distill/adapters: what of the model is trained."""


@dataclass(frozen=True)
class Distill(Training):
    """Training to match a teacher."""

    losses: list[dict[str, Any]] = field(default_factory=lambda: [{"kind": "forward_kl"}])
    """Each names a file of distill/losses; `weight` scales it, the other keys are that loss's own."""
    labels_control: bool = False
    """run: train the same student on labels alone too, for the same steps, to show what the teacher adds."""


@dataclass(frozen=True)
class GridAware(Loop):
    """Training on the grid of a 4-bit file: the student's float weights teach its codes and scales."""

    steps: int = limited(300, minimum=0)
    """Optimizer steps; 0 trains for `epochs`."""
    batch_size: int = limited(32, minimum=1, maximum=65536)
    """Rows per optimizer step; in small batches codes near a border flip with the noise."""
    learning_rate: float = limited(2e-3, minimum=0.0, maximum=1.0)
    """In steps of the grid: about what one update moves a weight by."""
    final_learning_rate: float = limited(0.0, minimum=0.0, maximum=1.0)
    """Share of the learning rate that is left at the last step; 0 lets the codes settle."""
    weight_decay: float = limited(0.0, minimum=0.0, maximum=1.0)
    precision: str = limited("fp32", choices=("auto", "fp32", "bf16"))
    """fp32 sees the file's weights bit for bit; bf16 rounds them."""
    starts: list[dict[str, Any]] = field(default_factory=lambda: [{"kind": "gptq"}, {"kind": "scale_search"}])
    """Each names a file of quantize/methods; training begins where the one with the least held-out KL ends."""
    calibration_rows: int = limited(128, minimum=1, maximum=100000)
    """Training rows that the starts are calibrated on."""


@dataclass(frozen=True)
class Profile:
    """How the shipped file is timed."""

    prompt_tokens: int = limited(128, minimum=1)
    """Tokens of every prompt."""
    new_tokens: int = limited(64, minimum=1)
    """Tokens decoded after it."""
    warmup: int = limited(2, minimum=0)
    """Repeats that do not count."""
    repeats: int = limited(10, minimum=1)
    """Repeats that count, each with another prompt."""
    threads: int = limited(0, minimum=0)
    """0: the physical cores this process may use."""


@dataclass(frozen=True)
class RunFile:
    """A whole run file, every default filled in."""

    task: Task = field(default_factory=Task)
    data: Data = field(default_factory=Data)
    student: Student = field(default_factory=Student)
    teacher: dict[str, Any] | list[dict[str, Any]] = field(default_factory=dict)
    """A kind table: {kind = "local", model = …}; empty for a run on labels alone. Several, as `[[teacher]]`, are mixed
    by `weight` (1.0), or each teaches the rows whose `[data] route` is in the list `route` of its table."""
    tune: Training = field(default_factory=Training)
    distill: Distill = field(default_factory=Distill)
    grid_aware: GridAware | None = None
    """Without this table (None) nothing is trained on the grid."""
    export: list[Export] = field(default_factory=list)
    profile: Profile = field(default_factory=Profile)
    gates: Gates = field(default_factory=Gates)

    @property
    def teachers(self) -> list[dict[str, Any]]:
        """The table of every teacher."""
        return self.teacher if isinstance(self.teacher, list) else [self.teacher] if self.teacher else []

    @property
    def start(self) -> str:
        """The model that the student is made from: its own, or that of its teacher; empty where none is named."""
        return self.student.model or (str(self.teachers[0].get("model", "")) if len(self.teachers) == 1 else "")


def read(path: Path, overrides: Sequence[str] = ()) -> RunFile:
    """Read a run file; `overrides` are `table.key=value` with a TOML value (or plain text).

    Raises UsageError for a file that is missing, is no TOML or holds a key or value that cannot be.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file", "edgestill init DATA writes a run file to start from") from None
    except (ValueError, RecursionError) as error:  # no TOML, no UTF-8, too many digits or brackets
        raise UsageError(f"{path}: not valid TOML: {error}", "text stands in quotes; tables as [name]") from None
    for override in overrides:
        overrides_of.apply(table, override)
    run = with_private(build(RunFile, table))
    for export in run.export:
        check_export(export)
    return run


def with_private(run: RunFile) -> RunFile:
    """The run file with the columns that teachers' contexts are among the private ones."""
    named = [*run.data.private, *(name for table in run.teachers if isinstance(name := table.get("context"), str))]
    return replace(run, data=replace(run.data, private=list(dict.fromkeys(filter(None, named)))))


def kind_config(package: str, table: Mapping[str, Any], name: str) -> Any:
    """The `Config` of the kind that `table["kind"]` names, built from the table's other keys."""
    if not isinstance(table.get("kind"), str):
        raise UsageError(f"{name}.kind: is required", f"one of: {', '.join(kinds.names(package))}")
    module = kinds.load(package, table["kind"])
    return build(module.Config, {key: value for key, value in table.items() if key != "kind"}, name)


def formats(run: RunFile) -> list[str]:
    """What the student is to be exported to: of [student] format and every [[export]]."""
    targets = (run.student.format, *(export.target for export in run.export))
    return sorted({Scheme.parse(target).format for target in targets if target})


def check_grid_aware(run: RunFile) -> None:
    """Raise UsageError for a [grid_aware] table that cannot be followed; a run file without one is fine."""
    if run.grid_aware is None:
        return
    if run.task.kind != "generate":
        raise UsageError(f"grid_aware: task.kind is {run.task.kind!r}, and only decoders are exported in 4 bits",
                         "leave [grid_aware] out, and export onnx:int8")
    if not run.data.validation and not run.data.validation_share:
        raise UsageError("grid_aware: there are no validation rows to judge it by",
                         "name a file in data.validation, or set data.validation_share above 0")
    if not run.grid_aware.starts:
        raise UsageError("grid_aware.starts: no method is given", f"one of: {', '.join(kinds.names(METHODS))}")
    for index, table in enumerate(run.grid_aware.starts):
        kind_config(METHODS, table, f"grid_aware.starts[{index}]")
