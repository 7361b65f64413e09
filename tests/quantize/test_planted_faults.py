"""Faults planted in our own files and in files made elsewhere: each is caught, and its cause is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from edgestill.models import kinds
from edgestill.models.scheme import Scheme
from edgestill.quantize import export, verify
from edgestill.quantize.gguf.tokenizer import write as gguf_tokenizer
from edgestill.quantize.gguf.tokenizer.write import Vocabulary
from edgestill.quantize.proof import foreign_file
from edgestill.quantize.proof.certificate import Certificate, Check
from edgestill.quantize.proof.float_answers import Witness
from edgestill.runtime.files import gguf_header
from edgestill.runtime.loading.foreign import open_model

from .. import packed, proving, tiny

TARGETS = {"gguf": "gguf:F32", "onnx": "onnx:fp32"}


def two_digits(table: dict[str, Any], split: bool) -> None:
    """Give tokenizer.json a token for the digits 12, and let it split digits apart before, or not."""
    vocabulary, model = table["model"]["vocab"], table["model"]
    if "12" not in vocabulary:
        last = max(vocabulary, key=vocabulary.__getitem__)
        vocabulary["12"] = vocabulary.pop(last)
        model["merges"][-1] = ["1", "2"]
    steps = [step for step in table["pre_tokenizer"]["pretokenizers"] if step["type"] != "Digits"]
    table["pre_tokenizer"]["pretokenizers"] = [{"type": "Digits", "individual_digits": True}] * split + steps


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Queries and keys of one shape, two tokens that end a turn, a token of two digits, and a template that begins
    with the token that begins a text."""
    folder = tiny.decoder(tmp_path_factory.mktemp("sources") / "llama", "llama", num_key_value_heads=4)
    proving.edit_json(folder / "generation_config.json", lambda table: table.update(eos_token_id=[0, 3]))
    proving.edit_json(folder / "tokenizer.json", lambda table: two_digits(table, split=False))
    proving.edit_json(folder / "tokenizer_config.json", lambda table: table.update(bos_token="<|system|>"))
    (folder / "chat_template.jinja").write_text("{{ bos_token }}" + tiny.TEMPLATE)
    return folder


@pytest.fixture(scope="module")
def sound(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Our artifact of each format."""
    made = export(llama, list(TARGETS.values()), tmp_path_factory.mktemp("sound"), (), proving.TEST_ROWS)
    return {target.partition(":")[0]: folder for target, folder in made.items()}


@pytest.fixture(scope="module")
def reference(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the float model says, as the limited process gets it."""
    folder = tmp_path_factory.mktemp("reference")
    foreign_file.witness(llama, proving.TEST_ROWS).reference.write(folder)
    return folder


def wrong_template(folder: Path) -> None:
    changed = tiny.TEMPLATE.replace("<|end|>", "<|end|>\n")
    (folder / "chat_template.jinja").write_text(changed)
    proving.edit_json(folder / "tokenizer_config.json", lambda table: table.update(chat_template=changed))


def wrong_pre_tokenizer(folder: Path) -> None:
    proving.edit_json(folder / "tokenizer.json", lambda table: two_digits(table, split=True))


def other_tokenizer(folder: Path) -> None:
    def exchange(table: dict[str, Any]) -> None:
        vocabulary = table["model"]["vocab"]
        vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    proving.edit_json(folder / "tokenizer.json", exchange)


def missing_stop_id(folder: Path) -> None:
    proving.edit_json(folder / "generation_config.json", lambda table: table.update(eos_token_id=0))


def word_that_stops(folder: Path) -> None:
    """Answers would end at their first blank."""
    blank = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]["Ġ"]
    proving.edit_json(folder / "generation_config.json", lambda table: table.update(eos_token_id=[0, 3, blank]))


def exchanged_queries_and_keys(folder: Path) -> None:
    proving.exchange_queries_and_keys(folder)


def wrong_name_of_the_pre_tokenizer(vocabulary: Vocabulary) -> Vocabulary:
    return replace(vocabulary, rules=replace(vocabulary.rules, pre="smollm"))


def two_begins(vocabulary: Vocabulary) -> Vocabulary:
    return replace(vocabulary, add_bos=True)


