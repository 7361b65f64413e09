"""Other people's programs held to our tokens: sound folders pass, and what is wrong for one of them is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from edgestill.cli import main
from edgestill.models import kinds
from edgestill.models.artifact import Artifact, open_artifact
from edgestill.models.errors import UsageError
from edgestill.models.runfile import Export
from edgestill.models.scheme import TYPES
from edgestill.quantize import export, verify
from edgestill.quantize.proof import certificate, other_programs
from edgestill.quantize.proof.certificate import Check
from edgestill.quantize.proof.clients import (
    Said,
    llama_cpp_python,
    node_llama_cpp,
    onnxruntime_genai,
    transformers_js,
)
from edgestill.runtime import load
from edgestill.runtime.data import learned_tokens

from .. import proving, tiny

OURS = {"onnx:int4": onnxruntime_genai, "gguf:Q8_0": llama_cpp_python}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tiny.decoder(tmp_path_factory.mktemp("sources") / "llama", "llama", num_key_value_heads=4)
    proving.edit_json(folder / "generation_config.json", lambda table: table.update(eos_token_id=[0, 3]))
    targets = [Export(target, clients=["all"]) for target in OURS]
    return export(folder, targets, tmp_path_factory.mktemp("sound"), proving.ROWS, proving.TEST_ROWS)


def row(folder: Path, client: Any, name: str = "all") -> Check:
    """What a client's check says of an artifact."""
    found = {check.name: check for check in verify(folder, proving.TEST_ROWS, clients=[name]).checks}
    return found[f"client {client.NAME}"]


@pytest.mark.parametrize("target", OURS)
def test_a_sound_folder_passes_and_its_certificate_and_card_say_so(sound: dict[str, Path], target: str) -> None:
    folder, client = sound[target], OURS[target]
    made = certificate.read(folder)
    (check,) = (each for each in made.checks if each.name == f"client {client.NAME}")
    assert check.passed and check.n > 0 and check.value == 0, check
    assert made.ran_with[client.NAME] == client.version() and str(client.version()) in check.detail
    assert f"client {client.NAME}" in (folder / "README.md").read_text() and client.NAME in made.ran_with
    assert open_artifact(folder).manifest.checks[check.name]["passed"] is True


def test_without_asking_no_client_is_run(sound: dict[str, Path]) -> None:
    assert not [check for check in verify(sound["onnx:int4"]).checks if check.name.startswith("client")]


def genai_ends_elsewhere(folder: Path) -> None:
    """Its configuration takes a token that answers hold for an end."""
    model = load(folder, threads=1, check_hashes=False)
    said = model.generate_ids(learned_tokens.prompt_ids(model.codec, proving.TEST_ROWS[0]), max_new_tokens=4).ids[2]
    model.close()
    proving.edit_json(folder / "genai_config.json", lambda table: table["model"]["eos_token_id"].append(int(said)))


def genai_reads_the_wrong_graph(folder: Path) -> None:
    """Layers that the configuration names in each other's place."""
    names = json.loads((folder / "genai_config.json").read_text())["model"]["decoder"]["inputs"]
    assert names["past_key_names"] != names["past_value_names"]
    names["past_key_names"], names["past_value_names"] = names["past_value_names"], names["past_key_names"]
    proving.edit_json(folder / "genai_config.json", lambda table: table["model"]["decoder"]["inputs"].update(names))


def genai_finds_no_graph(folder: Path) -> None:
    proving.edit_json(folder / "genai_config.json",
                      lambda table: table["model"]["decoder"].update(filename="model.onnx"))


def genai_has_another_template(folder: Path) -> None:
    proving.edit_json(folder / "tokenizer_config.json",
                      lambda table: table.update(chat_template=table["chat_template"].replace("<|end|>", "<|end|> ")))


@pytest.mark.parametrize(("fault", "cause", "said"), [
    (genai_ends_elsewhere, "stop ids", "it stops after"),
    (genai_reads_the_wrong_graph, "weights", "standard deviations below ours"),
    (genai_finds_no_graph, "files", "does not run it"), (genai_has_another_template, "template", "another text")])
def test_what_one_program_alone_has_wrong_is_named(
        sound: dict[str, Path], tmp_path: Path, fault: Callable[[Path], None], cause: str, said: str) -> None:
    found = row(proving.damaged(sound["onnx:int4"], tmp_path / "damaged", fault), onnxruntime_genai)
    assert found.passed is False and found.cause == cause and said in found.detail, found


