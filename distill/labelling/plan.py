"""What a labelling is about to do and to cost, said before the first call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ...runtime.data.calls.conversation import spoken
from ...runtime.data.personal import kinds_in
from ...runtime.data.reader import row_key
from .items import Item
from .prices import Price
from .prompt import BYTES_PER_TOKEN, Prompt, examples_of, form, prompt_of
from .settings import Settings

PLACES = 3
"""Rows named with personal data in them."""
Place = tuple[str, Iterable[str]]
"""A name, and the texts there."""


@dataclass(frozen=True)
class Calls:
    """What is about to be asked, and what it will cost."""

    host: str
    model: str
    questions: int
    """Calls, when every reply can be used."""
    answered: int
    """Of these, answers that stand in the ledger."""
    tokens_read: int
    """About, for the others."""
    tokens_written: int
    """About; the most there can be where no answer is known yet."""
    cost: float | None
    """US dollars; None where no price is known."""
    price: str | None
    limits: str
    personal: dict[str, int]
    personal_rows: list[str]
    personal_beside: list[str]
    """What is sent with every row and has some in it: the system message, the examples."""

    def to_json(self) -> dict[str, Any]:
        """A dictionary of JSON types."""
        return asdict(self)

    def told(self, sent: str, rows: Iterable[str], warnings: Iterable[str] = ()) -> list[str]:
        """The calls for a terminal, with what is `sent` there and lines about rows."""
        return [f"teacher: {self.model} at {self.host}, where {sent} are sent", *rows,
                f"questions: {self.questions}, of which {self.answered} are answered in the ledger",
                f"tokens: about {self.tokens_read:,} to read and {self.tokens_written:,} to write",
                f"price: about {self.cost:.4f} US dollars ({self.price})" if self.cost is not None else
                "price: not known for this model and address; say it with --price",
                f"budget: {self.limits or 'no limit'}", *warnings,
                *([f"personal data: {self.named()}"] if self.personal else [])]

    def named(self) -> str:
        """The personal data in what is to be sent, by kind and place."""
        counts = ", ".join(f"{count} {kind}" for kind, count in self.personal.items())
        more = " …" if len(self.personal_rows) > PLACES else ""
        rows = [f"{len(self.personal_rows)} rows ({', '.join(self.personal_rows[:PLACES])}{more})"]
        return f"{counts} in {' and '.join([*self.personal_beside, *(rows if self.personal_rows else [])])}"


@dataclass(frozen=True)
class Plan(Calls):
    """Numbers of a labelling that is about to begin."""

    rows: int
    own: int
    """Rows that have an answer."""
    fresh: int
    """Of these, rows that the teacher is not shown among the examples: it is measured on them."""

    def lines(self) -> list[str]:
        """The plan for a terminal."""
        warnings = ["warning: all rows with an answer stand in --examples: none is left to measure the teacher on, but "
                    "for how often it agrees with itself"] if self.own and not self.fresh else []
        return self.told("the rows", [f"rows: {self.rows}, of which {self.own} have an answer"], warnings)


def plan_of(items: Sequence[Item], prompts: Mapping[int, Prompt], left: Sequence[Item], answered: int,
            settings: Settings, price: Price | None) -> Plan:
    """`prompts`: by the id of an item that is asked; `left`: the items still to be answered, once for each vote;
    `answered`: how many votes are."""
    known = [len(text.encode()) for text in (*(row.answer for row in settings.examples), *settings.labels,
                                             *(item.answer for item in items if item.answer))]
    each = settings.answer_tokens if not known else round(sum(known) / len(known) / BYTES_PER_TOKEN) + 2
    shown = {row_key(row) for row in settings.examples}
    bare = replace(settings, system="", examples=(), labels=(), schema=None)
    asked = [(item.row.where, prompt_of(item, bare).texts) for item in items if id(item) in prompts]
    beside = [("the system message", [settings.system, form(settings)]),
              ("the examples", spoken(examples_of(settings)))] if asked else []
    return Plan(
        rows=len(items), own=sum(bool(item.answer) for item in items),
        fresh=sum(bool(item.answer) and row_key(item.row) not in shown for item in items),
        **calls([prompts[id(item)] for item in left], answered, each, settings, price, asked, beside))


def calls(left: Sequence[Prompt], answered: int, each: int, settings: Settings, price: Price | None,
          places: Iterable[Place], beside: Iterable[Place]) -> dict[str, Any]:
    """The fields of Calls. `left`: the questions to ask, besides those that are `answered`; `each`: tokens of an
    answer; `places` and `beside`: the texts that are sent, for their personal data."""
    read = [prompt.size // BYTES_PER_TOKEN + 4 for prompt in left]
    rows, personal = _personal(places)
    others, common = _personal(beside)
    money = [] if settings.max_cost is None else [f"{settings.max_cost:g} US dollars"]
    tokens = [] if settings.max_tokens is None else [f"{settings.max_tokens:,} tokens"]
    return {
        "host": str(settings.address().netloc), "model": settings.model, "questions": len(left) + answered,
        "answered": answered, "tokens_read": sum(read), "tokens_written": each * len(left),
        "cost": None if price is None else float(sum(price.call(tokens, each) for tokens in read)),
        "price": None if price is None else price.source, "limits": " and ".join(money + tokens),
        "personal": dict(personal + common), "personal_rows": rows, "personal_beside": others}


def _personal(places: Iterable[Place]) -> tuple[list[str], Counter[str]]:
    """The places with personal data in their texts, and how much of each kind."""
    found = [(name, Counter(kinds_in(texts))) for name, texts in places]
    return [name for name, kinds in found if kinds], sum((kinds for _, kinds in found), Counter())
