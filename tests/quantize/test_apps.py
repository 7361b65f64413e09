"""Apps beside an artifact: what is written, and what is refused."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from edgestill.cli import main
from edgestill.models import kinds
from edgestill.models.artifact import open_artifact
from edgestill.models.errors import ArtifactError, DataError, EdgestillError, UsageError
from edgestill.models.task import Task
from edgestill.quantize import apps
from edgestill.quantize.apps import _literals, _prompt, container
from edgestill.runtime.text.chat_template import ChatTemplate
from edgestill.runtime.text.codec import Codec

from .. import packed, tiny

Run = Callable[..., tuple[int, str, str]]
KINDS = kinds.names("quantize.apps")
LONGEST_FILE = 300
GENERATED = {"tables.h"}


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """A tiny artifact for every (task, format)."""
    root = tmp_path_factory.mktemp("artifacts")
    decoder, classifier = tiny.decoder(root / "llama", "llama"), tiny.classifier(root / "bert", "bert")
    embedder, shape = tiny.embedder(root / "embedder", "bert"), {"context": 128, "hidden": 64}
    label, vector = Task("classify", labels=list(tiny.LABELS)), Task("embed", pooling="mean")
    return {
        ("generate", "gguf"): packed.pack(decoder, root / "gguf-F16", "gguf:F16"),
        ("generate", "onnx"): packed.pack(decoder, root / "onnx-fp32", "onnx:fp32"),
        ("classify", "onnx"): packed.pack(classifier, root / "label", "onnx:fp32", label, dimensions=shape),
        ("embed", "onnx"): packed.pack(embedder, root / "vector", "onnx:fp32", vector, dimensions=shape),
        ("embed", "gguf"): packed.pack(embedder, root / "vector-gguf", "gguf:F16", vector, dimensions=shape)}


@pytest.fixture(autouse=True)
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a served model takes is measured in the tests of the container alone."""
    monkeypatch.setattr(container, "peak_bytes", lambda *_: 2**28)


PAIRS = [(name, *pair) for name in KINDS for pair in kinds.load("quantize.apps", name).FITS]


@pytest.mark.parametrize(("name", "task", "format"), PAIRS)
def test_every_app_is_written_whole(name: str, task: str, format: str, artifacts: dict[tuple[str, str], Path],
                                    tmp_path: Path) -> None:
    artifact = open_artifact(artifacts[task, format])
    folder = apps.write(artifact, name, tmp_path)
    assert folder == tmp_path / "apps" / f"{artifact.folder.name}-{name}"
    written = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    assert "README.md" in written
    ours = {"model", "assets", "Model", "edgestill"}  # its own source, held to a length by the house
    sources = {place: path for place, path in written.items()
               if path.name not in GENERATED and not ours & {*path.relative_to(folder).parts}}
    for place, path in sources.items():
        assert len(path.read_text(encoding="utf-8").splitlines()) < LONGEST_FILE, place
    included = [line.split('"')[1] for path in sources.values() if path.suffix in (".h", ".cpp")
                for line in path.read_text().splitlines() if line.startswith('#include "')]
    assert {*included} <= {Path(place).name for place in written}


@pytest.mark.parametrize("name", KINDS)
def test_an_app_names_what_it_fits_and_a_readme(name: str) -> None:
    kind = kinds.load("quantize.apps", name)
    assert kind.FITS and isinstance(kind.NOTE, str)
    assert all((apps.TEMPLATES / folder / "README.md").is_file() for folder in kind.FITS.values())


@pytest.mark.parametrize(("name", "pair", "message", "hint"), [
    ("c", ("generate", "onnx"), "--app c: runs no generators in onnx:fp32", "generators in gguf"),
    ("web", ("generate", "gguf"), "--app web: runs no generators in gguf:F16", "generators in onnx"),
    ("c", ("embed", "gguf"), "--app c: runs no embedders in gguf:F16", "embedders in onnx"),
    ("desktop", ("generate", "gguf"), "'desktop' is not known", "known: ")])
