"""What llama.cpp makes of a GGUF file held against the folder that was made of it, before anything is trained.

llama.cpp reads the file in a limited process. The folder answers here: the same ids for every text of the corpus, the
same bytes for every token, the same logits.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...models.errors import ArtifactError
from ...models.scheme import bits_of
from ...runtime.files import gguf_header, limited_process
from ...runtime.files.gguf_header import Header
from ...runtime.text.codec import Codec
from ..gguf.tokenizer.write import UNUSED, differences
from ..source import corpus
from ..source.float_model import FloatModel
from . import weights
from .config import HINT

PROBE = " ".join((*corpus.TASKS, *corpus.ENGLISH, *corpus.CODE))
PROBE_TOKENS = 192
"""Tokens whose logits are compared."""
ERRORS = ((8.5, 0.15), (16, 0.03), (32, 1e-3))
"""Bits of the coarsest matrix up to → how far logits may be from llama.cpp's, as a share of their own length about
their mean. llama.cpp rounds what it multiplies blocks with to 8 bits, and half floats to half floats; the folder's
model does not."""


def prove(path: Path, folder: Path) -> dict[str, Any]:
    """Hold the folder against the file; returns what was measured, for a manifest's checks.

    Raises ArtifactError naming what differs: a weight, a text, a token, the logits; or how llama.cpp ended.
    """
    header = gguf_header.read(path)
    compared = weights.check(path, header, folder)
    codec = Codec.from_folder(folder)
    texts = corpus.texts(codec.marks.values())
    probe = codec.encode(PROBE)[:min(PROBE_TOKENS, header.dimension("context_length"))]
    with tempfile.TemporaryDirectory(prefix="edgestill-") as aside:
        job = {"path": str(path), "texts": texts, "probe": probe, "logits": str(Path(aside) / "logits.npy")}
        outcome = limited_process.run(__name__, job, path.stat().st_size)
        if outcome.error is not None:
            raise outcome.error
        if outcome.crash:
            raise ArtifactError(f"{path}: {outcome.crash}", "the file is damaged or llama.cpp does not run its kind")
        said: dict[str, Any] = {key: value for found in outcome.found for key, value in found.items()}
        there = np.load(Path(aside) / "logits.npy", allow_pickle=False)
    excused = _check_texts(path, codec, texts, said)
    _check_tokens(path, header, codec, said["pieces"])
    error, limit = _error(FloatModel.from_folder(folder).logits(probe), there), _limit(header)
    if not error <= limit:
        raise ArtifactError(f"{path}: the model made of it is another than llama.cpp runs: its logits of {len(probe)} "
                            f"tokens are {error:.4f} of their length beside llama.cpp's, the limit is {limit}", HINT)
    return {"token_ids": {"value": 0.0, "n": len(texts), "left_out": excused},
            "weights": {"value": 0.0, "n": compared}, "logits": {"value": round(error, 6), "n": len(probe)}}


def _check_texts(path: Path, codec: Codec, texts: Sequence[str], said: dict[str, Any]) -> int:
    """How many texts got other ids for a reason that llama.cpp has for all files of these rules."""
    names = differences(codec)
    other = []
    for text, plain, framed in zip(texts, said["plain"], said["framed"], strict=True):
        if codec.encode(text) != plain or codec.encode(text, add_special_tokens=True) != framed:
            other.append(text)
    wrong = [text for text in other if not names(text)]
    if wrong:
        raise ArtifactError(f"{path}: {len(wrong)} of {len(texts)} texts get other token ids than in llama.cpp, the "
                            f"first is {wrong[0][:60]!r}", HINT)
    return len(other)


def _check_tokens(path: Path, header: Header, codec: Codec, pieces: Sequence[str]) -> None:
    kinds = gguf_header.items(path, header, "tokenizer.ggml.token_type") or [0] * len(pieces)
    for index, (piece, kind) in enumerate(zip(pieces, kinds, strict=True)):
        if kind != UNUSED and codec.bytes_of(index) != piece.encode("latin-1"):
            raise ArtifactError(f"{path}: the token {index} is {codec.bytes_of(index)!r}, llama.cpp reads it as "
                                f"{piece.encode('latin-1')!r}", HINT)


def _error(here: NDArray[np.float32], there: NDArray[np.float32]) -> float:
    """The distance of logits [n, vocabulary] as a share of their length, both about their means."""
    if here.shape != there.shape:
        return float("inf")
    wanted, found = (each - each.mean(axis=1, keepdims=True) for each in (there, here))
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def _limit(header: Header) -> float:
    bits = min(bits_of(tensor.type) for tensor in header.tensors if len(tensor.shape) > 1)
    return next(limit for most, limit in ERRORS if bits <= most)


def _work(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """In the limited process: ids of every text, bytes of every token, logits of the probe."""
    from ...runtime.engines import gguf
    from ...runtime.loading.foreign import open_model
    from ...runtime.text.gguf_tokenizer import GgufTokenizer

    path = Path(job["path"])
    tokenizer = GgufTokenizer(path)
    for name, special in (("plain", False), ("framed", True)):
        yield {name: [tokenizer.encode(text, add_special_tokens=special).ids for text in job["texts"]]}
    yield {"pieces": [tokenizer.bytes_of(index).decode("latin-1") for index in range(tokenizer.get_vocab_size())]}
    engine = gguf.open(open_model(path), 0, len(job["probe"]), exact=True)
    np.save(job["logits"], np.asarray(engine.logits(job["probe"]), np.float32))
    engine.close()


if __name__ == "__main__":
    limited_process.serve(_work)
