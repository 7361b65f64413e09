"""onnxruntime-genai: genai_config.json, which the graph's builder began, with every token that ends an answer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ...models import files

if TYPE_CHECKING:
    from ...models.artifact import Artifact, Manifest
    from ...runtime.text.codec import Codec

FORMAT = "onnx"
FILE = "genai_config.json"


def write(packed: Artifact, codec: Codec) -> None:
    """Name the stop ids in genai_config.json; encoders and graphs that this program cannot run have none."""
    path = packed.folder / FILE
    if not path.is_file():
        return
    config = json.loads(path.read_text(encoding="utf-8"))
    config["model"]["eos_token_id"] = sorted(codec.stop_ids)
    files.write_json(path, config)


def usage(manifest: Manifest) -> str:
    """How to load the folder from Python; C, C#, Java and Objective-C take the same folder."""
    if manifest.task.kind != "generate":
        return ""
    return ("[onnxruntime-genai](https://onnxruntime.ai/docs/genai), on desktops, Android and iOS "
            "(set `ORT_DISABLE_TELEMETRY=1` before it is imported: it reports its use otherwise):\n\n"
            "```python\nimport onnxruntime_genai\nmodel = onnxruntime_genai.Model(\".\")\n```\n")
