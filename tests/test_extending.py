"""The examples of docs/extending.md, each put in its place in a copy of the package and run there."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from . import log_records
from .decoders import IDS, make
from .onnx_models import LIMIT, distance
from .test_house import ROOMS
from .wheels import ROOT

COPY = "edgestill_extended"
"""The copy's own name: whatever is imported relatively is then the copy's."""
PAGE = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"^```\w+\n# ((?:\w+/)+[\w.-]+)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL))
Load = Callable[[str], ModuleType]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Load]:
    """Imports a module of a copy of the package that has all examples in it."""
    place = tmp_path_factory.mktemp("extended")
    for room in ROOMS:
        shutil.copytree(ROOT / room, place / COPY / room, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    shutil.copyfile(ROOT / "__init__.py", place / COPY / "__init__.py")
    for name, text in EXAMPLES.items():
        file = place / COPY / name
        assert not file.exists(), name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(place)
        patch.setenv("PYTHONPATH", str(place))  # for the processes that the copy starts
        yield lambda name: importlib.import_module(f"{COPY}.{name}")
    for name in [name for name in sys.modules if name.partition(".")[0] == COPY]:
        del sys.modules[name]


def test_every_example_is_tested() -> None:
    assert len(EXAMPLES) == 14 and PAGE.count("```python\n# ") + PAGE.count("```toml\n# ") == 14


def test_every_run_file_of_the_page_names_what_is_there(load: Load, tmp_path: Path) -> None:
    runfile, found = load("models.runfile"), re.findall(r"^```toml\n(\[.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert len(found) == 6
    for text in found:
        (tmp_path / "run.toml").write_text(text, encoding="utf-8")
        run = runfile.read(tmp_path / "run.toml")
        load("distill.training.weighted_losses").read_losses(run.distill.losses)
        load("distill.prepare").cuts_of(run.student)
        load("distill.training.training_log").watchers_of(run.tune.watchers, "tune.watchers")
        load("cli.pipeline.gates").check(run)
        for export in run.export:
            runfile.kind_config(runfile.METHODS, export.method, "export.method")
            load("quantize.proof.other_programs").check_names(export.clients)


def test_a_loss(load: Load) -> None:
    import torch

    losses, signal = load("distill.training.weighted_losses"), load("distill.signals").Signal
    terms = losses.read_losses([{"kind": "total_variation", "temperature": 0.5, "weight": 0.7}])
    student, teacher = torch.tensor([[0.0, 0.0], [50.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 50.0]])
    built = losses.WeightedLosses(terms, torch.nn.Linear(1, 1), SimpleNamespace(provides={"logits"}))
    found = built(signal(student), signal(teacher), torch.tensor([0, 1]))
    assert found.tolist() == pytest.approx([0.0, 0.7])


def test_a_watcher(load: Load, tmp_path: Path) -> None:
    metrics = load("distill.training.training_log").Metrics
    for first, steps in ((0, (1, 2, 3)), (2, (3,))):  # the third step of the first attempt is lost
        written = metrics(tmp_path, first, True, [{"kind": "csv_lines"}])
        for step in steps:
            written.write(step, loss=step + first)
            written.write(step, validation_loss=1.0)
        written.sync()
        written.close()
    assert (tmp_path / "csv_lines" / "loss.csv").read_text() == "1,1\n2,2\n3,5\n"


def test_a_teacher(load: Load, tiny_llama: Path) -> None:
    teacher = load("models.kinds").load("distill.teachers", "pinned")
    digest = load("distill.sources").weights_digest(tiny_llama)
    named = teacher.Config("llama", digest), tiny_llama.parent
    assert teacher.source(*named).folder == tiny_llama and teacher.key(*named) == digest
    opened = teacher.open(*named, "cpu")
    assert "logits" in opened.provides and [parent["sha256"] for parent in opened.parents] == [digest]
    with pytest.raises(load("models.errors").UsageError, match="teacher.sha256: 'other', and llama has"):
        teacher.source(teacher.Config("llama", "other"), tiny_llama.parent)


def test_a_cut(load: Load, tiny_llama: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "on", "completion": "off"}')
    run = load("models.runfile").RunFile(
        data=load("models.runfile").Data(train="rows.jsonl", validation_share=0.0, test_share=0.0),
        student=load("models.runfile").Student(str(tiny_llama), cuts=[{"kind": "every", "step": 2}]))
    assert load("distill").plan_student(run, tmp_path / "out", tmp_path)[1]["layers"] == [0, 2]


def test_an_adapter(load: Load, tiny_bert: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    adapter = load("models.kinds").load("distill.adapters", "small_tensors")
    model, merge = adapter.attach(AutoModelForSequenceClassification.from_pretrained(tiny_bert), adapter.Config(),
                                  "classify", 0)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert "classifier.weight" in trained and "bert.encoder.layer.0.output.dense.bias" in trained
    assert "bert.encoder.layer.0.output.dense.weight" not in trained and merge() is model


def test_a_metric(load: Load) -> None:
    row = load("runtime.data.shapes").Row
    rows = [row(({"role": "assistant", "content": text},)) for text in ("on now", "off", "on")]
    found = load("runtime.evaluation.evaluate").evaluate_answers(["on", "on", " on the"], rows, ["first_word"])
    assert found.metrics["first_word"].value == pytest.approx(2 / 3)


def test_a_quantization_method(load: Load) -> None:
    weight = np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32)
    encoder = load("quantize.grid.encode").encoder
    clipped, nearest = (encoder(method, None)("layer", weight) for method in (
        {"kind": "clipped", "share": 0.9}, {"kind": "rtn"}))
    assert clipped.scales == pytest.approx(nearest.scales * 0.9, rel=2e-3)
    assert (encoder({"kind": "clipped", "share": 1.0}, None)("layer", weight).values == nearest.values).all()


def test_a_format(load: Load, tiny_llama: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    writer = load("models.kinds").load("quantize.formats", "safetensors")
    written = load_file(tmp_path / writer.write(tiny_llama, tmp_path, "safetensors:F16", None, None))
    floats = load_file(tiny_llama / "model.safetensors")
    assert written.keys() == floats.keys() and all(
        (written[name] == floats[name].astype(np.float16)).all() for name in floats)


def test_a_target_of_llama_cpp(load: Load, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scheme, quantizer = load("models.scheme"), load("quantize.gguf.llama_quantizer")
    monkeypatch.setitem(scheme.TYPES, "gguf", (*scheme.TYPES["gguf"], "Q3_K_M"))
    monkeypatch.setattr(quantizer, "MIXTURES", (*quantizer.MIXTURES, "Q3_K_M"))
    encode = load("quantize.grid.encode").encoder({"kind": "rtn"}, None)
    target = scheme.Scheme.parse("gguf:Q3_K_M")
    file = tmp_path / load("quantize.gguf.write").write(tiny_llama, tmp_path, target, encode, None)
    assert file.stat().st_size < (tiny_llama / "model.safetensors").stat().st_size


def test_a_family(load: Load, tmp_path: Path) -> None:
    source, wanted = make(tmp_path / "source", "arcee", {})
    file = load("quantize.gguf.write").write(source, tmp_path, load("models.scheme").Scheme("gguf", "F32"), None, None)
    context = load("runtime.engines._gguf_context").GgufContext(tmp_path / file, 1, 0, "f32")
    engine = load("runtime.engines._gguf_engine").GgufEngine(context)
    assert distance(engine.logits(IDS), wanted) < LIMIT


def test_a_kind_of_log(load: Load, tmp_path: Path) -> None:
    record = {"asked": log_records.asks(), "answered": log_records.says(), "code": 200, "price": 0.002}
    path = log_records.write(tmp_path / "calls.jsonl", [record, record | {"code": 503}])
    log = load("runtime.data.calls.log").read_logs([path])
    assert [call.row.answer for call in log.calls] == ['{"do": "dim"}'] and log.cost == 0.004
    assert list(log.left_out) == ["failed call (HTTP 503)"] and dict(log.kinds) == {"gateway": 2}


def test_a_catalogue_entry(load: Load) -> None:
    entry = load("models.catalogue").entry("smollm-135m")
    assert entry.task in load("models.family").load(entry.family).tasks


def test_an_app(load: Load, packed_llama: dict[str, Path], tmp_path: Path) -> None:
    app = load("quantize.apps").write(load("models.artifact").open_artifact(packed_llama["gguf"]), "script", tmp_path)
    done = subprocess.run([sys.executable, app / "answer.py", "turn off the light"], capture_output=True, text=True)
    own = load("runtime.loading.load").load(packed_llama["gguf"]).generate("turn off the light", max_new_tokens=64)
    # A model of random weights writes bytes that are no text, which that package leaves out.
    assert (done.returncode, done.stdout) == (0, own.text.replace("\N{REPLACEMENT CHARACTER}", "") + "\n")


def test_a_client(load: Load, packed_llama: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    client = load("models.kinds").load("quantize.proof.clients", "transformers_gguf")
    process = load("runtime.files.limited_process")
    # Here and now: in a process of its own it would import torch again.
    monkeypatch.setattr(process, "run", lambda module, job, *limits: process.Outcome([*client._work(job)]))
    artifact = load("models.artifact").open_artifact(packed_llama["gguf"])
    chat = [{"role": "user", "content": "turn off the light"}]
    said = client.answers(artifact, [chat], 4)
    own: Any = load("runtime.loading.load").load(packed_llama["gguf"])
    assert client.version() and said.failure == ""
    assert said.chats == [{"text": own.codec.render(chat), "prompt": own.codec.prompt_ids(chat),
                           "ids": own.generate(messages=chat, max_new_tokens=4).ids}]
