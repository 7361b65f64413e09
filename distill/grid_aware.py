"""Training on the grid of a 4-bit file: a student's float weights teach its 4-bit self, what it sees is what ships.

The student begins where the best post-training method ends, learns to give the float model's distribution at every
token of the training rows, prompts included, and is judged on held-out rows. The start is kept where nothing is better.
Which tensors stand on which grid is asked of the GGUF writer: matrices in blocks of 32 at 4 bits are trained, and
vectors in float; embedding and head are rounded to their 8 bits and stay there, and to float16 what no block fits.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..models import files
from ..models.errors import MissingExtra, UsageError
from ..models.runfile import GridAware, RunFile, check_grid_aware
from ..quantize.grid.codes import Codes
from ..runtime.text.codec import Codec
from .data.token_sets import everything
from .loading import load_model
from .prepare import student_source
from .sources import weights_digest
from .tasks._base import Splits
from .teachers.local import LocalTeacher
from .training import machine
from .training.grid import Grid
from .training.job import Bench, Job, once, validate
from .training.weighted_losses import WeightedLosses, read_losses
from .training.world import world
from .verbs import read_run, settle

if TYPE_CHECKING:
    from ..quantize.source.checkpoint import Checkpoint

FORWARD_KL = ({"kind": "forward_kl"},)
START = "start.safetensors"
WIDE = ("Q8_0", "F16")


def grid_aware(run: RunFile | Path | str, out: Path | str, overrides: Sequence[str] = (), base: Path | None = None,
               student: Path | None = None, splits: Splits | None = None) -> Path:
    """Teach a student its 4-bit self, as [grid_aware] says; returns the artifact folder `out`.

    Arguments and errors as of `tune`; `student` is the folder of the float student, by default what [student] says.
    The result is a plain Hugging Face folder in float32 whose matrices stand on the grid: exported to gguf:Q4_0 or
    onnx:int4, by whatever method, the files hold these very numbers. Its manifest names the float student among the
    parents, and the KL to it on the validation rows in settings.grid_aware. Raises UsageError also for a classifier,
    for a run without validation rows and for a model of which no tensor can stand on the grid.
    """
    run, base, splits = read_run(run, overrides, base, out, splits)
    settings = run.grid_aware or GridAware()
    check_grid_aware(replace(run, grid_aware=settings))
    if world().size > 1:
        raise UsageError(f"grid_aware: {world().size} processes were started, and it trains in one",
                         "start it alone; tune and distill train in several")
    out = Path(out)
    source = student_source(run, base, splits, out, student, None)
    run = settle(run, source, splits)
    job = Job("grid_aware", run, base, splits, source, settings, FORWARD_KL, LocalTeacher(source, machine.device()),
              weights_digest(source.folder))
    tensors = _Tensors.read(source.folder)
    return once(job, out, lambda bench: _train(bench, settings, tensors))


@dataclass(frozen=True)
class _Tensors:
    """Which tensors of a checkpoint a 4-bit file keeps on which grid."""

    checkpoint: Checkpoint
    four_bit: Mapping[str, bool]
    """By name, whether it is stored as [in, out]."""
    wide: Mapping[str, str]
    """The type, Q8_0 or F16, of matrices that are no 4-bit ones, by name."""
    prefix: str = ""
    """What stands before names of the checkpoint in the model: GPT-2 is often stored without it."""

    @classmethod
    def read(cls, folder: Path) -> _Tensors:
        """Ask the writer; reads no weights. UsageError when no tensor is kept at 4 bits."""
        from ..quantize.gguf.tensors import plan
        from ..quantize.source.checkpoint import Checkpoint

        checkpoint = Checkpoint.open(folder)
        try:
            planned, _ = plan(checkpoint, "Q4_0")
        except ImportError as error:
            raise MissingExtra("gguf", "export") from error
        four_bit = {tensor.source: tensor.change == "transpose" for tensor in planned if tensor.type == "Q4_0"}
        if not four_bit:
            raise UsageError(f"{folder}: no tensor has rows of a whole number of blocks of 32",
                             "leave [grid_aware] out: a 4-bit file of this model holds no 4-bit tensor")
        return cls(checkpoint, four_bit, {tensor.source: tensor.type for tensor in planned if tensor.type in WIDE})

    def named_as(self, model: Any) -> _Tensors:
        """The same with the names that the model has for them."""
        known = dict(model.named_parameters())
        if all(name in known for name in self.four_bit):
            return self
        prefix = f"{model.base_model_prefix}."
        names = {name: name if name in known else prefix + name for name in (*self.four_bit, *self.wide)}
        return _Tensors(self.checkpoint, {names[name]: turned for name, turned in self.four_bit.items()},
                        {names[name]: type for name, type in self.wide.items()}, prefix)

    def stored(self, name: str) -> NDArray[np.float32]:
        """A tensor as it is stored, float32."""
        return self.checkpoint.tensor(name.removeprefix(self.prefix))

    def weight(self, name: str) -> NDArray[np.float32]:
        """The float weight [out, in] of a 4-bit tensor."""
        weight = self.stored(name)
        return np.ascontiguousarray(weight.T) if self.four_bit[name] else weight


def _train(bench: Bench, settings: GridAware, tensors: _Tensors) -> None:
    job = bench.job
    codec = Codec.from_folder(job.student.folder, job.run.task)
    # Prompts are learned from too: a decoder is asked about every token of them.
    sets = {name: everything(tokens) for name, tokens in bench.read_tokens(codec).items()}
    schedules = bench.schedules(codec, sets)
    model = load_model(job.student.folder, job.run.task)
    machine.recompute_layers(model, int(sets["train"].lengths.max()), schedules["train"].micro_batch_tokens)
    tensors = tensors.named_as(model)
    found = _kept(bench.work / START)
    starts = [found] if found else _starts(
        tensors, settings, model, [sets["train"].row(row).tolist() for row in range(len(sets["train"]))])
    grid = _attach(model, tensors, bench.device)
    grid.start(starts[0].codes, tensors.weight)
    losses = WeightedLosses(read_losses(FORWARD_KL), model, job.teacher)
    objectives = bench.objectives(model, losses, codec, schedules)

    def check() -> dict[str, float]:
        return validate(objectives["validation"], schedules["validation"])

    start = found or _best(starts, grid, tensors, check, bench)
    grid.start(start.codes, tensors.weight)
    outcome = bench.train(model, objectives, schedules, check, keep_start=True)
    positions = sum(batch.count for batch in schedules["validation"].all())
    kept = f"step {outcome.best_step}" if outcome.best_step else "the start: training did not better it"
    told = {"start": dict(start.method), "start_kl_nats": start.kl_nats, "kl_nats": outcome.validation["loss"],
            "held_out_tokens": positions, "kept": kept}
    bench.progress.note(f"KL to the float student on {positions} held-out tokens: {start.kl_nats:.5f} nats after "
                        f"{start.method['kind']}, {told['kl_nats']:.5f} kept ({kept})")
    bench.finish(grid.merge(), outcome, sets, {"grid_aware": told}, job.run)


@dataclass(frozen=True)
class _Start:
    """Where a post-training method ends."""

    method: Mapping[str, Any]
    codes: Mapping[str, Codes]
    kl_nats: float = float("inf")
    """Mean KL to the float student on the validation rows."""


def _starts(tensors: _Tensors, settings: GridAware, model: Any, sequences: list[list[int]]) -> list[_Start]:
    """The codes of every method, calibrated on the first training rows."""
    from ..quantize.grid.calibration import measure
    from ..quantize.grid.encode import encoder
    from ..quantize.source.float_model import FloatModel

    calibration = measure(FloatModel(tensors.checkpoint.folder, model.eval()), sequences[: settings.calibration_rows])
    starts = []
    for method in settings.starts:
        encode = encoder(method, calibration)
        starts.append(_Start(method, {name: encode(name, tensors.weight(name)) for name in tensors.four_bit}))
    return starts


def _best(starts: list[_Start], grid: Grid, tensors: _Tensors, check: Callable[[], dict[str, float]],
          bench: Bench) -> _Start:
    """The start with the least KL on the validation rows, written down: a run that goes on must not choose again."""
    import torch

    judged = []
    for start in starts:
        grid.start(start.codes, tensors.weight)
        with torch.no_grad():
            judged.append(replace(start, kl_nats=check()["loss"]))
        bench.progress.note(f"{start.method['kind']}: KL {judged[-1].kl_nats:.5f} nats on the validation rows")
    best = min(judged, key=lambda start: start.kl_nats)
    _keep(best, bench.work / START)
    return best


def _attach(model: Any, tensors: _Tensors, device: str) -> Grid:
    """Round what is wider than 4 bits as the file does, and make a grid of the rest for `Grid.start`."""
    import torch

    from ..quantize.onnx.blocks import dequantize, eight_bit

    model.requires_grad_(False)
    for name, type_name in tensors.wide.items():
        weight = tensors.stored(name)
        stored = dequantize(eight_bit(weight)) if type_name == "Q8_0" else weight.astype(np.float16)
        model.get_parameter(name).data.copy_(torch.from_numpy(stored))
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.ndim == 1)
    model.to(device)
    return Grid(model, tensors.four_bit)


def _keep(start: _Start, path: Path) -> None:
    from safetensors.numpy import save

    arrays = {f"{part}:{name}": getattr(codes, part) for name, codes in start.codes.items()
              for part in ("values", "scales")}
    facts = {"method": dict(start.method), "kl_nats": start.kl_nats}
    files.write_bytes(path, save(arrays, {"start": json.dumps(facts)}))
    files.write_text(path.with_suffix(".sha256"), files.sha256(path) + "\n")


def _kept(path: Path) -> _Start | None:
    """What `_keep` wrote; None where it was not written whole, and is to be made again."""
    from safetensors import safe_open
    from safetensors.numpy import load_file

    told = path.with_suffix(".sha256")
    if not path.is_file() or not told.is_file() or files.sha256(path) != told.read_text(encoding="utf-8").strip():
        return None
    arrays = load_file(path)
    with safe_open(path, framework="np") as file:
        facts = json.loads(file.metadata()["start"])
    names = {key.partition(":")[2] for key in arrays}
    return _Start(codes={name: Codes(arrays[f"values:{name}"], arrays[f"scales:{name}"]) for name in names}, **facts)