def test_a_file_that_an_app_does_not_run_is_refused(name: str, pair: tuple[str, str], message: str, hint: str,
                                                    artifacts: dict[tuple[str, str], Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        apps.write(open_artifact(artifacts[pair]), name, tmp_path)
    assert message in caught.value.message and hint in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_a_changed_artifact_gets_no_app(artifacts: dict[tuple[str, str], Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(artifacts["generate", "gguf"], tmp_path / "copy"))
    data = bytearray((copy / "model.gguf").read_bytes())
    data[-1] ^= 1
    (copy / "model.gguf").write_bytes(data)
    with pytest.raises(ArtifactError, match="SHA-256"):
        apps.write(open_artifact(copy), "c", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_is_not_written_over(artifacts: dict[tuple[str, str], Path],
                                                           tmp_path: Path) -> None:
    artifact = open_artifact(artifacts["generate", "gguf"])
    folder = apps.write(artifact, "c", tmp_path)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(EdgestillError, match="exists and is not empty"):
        apps.write(artifact, "c", tmp_path)
    assert before == {path: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def invoke(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main.call([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return invoke


def test_export_writes_each_app_for_the_targets_it_fits(run: Run, tiny_llama: Path, tmp_path: Path) -> None:
    command = ["export", tiny_llama, "--to", "gguf:F32", "--to", "onnx:fp32", "--app", "c", "--app", "web",
               "-o", tmp_path, "--json"]
    code, planned, _ = run(*command, "--dry-run")
    assert code == 0 and not list(tmp_path.iterdir())
    code, made, told = run(*command)
    found = json.loads(made)
    grades = found.pop("grades")
    assert {target: grades[target]["name"] for target in grades} == {"gguf:F32": "excellent", "onnx:fp32": "excellent"}
    assert code == 0 and found == json.loads(planned) == {
        "gguf:F32": str(tmp_path / "gguf-F32"), "onnx:fp32": str(tmp_path / "onnx-fp32"),
        "gguf:F32 c": str(tmp_path / "apps" / "gguf-F32-c"), "onnx:fp32 web": str(tmp_path / "apps" / "onnx-fp32-web")}
    assert "web: needs transformers.js" in told
    assert (tmp_path / "apps" / "gguf-F32-c" / "prompt.h").is_file()
    assert (tmp_path / "apps" / "onnx-fp32-web" / "model" / "onnx" / "model.onnx").is_file()


def test_an_app_that_fits_no_target_is_refused_before_anything_is_made(run: Run, tiny_llama: Path,
                                                                       tmp_path: Path) -> None:
    code, _, told = run("export", tiny_llama, "--to", "gguf:F32", "--app", "web", "-o", tmp_path)
    assert code == 2 and "--app web: runs no generators in gguf:F32" in told
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("model_type", "target", "message"), [
    ("roberta", "onnx:fp32", "Unigram after Metaspace is not known"), ("llama", "gguf:F32", "date of the day")])
def test_what_an_app_cannot_run_is_refused_before_anything_is_made(model_type: str, target: str, message: str, run: Run,
                                                                   tmp_path: Path) -> None:
    make = tiny.decoder if model_type == "llama" else tiny.classifier
    source = make(tmp_path / "hf", model_type)
    if model_type == "llama":
        (source / "chat_template.jinja").write_text("{{ strftime_now('%d') }}{{ messages[0]['content'] }}")
    code, _, told = run("export", source, "--to", target, "--app", "c", "-o", tmp_path / "out")
    assert code and message in told and not (tmp_path / "out").exists()


def test_a_packed_artifact_gets_an_app_and_other_models_do_not(run: Run, artifacts: dict[tuple[str, str], Path],
                                                               tiny_llama: Path, tmp_path: Path) -> None:
    source, folder = artifacts["generate", "gguf"], tmp_path / "out" / "apps" / "gguf-F16-c"
    code, shown, _ = run("export", source, "--app", "c", "-o", tmp_path / "out")
    assert code == 0 and str(folder) in shown and (folder / "generate.cpp").is_file()
    for other in (tiny_llama, source / "model.gguf"):
        code, _, told = run("export", other, "--app", "c", "-o", tmp_path / "none")
        assert code == 2 and "an app runs a packed artifact, and this is none" in told
        assert not (tmp_path / "none").exists()


def test_the_prompt_header_holds_what_the_template_writes(artifacts: dict[tuple[str, str], Path]) -> None:
    artifact = open_artifact(artifacts["generate", "gguf"])
    task = replace(artifact.manifest.task, system='Say "ja"?\\')
    header = _prompt.header(artifact, Codec.from_folder(artifact.folder, task))
    assert r'PROMPT_BEFORE[] = "<|system|>Say \"ja\"\?\\<|end|><|user|>";' in header
    assert 'PROMPT_AFTER[] = "<|end|><|assistant|>";' in header
    assert "constexpr bool TRIMS = false;" in header and "STOP_IDS[] = {0};" in header


def templated(codec: Codec, source: str) -> Codec:
    return Codec(codec.tokenizer, ChatTemplate({"default": source}, {}), eos_id=codec.eos_id)


def test_templates_that_text_around_a_prompt_cannot_say_are_refused(tiny_llama: Path) -> None:
    codec = Codec.from_folder(tiny_llama)
    assert _prompt.around(templated(codec, "<u>{{ messages[0]['content'] | trim }}</u>")) == ("<u>", "</u>", True)
    for source, match in (("{{ strftime_now('%d') }}{{ messages[0]['content'] }}", "date of the day"),
                          ("{{ messages[0]['content'] | upper }}", "changes the prompts"),
                          ("{{ messages[0]['content'] | length }}", "changes the prompts")):
        with pytest.raises(DataError, match=match):
            _prompt.around(templated(codec, source))


@pytest.mark.parametrize("text", ["", 'a"b\\c', "ünï\n\t\x01", "what??!", "1\x0012"])
def test_literals_say_the_text(text: str) -> None:
    literal = _literals.text(text)
    assert literal.isascii() and "\n" not in literal
    read = ast.literal_eval("b" + literal.replace("\\?", "?"))  # octal escapes are Python's, too
    assert read == text.encode()
