"""The apps, built and run: their answers are our runtime's, and they print our profile."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import shutil
import subprocess
import xml.etree.ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from edgestill.cli import main
from edgestill.models.artifact import open_artifact
from edgestill.models.task import Task
from edgestill.quantize import apps, export
from edgestill.runtime import load
from edgestill.runtime.profiling import Profile

from .. import packed, tiny
from .browser import in_chromium
from .cases import QUESTIONS, Case

HERE = Path(__file__).resolve().parent
KEYS = {field.name for field in dataclasses.fields(Profile)} - {
    "request_ms", "cold_load_ms", "steady_rss_bytes", "steady_pss_bytes", "views", "conditions", "verdict", "sustained"}
"""What apps print: all that `edgestill profile` does but what only its own process notes."""
INCLUDE = HERE / "include"
PLAIN = "{{ bos_token }}{% for message in messages %}{{ message['role'] }}: {{ message['content'] | trim }}\nEND\n" \
        "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders with include and lib, as the apps' build files take them: the wheels' libraries, headers of their own."""
    from importlib.util import find_spec

    missing = [name for name in ("cmake", "c++") if shutil.which(name) is None]
    missing += [name for name in ("llama.h", "onnxruntime_c_api.h") if not (INCLUDE / name).is_file()]
    if missing and not os.environ.get("CI"):
        pytest.skip(f"to build C++ apps {', '.join(missing)} must be there: see tests/clients/headers.sh")
    root = tmp_path_factory.mktemp("libraries")
    llama = Path(next(iter(find_spec("llama_cpp").submodule_search_locations)))  # type: ignore[union-attr, arg-type]
    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    for name in ("llama", "onnxruntime"):
        (root / name).mkdir()
        (root / name / "include").symlink_to(INCLUDE)
    (root / "llama" / "lib").symlink_to(llama / "lib")
    (root / "onnxruntime" / "lib").mkdir()
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (root / "onnxruntime" / "lib" / name).symlink_to(library)
    return {name: root / name for name in ("llama", "onnxruntime")}


Program = Callable[..., tuple[str, dict[str, Any]]]


