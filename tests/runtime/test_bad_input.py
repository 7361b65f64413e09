"""Damaged files, another model's tokenizer, hostile templates and requests: a clear error in bounded time and memory,
from `load` and `generate` and through the server, and the process lives."""

from __future__ import annotations

import json
import random
import shutil
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from edgestill.models import kinds
from edgestill.models.errors import ArtifactError, EdgestillError, UsageError
from edgestill.runtime import load
from edgestill.runtime.generation.generator import Generator
from edgestill.runtime.loading.load import load_streams
from edgestill.runtime.server.work_queue import Station

from .. import packed
from ..serving import Running, running
from .test_template_limits import POISONED

PATHS = {"chat": "/v1/chat/completions", "text": "/v1/completions"}
QUESTION: list[Any] = [{"role": "user", "content": "turn off the kitchen light"}]
SECONDS = 20


def flipped(path: Path, place: float) -> None:
    """Turn over one bit."""
    data = bytearray(path.read_bytes())
    data[int(place * (len(data) - 1))] ^= 0x10
    path.write_bytes(data)


def cut(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[:int(share * path.stat().st_size)])


@pytest.mark.parametrize("engine", kinds.names("runtime.engines"))
def test_our_own_files_are_opened_whole_or_not_at_all(engine: str, packed_llama: dict[str, Path],
                                                      tmp_path: Path) -> None:
    names = [path.relative_to(packed_llama[engine]) for path in packed_llama[engine].rglob("*")
             if path.suffix in (".gguf", ".onnx", ".onnx_data", ".data") or path.name == "tokenizer.json"]
    assert len(names) >= 2
    for name in names:
        for spoil, amount in ((cut, 0.0), (cut, 0.5), (flipped, 0.0), (flipped, 0.01), (flipped, 0.7)):
            folder = Path(shutil.copytree(packed_llama[engine], tmp_path / "copy"))
            spoil(folder / name, amount)
            with pytest.raises(ArtifactError, match=str(name.name)) as caught:
                load(folder, threads=1)
            assert caught.value.hint
            shutil.rmtree(folder)


@pytest.mark.parametrize("engine", kinds.names("runtime.engines"))
def test_damaged_files_of_others_answer_or_are_refused(engine: str, packed_llama: dict[str, Path],
                                                       tmp_path: Path) -> None:
    """No hashes tell: whatever a flipped bit does, it ends in a child process, in an error or in an answer."""
    found = random.Random(0)
    spoilt = [(cut, 0.5), (flipped, 0.002), *((flipped, found.random()) for _ in range(3))]
    refused = 0
    for number, (spoil, amount) in enumerate(spoilt):
        folder = Path(shutil.copytree(packed_llama[engine], tmp_path / str(number)))
        (folder / "manifest.json").unlink()
        model_file = next(folder.rglob("*.gguf" if engine == "gguf" else "*.onnx_data" if number % 2 else "*.onnx"))
        spoil(model_file, amount)
        try:
            with load(model_file if engine == "gguf" else folder, threads=1) as model:
                assert isinstance(model, Generator)
                model.generate("turn off the light", max_new_tokens=4)
        except EdgestillError as error:
            assert error.hint
            refused += 1
    assert refused >= 1


def test_another_models_tokenizer_is_refused_or_answers_in_it(packed_llama: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(packed_llama["onnx"], tmp_path / "larger"))
    table = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    table["model"]["vocab"] |= {f"more{number}": 384 + number for number in range(50)}
    (folder / "tokenizer.json").write_text(json.dumps(table), encoding="utf-8")
    with pytest.raises(ArtifactError, match="tokenizer.json"):  # its hash is another one
        load(folder, threads=1)
    (folder / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match="the tokenizer has 434 tokens, the model 384") as caught:
        load(folder, threads=1)
    assert "another model's" in caught.value.hint
    # A smaller one cannot be told from a padded vocabulary: ids that it does not know have no text.
    smaller = {text: id for text, id in table["model"]["vocab"].items() if id < 300}
    table["model"] |= {"vocab": smaller, "merges": [pair for pair in table["model"]["merges"]
                                                    if all(part in smaller for part in [*pair, "".join(pair)])]}
    (folder / "tokenizer.json").write_text(json.dumps(table), encoding="utf-8")
    with load(folder, threads=1) as model:
        assert isinstance(model, Generator)
        answer = model.generate("turn off the light", max_new_tokens=24)
        assert max(answer.ids) >= 300 and len(answer.ids) == 24


