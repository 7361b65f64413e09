"""Processors are named as people know them, on x86 and on ARM boards, phones and servers."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
from edgestill.runtime.profiling.processor import processor

X86 = """\
processor	: {}
vendor_id	: AuthenticAMD
cpu family	: 25
model		: 1
model name	: AMD EPYC 7763 64-Core Processor
stepping	: 1
flags		: fpu vme de pse tsc msr pae mce cx8 apic sep avx avx2

"""
ARM = """\
processor	: {}
BogoMIPS	: 108.00
Features	: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x4
CPU part	: 0xd0b
CPU revision	: 1

"""
PI_5 = "".join(ARM.format(core) for core in range(4)) + """\
Revision	: c04170
Serial		: 5a1b2c3d4e5f6071
Model		: Raspberry Pi 5 Model B Rev 1.0
"""
PI_4 = "".join(ARM.format(core).replace("0xd0b", "0xd08") for core in range(4)) + """\
Hardware	: BCM2835
Revision	: c03111
Serial		: 100000005a1b2c3d
Model		: Raspberry Pi 4 Model B Rev 1.1
"""
PI_2 = """\
processor	: 0
model name	: ARMv7 Processor rev 5 (v7l)
BogoMIPS	: 38.40
Features	: half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt vfpd32 lpae evtstrm
CPU implementer	: 0x41
CPU architecture: 7
CPU variant	: 0x0
CPU part	: 0xc07
CPU revision	: 5

Hardware	: BCM2835
Model		: Raspberry Pi 2 Model B Rev 1.1
"""
TWO_KINDS = "".join(ARM.format(core).replace("0xd0b", "0xd0b" if core > 3 else "0xd05") for core in range(8))
PHONE = "Processor	: AArch64 Processor rev 14 (aarch64)\n" + TWO_KINDS + "Hardware	: Qualcomm Technologies, Inc SM8550\n"
GRAVITON = "".join(ARM.format(core).replace("0xd0b", "0xd0c") for core in range(2))
APPLE = "".join(ARM.format(core).replace("0x41", "0x61").replace("0xd0b", "0x022") for core in range(2))


@pytest.mark.parametrize(("text", "board", "name"), [
    (X86.format(0) + X86.format(1), None, "AMD EPYC 7763 64-Core Processor"),
    (PI_5, None, "Raspberry Pi 5 Model B Rev 1.0 (Cortex-A76)"),
    (PI_4, None, "Raspberry Pi 4 Model B Rev 1.1 (Cortex-A72)"),
    (PI_2, None, "Raspberry Pi 2 Model B Rev 1.1 (implementer 0x41 part 0xc07)"),
    (TWO_KINDS, "Radxa ROCK 5B\0", "Radxa ROCK 5B (Cortex-A55, Cortex-A76)"),
    (PHONE, None, "Qualcomm Technologies, Inc SM8550 (Cortex-A55, Cortex-A76)"),
    (GRAVITON, None, "Neoverse-N1"),
    (APPLE, "Apple MacBook Air (M1, 2020)\0", "Apple MacBook Air (M1, 2020) (implementer 0x61 part 0x022)"),
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
