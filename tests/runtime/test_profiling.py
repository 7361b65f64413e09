"""Profiles are measured: raw values, their summaries, processes of their own."""

from __future__ import annotations

import json
import os
import statistics
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from edgestill.models import kinds
from edgestill.models.errors import ArtifactError, EdgestillError, UsageError
from edgestill.runtime import load, profile
from edgestill.runtime.data.row import Row
from edgestill.runtime.profiling import jobs, machine, measure
from edgestill.runtime.text.codec import Codec

from ..tiny import SENTENCES

ROWS = [Row(messages=({"role": "user", "content": text},)) for text in SENTENCES[:6]]


@pytest.fixture(autouse=True)
def one_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each start is a process; one is enough here."""
    monkeypatch.setattr(measure, "_LOADS", 1)


@pytest.mark.parametrize("name", kinds.names("runtime.engines"))
def test_a_profile_sums_up_its_raw_values(name: str, packed_llama: dict[str, Path]) -> None:
    found = profile(packed_llama[name], prompt_tokens=20, new_tokens=6, warmup=1, repeats=3, threads=1)
    assert json.loads(json.dumps(asdict(found), allow_nan=False))["kind"] == "generate"
    runs = found.raw["runs"]
    assert len(runs) == 3 and all(len(run["token_ms"]) == 5 for run in runs)
    assert found.prefill_tokens_per_s == pytest.approx(statistics.median(20000 / run["prefill_ms"] for run in runs))
    assert found.decode_tokens_per_s == pytest.approx(statistics.median(5000 / sum(run["token_ms"]) for run in runs))
    assert found.token_ms is not None and found.ttft_ms is not None
    assert 0 < found.token_ms["p50"] <= found.token_ms["p90"] <= found.token_ms["p99"] <= found.token_ms["max"]
    assert found.token_ms["max"] == max(value for run in runs for value in run["token_ms"])
    assert 0 < found.load_ms < found.start_ms and len(found.raw["load_ms"]) == measure._LOADS
    assert (found.threads, found.context, found.prompt_tokens, found.new_tokens) == (1, 256, 20, 6)
    assert found.file_bytes == sum(path.stat().st_size for path in packed_llama[name].rglob("model*"))
    assert found.machine["versions"]["python"] and found.machine["cores_allowed"] >= 1 and found.machine["cpu"]


def test_the_memory_is_the_measured_process_alone(packed_llama: dict[str, Path]) -> None:
    import torch  # in this process, so that it would show if it were measured

    found = profile(packed_llama["gguf"], prompt_tokens=8, new_tokens=2, warmup=0, repeats=1, threads=1)
    assert torch.__version__ and 10e6 < found.peak_rss_bytes < 150e6 < machine.resident_bytes()


def test_a_classifier_has_latencies(packed_bert: Path) -> None:
    found = profile(packed_bert, repeats=4, warmup=1, rows=ROWS, threads=1)
    assert found.kind == "classify" and found.latency_ms is not None and found.token_ms is None
    assert len(found.raw["latency_ms"]) == len(found.raw["tokens"]) == 4
    assert found.latency_ms["max"] == max(found.raw["latency_ms"])
    assert found.texts_per_s == pytest.approx(4000 / sum(found.raw["latency_ms"]))


def test_a_loaded_model_is_measured_as_it_is(packed_llama: dict[str, Path]) -> None:
    with load(packed_llama["onnx"], threads=1) as model:
        found = profile(model, prompt_tokens=4, new_tokens=2, warmup=0, repeats=1)
    assert found.threads == 1


@pytest.mark.parametrize("length", [1, 7, 100])
def test_prompts_have_exactly_the_length_asked_for(length: int, tiny_llama: Path) -> None:
    codec = Codec.from_folder(tiny_llama)
    drawn = [jobs.prompt_of(codec, None, length, index) for index in range(3)]
    assert [len(ids) for ids in drawn] == [length] * 3 and drawn[0] != drawn[1] or length == 1
    assert min(min(ids) for ids in drawn) > 4  # no special tokens
    taken = jobs.prompt_of(codec, ROWS, length, 2)
    assert taken == codec.prompt_ids(ROWS[2].messages)[:length] or length > len(codec.prompt_ids(ROWS[2].messages))
    assert len(taken) == length


@pytest.mark.parametrize(("options", "match"), [
    ({"repeats": 0}, "repeats: 0"), ({"new_tokens": 1}, "new_tokens: 1"), ({"prompt_tokens": 0}, "prompt_tokens: 0"),
    ({"threads": -1}, "threads: -1"), ({"warmup": -1}, "warmup: -1"),
    ({"prompt_tokens": 250, "new_tokens": 10}, "context: 260 tokens, the model's limit is 256")])
def test_counts_out_of_range_are_refused(options: dict[str, int], match: str, packed_llama: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match=match):
        profile(packed_llama["gguf"], **options)


def test_failures_of_the_measured_process_are_reported(packed_llama: dict[str, Path], tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArtifactError, match="no such folder") as error:
        jobs.run({"path": str(tmp_path / "nothing"), "check_hashes": True, "threads": 1, "context": 0})
    assert error.value.hint
    monkeypatch.setattr(sys, "executable", "/bin/false" if os.name == "posix" else sys.executable)
    if os.name == "posix":
        with pytest.raises(EdgestillError, match="ended with code 1: no message"):
            jobs.run({})


def test_machine_facts_are_read_from_the_system(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("VmPeak:\t 900 kB\nVmHWM:\t   512 kB\n")
    assert machine.peak_resident_bytes(status) == 512 * 1024
    if os.name == "posix":
        elsewhere, here = machine.peak_resident_bytes(tmp_path / "none"), machine.peak_resident_bytes()
        assert elsewhere == pytest.approx(here, rel=0.5)