@pytest.fixture(scope="module")
def poisoned(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny Llama with hostile templates."""
    root, found = tmp_path_factory.mktemp("poisoned"), {}
    for name in ("nested loops", "times", "recursion", "replace"):
        source = Path(shutil.copytree(tiny_llama, root / f"{name} source"))
        (source / "chat_template.jinja").write_text(POISONED[name], encoding="utf-8")
        found[name] = packed.pack(source, root / name, "onnx:fp32")
    return found


def test_hostile_templates_end_in_errors(poisoned: dict[str, Path]) -> None:
    stations = [Station(name, load_streams(path, 1, 1), 8) for name, path in poisoned.items()]
    with running(stations) as served:
        for name, path in poisoned.items():
            started = time.process_time()
            with load(path, threads=1) as model, pytest.raises(EdgestillError, match="chat template"):
                model.generate("hello")  # type: ignore[union-attr]
            status, answer, _ = served.ask("POST", PATHS["chat"], {"model": name, "messages": QUESTION})
            assert status == 400 and "chat template" in answer["error"]["message"]
            assert time.process_time() - started < SECONDS
            text = {"model": name, "prompt": "the light", "max_tokens": 2}  # plain texts go by no template
            assert served.ask("POST", PATHS["text"], text)[0] == 200


@pytest.fixture(scope="module")
def served(packed_llama: dict[str, Path]) -> Iterator[Running]:
    with running([Station("tiny", load_streams(packed_llama["gguf"], 1, 1), 2)]) as found:
        yield found


@pytest.mark.parametrize("text", ["a", " ", "\n", "7", "🙂", "light ", "<|end|>", "\0"])
def test_texts_far_too_long_are_refused_by_their_length(text: str, served: Running) -> None:
    whole = text * (300_000 // len(text))
    bodies = {"chat": {"messages": [{"role": "user", "content": whole}]}, "text": {"prompt": whole}}
    model = served.service.stations["tiny"].model
    tracemalloc.start()
    started = time.process_time()
    for kind, body in bodies.items():
        status, answer, _ = served.ask("POST", PATHS[kind], body)
        assert status == 400 and f"{len(whole)} characters" in answer["error"]["message"]
    with pytest.raises(UsageError, match=f"has {len(whole)} characters, the context holds 256 tokens of at most"):
        model.generate(whole)
    seconds, peak = time.process_time() - started, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seconds < 5 and peak < 20 * len(json.dumps(whole))


def test_long_texts_that_may_fit_are_counted(packed_llama: dict[str, Path]) -> None:
    with load(packed_llama["onnx"], threads=1) as model:
        assert isinstance(model, Generator)
        longest = max(map(len, model.codec.tokenizer.get_vocab()))
        with pytest.raises(UsageError, match="tokens, the context holds 256"):
            model.generate("x" * (256 * min(longest, 16)))
        long = "light " * 3000
        found = model.generate(long, overflow="shift", max_new_tokens=2)
        assert found.prompt_tokens < 256 and len(found.ids) == 2


def nested(depth: int, key: str = "") -> Any:
    value: Any = "a"
    for _ in range(depth):
        value = {key: value} if key else [value]
    return value


FIELDS = ("role", "content", "name", "tool_calls")
OPTIONS = ("tool_choice", "response_format", "stop", "model", "seed", "logit_bias", "stream", "choices", "regex")


@pytest.mark.parametrize("depth", [300, 900, 60_000])
def test_requests_nested_deeply_are_refused(depth: int, served: Running) -> None:
    deep = b"[" * depth + b"]" * depth
    bodies = [b'{"messages":[{"role":"user","content":"a","%s":%s}]}' % (name.encode(), deep) for name in FIELDS]
    bodies += [b'{"messages":[{"role":"user","content":"a"}],"%s":%s}' % (name.encode(), deep) for name in OPTIONS]
    schema = b'{"a":' * depth + b"1" + b"}" * depth
    bodies.append(b'{"messages":[{"role":"user","content":"a"}],"response_format":{"type":"json_schema",'
                  b'"json_schema":{"schema":%s}}}' % schema)
    bodies.append(b'{"messages":[{"role":"user","content":"a"}],"tool_choice":"required","tools":[{"type":"function",'
                  b'"function":{"name":"f","parameters":%s}}]}' % schema)
    for body in bodies:
        started = time.process_time()
        status, answer, _ = served.ask("POST", PATHS["chat"], body)
        assert status == 400 and len(answer["error"]["message"]) < 1000, (body[:120], answer)
        assert time.process_time() - started < SECONDS
    assert served.ask("POST", PATHS["text"], b'{"prompt":%s}' % deep)[0] == 400
    model = served.service.stations["tiny"].model
    if depth < 1000:
        for schema_of_python in (nested(depth, "items"), nested(depth, "anyOf")):
            with pytest.raises(UsageError, match="nested"):
                model.generate("x", schema=schema_of_python)


BOMBS: dict[str, Any] = {
    "properties": {"type": "object", "properties": {f"p{number}": {"type": "string"} for number in range(5000)}},
    "length": {"type": "string", "minLength": 10**9}, "items": {"type": "array", "minItems": 10**9, "items": {}},
    "pattern": {"type": "string", "pattern": "(a{1000}){1000}"}, "reference": {"$ref": "#"},
    "references": {"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}] * 2}}, "$ref": "#/$defs/a"},
    "elsewhere": {"$ref": "http://localhost:1/schema"},
    "all": {"allOf": [{"anyOf": [{"properties": {f"{one}{other}": {"type": "null"}}} for one in range(6)]}
                      for other in range(8)]}}


@pytest.mark.parametrize("name", BOMBS)
def test_schemas_that_explode_end_in_time(name: str, served: Running) -> None:
    started = time.process_time()
    status, answer, _ = served.ask("POST", PATHS["chat"], {
        "messages": QUESTION, "max_tokens": 4,
        "response_format": {"type": "json_schema", "json_schema": {"schema": BOMBS[name]}}})
    assert status in (200, 400), answer
    assert time.process_time() - started < SECONDS
    assert served.ask("GET", "/health")[0] == 200


@pytest.mark.parametrize("body", [b'{"messages":[{"role":"user","content":"\xff\xfe"}]}', b"\xff\xfe{", b"\x80",
                                  b'{"messages":[{"role":"user","content":"\\ud800"}]}', b'{"prompt":"\\udfff"}',
                                  b'{"messages":[{"role":"user","content":"a"}],"stop":["\\ud800"],"choices":["\\ud800"]}'])
def test_texts_that_are_no_unicode_are_refused(body: bytes, served: Running) -> None:
    path = PATHS["text" if b"prompt" in body else "chat"]
    status, answer, _ = served.ask("POST", path, body)
    assert status == 400 and answer["error"]["message"]
