"""What a labelling is told: whom to ask, how, and what it may cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult

from ...models.errors import UsageError
from ...runtime.data.row import Row
from ...runtime.generation import remote


@dataclass(frozen=True)
class Settings:
    """Whom to ask, how, and what it may cost."""

    url: str
    """The base address, such as https://host/v1."""
    model: str
    key: str = ""
    system: str = ""
    """A system message that the teacher alone reads."""
    examples: Sequence[Row] = ()
    """Questions with answers, shown to the teacher before every row."""
    labels: Sequence[str] = ()
    """Answers are one of these; empty for texts."""
    schema: Mapping[str, Any] | None = None
    """Answers are JSON that satisfies this JSON schema."""
    all: bool = False
    """Rows that have an answer are answered, too; their own only measures the teacher."""
    votes: int = 1
    """Times that a row is asked."""
    check: int = 20
    """Rows that the teacher's agreement is measured on first."""
    min_agreement: float = 0.0
    """The least of it, with the rows' own answers and with itself."""
    max_cost: float | None = None
    """US dollars, all runs with one ledger together."""
    max_tokens: int | None = None
    """Tokens read and written, all runs with one ledger together."""
    price: str = ""
    """US dollars for a million tokens read and written, such as 0.15/0.6; empty: as genai-prices knows it."""
    answer_tokens: int = 1024
    """The longest answer, thoughts included."""
    temperature: float | None = None
    """None: the endpoint's own; models that reason take no other."""
    concurrency: int = 8
    """Calls at a time."""
    rate: float = 0.0
    """Calls a minute at most; 0: as many as are answered."""
    timeout: float = 120.0
    """Seconds for one call."""

    def address(self) -> SplitResult:
        """The parts of `url`; UsageError for no address, and for plain http to another machine: rows would travel
        unencrypted."""
        parts = remote.address(self.url)
        if parts.scheme == "http" and parts.hostname not in remote.LOCAL:
            raise UsageError(f"{parts.hostname}: rows would travel there unencrypted", "give an https address")
        return parts
