"""What an export is told: a table `[[export]]` of the run file, and what it cannot say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .errors import UsageError
from .kv_cache import AUTO, BLOCK, CHOSEN
from .scheme import MIXED, Scheme
from .strict import limited


@dataclass(frozen=True)
class Export:
    """One file to ship."""

    target: str
    """Format and type of the weights, such as gguf:Q4_0."""
    method: dict[str, Any] = field(default_factory=lambda: {"kind": "gptq"})
    """4-bit codes: a file of quantize/methods; gptq loses least, scale_search is faster."""
    bits_per_weight: float = limited(0.0, minimum=0.0, maximum=16.0)
    """gguf:mixed, onnx:mixed: bits of the whole file for each weight; without a size a tenth more than Q4_0 or int4."""
    budget_mb: float = limited(0.0, minimum=0.0)
    """The same as a file size in megabytes (10^6 bytes)."""
    kv: str = limited(AUTO, choices=(AUTO, *CHOSEN))
    """GGUF: keep keys and values in fewer bits; auto: in float16, and in float32 for F32, F16 and BF16."""
    calibration_rows: int = limited(128, minimum=0, maximum=100000)
    """Training rows whose activations weight the errors of rounding; 0: all errors weigh alike."""
    certify_rows: int = limited(160, minimum=1, maximum=100000)
    """Test rows that the certificate measures the task on."""
    clients: list[str] = field(default_factory=list)
    """Other people's programs that are held to our tokens: files of quantize/proof/clients, or `all` installed ones."""


def check_export(export: Export) -> None:
    """UsageError when a mixed target has two sizes, or another target has one, and for a cache that it cannot have."""
    sizes = (export.bits_per_weight > 0) + (export.budget_mb > 0)
    mixed = Scheme.parse(export.target).type == MIXED
    if mixed and sizes > 1:
        raise UsageError(f"{export.target}: two sizes to deal types out for",
                         "give one of --bits-per-weight and --budget-mb (or those keys of [[export]])")
    if sizes and not mixed:
        raise UsageError(f"{export.target}: its size is fixed by its type, so a budget means nothing",
                         f"take {export.target.partition(':')[0]}:{MIXED}, or leave the budget out")
    if export.kv != AUTO and Scheme.parse(export.target).format != "gguf":
        raise UsageError(f"{export.target}: kv = {export.kv!r} is llama.cpp's, which gives every {BLOCK} numbers a "
                         "scale; onnxruntime's cache of few bits takes scales fixed ahead of all texts, which are not "
                         "made here", "leave kv out, or export gguf:Q4_0")
