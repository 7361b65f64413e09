"""The beginning of prompts, read once: what the engine made of it, in memory and on disk.

A file is checked before its arrays reach the engine: its own SHA-256, model, tokenizer and version of the engine, and
behind the engine that it holds as many tokens as it says. That finds what was cut, changed or made by another; it is no
seal: whoever can write the file decides what the model has read, as whoever can write the model does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...models import files
from ...models.artifact import versions
from ...models.errors import ArtifactError, UsageError
from ...models.json_values import object_in
from ...models.strict import build

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ...models.artifact import Artifact
    from ..engines._base import Engine

_MAGIC = b"edgestill prefix 1\n"
_DIGEST, _ALIGN = 32, 64
PACKAGES = {"gguf": "llama-cpp-python", "onnx": "onnxruntime"}
"""Of the engines: what another version of them saved need not fit."""
_DTYPES = ("float32", "float16", "uint8")


@dataclass(frozen=True)
class Prefix:
    """The first tokens of prompts and the engine's state after them."""

    text: str
    messages: list[dict[str, Any]]
    """What it was made of: a text, or the first messages of conversations."""
    ids: list[int]
    """Whole blocks only, so that an answer is the same, bit for bit, with and without the prefix."""
    arrays: list[NDArray[Any]]
    model: str
    """The SHA-256 of the model, tokenizer and engine it belongs to, or empty for a model without artifact."""

    def restore(self, engine: Engine) -> None:
        """Make this the content of the engine's cache; ArtifactError when it does not fit."""
        engine.restore(self.ids, self.arrays)

    def joined(self, chat: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """A conversation that begins with this one: the messages before `chat`, or the text before its first."""
        if self.messages or not chat:
            return [*self.messages, *chat]
        first, *rest = chat
        return [{**first, "content": self.text + str(first.get("content") or "")}, *rest]

    def save(self, path: Path | str) -> None:
        """Write it to a file: a line that names the format, a SHA-256 of all that follows, a table, plain arrays."""
        import numpy as np

        arrays = [np.ascontiguousarray(array) for array in self.arrays]
        table = {"text": self.text, "messages": self.messages, "ids": self.ids, "model": self.model,
                 "arrays": [[array.dtype.name, list(array.shape)] for array in arrays]}
        head = json.dumps(table, ensure_ascii=False).encode()
        content = bytearray(len(head).to_bytes(8, "little") + head)
        for array in arrays:
            content += bytes(-(len(_MAGIC) + _DIGEST + len(content)) % _ALIGN) + array.tobytes()
        files.write_bytes(Path(path), _MAGIC + hashlib.sha256(content).digest() + content)

    @classmethod
    def load(cls, path: Path | str) -> Prefix:
        """Read what `save` wrote; the arrays stay in the file until they are used.

        Raises UsageError when there is no such file, ArtifactError when it is of another kind, cut short or changed.
        """
        import numpy as np

        path = Path(path)
        try:
            content: NDArray[np.uint8] = np.memmap(path, np.uint8, "r")
        except FileNotFoundError:
            raise UsageError(f"{path}: no such file", "save a prefix there first") from None
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{path}: cannot be read as a saved prefix: {error}", "save it again") from error
        start = len(_MAGIC) + _DIGEST
        if bytes(content[:len(_MAGIC)]) != _MAGIC:
            raise ArtifactError(f"{path}: no saved prefix of this version", "save it again")
        if hashlib.sha256(content[start:].data).digest() != bytes(content[len(_MAGIC):start]):
            raise ArtifactError(f"{path}: its SHA-256 is not the one written in it: it was cut short or changed",
                                "save it again")
        place = start + 8
        end = place + int.from_bytes(bytes(content[start:place]), "little")
        table = object_in(bytes(content[place:end]), str(path), ArtifactError, "save it again")
        arrays: list[NDArray[Any]] = []
        place = end
        try:
            head = build(_Head, table, path.name)
            for name, shape in head.arrays:
                if name not in _DTYPES:
                    raise ValueError(f"an array of {name}, known are {', '.join(_DTYPES)}")
                place += -place % _ALIGN
                size = int(np.dtype(name).itemsize * np.prod(shape, dtype=np.int64))
                arrays.append(np.asarray(content[place:place + size]).view(name).reshape(shape))
                place += size
        except (TypeError, ValueError, UsageError) as error:  # whoever writes a file can write its hash, too
            raise ArtifactError(f"{path}: no saved prefix: {error}", "save it again") from error
        return cls(head.text, head.messages, head.ids, arrays, head.model)


@dataclass(frozen=True)
class _Head:
    """What a file says in front of its arrays, of which it holds type and shape."""

    text: str
    messages: list[dict[str, Any]]
    ids: list[int]
    model: str
    arrays: list[list[Any]]


def model_digest(artifact: Artifact | None) -> str:
    """What a prefix is bound to: the SHA-256 of an artifact's model and tokenizer files, of the engine's name and
    version, and of the type of its cache."""
    if artifact is None:
        return ""
    known = artifact.manifest.files
    kept = {*artifact.model_files(), *(name for name in known if Path(name).name == "tokenizer.json")}
    parts = [f"{Path(name).name} {known[name].sha256 or files.sha256(artifact.folder / name)}" for name in sorted(kept)]
    engine = artifact.manifest.scheme.partition(":")[0]
    version = versions((PACKAGES[engine],)) if engine in PACKAGES else {}
    return hashlib.sha256("\n".join([engine, artifact.manifest.kv, json.dumps(version), *parts]).encode()).hexdigest()