def another_begin(vocabulary: Vocabulary) -> Vocabulary:
    """The template prints it, and no text shows it."""
    return replace(vocabulary, ids=vocabulary.ids | {"bos": vocabulary.ids["bos"] + 1})


def exchanged_rare_tokens(vocabulary: Vocabulary) -> Vocabulary:
    """Of two that no text of the corpus is made of: the last ones that are no marks."""
    tokens, plain = list(vocabulary.tokens), [index for index, kind in enumerate(vocabulary.types)
                                              if kind == gguf_tokenizer.NORMAL]
    tokens[plain[-1]], tokens[plain[-2]] = tokens[plain[-2]], tokens[plain[-1]]
    return replace(vocabulary, tokens=tokens)


def exchanged_merges(vocabulary: Vocabulary) -> Vocabulary:
    merges = list(vocabulary.rules.merges)
    merges[-1], merges[-2] = merges[-2], merges[-1]
    return replace(vocabulary, rules=replace(vocabulary.rules, merges=merges))


def permuted_vocabulary(vocabulary: Vocabulary) -> Vocabulary:
    plain = [index for index, kind in enumerate(vocabulary.types) if kind == gguf_tokenizer.NORMAL]
    tokens = list(vocabulary.tokens)
    for index, other in zip(plain, reversed(plain), strict=True):
        tokens[index] = vocabulary.tokens[other]
    return replace(vocabulary, tokens=tokens)


@dataclass(frozen=True)
class Fault:
    """What is changed in the Hugging Face folder before it is packed, and what the certificate must say of it."""

    plant: Callable[[Any], Any]
    cause: str
    inside: bool = False
    """It changes the vocabulary that is written into a GGUF file, and nothing beside the file."""


FAULTS = [
    Fault(wrong_template, "template"), Fault(wrong_pre_tokenizer, "tokenizer"), Fault(other_tokenizer, "tokenizer"),
    Fault(missing_stop_id, "stop ids"), Fault(word_that_stops, "stop ids"),
    Fault(exchanged_queries_and_keys, "weights"),
    Fault(wrong_name_of_the_pre_tokenizer, "tokenizer", inside=True), Fault(two_begins, "tokenizer", inside=True),
    Fault(permuted_vocabulary, "tokenizer", inside=True), Fault(another_begin, "template", inside=True),
    Fault(exchanged_rare_tokens, "tokenizer", inside=True), Fault(exchanged_merges, "tokenizer", inside=True),
]
CASES = [pytest.param(fault, format, id=f"{fault.plant.__name__}-{format}") for fault in FAULTS for format in TARGETS
         if format == "gguf" or not fault.inside]


def faulty(fault: Fault, format: str, llama: Path, sound: Path, folder: Path) -> Path:
    """An artifact folder without a manifest whose model and files beside it were made from a faulty source."""
    source = shutil.copytree(llama, folder.with_name("source"))
    if not fault.inside:
        fault.plant(source)
    proof = shutil.ignore_patterns("manifest.json", "certificate.json")
    shutil.copytree(sound, folder, ignore=proof)
    if format == "gguf" or fault.cause == "weights":  # a graph knows nothing of the tokenizer
        scheme = Scheme.parse(TARGETS[format])
        read = gguf_tokenizer.read

        def written(*given: Any) -> Vocabulary:
            return fault.plant(read(*given)) if fault.inside else read(*given)
        with mock.patch.object(gguf_tokenizer, "read", written):
            kinds.load("quantize.formats", format).write(source, folder, scheme, None, None)
    for name in packed.BESIDE:
        if name != "config.json":
            shutil.copyfile(source / name, folder / name)
    if format == "onnx":  # as onnxruntime-genai's builder does
        ends = json.loads((source / "generation_config.json").read_text())["eos_token_id"]
        proving.edit_json(folder / "genai_config.json", lambda table: table["model"].update(eos_token_id=ends))
    return folder


