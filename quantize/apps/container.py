"""A container image that serves the artifact, with what Kubernetes, Cloud Run and SageMaker want to know of it.

The image holds the artifact, the rooms of this package that serve, and pinned packages: it is built without an index
that knows this version. No value here is a secret, and the one name is made fit by `resource_name`.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Mapping
from importlib import resources
from string import Template
from typing import TYPE_CHECKING, Any

from ...models import files
from ...models.artifact import MANIFEST
from ...models.cloud_names import resource_name
from ...models.errors import UsageError
from ...models.scheme import Scheme
from ...runtime.engines._base import DEFAULT_CONTEXT
from ...runtime.profiling import jobs, prompts
from . import _requirements, copy

if TYPE_CHECKING:
    from pathlib import Path

    from ...models.artifact import Artifact
    from ...runtime.text.codec import Codec

FITS = dict.fromkeys((("generate", "gguf"), ("generate", "onnx"), ("classify", "onnx"), ("embed", "onnx"),
                      ("embed", "gguf")), "container")
NOTE = "written, and no image was built: that needs docker, see README.md"
READS_PAIRS = True
ROOMS = ("models", "runtime", "cli")
STREAMS, _SHORT, _NEW_TOKENS = 4, 8, 2
"""Answers at a time; tokens of a short prompt, and of an answer."""
SERVER_MIB = 128
"""For the server beside the model: its packages, and 64 MiB of requests' bodies."""
MACHINES = ((3, 2, "ml.c5.large"), (7, 2, "ml.m5.large"), (15, 4, "ml.m5.xlarge"), (31, 8, "ml.m5.2xlarge"))
"""Most GiB, processors (which Cloud Run wants to be so many for that) and SageMaker's instance, of which other programs
take one GiB."""
SERVERLESS_MIB = 6144
_COMPILER = ("RUN apt-get update && apt-get install -y --no-install-recommends build-essential\n"
             "# For any processor of these ten years: the machine that builds is not the one that runs.\n"
             'ENV CMAKE_ARGS="-DGGML_NATIVE=OFF"')
_OPENMP = ("RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 "
           "&& rm -rf /var/lib/apt/lists/*")
_EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "generate": {"messages": [{"role": "user", "content": "Hello"}]}, "classify": {"text": "Hello"},
    "embed": {"input": "Hello"}}


def check(task: str, codec: Codec) -> None:
    """The runtime itself reads every tokenizer and template."""


def write(packed: Artifact, codec: Codec, folder: Path) -> None:
    """Fill in the templates, and add artifact, program and requirements. UsageError for a model that is too large, and
    as `_requirements.pinned`."""
    task, format = packed.manifest.task.kind, Scheme.parse(packed.manifest.scheme).format
    extras = [format, "serve", *(["structure"] if task == "generate" else [])]
    needed = _requirements.pinned(extras)
    context = min(packed.manifest.dimensions.get("context", DEFAULT_CONTEXT), DEFAULT_CONTEXT)
    measured = peak_bytes(packed, codec, context)
    gguf = format == "gguf"
    values = {
        "name": resource_name(packed.folder.resolve().name), "streams": STREAMS, "context": f"{context:,}",
        "python": f"{sys.version_info.major}.{sys.version_info.minor}", "build": _COMPILER if gguf else "",
        "libraries": _OPENMP if gguf else "", "example": json.dumps(_EXAMPLES[task]),
        **machine(measured)}
    if values["serverless_mb"] > SERVERLESS_MIB:
        (folder / "sagemaker-serverless.json").unlink()
    for path in list(folder.iterdir()):
        files.write_text(path, Template(path.read_text(encoding="utf-8")).substitute(values))
    files.write_text(folder / "requirements.txt", "\n".join(needed) + "\n")
    program = resources.files(__package__.partition(".")[0])
    for room in ROOMS:
        copy(program / room, folder / "edgestill" / room, leave_out=("__pycache__", "demo"))
    for name in ("__init__.py", "__main__.py"):
        (folder / "edgestill" / name).write_bytes((program / name).read_bytes())
    for name in [*packed.manifest.files, MANIFEST]:
        (folder / "model" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(packed.folder / name, folder / "model" / name)


def machine(measured: int) -> dict[str, Any]:
    """What to ask the clouds for, for a model that takes `measured` bytes. UsageError for one that is too large."""
    memory = 64 * math.ceil((measured / 2**20 + SERVER_MIB) / 64)
    most = 64 * math.ceil(1.5 * memory / 64)
    fits = next((one for one in MACHINES if most <= one[0] * 1024), None)
    if fits is None:
        raise UsageError(f"--app container: the model takes {measured / 2**30:.1f} GiB while it is served, and what is "
                         f"written here is for {MACHINES[-1][0]} GiB at most, a third of that kept free",
                         "export it smaller, such as --to gguf:Q4_0")
    return {"measured": round(measured / 1e6), "memory": memory, "most": most, "cpus": fits[1], "instance": fits[2],
            "serverless_mb": 1024 * math.ceil(most / 1024)}


def peak_bytes(packed: Artifact, codec: Codec, context: int) -> int:
    """Memory of a process that gives STREAMS answers at a time: measured where all are short, and where one fills its
    `context`; each of the others is taken to add as much as that one did."""
    short, long = ({"ids": ids, "text": codec.decode(ids)} for ids in (
        prompts.of_length(codec, None, length, 0) for length in (_SHORT, context - _NEW_TOKENS)))
    if packed.manifest.task.kind != "generate":
        return _peak_bytes(packed, [long])
    before, after = (_peak_bytes(packed, [prompt, *[short] * (STREAMS - 1)]) for prompt in (short, long))
    return before + STREAMS * max(0, after - before)


def _peak_bytes(packed: Artifact, requests: list[dict[str, Any]]) -> int:
    at_once = requests if len(requests) == 1 else [{"together": requests}]
    work = jobs.job(packed, 2, at_once, streams=len(requests), new_tokens=_NEW_TOKENS)
    return int(jobs.run(work | {"check_hashes": False})["memory"]["peak_rss_bytes"])
