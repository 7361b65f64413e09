"""What a device installs runs on aarch64, and its answers are those of this machine."""

from __future__ import annotations

import itertools
import json
import shutil
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest
from edgestill.models.demo import grammar
from edgestill.runtime import load

from ..tiny import SENTENCES
from . import emulated
from .emulated import BIN, PROCESSORS

pytestmark = pytest.mark.timeout(1800)
QUESTIONS = [row["prompt"] for row in itertools.islice(grammar.rows("test", 10), 10)]
FEW = 3
"""Questions where the emulator is slow: it works through what a real core has one instruction for."""
FACTS = """
import ctypes, json, platform, sys
import edgestill
library = ctypes.CDLL(None)
library.getauxval.restype = ctypes.c_ulong
first, second = (library.getauxval(ctypes.c_ulong(kind)) for kind in (16, 26))  # AT_HWCAP, AT_HWCAP2
features = {"dot products": first >> 20, "sve": first >> 22, "i8mm": second >> 13, "bf16": second >> 14,
            "sme": second >> 23}
print(json.dumps({"machine": platform.machine(), "from": edgestill.__file__, "prefix": sys.prefix,
                  "features": [name for name, bits in features.items() if bits & 1]}))
"""
ANSWERS = """
import json, sys
from edgestill.runtime import load
job = json.loads(sys.argv[1])
with load(job["folder"], threads=1) as model:
    print(json.dumps([model.generate(question).ids for question in job["questions"]]))
"""


def ids(folder: Path, questions: list[str]) -> list[list[int]]:
    """This machine's greedy answers."""
    with load(folder, threads=1) as model:
        return [model.generate(question).ids for question in questions]


@pytest.mark.parametrize("processor", PROCESSORS)
def test_the_machine_is_what_it_should_be(processor: str) -> None:
    found = json.loads(emulated.output(processor, "python", "-", script=FACTS))
    assert found["machine"] == "aarch64" and frozenset(found["features"]) == PROCESSORS[processor].features
    assert Path(found["prefix"]) == BIN.parent and BIN.parent in Path(found["from"]).parents


def test_what_a_device_installs_comes_from_wheels_alone(installed: str) -> None:
    assert "Successfully installed" in installed and "edgestill-" in installed
    assert "No broken requirements found" in emulated.output("Pi 5", "pip", "check")
    tags = {}
    for path in BIN.parent.glob("lib/python3*/site-packages/*.dist-info/WHEEL"):
        tags[path.parent.name.split("-")[0]] = Parser().parsestr(path.read_text()).get_all("Tag", [])
    assert {"edgestill", "numpy", "onnxruntime", "tokenizers"} <= set(tags) and "torch" not in tags
    assert all(tag.endswith(("aarch64", "-any")) for found in tags.values() for tag in found), tags
    assert tags["edgestill"] == ["py3-none-any"] and tags["onnxruntime"][0].endswith("aarch64")


@pytest.mark.parametrize("target", ["onnx:fp32", "onnx:int4", "onnx:int8"])
@pytest.mark.parametrize("processor", PROCESSORS)
def test_a_trained_model_answers_with_the_same_tokens(processor: str, target: str, demo: dict[str, Path]) -> None:
    questions = QUESTIONS if processor == "Pi 5" else QUESTIONS[:FEW]
    job = {"folder": str(demo[target]), "questions": questions}
    found = json.loads(emulated.output(processor, "python", "-c", ANSWERS, json.dumps(job)))
    assert found == ids(demo[target], questions) and all(len(answer) > 5 for answer in found)


def test_the_command_line_answers_alike(demo: dict[str, Path]) -> None:
    folder = demo["onnx:int4"]
    words = ("generate", folder, QUESTIONS[0], "--threads", "1", "--json")
    found = json.loads(emulated.output("Pi 5", "edgestill", *words))
    with load(folder, threads=1) as model:
        expected = model.generate(QUESTIONS[0])
    assert (found["ids"], found["text"], found["finish_reason"]) == (expected.ids, expected.text, "stop")


def test_an_artifact_is_proven_again(demo: dict[str, Path]) -> None:
    done = emulated.output("Pi 5", "edgestill", "verify", demo["onnx:int4"], "--threads", "1", "--json")
    (certificate,) = json.loads(done).values()
    checks = {check["name"]: check for check in certificate["checks"]}
    assert certificate["passed"] and {"kl_nats", "token_ids", "stop_ids", "template"} <= set(checks)
    assert checks["kl_nats"]["n"] > 1000


@pytest.mark.parametrize("processor", PROCESSORS)
def test_a_classifier_gives_the_same_labels(processor: str, classifier: dict[str, Path]) -> None:
    """int8 is compared with float32: x86 without VNNI adds pairs of its products in 16 bits, and is the less exact."""
    texts = SENTENCES[:4]
    with load(classifier["onnx:fp32"], threads=1) as model:
        expected = model.classify_all(texts)
    for target, far in (("onnx:fp32", 1e-4), ("onnx:int8", 0.02)):
        found: list[dict[str, Any]] = json.loads(emulated.output(
            processor, "edgestill", "classify", classifier[target], *texts, "--top", "3", "--threads", "1", "--json"))
        for item, wanted in zip(found, expected, strict=True):
            assert item["label"] == wanted.label
            given = {one["label"]: one["probability"] for one in item["top"]}
            assert given == pytest.approx(wanted.probabilities, abs=far)


def test_a_changed_weight_is_refused(demo: dict[str, Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(demo["onnx:int4"], broken)
    (weights,) = broken.rglob("*.onnx_data")
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    done = emulated.run("Pi 5", "edgestill", "generate", broken, QUESTIONS[0])
    assert done.returncode == 1 and done.stdout == ""
    assert weights.name in done.stderr and "Traceback" not in done.stderr
    assert emulated.run("Pi 5", "edgestill", "verify", broken).returncode == 3


@pytest.mark.parametrize(("processor", "name"), [
    ("Pi 4", "Raspberry Pi 4 Model B Rev 1.1 (Cortex-A72)"), ("Pi 5", "Raspberry Pi 5 Model B Rev 1.0 (Cortex-A76)")])
def test_doctor_knows_the_machine(processor: str, name: str) -> None:
    found = json.loads(emulated.output(processor, "edgestill", "doctor", "--json"))
    assert found["machine"]["processor"] == name and "aarch64" in found["machine"]["system"]
    assert all(version for extra in ("base", "cli", "onnx") for version in found["packages"][extra].values())
    assert not any(found["packages"]["train"].values())


def test_a_profile_is_of_this_machine(classifier: dict[str, Path]) -> None:
    found = json.loads(emulated.output("Pi 5", "edgestill", "profile", classifier["onnx:int8"], "--repeats", "1",
                                       "--warmup", "0", "--threads", "1", "--json"))
    assert found["machine"]["machine"] == "aarch64" and found["machine"]["cpu"].startswith("Raspberry Pi 5")
    assert found["latency_ms"]["p50"] > 0 and "torch" not in found["machine"]["versions"]
