"""Checkpoints that are whole or absent.

A work folder holds the newest two checkpoints and the best weights so far. Every file is written aside, synced and
renamed, and every checkpoint lists the SHA-256 of what belongs to it; on loading all are checked before a tensor is
used, and a damaged one falls back to the one before. Tensors are safetensors, all else JSON: nothing is unpickled.
"""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...models import files
from ...models.errors import EdgestillError, TrainingError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

KEEP = 2
STATE = "state.json"


@dataclass
class State:
    """Where training stands, without its tensors."""

    step: int = 0
    """Optimizer steps that are done."""
    best_loss: float | None = None
    best_step: int = -1
    best_sha256: str = ""
    """Of the file that holds the best weights."""
    not_better: int = 0
    """Validations in a row without a better loss."""
    stopped: bool = False
    """Patience ran out."""
    tokens: int = 0
    """Real tokens seen."""
    seconds: float = 0.0
    """Time spent in training steps, over all starts."""
    best: dict[str, float] = field(default_factory=dict)
    """The best validation's numbers."""


class Store:
    """The work folder of one training run."""

    def __init__(self, folder: Path, note: Callable[[str], None], writes: bool = True) -> None:
        """`note` is called with a line about everything unusual, such as a checkpoint that had to be passed over. Of
        several processes that train together one `writes`."""
        self.folder, self.note, self.writes = folder, note, writes
        if not writes:
            return
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".*"):  # what a killed process had half written
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()

    def claim(self, description: Mapping[str, Any], soft: Sequence[str] = ()) -> list[str]:
        """Take the folder for the run that `description` describes (JSON values).

        Returns what has changed since the run began among the `soft` keys: it goes on, but not bit by bit as it would
        have. Raises UsageError listing the differences when the folder holds the work of another run.
        """
        path = self.folder / "run.json"
        wanted = json.loads(json.dumps(description))
        if not path.is_file():
            files.write_json(path, {"run": wanted, "changed": []})
            return []
        table = json.loads(path.read_text(encoding="utf-8"))
        found: dict[str, Any] = table["run"]
        different = {key: f"{key}: {found.get(key)!r} → {wanted.get(key)!r}"
                     for key in sorted(found.keys() | wanted.keys()) if found.get(key) != wanted.get(key)}
        hard = [text for key, text in different.items() if key not in soft]
        if hard:
            raise UsageError(f"{self.folder}: holds the work of another run; " + "; ".join(hard),
                             "give the same command as before to continue it, or remove the folder to start again")
        changed: list[str] = [*table["changed"], *different.values()]
        if different:
            self.note("continuing, but not bit by bit as it began: " + "; ".join(different.values()))
            files.write_json(path, {"run": wanted, "changed": changed})
        return changed

    def save(self, state: State, weights: Mapping[str, Tensor], optimizer: Mapping[str, Tensor]) -> None:
        """Write a checkpoint and remove all but the newest two.

        Raises TrainingError when the disk takes no more; the checkpoints before stay as they are.
        """
        from safetensors.torch import save_file

        target = self._checkpoint(state.step)
        if not self.writes or target.exists():
            return  # `load` removes damaged ones, so this is the same state
        tensors = {"weights.safetensors": weights, "optimizer.safetensors": optimizer}
        with self._disk(sum(_bytes(part) for part in tensors.values())):
            with files.new_folder(target) as temporary:
                listed = {}
                for name, part in tensors.items():
                    save_file({key: value.contiguous() for key, value in part.items()}, temporary / name)
                    listed[name] = files.sha256(temporary / name)
                table = {"state": vars(state), "files": listed}
                files.write_json(temporary / STATE, {**table, "sha256": _digest(table)})
            for old in self._checkpoints()[KEEP:]:
                shutil.rmtree(old)
            self._remove_unused_best()

    def save_best(self, state: State, weights: Mapping[str, Tensor]) -> None:
        """Write the best weights so far and note their hash in `state`."""
        from safetensors.torch import save

        if not self.writes:
            return
        content = save({key: value.contiguous() for key, value in weights.items()})
        with self._disk(len(content)):
            files.write_bytes(self._best(state.step), content)
        state.best_sha256 = files.sha256(self._best(state.step))

    def load(self) -> tuple[State, dict[str, Tensor], dict[str, Tensor]] | None:
        """State, weights and optimizer tensors of the newest checkpoint that is undamaged; None when there is none."""
        from safetensors.torch import load_file

        for folder in self._checkpoints():
            try:
                table = json.loads((folder / STATE).read_text(encoding="utf-8"))
                if _digest({key: table[key] for key in ("state", "files")}) != table["sha256"]:
                    raise ValueError(f"{STATE} was changed after it was written")
                for name, wanted in table["files"].items():
                    if files.sha256(folder / name) != wanted:
                        raise ValueError(f"{name} was changed after it was written")
                state = State(**table["state"])
                if state.best_step >= 0 and files.sha256(self._best(state.best_step)) != state.best_sha256:
                    raise ValueError(f"{self._best(state.best_step).name} was changed after it was written")
                return state, load_file(folder / "weights.safetensors"), load_file(folder / "optimizer.safetensors")
            except (OSError, ValueError, KeyError, TypeError) as error:
                self.note(f"checkpoint {folder.name} is damaged ({error}); going back to the one before")
                shutil.rmtree(folder)
        return None

    def load_best(self, state: State) -> dict[str, Tensor]:
        """The best weights, checked against their hash."""
        from safetensors.torch import load

        content = self._best(state.best_step).read_bytes()
        if files.sha256(self._best(state.best_step)) != state.best_sha256:
            raise TrainingError(f"{self._best(state.best_step)}: was changed while the training ran",
                                "give the same command again: it goes back to an undamaged checkpoint")
        weights: dict[str, Tensor] = load(content)
        return weights

    def _checkpoint(self, step: int) -> Path:
        return self.folder / f"step-{step:09d}"

    def _best(self, step: int) -> Path:
        return self.folder / f"best-{step:09d}.safetensors"

    def _checkpoints(self) -> list[Path]:
        """Newest first."""
        return sorted((path for path in self.folder.glob("step-*") if path.is_dir()), reverse=True)

    def _remove_unused_best(self) -> None:
        used = set()
        for folder in self._checkpoints():
            # A damaged checkpoint is `load`'s business: here it only keeps nothing alive.
            with suppress(OSError, ValueError, KeyError):
                used.add(json.loads((folder / STATE).read_text(encoding="utf-8"))["state"]["best_step"])
        for path in self.folder.glob("best-*.safetensors"):
            if int(path.stem.removeprefix("best-")) not in used:
                path.unlink()

    @contextmanager
    def _disk(self, needed: int) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            free = shutil.disk_usage(self.folder).free
            cause = "no space is left" if error.errno == errno.ENOSPC else str(error)
            raise TrainingError(
                f"{self.folder}: a checkpoint of {needed / 1e6:.1f} MB could not be written: {cause} "
                f"({free / 1e6:.1f} MB free)",
                "make room and give the same command again: it continues from the last checkpoint") from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a second process out of `folder`. The lock dies with its process, so none is ever left behind."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+b") as file:
        try:
            files.lock(file)
        except OSError as error:
            raise EdgestillError(f"{folder}: another process is working in it",
                                 "wait for it to end, or choose another -o/--out") from error
        yield


def _digest(table: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()


def _bytes(tensors: Mapping[str, Tensor]) -> int:
    return sum(value.numel() * value.element_size() for value in tensors.values())
