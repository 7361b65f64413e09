"""llama.cpp's C interface, without the Python layers above it."""

from __future__ import annotations

import ctypes
from collections import deque
from functools import cache
from typing import Any

from ...models.errors import MissingExtra
from ..files.import_submodule import submodule
from ..machine.cores import wait_briefly

MESSAGES: deque[str] = deque(maxlen=8)
"""The last warnings and errors that llama.cpp logged: they say why a file was refused."""
_WARNING, _ERROR = 3, 4


def library() -> Any:
    """The module `llama_cpp.llama_cpp`: plain ctypes functions. MissingExtra when it is not installed.

    The package's own `__init__` imports a high-level interface that costs more than loading a small model.
    """
    wait_briefly()
    try:
        module = submodule("llama_cpp", "llama_cpp")
    except ModuleNotFoundError as error:
        raise MissingExtra("llama-cpp-python", "gguf") from error
    module.llama_log_set(_callback(module), ctypes.c_void_p(0))  # each time: the high-level interface sets its own
    return module


def tokenize(c: Any, vocabulary: Any, text: str, special: bool) -> list[int]:
    """llama.cpp's ids of a text; `special` adds the tokens that the file says to put around it."""
    data = text.encode()
    size = len(data) + 8
    while True:
        ids = (ctypes.c_int32 * size)()
        count = c.llama_tokenize(vocabulary, data, len(data), ids, size, special, True)
        if count >= 0:
            return list(ids[:count])
        size = -count


def special(c: Any, vocabulary: Any) -> dict[str, int]:
    """The ids that a file names, or that llama.cpp takes where it names none: bos_token, eos_token, pad_token."""
    size = c.llama_vocab_n_tokens(vocabulary)
    found = {name: int(getattr(c, f"llama_vocab_{name}")(vocabulary)) for name in ("bos", "eos", "pad")}
    return {f"{name}_token": token for name, token in found.items() if 0 <= token < size}


def piece(c: Any, vocabulary: Any, token: int) -> bytes:
    """What a token stands for inside a text, special tokens included."""
    size = 64
    while True:
        part = ctypes.create_string_buffer(size)
        count = int(c.llama_token_to_piece(vocabulary, token, part, size, 0, True))
        if count >= 0:
            return part.raw[:count]
        size = -count


@cache
def _callback(module: Any) -> Any:
    """Takes llama.cpp's log away from stderr. C keeps the pointer, so the cache must keep the object."""
    module.llama_backend_init()

    def log(level: int, text: bytes, _user_data: ctypes.c_void_p) -> None:
        if _WARNING <= level <= _ERROR:
            MESSAGES.append(text.decode("utf-8", "replace").strip())

    return module.llama_log_callback(log)
