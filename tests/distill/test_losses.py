"""Losses: every kind against a float64 reference, and the chunked head against the whole one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from edgestill.distill import heads
from edgestill.distill.signals import ATTENTION, HIDDEN, Signal
from edgestill.distill.training.weighted_losses import LOSSES, WeightedLosses, read_losses
from edgestill.models import kinds
from edgestill.models.errors import UsageError

ANY = torch.nn.Linear(1, 1)
"""A model of any kind: these losses do not look at it."""


TEACHER: Any = SimpleNamespace(provides={"logits"})


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return (p * np.log(p / q)).sum(-1)


def ce(student: np.ndarray, teacher: np.ndarray, labels: np.ndarray, config: Any) -> np.ndarray:
    log_q = np.log(softmax(student))
    hard = -log_q[np.arange(len(labels)), labels]
    return (1 - config.label_smoothing) * hard - config.label_smoothing * log_q.mean(-1)


def forward_kl(student: np.ndarray, teacher: np.ndarray, labels: np.ndarray, config: Any) -> np.ndarray:
    return config.temperature**2 * kl(softmax(teacher / config.temperature), softmax(student / config.temperature))


def reverse_kl(student: np.ndarray, teacher: np.ndarray, labels: np.ndarray, config: Any) -> np.ndarray:
    return config.temperature**2 * kl(softmax(student / config.temperature), softmax(teacher / config.temperature))


def jsd(student: np.ndarray, teacher: np.ndarray, labels: np.ndarray, config: Any) -> np.ndarray:
    p, q = softmax(teacher / config.temperature), softmax(student / config.temperature)
    if config.beta in (0.0, 1.0):
        return config.temperature**2 * (kl(p, q) if config.beta == 0.0 else kl(q, p))
    mixture = config.beta * p + (1 - config.beta) * q
    return config.temperature**2 * (config.beta * kl(p, mixture) + (1 - config.beta) * kl(q, mixture))


def skew_kl(student: np.ndarray, teacher: np.ndarray, labels: np.ndarray, config: Any) -> np.ndarray:
    p, q = softmax(teacher / config.temperature), softmax(student / config.temperature)
    return config.temperature**2 * kl(p, config.alpha * p + (1 - config.alpha) * q)


def skew_reverse_kl(student: np.ndarray, teacher: np.ndarray, labels: np.ndarray, config: Any) -> np.ndarray:
    return skew_kl(teacher, student, labels, config)


REFERENCES: dict[str, Callable[..., np.ndarray]] = {
    "ce": ce, "forward_kl": forward_kl, "reverse_kl": reverse_kl, "jsd": jsd, "skew_kl": skew_kl,
    "skew_reverse_kl": skew_reverse_kl}
OPTIONS: dict[str, list[dict[str, float]]] = {
    "ce": [{}, {"label_smoothing": 0.1}], "forward_kl": [{}, {"temperature": 2.0}],
    "reverse_kl": [{}, {"temperature": 3.0}],
    "jsd": [{}, {"beta": 0.1, "temperature": 2.0}, {"beta": 0.0}, {"beta": 1.0, "temperature": 2.0}],
    "skew_kl": [{}, {"alpha": 0.7, "temperature": 2.0}], "skew_reverse_kl": [{}, {"alpha": 0.7, "temperature": 2.0}],
}
OF_LOGITS = [name for name in kinds.names(LOSSES) if not {HIDDEN, ATTENTION} & {*kinds.load(LOSSES, name).NEEDS}]
CASES = [(name, options) for name in OF_LOGITS for options in OPTIONS.get(name, [{}])]
DIVERGENCES = [name for name in OF_LOGITS if kinds.load(LOSSES, name).NEEDS]


def loss(name: str, **options: Any) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]:
    """A loss as a function of logits."""
    module = kinds.load(LOSSES, name)
    built = module.build(module.Config(**options), None, None)
    return lambda student, teacher, labels: built(
        Signal(student), Signal(teacher) if module.NEEDS else None, labels)


def sample(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return (torch.randn(5, 11, dtype=dtype) * 3).requires_grad_(), torch.randn(5, 11, dtype=dtype) * 3, torch.arange(5)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_every_loss_is_its_formula(name: str, options: dict[str, float]) -> None:
    config = kinds.load(LOSSES, name).Config(**options)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-5)):
        student, teacher, labels = sample(dtype)
        found = loss(name, **options)(student, teacher, labels)
        wanted = REFERENCES[name](student.detach().double().numpy(), teacher.double().numpy(), labels.numpy(), config)
        assert found.shape == (5,)
        np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_every_gradient_is_right(name: str, options: dict[str, float]) -> None:
    student, teacher, labels = sample()
    assert torch.autograd.gradcheck(lambda logits: loss(name, **options)(logits, teacher, labels), (student,))


FAR = torch.full((1, 11), -80.0)
FAR[0, 0] = 80.0


@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_divergence_is_zero_only_between_equals_and_finite_far_apart(name: str) -> None:
    student, teacher, labels = sample()
    assert loss(name)(teacher, teacher, labels).abs().max() < 1e-12
    assert (loss(name)(student, teacher, labels) > 0).all()
    assert loss(name)(FAR, FAR.flip(1), labels[:1]).isfinite().all()


@pytest.mark.parametrize("name", ["skew_kl", "skew_reverse_kl"])
def test_a_skewed_divergence_is_the_plain_one_near_0_and_minus_log_alpha_far_apart(name: str) -> None:
    student, teacher, labels = sample()
    plain = loss({"skew_kl": "forward_kl", "skew_reverse_kl": "reverse_kl"}[name])(student, teacher, labels)
    gaps = [(plain - loss(name, alpha=alpha)(student, teacher, labels)).abs().max() for alpha in (1e-4, 1e-12)]
    assert gaps[0] > 1e-4 and gaps[1] < 1e-8
    found = loss(name, alpha=0.25)(FAR, FAR.flip(1), labels[:1])
    torch.testing.assert_close(found, torch.tensor([4.0]).log())


def test_the_gradient_of_a_kl_keeps_its_size_when_the_temperature_is_high() -> None:
    """That is what the factor T² is for: without it the gradient would shrink 10,000 times here."""
    sizes = []
    for temperature in (1.0, 100.0):
        student, teacher, labels = sample()
        loss("forward_kl", temperature=temperature)(student, teacher, labels).sum().backward()
        assert student.grad is not None
        sizes.append(float(student.grad.norm()))
    assert 0.2 < sizes[1] / sizes[0] < 5


def test_vocabularies_padded_differently_are_compared_on_what_they_share() -> None:
    losses = WeightedLosses(read_losses([{"kind": "forward_kl"}, {"kind": "ce", "weight": 0.5}]), ANY, TEACHER)
    student, teacher, labels = sample()
    padded = torch.cat([teacher, torch.full((5, 3), 50.0, dtype=torch.float64)], dim=1)
    torch.testing.assert_close(losses(Signal(student), Signal(padded), labels),
                               losses(Signal(student), Signal(teacher), labels))
    torch.testing.assert_close(losses(Signal(student), Signal(teacher[:, :9]), labels),
                               forward_and_ce(student, teacher[:, :9], labels))


def forward_and_ce(student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    p, log_q = teacher.softmax(-1), student[:, : teacher.shape[1]].log_softmax(-1)
    return (p * (p.log() - log_q)).sum(-1) - 0.5 * student.log_softmax(-1)[torch.arange(5), labels]


@pytest.mark.parametrize(("tables", "message"), [
    ([], "no loss"), ([{"kind": "forward_lk"}], "forward_lk"), ([{"kind": "ce", "weight": 0}], "weight"),
    ([{"kind": "ce", "temperature": 2.0}], "temperature"), ([{"weight": 1.0}], "kind"),
    ([{"kind": "jsd", "beta": 1.5}], "beta"), ([{"kind": "ce", "weight": True}], "weight"),
])
def test_a_loss_table_that_cannot_be_is_refused(tables: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_losses(tables)


def test_a_loss_that_needs_a_teacher_says_so() -> None:
    with pytest.raises(UsageError, match=r"tune.losses\[1\]: jsd needs a teacher"):
        WeightedLosses(read_losses([{"kind": "ce"}, {"kind": "jsd"}], "tune.losses"), ANY)


def test_a_loss_that_needs_more_than_the_teacher_gives_says_so() -> None:
    teacher: Any = SimpleNamespace(provides={"text", "spans"})
    with pytest.raises(UsageError, match=r"distill.losses\[0\]: jsd needs likeliest of the teacher, .* spans, text"):
        WeightedLosses(read_losses([{"kind": "jsd"}]), ANY, teacher)
    assert WeightedLosses(read_losses([{"kind": "ce"}]), ANY, teacher).needs == set()


def test_a_loss_of_a_level_that_is_not_computed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds.load(LOSSES, "jsd"), "LEVEL", "pair")
    with pytest.raises(UsageError, match="jsd is a number of each pair"):
        read_losses([{"kind": "jsd"}])


def test_the_first_rows_of_a_head_take_no_memory_and_others_are_those_named() -> None:
    head = heads.Head(torch.randn(6, 4), torch.randn(6), scale=2.0)
    first, some = head.rows(torch.arange(5)), head.rows(torch.tensor([0, 1, 3]))
    assert first.weight.data_ptr() == head.weight.data_ptr() and torch.equal(first.weight, head.weight[:5])
    assert torch.equal(some.weight, head.weight[[0, 1, 3]]) and torch.equal(some.bias, head.bias[[0, 1, 3]])
    assert first.bias.shape == (5,) and first.scale == some.scale == 2.0


def test_a_gpu_takes_more_positions_at_once() -> None:
    sizes = {device: heads.chunks(2048, 151_936, device)[0].stop for device in ("cpu", "cuda")}
    assert sizes == {"cpu": 55, "cuda": 220}


@pytest.mark.parametrize("softcap", [0.0, 5.0])
@pytest.mark.parametrize("chunk", [16, 2**20])
def test_the_chunked_head_gives_the_loss_and_gradients_of_the_whole(monkeypatch: pytest.MonkeyPatch, softcap: float,
                                                                    chunk: int) -> None:
    monkeypatch.setattr(heads, "LOGITS_AT_ONCE", {"cpu": chunk})
    torch.manual_seed(0)
    hidden, weight, bias = torch.randn(50, 8), torch.randn(37, 8), torch.randn(37)
    labels = torch.randint(37, (50,))

    def place_loss(logits: torch.Tensor, part: slice) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(logits, labels[part], reduction="none")

    values, gradients = [], []
    for whole in (True, False):
        leaves = [value.clone().requires_grad_() for value in (hidden, weight, bias)]
        head = heads.Head(leaves[1], leaves[2], scale=0.5, softcap=softcap)
        if whole:
            loss = place_loss(head.logits(leaves[0], leaves[1], leaves[2]), slice(None)).sum()
        else:
            loss = heads.summed_loss(leaves[0], head, place_loss, torch.float32)
            with torch.no_grad():
                torch.testing.assert_close(heads.summed_loss(leaves[0], head, place_loss, torch.float32), loss)
        (loss / 7).backward()
        values.append(loss.detach())
        gradients.append([leaf.grad for leaf in leaves])
    torch.testing.assert_close(values[0], values[1])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_a_frozen_head_gets_no_gradient() -> None:
    hidden, weight = torch.randn(4, 8, requires_grad=True), torch.randn(9, 8)
    loss = heads.summed_loss(hidden, heads.Head(weight), lambda logits, part: logits.square().sum(-1), torch.float32)
    loss.backward()
    torch.testing.assert_close(hidden.grad, 2 * hidden.detach() @ weight.T @ weight)


MEASURE = """
import resource
from types import SimpleNamespace
import torch
from edgestill.distill import heads
from edgestill.distill.signals import ATTENTION, HIDDEN, Signal
from edgestill.distill.training.weighted_losses import LOSSES, WeightedLosses, read_losses
torch.set_num_threads(1)
hidden, weight = torch.randn(384, 64, requires_grad=True), torch.randn(151936, 64, requires_grad=True)
theirs, labels = torch.randn(152064, 64), torch.randint(151936, (384,))
terms = read_losses([{"kind": "forward_kl"}, {"kind": "ce", "weight": 0.2}])
losses = WeightedLosses(terms, torch.nn.Linear(1, 1), SimpleNamespace(provides={"logits"}))
head = heads.Head(weight)
def place_loss(logits, part):
    return losses(Signal(logits), Signal(hidden[part].detach(), lambda states: states @ theirs.T), labels[part])
hidden.grad, weight.grad = torch.zeros_like(hidden), torch.zeros_like(weight)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
heads.summed_loss(hidden, head, place_loss, torch.float32).backward()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_a_vocabulary_of_151936_tokens_does_not_blow_memory() -> None:
    """Whole, student and teacher logits with their log-softmaxes and gradients would take 2 GB here."""
    if sys.platform != "linux":
        pytest.skip("peak memory is read as Linux reports it")
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 0.75e9
