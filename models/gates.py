"""[gates]: limits that shipped files are held to, on every machine and on devices by name."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class DeviceGates:
    """Limits on the numbers of a profile, as [gates] writes them."""

    minimum: dict[str, float] = field(default_factory=dict)
    """Such as {decode_tokens_per_s = 20}."""
    maximum: dict[str, float] = field(default_factory=dict)
    """Such as {ttft_ms_p95 = 300}."""


@dataclass(frozen=True)
class Gates:
    """Limits on numbers by metric name, of percentiles on their upper 95 % bounds; one that fails: exit code 3."""

    minimum: dict[str, float] = field(default_factory=dict)
    """Of numbers where higher is better, such as {exact_match = 0.9, ratio_to_teacher = 0.97}."""
    maximum: dict[str, float] = field(default_factory=dict)
    """Of numbers where lower is better, such as {token_ms_p99 = 20, peak_rss_bytes = 200e6}."""
    device: dict[str, DeviceGates] = field(default_factory=dict)
    """[gates.device.pi5]: `minimum` and `maximum` of one device's profile, held by `edgestill profile --gates run.toml
    --target pi5=ssh://user@host`; `run` itself measures this machine alone."""
