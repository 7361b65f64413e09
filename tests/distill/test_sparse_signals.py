"""Fewer numbers than all logits: drawn tokens are without bias, the likeliest with a tail never say too much."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from edgestill.distill import heads
from edgestill.distill.signals import Drawn, Likeliest, Signal
from edgestill.distill.training.weighted_losses import LOSSES, WeightedLosses, read_losses
from edgestill.models import kinds
from edgestill.models.errors import UsageError

ANY: Any = torch.nn.Linear(1, 1)
TERMS = {"forward_kl": {}, "reverse_kl": {}, "jsd": {"beta": 0.3}, "skew_kl": {}, "skew_reverse_kl": {}}


def logits(*sizes: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed)) * 3


def loss(name: str, student: torch.Tensor, teacher: Any) -> torch.Tensor:
    module = kinds.load(LOSSES, name)
    return module.build(module.Config(**TERMS[name]), None, None)(Signal(student), teacher, torch.zeros(len(student)))


def evenly(teacher: torch.Tensor, draws: int, count: int = 400) -> list[Drawn]:
    """What is drawn with `count` random numbers at even distances: their mean is the mean over all there are."""
    return [Drawn.of(teacher, draws, torch.full((len(teacher),), (place + 0.5) / count)) for place in range(count)]


@pytest.mark.parametrize("draws", [1, 7, 50])
def test_drawn_tokens_are_the_distribution_in_the_mean(draws: int) -> None:
    teacher = logits(4, 31)
    wanted, all_drawn = teacher.softmax(-1), evenly(teacher, draws)
    found = sum(torch.zeros_like(wanted).scatter_add(-1, drawn.ids, drawn.weights) for drawn in all_drawn)
    torch.testing.assert_close(found / len(all_drawn), wanted, atol=1.01 / (400 * draws), rtol=0)
    for drawn in all_drawn[::40]:
        torch.testing.assert_close(drawn.weights.sum(-1), torch.ones(4))
        counts = torch.zeros_like(wanted).scatter_add(-1, drawn.ids, drawn.weights) * draws
        assert (counts - wanted * draws).abs().max() < 1 + 1e-4  # each is rounded down or up


def test_real_random_numbers_are_without_bias_too() -> None:
    teacher = logits(1, 13).expand(20_000, -1)
    random = torch.rand(len(teacher), generator=torch.Generator().manual_seed(1))
    drawn = Drawn.of(teacher, 2, random)
    found = torch.zeros_like(teacher).scatter_add(-1, drawn.ids, drawn.weights).mean(0)
    torch.testing.assert_close(found, teacher[0].softmax(-1), atol=0.01, rtol=0)  # 4 standard errors at the most


def test_the_loss_of_drawn_tokens_and_its_gradient_are_the_whole_ones_in_the_mean() -> None:
    teacher, student = logits(4, 31), logits(4, 31, seed=1).requires_grad_()
    whole = loss("forward_kl", student, Signal(teacher))
    wanted = torch.autograd.grad(whole.sum(), student)[0]
    found = torch.stack([loss("forward_kl", student, drawn) for drawn in evenly(teacher, 50)]).mean(0)
    torch.testing.assert_close(found, whole, atol=2e-3, rtol=0)
    torch.testing.assert_close(torch.autograd.grad(found.sum(), student)[0], wanted, atol=2e-4, rtol=0)


def test_a_token_of_no_probability_is_never_drawn() -> None:
    teacher = torch.full((1, 5), -math.inf)
    teacher[0, 3] = 0.0
    drawn = Drawn.of(teacher, 3, torch.zeros(1))
    assert drawn.ids.tolist() == [[3]] and drawn.weights.tolist() == [[1.0]] and drawn.own.tolist() == [0.0]


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("count", [3, 31])
def test_the_likeliest_tokens_never_say_more_than_all(name: str, count: int) -> None:
    teacher, student = logits(4, 31), logits(4, 31, seed=1).requires_grad_()
    found, whole = loss(name, student, Likeliest.of(teacher, count)), loss(name, student, Signal(teacher))
    if count == 31:
        torch.testing.assert_close(found, whole, atol=1e-5, rtol=1e-5)
    assert (found <= whole + 1e-5).all() and (found > 0.1 * whole).all()
    (gradient,) = torch.autograd.grad(found.sum(), student)
    assert gradient.isfinite().all() and (gradient.abs() > 0).any(-1).all()
    own = Likeliest.of(student.detach(), count)
    assert loss(name, student.detach(), own).abs().max() < 1e-6


@pytest.mark.parametrize("sparse", [lambda all: Likeliest.of(all, 4), lambda all: Drawn.of(all, 9, torch.rand(5))])
def test_a_part_and_a_padded_vocabulary_change_nothing(sparse: Any) -> None:
    teacher, student = sparse(logits(5, 11)), logits(5, 11, seed=1)
    wanted = loss("forward_kl", student, teacher)
    padded = torch.cat([student, torch.full((5, 3), 50.0)], dim=1)
    torch.testing.assert_close(loss("forward_kl", padded, teacher), wanted)
    torch.testing.assert_close(loss("forward_kl", student[2:4], teacher[2:4]), wanted[2:4])


def test_the_chunked_head_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "LOGITS_AT_ONCE", {"cpu": 16})
    hidden, head = logits(50, 8).requires_grad_(), heads.Head(logits(37, 8, seed=1))
    teacher = Drawn.of(logits(50, 37, seed=2), 20, torch.rand(50))
    total = heads.summed_loss(hidden, head, lambda some, part: loss("forward_kl", some, teacher[part]), torch.float32)
    whole = loss("forward_kl", hidden @ head.weight.T, teacher).sum()
    assert len(heads.chunks(50, 37)) > 1
    torch.testing.assert_close(total, whole)
    total.backward()
    torch.testing.assert_close(hidden.grad, torch.autograd.grad(whole, hidden)[0])


@pytest.mark.parametrize(("table", "provided", "lacking"), [
    ({"kind": "jsd"}, "drawn", "likeliest"), ({"kind": "forward_kl", "temperature": 2.0}, "drawn", "logits"),
    ({"kind": "skew_kl", "temperature": 2.0}, "likeliest", "logits")])
def test_a_loss_that_cannot_read_so_little_is_refused(table: dict[str, Any], provided: str, lacking: str) -> None:
    teacher: Any = SimpleNamespace(provides={provided})
    with pytest.raises(UsageError, match=rf"{table['kind']} needs {lacking} of the teacher, which provides {provided}"):
        WeightedLosses(read_losses([table]), ANY, teacher)
    for fits in ({"kind": "forward_kl"}, {"kind": "ce"}):
        WeightedLosses(read_losses([fits]), ANY, teacher)
