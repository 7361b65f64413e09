"""What a model is for: the run file's [task]."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .outputs import HEADS
from .strict import limited


@dataclass(frozen=True)
class Task:
    """What the model is for; it travels in every artifact."""

    kind: str = limited("generate", choices=("generate", "classify", "embed"))
    """Text from a prompt, labels or scores of a text, or its vector."""
    system: str = ""
    """A system message put before every prompt."""
    schema: str = ""
    """generate: a JSON schema file that answers must satisfy."""
    template_options: dict[str, Any] = field(default_factory=dict)
    """generate: variables of the chat template, such as {enable_thinking = false}."""
    labels: list[str] = field(default_factory=list)
    """classify: the labels in order of their id; empty means all labels of the training rows, sorted."""
    head: str = limited("auto", choices=("auto", *HEADS))
    """classify: what the model's numbers mean. softmax: one label of several; sigmoid: any number of labels, each with
    its own probability; score: numbers as they are, such as ratings; sigmoid_score: numbers through a sigmoid, as many
    rerankers have them; auto: as the model's config.json says."""
    thresholds: dict[str, float] = field(default_factory=dict)
    """classify, with a sigmoid: label → the lowest probability at which it is given; 0.5 for those not named."""
    pooling: str = limited("auto", choices=("auto", "mean", "cls"))
    """embed: which states of the tokens make the vector; auto: as sentence-transformers' files beside the model say,
    mean without them."""
    normalise: bool = True
    """embed: give vectors of length 1; with pooling = "auto" those files decide, where they are."""
    max_new_tokens: int = limited(256, minimum=1, maximum=131072)
    """generate: the longest answer in tokens, where a request does not say."""
