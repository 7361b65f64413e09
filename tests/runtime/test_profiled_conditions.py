"""What held a measured model back: sensors read, windows marked, causes named, a real busy loop found out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from edgestill.runtime import load
from edgestill.runtime.machine import cores, sensors
from edgestill.runtime.profiling import conditions, machine, other_programs, timed_requests
from edgestill.runtime.profiling.sustained import sustained
from edgestill.runtime.profiling.watch import Watch

FILES = {
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n", "sys/class/thermal/thermal_zone0/temp": "81500\n",
    "sys/class/hwmon/hwmon0/name": "ina3221\n", "sys/class/hwmon/hwmon0/power1_input": "4200000\n",
    "sys/class/hwmon/hwmon0/temp1_input": "40000\n", "sys/class/hwmon/hwmon0/energy1_input": "9000000\n",
    "sys/class/powercap/intel-rapl:0/name": "package-0\n", "sys/class/powercap/intel-rapl:0/energy_uj": "5000000\n",
    "sys/class/power_supply/BAT0/status": "Discharging\n", "sys/class/power_supply/BAT0/current_now": "-500000\n",
    "sys/class/power_supply/BAT0/voltage_now": "12000000\n",
    "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "3\n",
    "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "4\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1500000\n",
    "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
    "proc/self/cgroup": "0::/job\n", "sys/fs/cgroup/job/cpu.stat": "usage_usec 5\nnr_throttled 7\n",
    "sys/fs/cgroup/job/memory.max": "2000000\n", "sys/fs/cgroup/memory.max": "max\n",
    "sys/fs/cgroup/job/cpu.max": "150000 100000\n",
    "proc/loadavg": "1.0 1.0 1.0 3/80 9\n", "proc/self/stat": "9 (a b) S" + " 0" * 8 + " 12" + " 0" * 30,
    "proc/self/task/9/schedstat": "100 2000000000 5\n", "proc/cpuinfo": "flags\t: fpu avx2 smep f16c avx2\n",
}


@pytest.fixture
def board(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_sensors_are_read_by_their_names(board: Path) -> None:
    assert sensors.celsius(board) == {"cpu-thermal": 81.5, "ina3221 temp1": 40.0}
    assert sensors.joules(board) == {"package-0 (intel-rapl:0)": 5.0, "ina3221 energy1": 9.0}
    assert sensors.watts(board) == {"ina3221 power1": 4.2, "battery BAT0": 6.0}
    assert sensors.throttle_count(board) == 7 and sensors.throttled_now(board)
    assert sensors.megahertz({0, 5}, board) == 1500
    assert machine.features(board) == ["avx2", "f16c"] and cores.quota(board) == 1.5
    assert machine.facts(board)["memory_limit_bytes"] == 2_000_000


def test_what_a_machine_does_not_tell_is_left_out(tmp_path: Path, board: Path) -> None:
    bare = tmp_path / "none"
    assert sensors.celsius(bare) == sensors.joules(bare) == sensors.watts(bare) == {}
    assert sensors.throttle_count(bare) is sensors.throttled_now(bare) is sensors.megahertz({0}, bare) is None
    assert Watch(bare).looks[0].keys() == {"at_s", "own_s"}
    look = Watch(board).looks[0]
    assert (look["waited_s"], look["major_faults"], look["quota_holds"], look["running"]) == (2.0, 12, 7, 3)
    found = conditions.summary([{"at_s": 0.0, "own_s": 0.0}, {"at_s": 1.0, "own_s": 1.0}], {}, 4)
    assert found["energy"] == found["celsius"] == found["mhz"] == conditions.NOT_AVAILABLE
    facts = {"cores_allowed": 2}
    assert conditions.verdict(found, [[]] * 4, facts, 2, [0, 1]) == ["nothing that this machine tells of held it back"]


def look(at: float, **known: Any) -> dict[str, Any]:
    return {"at_s": at, "own_s": at, "busy_s": at, "steal_s": 0.0, "waited_s": 0.0, **known}


@pytest.mark.parametrize(("after", "cause", "words"), [
    ({"busy_s": 1.5}, "others", "other programs used 0.50 of 2 cores (hog 0.50)"),
    ({"steal_s": 0.3}, "steal", "the hypervisor gave 0.30 cores"),
    ({"waited_s": 0.2}, "waited", "had no core for 20% of the time"),
    ({"major_faults": 140}, "disk", "140 pages had to be read"),
    ({"quota_holds": 14}, "quota", "(1.5 cores) was used up 14 times"),
    ({"throttles": 2}, "heat", "slowed the processor down at up to 91 °C"),
    ({"throttled_now": True}, "heat", "slowed the processor down"),
    ({"mhz": 1500.0}, "clock", "the clock fell to 1500 of 2400 MHz"),
])
def test_a_cause_marks_its_window_and_has_its_words(after: dict[str, Any], cause: str, words: str) -> None:
    plain = {"major_faults": 0, "quota_holds": 0, "throttles": 0, "mhz": 2400.0, "celsius": {"cpu": 91.0}}
    looks = [look(0, **plain), look(1, **(plain | after)), look(2, **(plain | after | {"busy_s": after.get(
        "busy_s", 1.0) + 1, "mhz": 2400.0, "throttled_now": False}))]
    assert conditions.causes(looks, 1) == [[cause], []]
    found = conditions.summary(looks[:2], {"hog": 0.5}, 1)
    told = conditions.verdict(found, [[cause], [], []], {"cores_allowed": 2, "cores_quota": 1.5}, 1, [0, 1])
    assert told[0] == "1 of 3 requests were disturbed" and words in told[1] and told[1].endswith(": 1 of 3 requests")


def test_settings_that_hold_a_model_back_are_told() -> None:
    found = conditions.summary([look(0), look(1)], {}, 1)
    told = conditions.verdict(found, [[]], {"cores_allowed": 1, "governor": "powersave"}, 4, [0])
    assert "governor is powersave" in told[0] and "4 threads share the 1 CPUs" in told[1]


def test_energy_is_that_of_the_requests() -> None:
    looks = [look(0, joules={"package": 5.0, "reset": 9.0}, watts={"ina": 4.0}),
             look(2, joules={"package": 25.0, "reset": 1.0}, watts={"ina": 6.0})]
    assert conditions.summary(looks, {}, 10)["energy"] == {
        "package": {"joules": 20.0, "joules_per_request": 2.0, "watts": 10.0},
        "ina": {"joules": 10.0, "joules_per_request": 1.0, "watts": 5.0}}


def test_sustained_speed_is_told_with_the_time_of_its_fall() -> None:
    slow = [{"start_ns": at * 10**9, "end_ns": 10**9, "new_tokens": 40 if at < 50 else 20} for at in range(100)]
    found = sustained(slow)
    assert (found["first_per_s"], found["last_per_s"], found["kept"]) == (40.0, 20.0, 0.5)
    assert found["slowed_after_s"] == pytest.approx(50, abs=5) and found["seconds"] == 100
    assert sustained([one | {"new_tokens": 40} for one in slow])["slowed_after_s"] is None


def test_a_busy_loop_started_half_way_is_found_out(packed_llama: dict[str, Path],
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(other_programs, "_LEAST", 1e-9)  # other tests may run beside it and use more
    monkeypatch.setattr(other_programs, "_MOST", 1000)
    hogs: list[subprocess.Popen[bytes]] = []
    with load(packed_llama["gguf"], threads=1) as model:
        watch, request = Watch(), {"ids": [7, 8, 9, 10], "text": model.codec.decode([7, 8, 9, 10])}
        timed_requests.run_to_the_end(model)
        ask = timed_requests.asker(model, new_tokens=8)
        timed_requests.serve(ask, [request], watch, seconds=0.3)
        try:
            with other_programs.OtherPrograms() as others:
                hogs += [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in cores.allowed_cpus()]
                found = timed_requests.serve(ask, [request], watch, seconds=1.0)
        finally:
            for hog in hogs:
                hog.kill()
                hog.wait()
    causes = conditions.causes(watch.looks, 1)
    late = [causes[request["window"]] for request in found[len(found) // 2:]]
    assert sum("others" in mark for mark in late) > 0.7 * len(late)
    assert any(f"({hog.pid})" in name for hog in hogs for name in others.busiest)


def test_a_system_that_lists_no_process_is_profiled(monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    monkeypatch.setattr(psutil, "pids", lambda: list[int]()[0])
    with other_programs.OtherPrograms() as others:
        pass
    assert others.busiest == {}
