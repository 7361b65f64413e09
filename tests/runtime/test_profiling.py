"""Profiles are measured: raw values, their summaries, processes of their own."""

from __future__ import annotations

import json
import os
import statistics
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from edgestill.models import kinds
from edgestill.models.errors import ArtifactError, EdgestillError, UsageError
from edgestill.runtime import load, profile
from edgestill.runtime.data.row import Row
from edgestill.runtime.profiling import jobs, machine, measure, prompts, views
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
    requests = found.raw["requests"]
    assert len(requests) == 3 and all(len(request["token_ns"]) == 6 == len(request["decode_ns"]) + 1
                                      for request in requests)
    for request in requests:  # the parts follow each other and lie within the whole
        first = request["token_ns"][0]
        assert 0 < request["tokenize_ns"] + request["prefill_ns"] <= first <= request["token_ns"][-1]
        assert sum(request["decode_ns"]) < request["token_ns"][-1] - first < request["end_ns"] - first
        assert 0 < request["detokenize_ns"] < request["end_ns"] and request["template_ns"] == 0
    met = found.views["as_met"]
    assert found.prefill_tokens_per_s == pytest.approx(statistics.median(2e10 / one["prefill_ns"] for one in requests))
    assert found.decode_tokens_per_s == pytest.approx(statistics.median(
        5e9 / (one["token_ns"][-1] - one["token_ns"][0]) for one in requests))
    assert found.ttft_ms == met["ttft_ms"]["p50"] == statistics.median(one["token_ns"][0] / 1e6 for one in requests)
    assert found.token_ms is not None and found.request_ms is not None
    spread = found.token_ms
    assert 0 < spread["p50"] <= spread["p90"] <= spread["p95"] <= spread["p99"] <= spread["max"]
    assert spread["max"] == max(max(views.gaps(request)) for request in requests) and met["token_ms"]["values"] == 15
    assert met["ttft_ms"]["upper"]["p95"] is None and "3 of 59" in met["ttft_ms"]["why"]["p95"]
    assert found.request_ms["max"] == max(one["end_ns"] / 1e6 for one in requests)
    assert 0 < found.load_ms < found.start_ms and len(found.raw["load_ms"]) == measure._LOADS
    assert (found.threads, found.context, found.prompt_tokens, found.new_tokens) == (1, 256, 20, 6)
    assert found.file_bytes == sum(path.stat().st_size for path in packed_llama[name].rglob("model*"))
    assert found.machine["versions"]["python"] and found.machine["cores_allowed"] >= 1 and found.machine["cpu"]
    assert found.verdict and found.conditions["seconds"] > 0 and found.conditions["affinity"]
    assert found.steady_rss_bytes and found.steady_rss_bytes <= found.peak_rss_bytes


def test_own_prompts_are_asked_as_they_are(packed_llama: dict[str, Path]) -> None:
    said: list[str] = []
    found = profile(packed_llama["gguf"], prompts=ROWS[:2], new_tokens=3, warmup=0, repeats=2, threads=1,
                    held_to=["ttft_ms"], say=said.append)
    codec, requests = Codec.from_folder(packed_llama["gguf"]), found.raw["requests"]
    lengths = [len(codec.prompt_ids(row.messages)) for row in ROWS[:2]]
    asked = [request["prompt_tokens"] for request in requests]
    assert len(asked) >= 5 and sorted(asked[:2]) == sorted(asked[2:4]) == sorted(lengths)  # a median's bound takes 5
    assert all(request["template_ns"] > 0 and request["new_tokens"] <= 3 for request in requests)
    assert "5 requests, as many as a 95 % bound of ttft_ms takes: about" in said[0]
    assert found.raw["prompt_source"] == "prompts" and found.views["as_met"]["ttft_ms"]["upper"]["p50"]


def test_the_memory_is_the_measured_process_alone(packed_llama: dict[str, Path]) -> None:
    import torch  # in this process, so that it would show if it were measured

    found = profile(packed_llama["gguf"], prompt_tokens=8, new_tokens=2, warmup=0, repeats=1, threads=1)
    assert torch.__version__ and 10e6 < found.peak_rss_bytes < 150e6 < machine.resident_bytes()


def test_a_classifier_has_latencies(packed_bert: Path) -> None:
    found = profile(packed_bert, repeats=4, warmup=1, rows=ROWS, threads=1)
    assert found.kind == "classify" and found.latency_ms is not None and found.token_ms is None
    requests = found.raw["requests"]
    whole = [request["end_ns"] / 1e6 for request in requests]
    assert len(whole) == 4 and found.latency_ms["max"] == max(whole)
    assert found.texts_per_s == pytest.approx(4000 / sum(whole))
    assert all(0 < one["tokenize_ns"] + one["model_ns"] < one["end_ns"] and one["prompt_tokens"] for one in requests)


def test_a_loaded_model_is_measured_as_it_is(packed_llama: dict[str, Path]) -> None:
    with load(packed_llama["onnx"], threads=1) as model:
        found = profile(model, prompt_tokens=4, new_tokens=2, warmup=0, repeats=1)
    assert found.threads == 1


@pytest.mark.parametrize("length", [1, 7, 100])
def test_prompts_have_exactly_the_length_asked_for(length: int, tiny_llama: Path) -> None:
    codec = Codec.from_folder(tiny_llama)
    drawn = [prompts.of_length(codec, None, length, index) for index in range(3)]
    assert [len(ids) for ids in drawn] == [length] * 3 and drawn[0] != drawn[1] or length == 1
    assert min(min(ids) for ids in drawn) > 4  # no special tokens
    taken = prompts.of_length(codec, ROWS, length, 2)
    assert taken == codec.prompt_ids(ROWS[2].messages)[:length] or length > len(codec.prompt_ids(ROWS[2].messages))
    assert len(taken) == length


@pytest.mark.parametrize(("options", "match"), [
    ({"repeats": 0}, "repeats: 0"), ({"new_tokens": 1}, "new_tokens: 1"), ({"prompt_tokens": 0}, "prompt_tokens: 0"),
    ({"threads": -1}, "threads: -1"), ({"warmup": -1}, "warmup: -1"), ({"seconds": -1}, "seconds: -1"),
    ({"prompts": []}, "prompts: there are no rows"),
    ({"prompt_tokens": 250, "new_tokens": 10}, "context: 260 tokens, the model's limit is 256")])
def test_counts_out_of_range_are_refused(options: dict[str, Any], match: str, packed_llama: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match=match):
        profile(packed_llama["gguf"], **options)


def test_failures_of_the_measured_process_are_reported(packed_llama: dict[str, Path], tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArtifactError, match="no such folder") as error:
        jobs.run({"path": str(tmp_path / "nothing"), "check_hashes": True, "threads": 1, "context": 0, "streams": 1})
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
