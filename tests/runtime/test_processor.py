"""Processors are named as people know them, on x86 and on ARM boards, phones and servers."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
from edgestill.runtime.machine.processor import processor

from .. import cpuinfo

X86 = """\
processor	: 0
vendor_id	: AuthenticAMD
cpu family	: 25
model		: 1
model name	: AMD EPYC 7763 64-Core Processor
flags		: fpu vme de pse tsc msr pae mce cx8 apic sep avx avx2

"""
PI_2 = """\
processor	: 0
model name	: ARMv7 Processor rev 5 (v7l)
Features	: half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt vfpd32 lpae evtstrm
CPU implementer	: 0x41
CPU architecture: 7
CPU part	: 0xc07

Hardware	: BCM2835
Model		: Raspberry Pi 2 Model B Rev 1.1
"""
TWO_KINDS = cpuinfo.cores(4, "0xd05") + cpuinfo.cores(4, "0xd0b", first=4)
PHONE = (
    "Processor	: AArch64 Processor rev 14 (aarch64)\n" + TWO_KINDS + "Hardware	: Qualcomm Technologies, Inc SM8550\n")


@pytest.mark.parametrize(("text", "board", "name"), [
    (X86, None, "AMD EPYC 7763 64-Core Processor"),
    (cpuinfo.raspberry_pi_5(), None, "Raspberry Pi 5 Model B Rev 1.0 (Cortex-A76)"),
    (cpuinfo.raspberry_pi_4(), None, "Raspberry Pi 4 Model B Rev 1.1 (Cortex-A72)"),
    (PI_2, None, "Raspberry Pi 2 Model B Rev 1.1 (implementer 0x41 part 0xc07)"),
    (TWO_KINDS, "Radxa ROCK 5B\0", "Radxa ROCK 5B (Cortex-A55, Cortex-A76)"),
    (PHONE, None, "Qualcomm Technologies, Inc SM8550 (Cortex-A55, Cortex-A76)"),
    (cpuinfo.cores(2, "0xd0c"), None, "Neoverse-N1"),
    (cpuinfo.armv9(), None, "implementer 0x00 part 0x051"),
    (cpuinfo.cores(2, "0x022", implementer="0x61"), "Apple MacBook Air (M1, 2020)\0",
     "Apple MacBook Air (M1, 2020) (implementer 0x61 part 0x022)"),
    ("processor : 0\n", None, platform.processor() or platform.machine()),
])
def test_a_processor_has_its_name(text: str, board: str | None, name: str, tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text(text)
    if board is not None:
        (tmp_path / "proc" / "device-tree").mkdir()
        (tmp_path / "proc" / "device-tree" / "model").write_text(board)
    assert processor(tmp_path) == name


def test_systems_without_proc_say_what_python_knows(tmp_path: Path) -> None:
    assert processor(tmp_path) == (platform.processor() or platform.machine()) != ""
    assert processor()
