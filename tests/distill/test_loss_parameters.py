"""Losses with parameters of their own: trained and kept in checkpoints like the model's, and no part of what ships."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from edgestill.distill import distill, heads
from edgestill.distill.losses import reverse_kl
from edgestill.distill.losses._base import kl
from edgestill.distill.signals import Signal
from edgestill.distill.training import loop
from safetensors.torch import load_file

from ..runtime.test_rows import jsonl


class LearnedTemperature(torch.nn.Module):
    """A reverse KL whose temperature is learned, too."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(1.0 + 0.1 * torch.randn(()))

    def forward(self, student: Signal, teacher: Signal, labels: torch.Tensor) -> torch.Tensor:
        return kl((student.logits * self.scale).log_softmax(-1), teacher.logits.log_softmax(-1))


@pytest.mark.parametrize("trained", [True, False])
def test_the_chunked_head_gives_their_gradient_too(monkeypatch: pytest.MonkeyPatch, trained: bool) -> None:
    monkeypatch.setattr(heads, "LOGITS_AT_ONCE", {"cpu": 16})
    torch.manual_seed(0)
    hidden, weight, theirs = torch.randn(50, 8), torch.randn(37, 8), Signal(torch.randn(50, 37))
    labels, loss = torch.zeros(50), LearnedTemperature()
    leaf = weight.requires_grad_(trained)  # a frozen model changes nothing for the loss
    loss(Signal(hidden @ leaf.T), theirs, labels).sum().backward()
    wanted, loss.scale.grad = loss.scale.grad, None
    assert len(heads.chunks(50, 37)) > 1
    heads.summed_loss(hidden, heads.Head(leaf), lambda logits, part: loss(Signal(logits), theirs[part], labels[part]),
                      torch.float32, [loss.scale]).backward()
    torch.testing.assert_close(loss.scale.grad, wanted)


@pytest.fixture
def path(tmp_path: Path, tiny_llama: Path, tiny_bert: Path, request: pytest.FixtureRequest) -> Path:
    if request.param == "generate":
        rows: list[dict[str, Any]] = [{"prompt": f"turn on the light {index}", "completion": "on"}
                                      for index in range(16)]
    else:
        rows = [{"text": f"play some {label} {index}", "label": label} for label in ("light", "music", "weather")
                for index in range(6)]
    model = (tiny_llama if request.param == "generate" else tiny_bert).as_posix()
    jsonl(tmp_path / "rows.jsonl", rows)
    (tmp_path / "run.toml").write_text(
        f"task.kind = '{request.param}'\ndata.train = 'rows.jsonl'\nstudent.model = '{model}'\nstudent.layers = [0]\n"
        f"teacher = {{ kind = 'local', model = '{model}' }}\n[distill]\nsteps = 6\nbatch_size = 4\n"
        "learning_rate = 1e-2\ncheckpoint_seconds = 0.0\nlosses = [{ kind = 'ce' }, { kind = 'reverse_kl' }]\n")
    return tmp_path / "run.toml"


@pytest.mark.parametrize("path", ["generate", "classify"], indirect=True)
def test_they_are_trained_from_the_seed_go_on_after_a_stop_and_do_not_ship(path: Path,
                                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[LearnedTemperature] = []
    drawn: list[float] = []

    def build(config: Any, student: Any, teacher: Any) -> LearnedTemperature:
        made.append(LearnedTemperature())
        drawn.append(float(made[-1].scale.detach()))
        return made[-1]

    monkeypatch.setattr(reverse_kl, "build", build)
    whole = distill(path, path.parent / "whole")
    save = loop.Store.save

    def stop(store: Any, state: Any, *tensors: Any) -> None:
        save(store, state, *tensors)
        if state.step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(loop.Store, "save", stop)
        distill(path, path.parent / "stopped")
    torch.manual_seed(99)  # what was drawn elsewhere plays no part
    stopped = distill(path, path.parent / "stopped")
    ended, halted, resumed = (float(loss.scale.detach()) for loss in made)
    assert len(set(drawn)) == 1 and resumed == ended and ended not in (halted, drawn[0])
    assert (stopped / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert not any("scale" in name or "losses" in name for name in load_file(whole / "model.safetensors"))
