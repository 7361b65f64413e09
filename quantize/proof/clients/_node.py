"""Clients that are npm packages: Node loads the one that a program in the working folder would load."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from ....models.artifact import Artifact
from . import SECONDS, Chat, Said

# Bare names are looked up from the working folder, as its own programs' are; threads of a library would stay.
CODE = """
import { text } from "node:stream/consumers";
process.execArgv.length = 0;  // a file that a library starts in a process of its own refuses this one's --input-type
const [script, name] = process.argv.slice(1);
const [{ answers }, library] = [await import(script), await import(name)];
const found = await answers(library, JSON.parse(await text(process.stdin)));
process.stdout.write(JSON.stringify(found), () => process.exit(0));
"""


def version(package: str) -> str | None:
    """The version of a package that Node finds from the working folder; None without it or without Node."""
    found = _place(package)
    if found is None or shutil.which("node") is None:
        return None
    table = json.loads((found / "package.json").read_text(encoding="utf-8"))
    return str(table["version"])


def ask(script: str, package: str, artifact: Artifact, chats: Sequence[Chat], tokens: int) -> Said:
    """The answers of `script`, a file of this folder, which gets the loaded package and the job."""
    try:
        found = run(script, package, job(artifact, chats, tokens))
    except RuntimeError as error:
        return Said(failure=str(error))
    return Said(found["chats"])


def job(artifact: Artifact, chats: Sequence[Chat], tokens: int, texts: Sequence[str] = ()) -> dict[str, Any]:
    """What the scripts are told."""
    folder = artifact.folder.resolve()
    return {"models": f"{folder.parent}{os.sep}", "name": folder.name, "file": str(artifact.model_path.resolve()),
            "chats": list(chats), "texts": list(texts), "tokens": tokens}


def run(script: str, package: str, job: dict[str, Any]) -> dict[str, Any]:
    """What a script of this folder gives for a job; RuntimeError with Node's complaint otherwise."""
    try:
        with resources.as_file(resources.files(__package__) / script) as path:
            command = ["node", "--input-type=module", "--eval", CODE, path.resolve().as_uri(), package]
            done = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True, encoding="utf-8",
                                  errors="replace", timeout=SECONDS, check=False,
                                  env=os.environ | {"ORT_DISABLE_TELEMETRY": "1"})
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"it took longer than {SECONDS:g} s") from None
    if done.returncode:
        raise RuntimeError(_complaint(done.stderr) or f"node ended with code {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


_MODELS = ("*.gguf", "*.onnx", "onnx/*.onnx", "*.safetensors", "config.json")


def _place(package: str) -> Path | None:
    """The package's folder, looked for as Node does in the working folder and those above it; None where that lies in
    a model's folder: it came with the model, and is not run."""
    here = Path.cwd()
    found = next((folder for folder in (here, *here.parents)
                  if (folder / "node_modules" / package / "package.json").is_file()), None)
    if found is None or any(next(found.glob(pattern), None) for pattern in _MODELS):
        return None
    return found / "node_modules" / package


def _complaint(messages: str) -> str:
    """The first line that names an error, or the last there is."""
    lines = [line.strip() for line in messages.splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"(\w*Error|Uncaught)\b.*\S", line)]
    return ((named or lines[-1:])[:1] or [""])[0][:300]