CHAT = [{"role": "user", "content": "hello"}]


def judged(subject: Any, change: Callable[[list[int]], list[int]]) -> tuple[str, str, int]:
    """The verdict on our own answer after a change."""
    ids = subject.greedy(subject.prompts.prompt_ids(CHAT), other_programs.TOKENS)
    found = {"prompt": subject.prompts.prompt_ids(CHAT), "ids": change(ids)}
    return other_programs._differs(subject, CHAT, ids, found)


@pytest.mark.parametrize(("change", "cause"), [
    (lambda ids: ids, ""), (lambda ids: [*ids, 3][:other_programs.TOKENS + 1], ""),
    (lambda ids: [*ids, 3, 9], "stop ids"),
    (lambda ids: ids[:4], "stop ids"), (lambda ids: [*ids[:2], (ids[2] + 1) % 300, *ids[3:]], "weights")])
def test_an_answer_is_judged_by_where_it_leaves_ours(sound: dict[str, Path], change: Any, cause: str) -> None:
    from edgestill.quantize.proof import reference
    from edgestill.quantize.proof.packed_file import Subject

    folder = sound["onnx:int4"]
    with Subject(open_artifact(folder), reference.read(folder)) as subject:
        assert judged(subject, change)[0] == cause


def test_what_is_not_installed_is_listed_as_not_run(
        sound: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = row(sound["onnx:int4"], transformers_js)
    assert found.passed is None and found.detail.startswith("not installed: npm install @huggingface/transformers")
    assert node_llama_cpp.version() is None
    assert other_programs.versions(["all"], "onnx:int4").keys() == {"onnxruntime-genai"}


def test_npm_packages_are_those_of_the_working_folder_and_their_complaint_is_told(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sound: dict[str, Path]) -> None:
    if not shutil.which("node"):
        pytest.skip("no Node here")
    place = tmp_path / "node_modules" / "@huggingface" / "transformers"
    place.mkdir(parents=True)
    (place / "package.json").write_text('{"version": "9.9.9", "main": "index.mjs"}')
    (place / "index.mjs").write_text("throw new Error('out of order');")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert transformers_js.version() == "9.9.9"
    found = row(sound["onnx:int4"], transformers_js, "transformers_js")
    assert found.passed is False and found.detail == "9.9.9 does not run it: Error: out of order"


def test_a_classifier_has_no_text_to_compare(tmp_path: Path) -> None:
    folder = export(tiny.classifier(tmp_path / "bert", "bert"), [Export("onnx:int8", clients=["all"])], tmp_path,
                    proving.label_rows(tiny.SENTENCES[:9]), proving.label_rows(tiny.SENTENCES[9:12]))["onnx:int8"]
    (found, _) = (check for check in certificate.read(folder).checks if check.name.startswith("client"))
    assert found.passed is None and "by the text they generate" in found.detail


def test_unknown_clients_are_refused_before_any_work(sound: dict[str, Path], tmp_path: Path,
                                                     capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="client: 'onnxruntime_gena' is not known"):
        export(tmp_path, [Export("onnx:int4", clients=["onnxruntime_gena"])], tmp_path)
    assert main.call(["verify", str(sound["onnx:int4"]), "--client", "chrome"]) == 2
    assert "known: all, llama_cpp_python" in capsys.readouterr().err
    with pytest.raises(UsageError, match="--against asks the float model"):
        verify(sound["onnx:int4"], against=tmp_path, clients=["all"])


@pytest.mark.parametrize("name", kinds.names("quantize.proof.clients"))
def test_every_client_keeps_to_its_contract(name: str, sound: dict[str, Path], monkeypatch: pytest.MonkeyPatch,
                                            tmp_path: Path) -> None:
    client = kinds.load("quantize.proof.clients", name)
    assert client.FORMAT in TYPES and client.NAME and "install" in client.INSTALL
    assert isinstance(client.version(), str | None)
    folder = next(made for target, made in sound.items() if target.startswith(client.FORMAT))
    nothing = Artifact(tmp_path, replace(open_artifact(folder).manifest, files={}))
    monkeypatch.chdir(tmp_path)
    said = client.answers(nothing, [CHAT], 4)
    assert isinstance(said, Said) and not said.chats and said.failure