def judge(path: Path, llama: Path, reference: Path) -> Certificate:
    """What the limited process finds, in this one."""
    rows = [asdict(row) for row in proving.TEST_ROWS]
    job = {"reference": str(reference), "folder": str(llama), "rows": json.loads(json.dumps(rows)), "threads": 1,
           "task": asdict(foreign_file.Source.open(llama).task)}
    found = [item["check"] for item in foreign_file.checks_of(open_model(path), job) if "check" in item]
    return Certificate("foreign", tuple(Check(**check) for check in found))


def bare(folder: Path, format: str) -> Path:
    """The file or folder as a stranger hands it over."""
    if format == "gguf":
        return Path(shutil.copy(folder / "model.gguf", folder.with_name("bare.gguf")))
    for name in ("reference.npz", "fixtures.json", "certificate.json", "manifest.json", "README.md"):
        (folder / name).unlink(missing_ok=True)
    return folder


@pytest.mark.parametrize(("fault", "format"), CASES)
def test_a_fault_is_caught_in_our_file_and_in_a_foreign_one(
        fault: Fault, format: str, llama: Path, sound: dict[str, Path], reference: Path, tmp_path: Path) -> None:
    folder = faulty(fault, format, llama, sound[format], tmp_path / "faulty")

    def replaced(target: Path) -> None:
        shutil.copytree(folder, target, dirs_exist_ok=True)
    ours = verify(proving.damaged(sound[format], tmp_path / "ours", replaced), proving.TEST_ROWS)
    assert ours.causes[:1] == (fault.cause,), ours.failed
    foreign = judge(bare(folder, format), llama, reference)
    assert foreign.causes[:1] == (fault.cause,), foreign.failed


@pytest.mark.parametrize("format", TARGETS)
def test_sound_foreign_files_raise_nothing(format: str, llama: Path, sound: dict[str, Path], reference: Path,
                                           tmp_path: Path) -> None:
    folder = shutil.copytree(sound[format], tmp_path / "sound")
    proven = judge(bare(folder, format), llama, reference)
    proven.require()
    run = {check.name for check in proven.checks if check.passed}
    assert run >= {"opens", "token_ids", "template", "stop_ids", "kl_nats", "cache_kl_nats"}
    assert ("token_ids_in_file" in run) == ("template_in_file" in run) == (format == "gguf")
    assert ({"metadata", "tensor_scale"} <= run) == (format == "gguf")


def flip(path: Path, at: int, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= bit
    path.write_bytes(data)


@pytest.mark.parametrize("format", TARGETS)
def test_a_flipped_byte_of_a_weight_is_named(format: str, llama: Path, sound: dict[str, Path], reference: Path,
                                             tmp_path: Path) -> None:
    """Nothing but the float model can tell: neither format has a checksum, so both files load."""
    folder = shutil.copytree(sound[format], tmp_path / "flipped")
    if format == "gguf":
        path = folder / "model.gguf"
        norm = next(t for t in gguf_header.read(path).tensors if t.name == "output_norm.weight")
        flip(path, norm.offset + 3, 0x04)  # 1.0 becomes 0.004
    else:
        path = next(folder.rglob("*.onnx_data"))
        flip(path, path.stat().st_size // 8 * 4 + 3, 0x40)  # a small weight becomes a huge one
    ours = verify(folder)
    assert ours.causes == ("files",) and path.name in ours.failed[0].name
    foreign = judge(bare(folder, format), llama, reference)
    assert foreign.causes == ("weights",), foreign.failed


def test_the_whole_proof_of_a_file_by_anyone(llama: Path, sound: dict[str, Path], tmp_path: Path) -> None:
    """With the limited process, and once more with a model that is shared between files."""
    shutil.copy(sound["gguf"] / "model.gguf", tmp_path / "sound.gguf")
    known = foreign_file.witness(llama, proving.TEST_ROWS)
    assert isinstance(known, Witness)
    proven = verify(tmp_path / "sound.gguf", proving.TEST_ROWS, threads=1, against=known)
    proven.require()
    assert proven.origin == "origin unverified" and "llama-cpp-python" in proven.ran_with
    loss = next(check for check in proven.checks if check.name == "task_metric_drop")
    assert loss.passed is None, "four rows show nothing of a loss"
    assert verify(sound["onnx"], against=known).passed  # ours, asked anew
