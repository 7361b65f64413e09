"""One row of data, whatever it was read from."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from .messages import Message, meaning, reasoning


@dataclass(frozen=True)
class Row:
    """One row of data. Exactly one of `messages` and `text` is filled; with `text` goes one of `label`, `labels` and
    `score`, or none."""

    messages: tuple[Message, ...] = ()
    """A conversation as chat templates take it; its last message is the assistant's."""
    tools: tuple[dict[str, Any], ...] = ()
    text: str = ""
    label: str = ""
    where: str = ""
    """"train.jsonl:17", for messages."""
    pair: str = ""
    """The second text of a pair that a model reads together."""
    labels: tuple[str, ...] | None = None
    """Every label that applies, of a text that may have any number of them."""
    score: float | None = None
    """The number that is to be found, such as a rating."""
    unlearned: tuple[int, ...] = ()
    """Places of the assistant's messages that are read and not learned: those of weight 0."""
    route: str = ""
    """What says which of several teachers teaches the row, such as its language."""
    private: tuple[tuple[str, str], ...] = ()
    """Columns that a teacher alone reads, by name: no student, export or evaluation looks here."""

    @property
    def kind(self) -> str:
        """chat, label, labels, score or text."""
        if self.messages:
            return "chat"
        return "labels" if self.labels is not None else "score" if self.score is not None else (
            "label" if self.label else "text")

    @property
    def classified(self) -> bool:
        """Whether it is a text with a label, several or a score."""
        return self.kind in ("label", "labels", "score")

    @property
    def texts(self) -> str | tuple[str, str]:
        """The text, or both texts of a pair."""
        return (self.text, self.pair) if self.pair else self.text

    @property
    def named(self) -> tuple[str, ...]:
        """The labels that the row names: one, several or none."""
        return self.labels if self.labels is not None else (self.label,) if self.label else ()

    @property
    def turns(self) -> tuple[int, ...]:
        """Places of the assistant's messages that are learned."""
        return tuple(place for place, message in enumerate(self.messages)
                     if message["role"] == "assistant" and place not in self.unlearned)

    @property
    def place(self) -> int:
        """Place of the answer: of the last message to learn; behind all of them where somebody else speaks last."""
        if not self.messages or self.messages[-1]["role"] != "assistant":
            return len(self.messages)
        return self.turns[-1] if self.turns else len(self.messages) - 1

    @property
    def prompt_messages(self) -> tuple[Message, ...]:
        """The conversation up to, and without, the answer."""
        return self.messages[:self.place]

    @property
    def question(self) -> str:
        """What the last user message before the answer says, or the text; of a pair, both."""
        users = [message for message in self.prompt_messages if message["role"] == "user"]
        return str(users[-1]["content"]) if users else f"{self.text}\n\n{self.pair}" if self.pair else self.text

    @property
    def answer(self) -> str:
        """What the answer means (see messages.meaning), reasoning apart, or the label, the list of labels or the
        score as a classifier writes them; empty where nothing is to be learned."""
        if self.labels is not None:
            return json.dumps(list(self.labels), ensure_ascii=False)
        if self.score is not None:
            return repr(self.score)
        if self.place not in self.turns:
            return self.label
        last = self.messages[self.place]
        return meaning(str(last["content"]), last.get("tool_calls") or ())

    @property
    def reasoning(self) -> str:
        """The thoughts before the answer."""
        return reasoning(self.messages[self.place]) if self.place in self.turns else ""

    @property
    def reasons(self) -> bool:
        """Whether any message to learn has reasoning."""
        return any(reasoning(self.messages[place]) for place in self.turns)

    @property
    def questions(self) -> tuple[Row, ...]:
        """One row for each turn that is learned, which ends with it: what a model is asked of a conversation."""
        return tuple(replace(self, messages=self.messages[:place + 1],
                             unlearned=tuple(turn for turn in self.unlearned if turn < place),
                             where=f"{self.where}, message {place + 1}") for place in self.turns) \
            if len(self.turns) > 1 else (self,)
