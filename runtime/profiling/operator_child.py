"""The process in which a model's operators are timed: `python -m edgestill.runtime.profiling.operator_child`.

The engines time them themselves: onnxruntime by its profiler; llama.cpp has no such thing and computes each operator
apart instead, with this process looking on. So every pass is made without that, too, on a model of its own.
"""

from __future__ import annotations

import ctypes
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .child import main

clock = time.perf_counter_ns
Span = tuple[int, str, str, int, int]
"""The pass that it belongs to, the operator, its name in the model, when it began and how long it took [ns]."""
ROUNDS = 3
_VIEWS = (b"NONE", b"RESHAPE", b"VIEW", b"PERMUTE", b"TRANSPOSE")
"""What computes nothing."""


def run(job: Mapping[str, Any]) -> dict[str, Any]:
    """Load `path` and read its `ids` and then `steps` more tokens, or the `text`, in ROUNDS.

    Such passes are numbered in their order: `undisturbed` and `watched` hold the nanoseconds of each, `spans` the
    operators of the watched ones.
    """
    from ..loading.load import load

    plain = load(job["path"], job["threads"], job["context"], job["check_hashes"])
    with tempfile.TemporaryDirectory(prefix="edgestill-operators-") as folder:
        watch: GgufWatch | OnnxWatch = GgufWatch() if job["format"] == "gguf" else OnnxWatch(Path(folder))
        watched = load(job["path"], job["threads"], job["context"], False)
        for model in (plain, watched):  # warms up
            _passes(model, job, lambda number: None)
        times: dict[str, list[int]] = {"undisturbed": [], "watched": []}
        watch.begin()
        for _ in range(ROUNDS):
            times["undisturbed"] += _passes(plain, job, lambda number: None)
            times["watched"] += _passes(watched, job, watch.next, len(times["watched"]))
        return {**times, "spans": watch.spans()}


def _passes(model: Any, job: Mapping[str, Any], begins: Callable[[int], None], first: int = 0) -> list[int]:
    """Make every pass, and tell before which one it is; their nanoseconds."""
    found = []
    for number, compute in enumerate(_calls(model, job), first):
        begins(number)
        began = clock()
        compute()
        found.append(clock() - began)
    return found


def _calls(model: Any, job: Mapping[str, Any]) -> Iterator[Callable[[], object]]:
    from ..encoders.classifier import Classifier
    from ..generation.generator import Generator

    if not isinstance(model, Generator):
        yield lambda: (model.classify if isinstance(model, Classifier) else model.embed)(job["text"])
        return
    model.engine.truncate(0)
    yield lambda: model.engine.prefill(job["ids"])
    for token in job["ids"][:1] * job["steps"]:
        yield lambda: model.engine.decode(token)  # noqa: B023 - called at once


class GgufWatch:
    """Looks on while llama.cpp computes in contexts that are made from now on."""

    def __init__(self) -> None:
        from ..engines._gguf_context import GgufModel

        self._spans: list[Span] = []
        self._pass = -1
        make = GgufModel.begin

        def begin(model: GgufModel, threads: int, **chosen: Any) -> None:
            self._callback = model.c.ggml_backend_sched_eval_callback(self._looker(model.c))  # C keeps but its address
            make(model, threads, cb_eval=self._callback, **chosen)

        setattr(GgufModel, "begin", begin)  # noqa: B010 - in this process alone, which does nothing else

    def begin(self) -> None:
        """Keep what is seen from now on."""
        self._spans.clear()

    def next(self, number: int) -> None:
        """The pass that comes."""
        self._pass = number

    def spans(self) -> list[Span]:
        """What was seen."""
        return self._spans

    def _looker(self, c: Any) -> Callable[[int, bool, int], bool]:
        described, named = (getattr(c._lib, name) for name in ("ggml_op_desc", "ggml_get_name"))
        for function in (described, named):
            function.argtypes, function.restype = [ctypes.c_void_p], ctypes.c_char_p
        began = 0

        def look(tensor: int, asks: bool, _data: int) -> bool:
            nonlocal began
            if asks:  # whether it should be computed apart
                if described(tensor) in _VIEWS:
                    return False
                began = clock()
                return True
            ended = clock()
            self._spans.append((self._pass, described(tensor).decode(), named(tensor).decode(), began, ended - began))
            return True

        return look


class OnnxWatch:
    """Has sessions that are made from now on write profiles to a folder."""

    def __init__(self, folder: Path) -> None:
        from ..engines import _onnx_engine, onnx

        self._sessions: list[_Watched] = []
        self._pass, self._on = -1, False
        make = _onnx_engine.session

        def session(path: Path, threads: int, **how: Any) -> _Watched:
            found = _Watched(self, make(path, threads, profile=folder / f"{len(self._sessions)}", **how))
            self._sessions.append(found)
            return found

        for module in (_onnx_engine, onnx):
            setattr(module, "session", session)  # noqa: B010 - in this process alone, which does nothing else

    def begin(self) -> None:
        """Keep what is seen from now on."""
        self._on = True

    def next(self, number: int) -> None:
        """The pass that comes."""
        self._pass = number

    @property
    def now(self) -> int:
        """The pass, -1 for one that does not count."""
        return self._pass if self._on else -1

    def spans(self) -> list[Span]:
        """What was seen."""
        return [span for session in self._sessions for span in session.spans()]


class _Watched:
    """A session, and the pass that each of its runs belongs to."""

    def __init__(self, watch: OnnxWatch, session: Any) -> None:
        self._watch, self._session = watch, session
        self._runs: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, *given: Any) -> Any:
        self._runs.append(self._watch.now)
        return self._session.run(*given)

    def run_with_iobinding(self, *given: Any) -> None:
        self._runs.append(self._watch.now)
        self._session.run_with_iobinding(*given)

    def spans(self) -> list[Span]:
        """Operators of the runs that count, from onnxruntime's own file."""
        events = json.loads(Path(self._session.end_profiling()).read_text())
        runs = sorted((event["ts"], event["ts"] + event["dur"]) for event in events if event["name"] == "model_run")
        found, place = [], 0
        for event in sorted((event for event in events if event["cat"] == "Node"), key=lambda event: event["ts"]):
            while place < len(runs) and event["ts"] > runs[place][1]:
                place += 1
            number = self._runs[place]
            if number >= 0:
                name = event["name"].removesuffix("_kernel_time")
                found.append((number, event["args"]["op_name"], name, event["ts"] * 1000, event["dur"] * 1000))
        return found


if __name__ == "__main__":
    main(run)
