"""Losses: every kind against a float64 reference, and the chunked head against the whole one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from edgestill.distill import heads, objectives
from edgestill.models import kinds
from edgestill.models.errors import UsageError


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


REFERENCES: dict[str, Callable[..., np.ndarray]] = {
    "ce": ce, "forward_kl": forward_kl, "reverse_kl": reverse_kl, "jsd": jsd}
OPTIONS: dict[str, list[dict[str, float]]] = {
    "ce": [{}, {"label_smoothing": 0.1}], "forward_kl": [{}, {"temperature": 2.0}],
    "reverse_kl": [{}, {"temperature": 3.0}],
    "jsd": [{}, {"beta": 0.1, "temperature": 2.0}, {"beta": 0.0}, {"beta": 1.0, "temperature": 2.0}],
}
CASES = [(name, options) for name in kinds.names(objectives.LOSSES) for options in OPTIONS.get(name, [{}])]


def sample(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return (torch.randn(5, 11, dtype=dtype) * 3).requires_grad_(), torch.randn(5, 11, dtype=dtype) * 3, torch.arange(5)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_every_loss_is_its_formula(name: str, options: dict[str, float]) -> None:
    module = kinds.load(objectives.LOSSES, name)
    config = module.Config(**options)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-5)):
        student, teacher, labels = sample(dtype)
        found = module.loss(student, teacher if module.TEACHER else None, labels, config)
        wanted = REFERENCES[name](student.detach().double().numpy(), teacher.double().numpy(), labels.numpy(), config)
        assert found.shape == (5,)
        np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_every_gradient_is_right(name: str, options: dict[str, float]) -> None:
    module = kinds.load(objectives.LOSSES, name)
    student, teacher, labels = sample()
    given = teacher if module.TEACHER else None
    assert torch.autograd.gradcheck(lambda s: module.loss(s, given, labels, module.Config(**options)), (student,))


@pytest.mark.parametrize(
    "name", [name for name in kinds.names(objectives.LOSSES) if kinds.load(objectives.LOSSES, name).TEACHER])
def test_a_divergence_is_zero_only_between_equals_and_finite_far_apart(name: str) -> None:
    module = kinds.load(objectives.LOSSES, name)
    student, teacher, labels = sample()
    assert module.loss(teacher, teacher, labels, module.Config()).abs().max() < 1e-12
    assert (module.loss(student, teacher, labels, module.Config()) > 0).all()
    far = torch.full((1, 11), -80.0)
    far[0, 0] = 80.0
    assert module.loss(far, far.flip(1), labels[:1], module.Config()).isfinite().all()


def test_the_gradient_of_a_kl_keeps_its_size_when_the_temperature_is_high() -> None:
    """That is what the factor T² is for: without it the gradient would shrink 10,000 times here."""
    module = kinds.load(objectives.LOSSES, "forward_kl")
    sizes = []
    for temperature in (1.0, 100.0):
        student, teacher, labels = sample()
        module.loss(student, teacher, labels, module.Config(temperature)).sum().backward()
        assert student.grad is not None
        sizes.append(float(student.grad.norm()))
    assert 0.2 < sizes[1] / sizes[0] < 5


def test_vocabularies_padded_differently_are_compared_on_what_they_share() -> None:
    terms = objectives.read_losses([{"kind": "forward_kl"}, {"kind": "ce", "weight": 0.5}])
    student, teacher, labels = sample()
    padded = torch.cat([teacher, torch.full((5, 3), 50.0, dtype=torch.float64)], dim=1)
    torch.testing.assert_close(objectives.total(terms, student, padded, labels),
                               objectives.total(terms, student, teacher, labels))
    torch.testing.assert_close(objectives.total(terms, student, teacher[:, :9], labels),
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
        objectives.read_losses(tables)


def test_a_loss_that_needs_a_teacher_says_so() -> None:
    student, _, labels = sample()
    with pytest.raises(UsageError, match="needs a teacher"):
        objectives.total(objectives.read_losses([{"kind": "jsd"}]), student, None, labels)


@pytest.mark.parametrize("softcap", [0.0, 5.0])
@pytest.mark.parametrize("chunk", [16, 2**20])
def test_the_chunked_head_gives_the_loss_and_gradients_of_the_whole(monkeypatch: pytest.MonkeyPatch, softcap: float,
                                                                    chunk: int) -> None:
    monkeypatch.setattr(heads, "LOGITS_AT_ONCE", chunk)
    torch.manual_seed(0)
    hidden, weight, bias = torch.randn(50, 8), torch.randn(37, 8), torch.randn(37)
    labels = torch.randint(37, (50,))

    def row_loss(logits: torch.Tensor, part: slice) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(logits, labels[part], reduction="none")

    values, gradients = [], []
    for whole in (True, False):
        leaves = [value.clone().requires_grad_() for value in (hidden, weight, bias)]
        head = heads.Head(leaves[1], leaves[2], scale=0.5, softcap=softcap)
        if whole:
            loss = row_loss(head.logits(leaves[0], leaves[1], leaves[2]), slice(None)).sum()
        else:
            loss = heads.summed_loss(leaves[0], head, row_loss, torch.float32)
            with torch.no_grad():
                torch.testing.assert_close(heads.summed_loss(leaves[0], head, row_loss, torch.float32), loss)
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
import torch
from edgestill.distill import heads, objectives
torch.set_num_threads(1)
hidden, weight = torch.randn(384, 64, requires_grad=True), torch.randn(151936, 64, requires_grad=True)
theirs, labels = torch.randn(152064, 64), torch.randint(151936, (384,))
terms = objectives.read_losses([{"kind": "forward_kl"}, {"kind": "ce", "weight": 0.2}])
head = heads.Head(weight)
def row_loss(logits, part):
    return objectives.total(terms, logits, (hidden[part].detach() @ theirs.T), labels[part])
hidden.grad, weight.grad = torch.zeros_like(hidden), torch.zeros_like(weight)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
heads.summed_loss(hidden, head, row_loss, torch.float32).backward()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_a_vocabulary_of_151936_tokens_does_not_blow_memory() -> None:
    """Whole, student and teacher logits with their log-softmaxes and gradients would take 2 GB here."""
    if sys.platform != "linux":
        pytest.skip("peak memory is read as Linux reports it")
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 0.75e9
