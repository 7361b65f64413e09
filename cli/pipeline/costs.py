"""What a run costs before it is spent: minutes and memory of every stage, from the rows, the model and this machine.

Arithmetic counts twice a weight and token forwards, four times backwards (Kaplan and others 2020, arXiv 2001.08361,
section 2.1), less where frozen weights need no gradient. What share of the machine's matrix rate each kind of work
reaches was measured on SmolLM2-135M with two cores; an estimate is rough.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...models import catalogue
from ...models.errors import ArtifactError, DataError, UsageError
from ...models.family import of_config
from ...models.scheme import CODED, MIXED, Scheme, bits_of
from ...runtime.data import learned_tokens
from ...runtime.files.model_files import read_table, stored_parameters
from . import gguf_files

if TYPE_CHECKING:
    from ...distill.teachers._base import Size
    from ...models.runfile import Export
    from ...runtime.data.reader import Row
    from ...runtime.text.codec import Codec

TRAINING, FORWARD, DECODING = 0.8, 0.45, 0.12
"""Share of the matrix rate that training, reading and decoding (in batches, in torch) reach."""
SHIPPED_READING, SHIPPED_DECODING = 2.5, 0.45
"""The same for a shipped 4-bit file in its engine, against the float32 rate: decoding waits for memory."""
COUNTED_ROWS = 200
"""Most rows of a split whose tokens are counted."""
CHARACTERS = 3.5
"""Characters of a token, where the tokenizer is not at hand."""
CALIBRATION_PASSES = {"gptq": 2.0, "scale_search": 1.2}
"""Forward passes that a method's calibration is worth."""
ENCODING_OPERATIONS = {"gptq": 65_000, "scale_search": 10_000, "rtn": 1_000}
"""Of each weight and each grid it is tried on."""
MIXED_GRIDS = {"gguf": 2.5, "onnx": 1.0}
SENSITIVITY_PASSES = 6
"""Forward passes over SENSITIVITY_TOKENS that measuring what types cost is worth, gradients included."""
SENSITIVITY_TOKENS = 2048
PROOF_TOKENS, CERTIFY_ROWS = 12_000, 160
FILE_SHARE = 1.3
"""Bytes of a file over those of its weights' plain bits: scales, tables of more bits, what proves it."""
PROCESS_BYTES = 700_000_000
"""Python with torch and transformers loaded."""
ACTIVATION_BYTES = 10**9
"""What training's micro-batches are sized to."""
LOGITS_BYTES = 2**29
"""Most that an export keeps of the float model's logits, and as much again while types are dealt out."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a model that costs follow from."""

    parameters: int
    vocabulary: int = 0


@dataclass(frozen=True)
class Lengths:
    """Tokens of some rows in all."""

    rows: int
    prompt_tokens: int
    answer_tokens: int

    @property
    def tokens(self) -> int:
        """All of them."""
        return self.prompt_tokens + self.answer_tokens

    def share(self, share: float) -> Lengths:
        """Of a share of the rows."""
        return Lengths(*(round(share * number) for number in (self.rows, self.prompt_tokens, self.answer_tokens)))


@dataclass(frozen=True)
class Cost:
    """Of one stage."""

    seconds: float
    peak_bytes: int
    disk_bytes: int = 0
    """Of what it leaves behind, and of a training's checkpoint beside it."""


def shape(model: str) -> Shape | None:
    """The shape of a catalogue name, a Hugging Face folder or a GGUF file; None for what is not here yet, such as a hub
    name."""
    if model in catalogue.names():
        return Shape(catalogue.entry(model).parameters)
    folder = gguf_files.folder(Path(model))
    found = stored_parameters(folder)
    if not found:
        return None
    config = read_table(folder / "config.json")
    try:
        of_config(config, training=True)
    except (ArtifactError, UsageError):
        return None
    return Shape(found, int(config.get("vocab_size") or 0))