def built(folder: Path, libraries: dict[str, Path], out: Path) -> Program:
    """Build a C++ app as its README says; the result runs it: (what it prints, its profile)."""
    artifact = open_artifact(folder)
    source = apps.write(artifact, "c", out)
    name = "generate" if artifact.manifest.task.kind == "generate" else "encode"
    engine = "llama" if name == "generate" else "onnxruntime"
    for command in (["cmake", "-S", source, "-B", source / "build", f"-D{engine.upper()}_ROOT={libraries[engine]}",
                     "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Werror"], ["cmake", "--build", source / "build"]):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    def run(text: str, repeats: int = 2) -> tuple[str, dict[str, Any]]:
        command = [source / "build" / name, artifact.model_path, text, str(repeats), "1"]
        done = subprocess.run(command, capture_output=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout.decode("utf-8", "replace").removesuffix("\n"), json.loads(done.stderr)

    return run


def check_profile(profile: dict[str, Any], folder: Path, repeats: int, file_bytes: int = 0) -> None:
    """Our keys, and numbers that fit together; `file_bytes` where the program reads another graph than we do."""
    assert profile.keys() == KEYS
    artifact = open_artifact(folder)
    assert profile["kind"] == artifact.manifest.task.kind and profile["file_bytes"] == (
        file_bytes or artifact.model_bytes())
    assert 0 < profile["load_ms"] < profile["start_ms"]
    if profile["kind"] == "generate":
        runs = profile["raw"]["runs"]
        assert len(runs) == repeats and all(len(run["token_ms"]) >= profile["new_tokens"] - 1 for run in runs)
        assert profile["ttft_ms"] > 0 and profile["decode_tokens_per_s"] > 0 and profile["token_ms"]["p50"] > 0
    else:
        assert profile["latency_ms"]["p50"] <= profile["latency_ms"]["max"] and profile["texts_per_s"] > 0


@pytest.mark.parametrize(("model", "target"), [("demo", "gguf:Q4_0"), ("demo", "gguf:Q8_0")])
def test_the_c_app_answers_as_our_runtime(model: str, target: str, case: Callable[[str, str], Case],
                                          libraries: dict[str, Path], tmp_path: Path, record: dict[str, Any],
                                          capsys: pytest.CaptureFixture[str]) -> None:
    folder = case(model, target).folder
    run, ours = built(folder, libraries, tmp_path), load(folder, threads=1)
    texts = [chat[-1]["content"] for chat in case(model, target).chats] + QUESTIONS
    for text in texts:
        answer, profile = run(text)
        wanted = ours.generate(text)
        assert answer == wanted.text, text
        assert profile["prompt_tokens"] == wanted.prompt_tokens
        check_profile(profile, folder, 2)
        assert profile["peak_rss_bytes"] > profile["file_bytes"]
    record.setdefault("C app", {"version": "llama.cpp", "files": {}})["files"][f"{model} {target}"] = len(texts)
    paths = [tmp_path / name for name in ("a.json", "b.json")]
    for path in paths:
        path.write_text(json.dumps(profile))
    assert main.call(["compare", *map(str, paths), "--json"]) == 0, capsys.readouterr().err


def decoder(folder: Path, template: str) -> Path:
    tiny.decoder(folder, "llama")
    settings = json.loads((folder / "tokenizer_config.json").read_text()) | {"chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "chat_template.jinja").write_text(template)
    return folder


def test_stop_text_and_trimming_are_those_of_the_template(libraries: dict[str, Path], tmp_path: Path) -> None:
    folder = packed.pack(decoder(tmp_path / "hf", PLAIN), tmp_path / "gguf-F32", "gguf:F32", Task(max_new_tokens=60))
    run, ours = built(folder, libraries, tmp_path), load(folder, threads=1)
    assert ours.codec.turn_end
    for text in ("turn off", "  trimmed\n", "<|end|> inside", "1 2 3"):
        answer, profile = run(text)
        wanted = ours.generate(text)
        assert (answer, profile["prompt_tokens"]) == (wanted.text, wanted.prompt_tokens), text


def test_answers_follow_the_schema(libraries: dict[str, Path], tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"on": {"type": "boolean"}, "room": {"enum": ["kitchen", "hall"]}},
              "required": ["on", "room"], "additionalProperties": False}
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    source = tiny.decoder(tmp_path / "hf", "llama")
    folder = export(source, "gguf:F32", tmp_path, task=Task(schema=str(tmp_path / "schema.json")))["gguf:F32"]
    answer = json.loads(built(folder, libraries, tmp_path)("turn off the light")[0])
    assert isinstance(answer["on"], bool) and answer["room"] in ("kitchen", "hall")


@pytest.mark.parametrize("kind", ["classify", "embed"])
def test_the_c_app_reads_texts_as_our_runtime(kind: str, classifier: Path, libraries: dict[str, Path],
                                              tmp_path: Path) -> None:
    folder = classifier
    if kind == "embed":
        folder = export(tiny.embedder(tmp_path / "hf", "bert"), "onnx:int8", tmp_path)["onnx:int8"]
    run, ours = built(folder, libraries, tmp_path), load(folder, threads=1)
    for text in [*QUESTIONS, "word " * 400]:
        said, profile = run(text)
        if kind == "embed":
            assert np.allclose([float(value) for value in said.split()], ours.embed(text), atol=1e-5)
        else:
            label, probability = said.rsplit(" ", 1)
            wanted = ours.classify(text)
            assert label == wanted.label and float(probability) == pytest.approx(wanted.probability, abs=1e-5)
        check_profile(profile, folder, 2)


def test_a_failure_is_one_line(libraries: dict[str, Path], classifier: Path, tmp_path: Path) -> None:
    built(classifier, libraries, tmp_path)
    program = tmp_path / "apps" / f"{classifier.name}-c" / "build" / "encode"
    for arguments, code in (([tmp_path / "none.onnx", "text"], 1), ([], 2), (["model", "text", "0"], 2)):
        done = subprocess.run([program, *arguments], capture_output=True, text=True)
        assert done.returncode == code and len(done.stderr.splitlines()) == 1 and not done.stdout


def on_page(folder: Path, texts: list[str], out: Path) -> list[dict[str, Any]]:
    page = apps.write(open_artifact(folder), "web", out)
    (page / "node_modules").symlink_to(HERE / "node_modules")
    job = {"page": f"{page.relative_to(out)}/index.html", "texts": texts, "repeats": 2}
    answers = in_chromium(out, job, name="app.html")["answers"]
    assert [answer["state"] for answer in answers] == ["done"] * len(texts), answers
    return answers  # type: ignore[no-any-return]


def test_the_web_app_answers_as_our_runtime(case: Callable[[str, str], Case], tmp_path: Path) -> None:
    made = case("demo", "onnx:int4")
    texts = [chat[-1]["content"] for chat in made.chats]
    ours = load(made.folder, threads=1)
    read = sum((made.folder / "onnx" / name).stat().st_size for name in ("model_q4.onnx", "model_q4.onnx_data"))
    for text, found in zip(texts, on_page(made.folder, texts, tmp_path), strict=True):
        wanted = ours.generate(text)
        assert found["answer"] == wanted.text
        assert found["profile"]["prompt_tokens"] == wanted.prompt_tokens and found["profile"]["threads"] >= 1
        check_profile(found["profile"], made.folder, 2, read)


@pytest.mark.parametrize("kind", ["classify", "embed"])
def test_the_web_app_reads_texts_as_our_runtime(kind: str, tmp_path: Path) -> None:
    """In float32: WebAssembly's int8 kernels round otherwise than a processor's."""
    source = (tiny.classifier if kind == "classify" else tiny.embedder)(tmp_path / "hf", "bert")
    folder = export(source, "onnx:fp32", tmp_path)["onnx:fp32"]
    ours = load(folder, threads=1)
    for text, found in zip(QUESTIONS, on_page(folder, QUESTIONS, tmp_path), strict=True):
        said = json.loads(found["answer"])
        if kind == "embed":
            assert np.allclose(said, ours.embed(text), atol=1e-4)
        else:
            wanted = ours.classify(text)
            assert said["label"] == wanted.label and said["score"] == pytest.approx(wanted.probability, abs=1e-4)
        check_profile(found["profile"], folder, 2)


def compiled(sources: Path, folder: Path, *flags: object) -> ctypes.CDLL:
    """The C++ of a phone's app as a library."""
    library = folder / "libmodel.so"
    files = [path for path in sources.glob("*.cpp") if path.name != "native.cpp"]
    command = ["c++", "-std=c++17", "-O1", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", *files, "-I", sources,
               *flags, "-o", library]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    made = ctypes.CDLL(str(library))
    for name in ("model_open", "model_run", "encoder_answer", "encoder_profile"):
        if hasattr(made, name):
            getattr(made, name).restype = ctypes.c_void_p
    return made


def text_at(address: int | None) -> str:
    return ctypes.string_at(address or 0).decode()


@pytest.mark.parametrize("name", ["android", "ios"])
def test_what_phones_call_answers_as_our_runtime(name: str, case: Callable[[str, str], Case],
                                                 libraries: dict[str, Path], tmp_path: Path) -> None:
    made = case("demo", "gguf:Q4_0")
    app, llama = apps.write(open_artifact(made.folder), name, tmp_path), libraries["llama"]
    (sources,) = (path.parent for path in app.rglob("generate_bridge.cpp"))
    library = compiled(sources, tmp_path, "-I", sources / "include", "-I", llama / "include", "-L", llama / "lib",
                       "-lllama", f"-Wl,-rpath,{llama / 'lib'}")
    (model_file,) = app.rglob("*.gguf")
    assert model_file.read_bytes() == (made.folder / "model.gguf").read_bytes()
    reason = ctypes.create_string_buffer(512)
    assert not library.model_open(b"none.gguf", 1, reason, 512) and b"none.gguf" in reason.value
    model = ctypes.c_void_p(library.model_open(str(model_file).encode(), 1, reason, 512))
    ours, show = load(made.folder, threads=1), ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
    for text in QUESTIONS:
        pieces: list[bytes] = []
        take = show(lambda _, piece, size, to=pieces: to.append(ctypes.string_at(piece, size)))
        profile = library.model_run(model, text.encode(), 2, None, take, reason, 512)
        assert b"".join(pieces).decode() == ours.generate(text).text
        check_profile(json.loads(text_at(profile)), made.folder, 2)
    assert not library.model_run(model, b"word " * 9000, 1, None, show(lambda *_: None), reason, 512)
    assert b"tokens" in reason.value
    library.model_close(model)


@pytest.mark.parametrize("name", ["android", "ios"])
def test_what_phones_call_reads_texts_as_our_runtime(name: str, classifier: Path, libraries: dict[str, Path],
                                                     tmp_path: Path) -> None:
    app = apps.write(open_artifact(classifier), name, tmp_path)
    (sources,) = (path.parent for path in app.rglob("encode_bridge.cpp"))
    library, ours = compiled(sources, tmp_path, "-I", sources / "include"), load(classifier, threads=1)
    (model_file,) = app.rglob("*.onnx")
    ids = (ctypes.c_int * library.encoder_context())()
    for text in QUESTIONS:
        count = library.tokenize(text.encode(), len(text.encode()), ids, len(ids))
        assert list(ids[:count]) == ours.codec.encode(text, add_special_tokens=True)
        logits = ours.logits([ids[:count]])[0]
        said = text_at(library.encoder_answer((ctypes.c_float * len(logits))(*logits), len(logits), count))
        label, probability = said.rsplit(" ", 1)
        wanted = ours.classify(text)
        assert label == wanted.label and float(probability) == pytest.approx(wanted.probability, abs=1e-5)
    number = ctypes.c_double
    found = library.encoder_profile(str(model_file).encode(), 2, number(3), number(4), (number * 2)(1, 2), 2, count)
    check_profile(json.loads(text_at(found)), classifier, 2)


def java_headers() -> list[Path]:
    compiler = shutil.which("javac")
    home = Path(compiler).resolve().parent.parent / "include" if compiler else Path("none")
    return [home, *(path for path in home.glob("*") if path.is_dir())] if (home / "jni.h").is_file() else []


@pytest.mark.parametrize("pair", [("generate", "gguf:Q4_0"), ("classify", "onnx")])
def test_the_bridge_to_kotlin_offers_what_kotlin_calls(pair: tuple[str, str], tmp_path: Path, classifier: Path,
                                                       case: Callable[[str, str], Case]) -> None:
    if not java_headers():
        pytest.skip("no Java development kit, whose jni.h the bridge includes")
    folder = classifier if pair[0] == "classify" else case("demo", pair[1]).folder
    main_folder = apps.write(open_artifact(folder), "android", tmp_path) / "app" / "src" / "main"
    command = ["c++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-c", main_folder / "cpp" / "native.cpp", "-o",
               tmp_path / "native.o", *(f"-I{path}" for path in java_headers())]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (kotlin,) = main_folder.rglob("Model.kt")
    called = {line.split("fun ")[1].split("(")[0] for line in kotlin.read_text().splitlines() if "external fun" in line}
    symbols = subprocess.run(["nm", "--defined-only", tmp_path / "native.o"], capture_output=True, text=True).stdout
    offered = {word.rpartition("_Model_")[2] for word in symbols.split() if word.startswith("Java_com_example")}
    assert called and called == offered


@pytest.mark.parametrize("name", ["android", "ios"])
@pytest.mark.parametrize("task", ["generate", "encode"])
def test_kotlin_swift_and_xml_are_well_formed(name: str, task: str) -> None:
    import tree_sitter_kotlin
    import tree_sitter_swift
    from tree_sitter import Language, Node, Parser

    grammars = {".kt": tree_sitter_kotlin, ".kts": tree_sitter_kotlin, ".swift": tree_sitter_swift}
    parsers = {suffix: Parser(Language(grammar.language())) for suffix, grammar in grammars.items()}

    def faults(node: Node) -> list[str]:
        here = [f"{node.type} at {node.start_point}"] if node.is_error or node.is_missing else []
        return here + [fault for child in node.children for fault in faults(child)]

    assert faults(parsers[".kt"].parse(b"fun a( { }").root_node)
    assert faults(parsers[".swift"].parse(b"func a( {").root_node)
    seen = set()
    for part in ("common", task):
        for path in (apps.TEMPLATES / name / part).rglob("*"):
            if path.suffix in parsers:
                assert faults(parsers[path.suffix].parse(path.read_bytes()).root_node) == [], path
                seen.add(path.name)
            elif path.suffix == ".xml":
                xml.etree.ElementTree.parse(path)
                seen.add(path.name)
    assert seen >= {"android": {"Model.kt", "AndroidManifest.xml"}, "ios": {"Model.swift", "Package.swift"}}[name]
