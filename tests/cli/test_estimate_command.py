"""`edgestill estimate`: what a user sees of a model on a device, and the file of the machine at hand."""

import json

import pytest
from edgestill.cli import main
from edgestill.models import device
from edgestill.models.device import Kernel, Rates
from edgestill.runtime.profiling import machine_rates
from edgestill.runtime.profiling.machine_rates import MachineRates

RATES = Rates({"Q4_0": Kernel(4e9, 5e10), "Q8_0": Kernel(8e9, 4e10)}, 1e-5, 1e-4, 1e9, 1e10)


@pytest.fixture
def measured(monkeypatch):
    asked = []

    def rates(threads, seconds):
        asked.append((threads, seconds))
        return MachineRates(threads, 9e9, {"1": 9e9}, {"gguf": RATES})

    monkeypatch.setattr(machine_rates, "measure_rates", rates)
    return asked


def test_a_catalogue_model_is_told_file_by_file(tmp_path, capsys):
    out = tmp_path / "estimate.json"
    assert main.call(["estimate", "smollm2-135m", "--device", "pi5", "--context", "1024", "-o", str(out)]) == 0
    text, notes = capsys.readouterr()
    assert "91.7 MB" in text and "onnx:int8" in text and "yes" in text
    assert "Raspberry Pi 5, 8 GB; context 1024" in notes
    table = json.loads(out.read_text())
    assert table["device"] == "Raspberry Pi 5, 8 GB" and len(table["files"]) == 8
    assert table["files"][0]["decode_tokens_per_s"][0] > 50


def test_memory_and_targets_are_the_users(capsys):
    assert main.call(["estimate", "qwen2.5-1.5b", "--device", "pi4", "--memory", "1", "--target", "gguf:q8_0",
                      "--target", "onnx:int4", "--kv", "q8_0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["files"]
    assert [(each["target"], each["fits"]) for each in found] == [("gguf:Q8_0", False), ("onnx:int4", False)]
    assert found[0]["prefill_tokens_per_s"] is None, "nobody published it"


def test_this_machine_is_measured_and_kept(tmp_path, capsys, measured):
    path = tmp_path / "board.toml"
    assert main.call(["estimate", "--calibrate", "--threads", "3", "-o", str(path)]) == 0
    assert capsys.readouterr().out.strip() == str(path) and measured == [(3, 20.0)]
    kept = device.device(str(path))
    assert kept.engines == {"gguf": RATES} and kept.threads == 3 and kept.read_bytes_per_s.low == 9e9
    assert kept.memory_bytes.basis == "measured"
    assert main.call(["estimate", "smollm2-135m", "--device", str(path), "--target", "gguf:Q4_0", "--json"]) == 0
    read = json.loads(capsys.readouterr().out)["files"]
    assert main.call(["estimate", "smollm2-135m", "--device", "here", "--threads", "3", "--target", "gguf:Q4_0",
                      "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"] == read, "here is the same, measured on use"


def test_devices_are_listed(capsys):
    assert main.call(["estimate", "--devices", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == device.names()
    assert main.call(["estimate", "--devices"]) == 0
    assert "Intel N100, 16 GB" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "message"), [
    ([], "one of MODEL, --devices and --calibrate"),
    (["smollm2-135m", "--calibrate"], "one of MODEL, --devices and --calibrate"),
    (["smollm2-135m"], "--device is missing"),
    (["minilm-l6", "--device", "pi5"], "minilm-l6: no decoder"),
    (["--calibrate", "-o", "board.json"], "does not end in .toml"),
    (["smollm2-135m", "--device", "pi5", "--kv", "q9"], "a cache of type 'q9'"),
])
def test_what_cannot_be_told_is_refused(arguments, message, capsys):
    assert main.call(["estimate", *arguments]) == 2
    assert message in capsys.readouterr().err