def lengths(rows: Sequence[Row], codec: Codec | None = None, learn: str = "last") -> Lengths:
    """Tokens of rows as a model reads and answers them, of many rows by some; without a codec by their characters.

    `learn` says which answers of a conversation count, as in learned_tokens.sequences.
    """
    some = rows[::-(-len(rows) // COUNTED_ROWS) or 1]
    counted = [_tokens(row, codec, learn) for row in some]
    share = len(rows) / max(1, len(some))
    prompts, answers = (round(share * sum(numbers)) for numbers in zip(*counted, strict=True)) if counted else (0, 0)
    return Lengths(len(rows), prompts, answers)


def _tokens(row: Row, codec: Codec | None, learn: str) -> tuple[float, float]:
    """Of a row's prompt and its answers."""
    if codec is not None:
        try:
            found = learned_tokens.sequences(codec, row, learn)
        except DataError:
            found = []  # a row that cannot be learned is refused, with its place, where it is tokenized
        answers = sum(end - start for one in found for start, end in one.spans)
        return sum(len(one.ids) for one in found) - answers, answers
    told = [row.text, *(str(message) for message in row.prompt_messages), *(json.dumps(tool) for tool in row.tools)]
    return sum(map(len, told)) / CHARACTERS, len(row.answer) / CHARACTERS


def training(model: Shape, rows: Lengths, epochs: float, adapter: str, rate: float,
             optimizer: str = "adamw") -> Cost:
    """Of training on labels; `rate` in operations a second."""
    trained = model.parameters if adapter == "full" else 0
    operations = (6 if trained else 4) * model.parameters * rows.tokens * epochs
    # Weights in float32; of what is trained also gradients and Adam's two moments.
    of_trained = 6 if optimizer == "adamw_8bit" else 12
    memory = 4 * model.parameters + of_trained * trained + ACTIVATION_BYTES + PROCESS_BYTES
    # The checkpoint holds what is trained and Adam's moments.
    return Cost(operations / (TRAINING * rate), memory, 4 * model.parameters + of_trained * trained)


def taught(student: Cost, teacher: Size, rows: Lengths, epochs: float, rate: float) -> Cost:
    """Of the same training while a teacher is asked about every token."""
    passes = teacher.passes(rows.answer_tokens, epochs)
    return Cost(student.seconds + 2 * teacher.parameters * rows.tokens * passes / (FORWARD * rate),
                student.peak_bytes + teacher.bytes, student.disk_bytes)


def answering(model: Shape, rows: Lengths, rate: float) -> Cost:
    """Of a float model's answers in batches."""
    seconds = 2 * model.parameters * (rows.prompt_tokens / (FORWARD * rate) + rows.answer_tokens / (DECODING * rate))
    return Cost(seconds, 4 * model.parameters + ACTIVATION_BYTES + PROCESS_BYTES)


def shipped(model: Shape, rows: Lengths, rate: float) -> Cost:
    """Of a packed file's answers, one at a time."""
    seconds = 2 * model.parameters * (rows.prompt_tokens / (SHIPPED_READING * rate)
                                      + rows.answer_tokens / (SHIPPED_DECODING * rate))
    return Cost(seconds, model.parameters + PROCESS_BYTES)


def packing(model: Shape, target: Export, train: Lengths, rate: float) -> Cost:
    """Of packing and proving one target; answers to rows come on top. `train` calibrates."""
    scheme, method = Scheme.parse(target.target), str(target.method.get("kind"))
    coded, mixed = scheme.type in (*CODED, MIXED), scheme.type == MIXED
    calibration = min(target.calibration_rows, train.rows) * train.tokens / max(1, train.rows) if coded else 0
    passes = (CALIBRATION_PASSES.get(method, 1.0) * calibration + 3 * PROOF_TOKENS
              + SENSITIVITY_PASSES * SENSITIVITY_TOKENS * mixed)
    operations = ENCODING_OPERATIONS.get(method, 0) * (MIXED_GRIDS[scheme.format] if mixed else 1) if coded else 0
    seconds = model.parameters * (2 * passes / FORWARD + operations) / rate
    return Cost(seconds, 10 * model.parameters + (1 + mixed) * LOGITS_BYTES + PROCESS_BYTES,
                round(model.parameters * (4 if mixed else bits_of(scheme.type)) * FILE_SHARE / 8))


def export(model: Shape, target: Export, train: Lengths, test: Lengths, rate: float) -> Cost:
    """Of packing one target and proving it, with the float model's and the file's answers to `test`."""
    made = packing(model, target, train, rate)
    answered = Lengths(min(test.rows, CERTIFY_ROWS), test.prompt_tokens, test.answer_tokens)
    return Cost(made.seconds + answering(model, answered, rate).seconds + shipped(model, answered, rate).seconds,
                made.peak_bytes, made.disk_bytes)


def matrix_rate(size: int = 768, repeats: int = 5) -> float:
    """Operations a second of a float32 matrix product on all cores of this process: the fastest of a few."""
    import numpy as np

    matrix = np.ones((size, size), np.float32)
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        matrix @ matrix
        times.append(time.perf_counter() - started)
    return 2 * size**3 / min(times)
