"""What a machine tells of its heat, clock and energy. What it does not tell is left out, never 0.

`root` is the folder that holds `sys`; only Linux fills it.
"""

from __future__ import annotations

from pathlib import Path

_ROOT = Path("/")
_NOW = 0b1111
"""The bits of a Raspberry Pi's firmware that say what holds the processor back now; others say what once did."""


def celsius(root: Path = _ROOT) -> dict[str, float]:
    """Temperatures in °C, by the name of their sensor."""
    zones = {zone: _text(zone / "type") or zone.name for zone in (root / "sys/class/thermal").glob("thermal_zone*")}
    found = {name: value / 1000 for zone, name in sorted(zones.items())
             if (value := number(zone / "temp")) is not None}
    return found | _meters(root, "temp", 1000)


def megahertz(cpus: set[int], root: Path = _ROOT) -> float | None:
    """The mean clock of some CPUs now; None where the system does not say it."""
    clocks = [number(root / f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq") for cpu in cpus]
    known = [clock / 1000 for clock in clocks if clock is not None]
    return sum(known) / len(known) if known else None


def throttle_count(root: Path = _ROOT) -> int | None:
    """How often heat has slowed the processor's cores down since the start; None where the system does not say it."""
    counts = [number(path) for path in (root / "sys/devices/system/cpu").glob(
        "cpu[0-9]*/thermal_throttle/*_throttle_count")]
    known = [int(count) for count in counts if count is not None]
    return sum(known) if known else None


def throttled_now(root: Path = _ROOT) -> bool | None:
    """Whether the firmware of a Raspberry Pi slows it down now, for heat or a weak supply; None on other machines."""
    state = _text(root / "sys/devices/platform/soc/soc:firmware/get_throttled")
    return int(state, 16) & _NOW > 0 if state else None


def joules(root: Path = _ROOT) -> dict[str, float]:
    """Counters of energy since some time, by what they count: packages of the processor (RAPL), meters on the board."""
    found = {}
    for zone in sorted((root / "sys/class/powercap").glob("*-rapl:?")):
        value = number(zone / "energy_uj")
        if value is not None:
            found[f"{_text(zone / 'name') or zone.name} ({zone.name})"] = value / 1e6
    return found | _meters(root, "energy", 1e6)


def watts(root: Path = _ROOT) -> dict[str, float]:
    """Power drawn now, by the name of its meter: INA and others on the board, the battery where it is discharged."""
    found = _meters(root, "power", 1e6)
    for battery in sorted((root / "sys/class/power_supply").glob("*")):
        if _text(battery / "status") == "Discharging":
            value = number(battery / "power_now")
            current, voltage = number(battery / "current_now"), number(battery / "voltage_now")
            if value is None and current is not None and voltage is not None:
                value = abs(current) * voltage / 1e6
            if value is not None:
                found[f"battery {battery.name}"] = value / 1e6
    return found


def number(path: Path) -> float | None:
    """The number in a file of the kernel's; None where there is none to read."""
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return None


def _meters(root: Path, what: str, unit: float) -> dict[str, float]:
    """What chips on the board measure, in units of which the kernel counts `unit`ths, by chip and place."""
    return {f"{_text(path.parent / 'name') or path.parent.name} {path.name[:-6]}": value / unit
            for path in sorted((root / "sys/class/hwmon").glob(f"hwmon*/{what}*_input"))
            if (value := number(path)) is not None}


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
