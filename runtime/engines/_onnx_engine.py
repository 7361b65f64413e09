"""onnxruntime over decoder graphs with GroupQueryAttention, as onnxruntime_genai's builder makes them.

Past and present keys and values are the same memory: a token costs one row per layer, never a copy of the cache.
All inputs and outputs are bound to arrays once; a decoding step rebinds only the attention mask, which grows.
Layers that keep a running state instead (convolutions, linear attention) read it from one array and write it to
another, and the two change places with every run: there is one binding for each way round.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...models.errors import ArtifactError, MissingExtra
from ..files.model_files import head_size
from ._base import EXTEND, Cache, check_ids, rows_per_pass
from ._exclusive_use import CLOSED

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

_FIRST_CAPACITY = 256
_FROM = "logits_from"
"""Our graphs' constant, which may be overridden: the first position whose logits are computed."""
_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16"}


def session(path: Path, threads: int, *, patterns: bool = False, profile: Path | None = None) -> Any:
    """An InferenceSession on the CPU that makes no connection and is quiet when idle.

    `patterns` plans memory per input shape: right for few shapes, a leak for a mask that grows with every token.
    `profile` is where the name begins of a file for the times of its operators; its `end_profiling` writes it.
    Raises ArtifactError when onnxruntime refuses the file, MissingExtra when it is not installed.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when the library initialises, so before the import
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise MissingExtra("onnxruntime", "onnx") from error

    onnxruntime.set_default_logger_severity(3)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.enable_mem_pattern = patterns
    options.log_severity_level = 3
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, os.fspath(profile)
    # Workers may spin inside a run, where the next operator comes at once, but not after it: an idle model is idle.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        return onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exception types share no base but Exception
        raise ArtifactError(f"{path}: onnxruntime cannot load it: {error}",
                            "copy the artifact again, or export it again") from error


class _Runs:
    """A session with its bindings: to one token, one for each way round of the states, and to several."""

    def __init__(self, session: Any, ways: int) -> None:
        self.run = session.run_with_iobinding
        self.single, self.several = [session.io_binding() for _ in range(ways)], session.io_binding()


class OnnxEngine(Cache):
    """See `Engine`."""

    block = 16
    """onnxruntime's kernels for one row differ from those for several; whole blocks take the same ones."""

    def __init__(self, path: Path, folder: Path, threads: int, context_length: int,
                 sessions: Sequence[Any] = ()) -> None:
        """Load `path`, or take it from `sessions`, for at most `context_length` tokens; `folder` holds its configs.
        The first session runs until `_runs` is set to another's."""
        import numpy as np

        super().__init__()
        self.threads, self.context_length = threads, context_length
        self.sessions = sessions = sessions or [session(path, threads)]
        """What computes; other engines over the same file may take them."""
        inputs = {item.name: item for item in sessions[0].get_inputs()}
        outputs = {item.name: item for item in sessions[0].get_outputs()}
        self._past = [name for name in inputs if name.startswith("past_key_values.")]
        states = [name for name in inputs if name.startswith("past.")]
        known = {"input_ids", "attention_mask", *self._past, *states}
        unknown = set(inputs) - known - {"position_ids"}
        missing = known - set(inputs) | {"logits", *map(_present, self._past + states)} - set(outputs)
        if not self._past or unknown or missing or outputs["logits"].type != "tensor(float)":
            raise ArtifactError(
                f"{path}: no decoder graph with a cache of keys and values "
                f"(unknown inputs: {sorted(unknown) or 'none'}, missing: {sorted(missing) or 'none'})",
                "export the model with edgestill, or with onnxruntime_genai's builder in fp32 activations")
        self.vocabulary_size = int(outputs["logits"].shape[-1])
        self._rows = rows_per_pass(self.vocabulary_size)
        heads, size = inputs[self._past[0]].shape[1], inputs[self._past[0]].shape[3]
        self._heads, self._size = int(heads), size if isinstance(size, int) else head_size(folder)
        self._dtype = np.dtype(_DTYPES[inputs[self._past[0]].type])
        if self._dtype == np.float16:
            log.warning("%s computes in float16, for WebGPU: slow on CPUs, for which onnx:int4 is made", path)
        # Several coordinates for models that also see pictures; in a text they are one.
        self._places = list(inputs["position_ids"].shape[:-2]) if "position_ids" in inputs else None
        self._token = np.zeros((1, 1), np.int64)
        self._place = np.zeros((*(self._places or ()), 1, 1), np.int64)
        self._logits = np.zeros(self.vocabulary_size, np.float32)
        self._scratch = np.empty((0, self.vocabulary_size), np.float32)
        self._last_only = any(item.name == _FROM for item in sessions[0].get_overridable_initializers())
        self._from = np.zeros(1, np.int64)
        self._mask = np.ones(0, np.int64)
        self._cache: list[NDArray[Any]] = []
        self._capacity = 0
        self._states = {name: [np.zeros((1, *inputs[name].shape[1:]), _DTYPES[inputs[name].type]) for _ in range(2)]
                        for name in states}
        self.rewinds = not states
        self._turn = 0
        self._all_runs: Sequence[_Runs] = [_Runs(one, 2 if states else 1) for one in sessions]
        self._runs = self._all_runs[0]
        self.reserve(min(_FIRST_CAPACITY, context_length))

    def prefill(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """See `Engine.prefill`."""
        import numpy as np

        check_ids(ids, self.position, self.context_length, self.vocabulary_size)
        if len(ids) == 1:
            return self.decode(ids[0])
        self.reserve(self.position + len(ids))
        if self._last_only:
            for part in self._passes(ids, self._rows):
                self._pass(part, self._logits[None])
            return self._logits
        scratch = np.empty((min(self._rows, len(ids)), self.vocabulary_size), np.float32)
        for part in self._passes(ids, self._rows):
            self._pass(part, scratch[:len(part)])
        self._logits[:] = scratch[len(part) - 1]
        return self._logits

    def decode(self, token: int) -> NDArray[np.float32]:
        """See `Engine.decode`."""
        position = len(self.held)
        if position >= self._capacity or not 0 <= token < self.vocabulary_size:
            check_ids([token], position, self.context_length, self.vocabulary_size)
            self.reserve(position + 1)
        self._token[0, 0] = token
        self._place.fill(position)
        binding = self._runs.single[self._turn]
        binding.bind_input("attention_mask", "cpu", 0, self._mask.dtype, (1, position + 1), self._mask_pointer)
        self._runs.run(binding)
        self.held.append(token)
        self._turn = (self._turn + 1) % len(self._runs.single)
        return self._logits

    def extend(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """See `Engine.extend`."""
        import numpy as np

        check_ids(ids, self.position, self.context_length, self.vocabulary_size)
        self.reserve(self.position + len(ids))
        if not len(self._scratch):
            self._scratch = np.empty((EXTEND, self.vocabulary_size), np.float32)
        self._pass(ids, self._scratch[:len(ids)])
        return self._scratch[:len(ids)]

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """See `Engine.logits`."""
        import numpy as np

        check_ids(ids, 0, self.context_length, self.vocabulary_size)
        self.truncate(0)
        self.reserve(len(ids))
        result = np.empty((len(ids), self.vocabulary_size), np.float32)
        for start in range(0, len(ids), self._rows):
            part = ids[start:start + self._rows]
            self._pass(part, result[start:start + len(part)])
        return result

    def truncate(self, length: int) -> None:
        """See `Engine.truncate`. What lies behind the mask is never read, so only states are cleared."""
        again = self.held[:length] if self._states and length < self.position else []
        if self._states and length < self.position:
            for pair in self._states.values():
                pair[self._turn].fill(0)
        super().truncate(0 if again else length)
        if again:
            self.prefill(again)

    def saved(self) -> list[NDArray[Any]]:
        """See `Engine.saved`."""
        return [array.copy() for array in self._read(self.position)]

    def restore(self, ids: Sequence[int], arrays: Sequence[NDArray[Any]]) -> None:
        """See `Engine.restore`."""
        check_ids(ids, 0, self.context_length, self.vocabulary_size)
        self.truncate(0)
        self.reserve(len(ids))
        places = self._read(len(ids))
        if [(array.shape, array.dtype) for array in arrays] != [(place.shape, place.dtype) for place in places]:
            raise ArtifactError(f"a state of {len(ids)} tokens does not fit this model's {len(places)} caches",
                                "compute the state again with this model")
        for place, array in zip(places, arrays, strict=True):
            place[:] = array
        self._note(ids)

    def reserve(self, length: int) -> None:
        """See `Engine.reserve`. The cache at least doubles, so growing token by token copies little."""
        import numpy as np

        if length <= self._capacity:
            return
        capacity = min(self.context_length, max(length, 2 * self._capacity))
        shape = (1, self._heads, capacity, self._size)
        grown = [np.empty(shape, self._dtype) for _ in self._past]
        for new, old in zip(grown, self._cache, strict=False):
            new[:, :, :self.position] = old[:, :, :self.position]
        self._cache, self._capacity = grown, capacity
        self._mask = np.ones(capacity, np.int64)
        self._mask_pointer = self._mask.ctypes.data
        for runs in self._all_runs:
            for binding in (*runs.single, runs.several):
                for array, past in zip(grown, self._past, strict=True):
                    binding.bind_input(past, "cpu", 0, array.dtype, shape, array.ctypes.data)
                    binding.bind_output(_present(past), "cpu", 0, array.dtype, shape, array.ctypes.data)
            for turn, binding in enumerate(runs.single):
                self._bind(binding, turn, self._token, self._place, self._logits.reshape(1, 1, -1))

    def close(self) -> None:
        """See `Engine.close`."""
        if self.use.end():
            self._cache = self._runs = self._all_runs = self.sessions = CLOSED

    def _pass(self, ids: Sequence[int], out: NDArray[np.float32]) -> None:
        """Run several tokens after what the cache holds; the logits of the last ones go to `out` [n, vocabulary]."""
        import numpy as np

        total = self.position + len(ids)
        tokens = np.array(ids, np.int64)[None]
        places = np.empty((*(self._places or ()), 1, len(ids)), np.int64)
        places[:] = np.arange(self.position, total)
        several = self._runs.several
        self._bind(several, self._turn, tokens, places, out[None])
        if self._last_only:
            self._from[0] = len(ids) - len(out)
            several.bind_input(_FROM, "cpu", 0, self._from.dtype, self._from.shape, self._from.ctypes.data)
        several.bind_input("attention_mask", "cpu", 0, self._mask.dtype, (1, total), self._mask_pointer)
        self._runs.run(several)
        self._note(ids)
        self._turn = (self._turn + 1) % len(self._runs.single)

    def _read(self, length: int) -> list[NDArray[Any]]:
        """Views of what the next run reads: `length` tokens of every cache, and every state."""
        return [*(array[:, :, :length] for array in self._cache), *(pair[self._turn] for pair in self._states.values())]

    def _bind(self, binding: Any, turn: int, tokens: NDArray[Any], places: NDArray[Any], out: NDArray[Any]) -> None:
        binding.bind_input("input_ids", "cpu", 0, tokens.dtype, tokens.shape, tokens.ctypes.data)
        if self._places is not None:
            binding.bind_input("position_ids", "cpu", 0, places.dtype, places.shape, places.ctypes.data)
        for past, pair in self._states.items():
            for bind, name, array in ((binding.bind_input, past, pair[turn]),
                                      (binding.bind_output, _present(past), pair[1 - turn])):
                bind(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        binding.bind_output("logits", "cpu", 0, out.dtype, out.shape, out.ctypes.data)


def _present(past: str) -> str:
    """The output that continues a cache's input."""
    return past.replace("past_key_values.", "present.").replace("past.", "present.")
