"""Threads beside other programs: as many as those leave cores, and the same bits whatever their number."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from edgestill.runtime.engines._gguf_context import SHARED_TOKENS, GgufContext
from edgestill.runtime.engines._gguf_engine import GgufEngine
from edgestill.runtime.machine.busy_cores import Width, processor_seconds

from .. import packed, tiny


class Machine:
    """Cores that others use for a while, and a process that wants `threads` of them and gets what is fair."""

    def __init__(self, cores: int, most: int) -> None:
        self.now, self.everybody, self.own, self.reads, self.others, self.cores = 0.0, 0.0, 0.0, 0, 0.0, cores
        self.applied: list[int] = []
        self.width = Width(most, self.applied.append, self.counts, cores, lambda: self.now)

    def counts(self) -> tuple[float, float]:
        self.reads += 1
        return self.everybody, self.own

    def run(self, seconds: float, others: float = 0.0) -> int:
        """Make a token every 10 ms beside programs that could keep `others` cores busy; the threads after it."""
        for _ in range(round(seconds / 0.01)):
            wanted = self.width.threads + others
            share = min(1.0, self.cores / wanted)
            self.own += 0.01 * self.width.threads * share
            self.everybody += 0.01 * wanted * share
            self.now += 0.01
            self.width.fit()
        return self.width.threads


@pytest.mark.parametrize(("cores", "most", "others", "threads"), [
    (2, 2, 0, 2), (2, 2, 0.2, 2), (2, 2, 1, 1), (2, 2, 2, 1), (2, 2, 8, 1), (4, 4, 1, 3), (4, 4, 3, 1), (4, 2, 1, 2),
    (4, 2, 2, 2), (4, 2, 3, 1), (2, 1, 1, 1)])
def test_others_keep_their_cores_and_get_no_more(cores: int, most: int, others: float, threads: int) -> None:
    machine = Machine(cores, most)
    assert machine.run(1.0) == most
    assert machine.run(2.0, others) == threads
    changes = len(machine.applied)
    assert machine.run(5.0, others) == threads and len(machine.applied) == changes  # and it stays so
    assert machine.run(1.0) == most


def test_looks_are_rare_and_what_is_old_is_not_believed() -> None:
    machine = Machine(2, 2)
    machine.run(1.0, 1)
    assert machine.reads <= 6 and machine.applied == [1]
    machine.now += 60  # nobody asked for anything: what others did meanwhile says nothing of now
    machine.everybody += 120
    machine.width.fit()
    assert machine.applied == [1]
    assert Machine(2, 1).reads == 0


def test_processor_seconds_are_those_of_the_allowed_cores(tmp_path: Path) -> None:
    assert processor_seconds(tmp_path) is None
    (tmp_path / "proc").mkdir()
    tick = 1 / os.sysconf("SC_CLK_TCK")
    lines = [f"cpu{number} 10 1 5 {10**6} 7 2 1 3 50 0" for number in sorted(os.sched_getaffinity(0))]
    others = ["cpu  1 1 1 1 1 1 1 1 0 0", "cpu999999 9 9 9 9 9 9 9 9 0 0", "intr 5"]
    (tmp_path / "proc/stat").write_text("\n".join([*others, *lines]))
    found = processor_seconds(tmp_path)
    assert found is not None and found[0] == pytest.approx(22 * tick * len(lines)) and found[1] > 0
    own = processor_seconds()
    assert own is not None and own[0] > own[1] > 0
    nothing = Width(2, [].append, lambda: None, 2)
    nothing.fit()
    assert nothing.threads == 2


def test_where_the_number_is_not_free_all_threads_compute() -> None:
    machine = Machine(2, 2)
    assert machine.run(2.0, 1) == 1
    machine.width.fit(free=False)
    assert machine.width.threads == 2 and machine.applied == [1, 2]


def test_the_number_is_free_as_long_as_it_changes_no_bit(tmp_path: Path) -> None:
    """llama.cpp's fused attention shares long contexts out among the threads: there it is always the same number."""
    source = tiny.decoder(tmp_path / "source", "llama", max_position_embeddings=1024)
    path = packed.pack(source, tmp_path / "q8", "gguf:Q8_0") / "model.gguf"
    ids = [int(token) for token in np.random.default_rng(0).integers(5, 380, 600)]
    start, end = SHARED_TOKENS - 8, SHARED_TOKENS
    found = []
    for threads in (1, 2):
        context = GgufContext(path, threads, 1024, "f16")
        engine = GgufEngine(context)
        engine.prefill(ids[:start])
        found.append([engine.decode(token).tobytes() for token in ids[start:end]])
        if threads == 2:
            engine.truncate(start)
            context.width._set(1)
            found.append([engine.decode(token).tobytes() for token in ids[start:end]])
            engine.decode(ids[end])
            assert context.width.threads == 2
            context.width._set(1)
            engine.extend(ids[end + 1:end + 4])
            assert context.width.threads == 2
        engine.close()
    assert all(one == found[0] for one in found)
