"""Other people's programs, each given an artifact's folder as it is: {version, chats: [{text, prompt, ids}]}."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from edgestill.models import kinds
from edgestill.models.artifact import Artifact
from edgestill.quantize.proof.clients import _node, transformers_js

from .browser import with_package
from .cases import TOKENS, Case

HERE = Path(__file__).resolve().parent
Answers = dict[str, Any]
OLDER = "transformers-3"
WEBGPU = "webgpu"


def client(name: str, case: Case) -> Answers:
    """A client of the certificate; npm packages are looked for in this folder."""
    module, before = kinds.load("quantize.proof.clients", name), Path.cwd()
    os.chdir(HERE)
    try:
        said = module.answers(case.artifact, case.chats, TOKENS)
        version = module.version()
    finally:
        os.chdir(before)
    assert version and len(said.chats) == len(case.chats), said.failure
    return {"version": version, "chats": said.chats}


def job(case: Case, **settings: Any) -> dict[str, Any]:
    return _node.job(case.artifact, case.chats, TOKENS) | settings


def node(package: str, job: dict[str, Any]) -> Answers:
    """What a version of transformers.js in this folder makes of a job."""
    before = Path.cwd()
    os.chdir(HERE)
    try:
        return _node.run(transformers_js.SCRIPT, package, job)
    finally:
        os.chdir(before)


def labels(artifact: Artifact, texts: list[str]) -> dict[str, Any]:
    return _node.job(artifact, [], TOKENS, texts)


def chromium(package: str, case: Case) -> Answers:
    return with_package(case.folder.parent, job(case), package)


ONNX: dict[str, Callable[[Case], Answers]] = {
    "onnxruntime-genai": partial(client, "onnxruntime_genai"),
    "transformers.js in Node": partial(client, "transformers_js"),
    "transformers.js in Chromium": partial(chromium, transformers_js.PACKAGE),
    "transformers.js 3 in Node": lambda case: node(OLDER, job(case)),
    "transformers.js 3 in Chromium": partial(chromium, OLDER),
}
HALF: dict[str, Callable[[Case], Answers]] = {
    "onnxruntime-genai": ONNX["onnxruntime-genai"],
    "transformers.js in Node": ONNX["transformers.js in Node"],
    "transformers.js in Chromium": ONNX["transformers.js in Chromium"],
    "transformers.js in Node on WebGPU": lambda case: node(transformers_js.PACKAGE, job(case, device=WEBGPU)),
}
"""q4f16, which is made for WebGPU, and runs elsewhere. Version 3 takes no float16 tensors in Node 24."""
GGUF: dict[str, Callable[[Case], Answers]] = {
    "llama-cpp-python": partial(client, "llama_cpp_python"), "node-llama-cpp": partial(client, "node_llama_cpp")}
ALL = ONNX | HALF | GGUF


def rendered(jobs: list[dict[str, Any]]) -> Any:
    """Chat templates as transformers.js renders them."""
    import subprocess

    done = subprocess.run(["node", HERE / "templates_node.mjs"], input=json.dumps(jobs), capture_output=True, text=True,
                          timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)
