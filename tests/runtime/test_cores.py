"""Cores that this process may use: affinity, hardware threads, quotas."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from edgestill.runtime.machine import cores as threads


def machine(root: Path, siblings: list[str], group: str = "", **limits: str) -> Path:
    """A /sys and /proc of a machine whose CPU n lists `siblings[n]`; `limits` are files of the control group."""
    for cpu, text in enumerate(siblings):
        folder = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(text + "\n")
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(group)
    for name, text in limits.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


PAIRS = ["0,4", "1,5", "2,6", "3,7", "0,4", "1,5", "2,6", "3,7"]


@pytest.mark.parametrize(("allowed", "cores"), [(range(8), 4), (range(4), 4), ({0, 4}, 1), ({0, 4, 1}, 2), ({3}, 1)])
def test_two_hardware_threads_are_one_core(allowed: set[int], cores: int, tmp_path: Path,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "allowed_cpus", lambda: set(allowed))
    assert threads.allowed_cores(machine(tmp_path, PAIRS)) == cores


@pytest.mark.parametrize(("group", "limits", "cores"), [
    ("0::/\n", {"cpu_dot_max": "max 100000"}, 4),
    ("0::/\n", {"cpu_dot_max": "250000 100000"}, 2),
    ("0::/\n", {"cpu_dot_max": "50000 100000"}, 1),
    ("0::/a/b\n", {"a__b__cpu_dot_max": "max 100000", "a__cpu_dot_max": "300000 100000"}, 3),
    ("0::/outside\n", {"cpu_dot_max": "200000 100000"}, 2),
    ("4:cpu,cpuacct:/job\n", {"cpu__job__cpu_dot_cfs_quota_us": "200000", "cpu__job__cpu_dot_cfs_period_us": "100000"},
     2),
    ("4:cpu:/job\n", {"cpu__job__cpu_dot_cfs_quota_us": "-1", "cpu__job__cpu_dot_cfs_period_us": "100000"}, 4),
    ("3:memory:/job\n", {}, 4),
])
def test_quotas_of_containers_count(group: str, limits: dict[str, str], cores: int, tmp_path: Path,
                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "allowed_cpus", lambda: set(range(8)))
    assert threads.allowed_cores(machine(tmp_path, PAIRS, group, **limits)) == cores


def test_systems_without_sys_ask_psutil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    monkeypatch.setattr(threads, "allowed_cpus", lambda: set(range(8)))
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 8 if logical else 4)
    assert threads.allowed_cores(tmp_path) == 4
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: None)
    assert threads.allowed_cores(tmp_path) == 8


def test_this_machine_has_a_core() -> None:
    assert threads.allowed_cores() >= 1


@pytest.mark.parametrize(("capacities", "counts"), [
    ([], [1, 2, 4, 8]), ([1024] * 8, [1, 2, 4, 8]),
    ([446, 446, 446, 446, 1024, 1024, 1024, 446], [1, 2, 3, 4, 8]),
    ([160, 160, 498, 498, 498, 498, 498, 1024], [1, 2, 4, 6, 8])])
def test_numbers_worth_trying(capacities: list[int], counts: list[int], tmp_path: Path,
                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "allowed_cpus", lambda: set(range(8)))
    root = machine(tmp_path, [str(cpu) for cpu in range(8)])
    for cpu, capacity in enumerate(capacities):
        (root / f"sys/devices/system/cpu/cpu{cpu}/cpu_capacity").write_text(f"{capacity}\n")
    assert threads.candidates(root) == counts


@pytest.mark.parametrize(("given", "spins"), [
    ({}, "500"), ({"OMP_WAIT_POLICY": "active"}, None), ({"GOMP_SPINCOUNT": "7"}, "7")])
def test_openmp_waits_briefly_unless_told_otherwise(given: dict[str, str], spins: str | None,
                                                    packed_llama: dict[str, Path]) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))} | given
    for first in ("from edgestill.runtime import load; load(sys.argv[1], threads=1)", "import edgestill.distill"):
        code = f"import os, sys; {first}; print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", code, packed_llama["gguf"]], env=environment, capture_output=True,
                              text=True, check=True)
        assert done.stdout.split() == [str(spins), "False"]
