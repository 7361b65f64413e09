"""llama-cpp-python's own chat completion, with template and stop ids from the file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ....models.artifact import Artifact
from ....models.kv_cache import AUTO
from ....runtime.files import limited_process
from . import Chat, Said, _python

NAME = "llama-cpp-python"
FORMAT = "gguf"
INSTALL = "pip install llama-cpp-python"
KV = True
"""It is told in which type to keep keys and values."""


def version() -> str | None:
    """See `quantize.proof.clients`."""
    return _python.version(NAME)


def answers(artifact: Artifact, chats: Sequence[Chat], tokens: int) -> Said:
    """See `quantize.proof.clients`."""
    return _python.ask(__name__, artifact, chats, tokens)


def _work(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Ids are what was evaluated, which is all but the last one."""
    import llama_cpp

    kept = None if job["kv"] == AUTO else getattr(llama_cpp, f"GGML_TYPE_{job['kv'].upper()}")
    model = llama_cpp.Llama(job["file"], n_ctx=job["context"], type_k=kept, type_v=kept, flash_attn=kept is not None,
                            verbose=False)
    for chat in job["chats"]:
        model.reset()
        answer: Any = model.create_chat_completion(chat, temperature=0.0, max_tokens=job["tokens"] + 1,
                                                   repeat_penalty=1.0)
        evaluated = [int(token) for token in model.input_ids[:model.n_tokens]]
        length = answer["usage"]["prompt_tokens"]
        yield {"prompt": evaluated[:length], "ids": evaluated[length:]}
    model.close()


if __name__ == "__main__":
    limited_process.serve(_work)
