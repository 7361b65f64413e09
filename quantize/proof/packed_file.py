"""The packed file under test: its engine, its tokenizers and what the float model says, opened once for all checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...models import progress
from ...models.artifact import Artifact
from ...models.task import Task
from ...runtime.data import learned_tokens
from ...runtime.data.answers import said
from ...runtime.data.reader import Row, rows_digest
from ...runtime.encoders.classifier import Classifier, head_of
from ...runtime.encoders.embedder import Embedder, nearest_answers
from ...runtime.evaluation.row_fit import fit
from ...runtime.files import gguf_header
from ...runtime.loading.foreign import codec_of, is_foreign, is_stranger
from ...runtime.text.codec import Codec
from . import divergence, limits
from .engines import Engines
from .hopeless import hopeless
from .reference import Reference

if TYPE_CHECKING:
    from ..grid.codes_in_torch import Coded
    from ..source.float_model import FloatModel
    from .certificate import Check

DECODE_TOKENS = 512
"""Tokens that the cached decode is compared on."""
DECODE_TOKENS_PER_SEQUENCE = 48
QUICK_TOKENS = 4096
"""Tokens that a quick proof reads: whole texts, until there are as many."""
SMALL_BYTES = 32 * 2**20


class Subject:
    """What a check looks at. Close it, or use it in a `with` block: engines hold memory outside Python."""

    def __init__(self, artifact: Artifact, reference: Reference, float_model: FloatModel | None = None,
                 rows: Sequence[Row] = (), test_rows: Sequence[Row] = (), threads: int = 0,
                 tokenizer_folder: Path | None = None, coded: Coded | None = None,
                 at_export: Sequence[Check] = (), quick: bool = False, float_folder: Path | None = None) -> None:
        """`float_model` is there at export only; with it the full KL is measured instead of its lower bound. So is
        `coded`, the codes that were packed, for a type that is made of them. `at_export` is what the sealed
        certificate says, for later proofs.

        `quick` looks at the reference's first texts alone, QUICK_TOKENS of them.

        `tokenizer_folder` holds tokenizer.json and template where none lie beside the file. `float_folder` is the
        float model's, where its weights are at hand and it is not loaded.
        """
        self.artifact = artifact
        self.reference = reference
        self.quick = quick
        self.float_model = float_model
        self.float_folder = float_folder if float_model is None else float_model.folder
        self.rows = rows
        self.head = head_of(artifact)
        if self.head is not None:
            test_rows = fit(test_rows, self.head)
        self.test_rows = [row for row in test_rows if rows_digest([row]) in reference.fixtures.scores]
        """Those that the float model was scored on."""
        # A small model spends longer in the barriers between threads than it saves.
        self.threads = threads or int(artifact.model_path.stat().st_size < SMALL_BYTES)
        self.format = artifact.manifest.scheme.partition(":")[0]
        self.limits = limits.of(artifact.manifest.scheme, artifact.manifest.kv)
        self.coded = coded
        self.at_export = {check.name: check for check in at_export}
        self.tokenizer_folder = tokenizer_folder or artifact.folder
        self.engines = Engines(artifact, self.threads, self._room)
        self._read: dict[int, NDArray[np.float32]] = {}
        """Logits of what is decoded again, by sequence."""

    def __enter__(self) -> Subject:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Free the engine."""
        self.engines.close()

    @property
    def classifies(self) -> bool:
        """Whether the model gives labels, not text."""
        return self.artifact.manifest.task.kind == "classify"

    @cached_property
    def codec(self) -> Codec:
        """The tokenizer and the template beside the file as the runtime reads them, without a system prompt."""
        # A model without a manifest is proven in a limited process already.
        apart = is_stranger(self.artifact) and not is_foreign(self.artifact)
        return Codec.from_folder(self.tokenizer_folder, apart=apart)

    @cached_property
    def prompts(self) -> Codec:
        """What the runtime answers with: with the task's system prompt, and a bare GGUF's own tokenizer."""
        return codec_of(self.artifact, self.artifact.manifest.task)

    @cached_property
    def first(self) -> int:
        """How many of the reference's sequences a quick proof reads."""
        behind = np.cumsum([len(ids) for ids in self.reference.sequences])
        return min(len(behind), int(np.searchsorted(behind, QUICK_TOKENS)) + 1)

    @property
    def sequences(self) -> list[NDArray[np.int32]]:
        """The reference's sequences that are read."""
        return self.reference.sequences[: self.first if self.quick else None]

    @property
    def embeds(self) -> bool:
        """Whether the model gives vectors, not text."""
        return self.artifact.manifest.task.kind == "embed"

    @property
    def inner(self) -> Any:
        """The engine where its file carries a tokenizer of its own (GGUF), else None."""
        return self.engine if self.format == "gguf" else None

    @contextmanager
    def encoder(self) -> Iterator[Classifier | Embedder]:
        """The classifier or embedder as it is used, open for one check."""
        kind = Embedder if self.embeds else Classifier
        with kind(self.artifact, codec_of(self.artifact), self.threads) as encoder:
            yield encoder

    def open(self) -> None:
        """Load everything once, so that what cannot be loaded shows before anything is measured."""
        self.codec.encode("")
        if self.classifies or self.embeds:
            with self.encoder():
                return
        self.engine  # noqa: B018 - loads it

    @property
    def engine(self) -> Any:
        """The runtime's engine for a decoder, with room for the longest sequence and the longest answer."""
        return self.engines.own

    def _room(self) -> int:
        room = max(map(len, (*self.reference.sequences, *self.reference.beyond_ids)), default=1)
        for row in self.test_rows:
            room = max(room, len(learned_tokens.prompt_ids(self.prompts, row)) + self.answer_tokens)
        limit = self.artifact.manifest.dimensions.get("context", room)
        if self.format == "gguf":  # llama.cpp has no windows for some families: their files end where one would
            limit = min(limit, gguf_header.read(self.artifact.model_path).dimension("context_length") or limit)
        return min(room, limit)

    @property
    def blamed(self) -> str:
        """What is wrong where a decoder's file is not what the float model is."""
        return self.engines.blamed(self.sequences)

    @property
    def prefill(self) -> divergence.Divergence:
        """Float model against packed file, every position of every sequence in one pass each."""
        return self._prefills[0]

    @property
    def prefill_top(self) -> divergence.Divergence:
        """The same from the float model's likeliest tokens alone, as any later proof can measure it."""
        return self._prefills[1]

    @cached_property
    def _prefills(self) -> tuple[divergence.Divergence, divergence.Divergence]:
        whole, top, parts = [], [], dict(self._decoded())
        for index, ids in enumerate(self.sequences):
            progress.at(f"prove {self.artifact.manifest.scheme}: tokens", index, len(self.sequences))
            logits = np.asarray(self.engine.logits(ids.tolist()))
            if index in parts:
                self._read[index] = logits[parts[index]].copy()
            top.append(self.against_top(index, slice(None), logits))
            whole.append(top[-1] if self.float_model is None else self.compare(index, slice(None), logits))
        return divergence.join(whole), divergence.join(top)

    def compare(self, index: int, part: slice, logits: NDArray[np.float32]) -> divergence.Divergence:
        """Float model against packed `logits` [n, vocabulary] at the positions `part` of sequence `index`."""
        if self.float_model is None:
            return self.against_top(index, part, logits)
        wanted = self.float_model.logits(self.reference.sequences[index].tolist())[part]
        return self._divergence(index, part, logits, divergence.kl(wanted, logits))

    def against_top(self, index: int, part: slice, logits: NDArray[np.float32]) -> divergence.Divergence:
        """As `compare`, from the float model's likeliest tokens alone: a lower bound of the KL."""
        stored = self.reference
        return self._divergence(index, part, logits, divergence.kl_of_top(
            stored.top_ids[index][part], stored.top_logprobs[index][part], stored.tails[index][part], logits))

    def _divergence(self, index: int, part: slice, logits: NDArray[np.float32],
                    kl: NDArray[np.float64]) -> divergence.Divergence:
        likeliest = self.reference.top_ids[index][part][:, 0]
        return divergence.Divergence(kl, likeliest == logits.argmax(axis=1),
                                     divergence.decisive(self.reference.top_logprobs[index][part]))

    @cached_property
    def decode(self) -> tuple[divergence.Divergence, divergence.Divergence]:
        """(float model against cached decode, the file's own prefill against cached decode).

        Sequences are prefilled beyond their half, cut back to it and decoded from there token by token: a cache that
        is written, cut or read wrongly shows, and so does one that remembers the sequence before.
        """
        self.prefill  # noqa: B018 - reads every sequence, and keeps what is compared here
        against_float, against_prefill = [], []
        for index, part in self._decoded():
            ids, whole = self.reference.sequences[index], self._read[index]
            self.engine.truncate(0)
            self.engine.prefill(ids[:part.stop].tolist())
            self.engine.truncate(part.start)
            logits = np.stack([np.array(self.engine.decode(int(token))) for token in ids[part]])
            against_float.append(self.compare(index, part, logits))
            against_prefill.append(divergence.Divergence.of(whole, logits))
        return divergence.join(against_float), divergence.join(against_prefill)

    def _decoded(self) -> Iterator[tuple[int, slice]]:
        """The sequences that are decoded token by token, and where."""
        left = DECODE_TOKENS
        for index, ids in enumerate(self.sequences):
            start = len(ids) // 2
            end = min(len(ids), start + DECODE_TOKENS_PER_SEQUENCE, start + left)
            if start >= 1 and end > start:
                left -= end - start
                yield index, slice(start, end)

    @cached_property
    def answer_tokens(self) -> int:
        """Tokens an answer to a test row may have."""
        return answer_tokens(self.prompts, self.test_rows, self.artifact.manifest.task)

    def answers(self, rows: Sequence[Row]) -> list[str]:
        """The packed file's greedy answers, or its most likely labels."""
        if self.classifies or self.embeds:
            with self.encoder() as encoder:
                if isinstance(encoder, Embedder):
                    return nearest_answers(encoder.embed_all, rows)
                return [found.answer for found in encoder.classify_all([row.texts for row in rows])]
        made: list[list[int]] = []
        for row in rows:
            progress.at(f"prove {self.artifact.manifest.scheme}: answers", len(made), len(rows))
            prompt = learned_tokens.prompt_ids(self.prompts, row)
            made.append(self.greedy(prompt, self.answer_tokens, partial(self._hopeless, row)))
        return [said(self.prompts, ids, self.prompts.decode(ids), row) for ids, row in zip(made, rows, strict=True)]

    @cached_property
    def outputs(self) -> NDArray[np.float32]:
        """What an encoder gives for the reference's sequences [sequences, width], one at a time as it is used."""
        stored = self.reference
        with self.encoder() as encoder:
            if isinstance(encoder, Embedder):
                return np.concatenate([encoder.vectors([ids.tolist()]) for ids in stored.sequences])
            return np.concatenate([encoder.logits([ids.tolist()], [types.tolist()])
                                   for ids, types in zip(stored.sequences, stored.types(), strict=True)])

    def _hopeless(self, row: Row, ids: list[int]) -> bool:
        """Whether an answer in words can no longer be the row's; thoughts and calls are read at their end."""
        start, _ = self.prompts.thinking_marks
        text = self.prompts.decode(ids)
        shown = self.prompts.decode(ids, False).lstrip()
        if row.tools or self.reference.fixtures.metric != "exact_match" or not start or shown.startswith(start) \
                or start.startswith(shown):
            return False
        return hopeless(text, row.answer)

    def greedy(self, prompt: list[int], limit: int, hopeless: Callable[[list[int]], bool] | None = None) -> list[int]:
        """The most likely tokens after a prompt, up to the first stop id, `limit`, or where they are `hopeless`."""
        self.engine.truncate(0)
        logits = self.engine.prefill(prompt)
        answer: list[int] = []
        while len(answer) < limit:
            token = int(logits.argmax())
            if token in self.prompts.stop_ids:
                break
            answer.append(token)
            if hopeless is not None and hopeless(answer):
                break
            logits = self.engine.decode(token)
        return answer


def answer_tokens(codec: Codec, rows: Sequence[Row], task: Task) -> int:
    """Tokens that an answer needs to be right, with a margin: what is longer than every row's answer is wrong."""
    longest = max((len(codec.encode(row.answer)) for row in rows), default=0)
    return min(task.max_new_tokens, longest + 8)
