"""What /proc/cpuinfo says on ARM machines."""

from __future__ import annotations

CORE = """\
processor	: {core}
BogoMIPS	: 108.00
Features	: {features}
CPU implementer	: {implementer}
CPU architecture: 8
CPU variant	: 0x4
CPU part	: {part}
CPU revision	: 1

"""
PLAIN = "fp asimd evtstrm crc32 cpuid"
DOT_PRODUCTS = ("fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop "
                "asimddp")


def cores(count: int, part: str, features: str = DOT_PRODUCTS, implementer: str = "0x41", first: int = 0) -> str:
    """The blocks of `count` equal cores from number `first` on."""
    return "".join(CORE.format(core=core, features=features, implementer=implementer, part=part)
                   for core in range(first, first + count))


def raspberry_pi_5(count: int = 4) -> str:
    """A Raspberry Pi 5 with `count` cores."""
    return cores(count, "0xd0b") + "Revision\t: c04170\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n"


def raspberry_pi_4(count: int = 4) -> str:
    """A Raspberry Pi 4, which has no dot products, under a kernel that still names every Pi's hardware alike."""
    return (cores(count, "0xd08", PLAIN)
            + "Hardware\t: BCM2835\nRevision\t: c03111\nModel\t\t: Raspberry Pi 4 Model B Rev 1.1\n")


def armv9(count: int = 4) -> str:
    """A server core that this project has no name for, with matrix instructions."""
    return cores(count, "0x051", f"{DOT_PRODUCTS} sve i8mm bf16 sve2", implementer="0x00")
