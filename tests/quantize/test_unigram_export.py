"""Models with a Unigram tokenizer, from export to the certificate and in use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgestill.quantize import export, verify
from edgestill.runtime import load
from edgestill.runtime.data.reader import Row
from edgestill.runtime.encoders.embedder import Embedder
from edgestill.runtime.generation.generator import Generator
from edgestill.runtime.text.codec import Codec

from .. import proving, tiny, unigram

ANSWERS = [Row(messages=[{"role": "user", "content": text}, {"role": "assistant", "content": text[:12].strip()}])
           for text in tiny.SENTENCES[:6]]


def with_turns(folder: Path) -> Path:
    """A decoder that speaks with T5's kind of tokenizer, with tokens for turns."""
    def turns(table: dict[str, Any]) -> None:
        for index, text in enumerate(["<|user|>", "<|assistant|>"], len(table["model"]["vocab"])):
            table["added_tokens"].append({**table["added_tokens"][0], "id": index, "content": text})
    unigram.converted(folder, turns)
    (folder / "chat_template.jinja").write_text(
        "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}</s>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}")
    return folder


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("decoder")
    size = Codec.from_folder(with_turns(folder / "tokenizer")).vocabulary_size
    tiny.decoder(folder / "model", "llama", vocab_size=size, eos_token_id=2, pad_token_id=0)
    with_turns(folder / "model")
    (folder / "model" / "generation_config.json").write_text(json.dumps({"eos_token_id": 2, "bos_token_id": 1}))
    return folder / "model"


@pytest.mark.usefixtures("all_texts")
@pytest.mark.parametrize("target", ["gguf:Q8_0", "onnx:fp32"])
def test_a_decoder_is_proven_and_answers(decoder: Path, target: str, tmp_path: Path) -> None:
    made = export(decoder, [target], tmp_path / "out", (), ANSWERS)[target]
    proven = verify(made, ANSWERS)
    proven.require()
    run = {check.name: check for check in proven.checks if check.passed}
    assert run.keys() >= {"token_ids", "decoded_text", "stop_ids", "template"}
    if target.startswith("gguf"):
        assert run.keys() >= {"token_ids_in_file", "decoded_text_in_file", "token_ids_rows_in_file"}
        assert run["token_ids_in_file"].n > 2000
    with load(made, threads=1) as model:
        assert isinstance(model, Generator)
        answer = model.generate("turn off the kitchen light", max_new_tokens=8)
        pieces = model.stream("turn off the kitchen light", max_new_tokens=8)
        assert answer.text and answer.text == "".join(piece.text for piece in pieces)
        schema = {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"],
                  "additionalProperties": False}
        assert isinstance(json.loads(model.generate("light", schema=schema, max_new_tokens=40).text)["on"], bool)


def test_an_xlm_roberta_embedder_is_proven(tmp_path: Path) -> None:
    """Its positions are counted from the padding id on, its tokenizer is Unigram."""
    size = Codec.from_folder(unigram.xlm_roberta(tmp_path / "tokenizer")).vocabulary_size
    source = tiny.embedder(tmp_path / "source", "xlm-roberta", vocab_size=size)
    unigram.xlm_roberta(source)
    rows = proving.label_rows(tiny.SENTENCES[:6])
    made = export(source, ["gguf:F32", "onnx:fp32"], tmp_path / "out", (), rows)
    proven = verify(made["gguf:F32"], rows)
    proven.require()
    assert {"cosine_distance", "token_ids_in_file"} <= {check.name for check in proven.checks if check.passed}
    with load(made["gguf:F32"], threads=1) as packed, load(made["onnx:fp32"], threads=1) as graph:
        assert isinstance(packed, Embedder) and isinstance(graph, Embedder)
        for text in [*tiny.SENTENCES[:8], "the light " * 55]:
            np.testing.assert_allclose(packed.embed(text), graph.embed(text), atol=3e-4)
