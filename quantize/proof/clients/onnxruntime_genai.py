"""onnxruntime-genai reads the folder itself."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

from ....models.artifact import Artifact
from ....runtime.files import limited_process
from . import Chat, Said, _python

NAME = "onnxruntime-genai"
FORMAT = "onnx"
INSTALL = "pip install onnxruntime-genai"


def version() -> str | None:
    """See `quantize.proof.clients`."""
    return _python.version(NAME)


def answers(artifact: Artifact, chats: Sequence[Chat], tokens: int) -> Said:
    """See `quantize.proof.clients`."""
    return _python.ask(__name__, artifact, chats, tokens)


def _work(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when the library is loaded
    import numpy as np
    import onnxruntime_genai as genai

    model = genai.Model(job["folder"])
    tokenizer = genai.Tokenizer(model)
    for chat in job["chats"]:
        text = tokenizer.apply_chat_template(json.dumps(chat), add_generation_prompt=True)
        prompt = [int(token) for token in tokenizer.encode(text)]
        parameters = genai.GeneratorParams(model)
        parameters.set_search_options(max_length=len(prompt) + job["tokens"], do_sample=False)
        generator = genai.Generator(model, parameters)
        generator.append_tokens(np.array(prompt, np.int32))
        while not generator.is_done():
            generator.generate_next_token()
        ids = [int(token) for token in generator.get_sequence(0)[len(prompt):]]
        yield {"text": text, "prompt": prompt, "ids": ids}


if __name__ == "__main__":
    limited_process.serve(_work)
