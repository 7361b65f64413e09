"""The README.md of an artifact: what it is, how it was made, how it was proven, how to run it."""

from __future__ import annotations

import json
import re

from ...models import outputs
from ...models.artifact import Manifest
from ...models.kv_cache import AUTO
from ...models.scheme import Scheme
from .. import layouts
from ..layouts.transformers_js import PIPELINES
from ..proof import other_programs
from ..proof.certificate import Certificate, Check

KINDS = {"generate": "generates text", "classify": "classifies text", "embed": "turns text into vectors"}
HEADS = {"sigmoid": "Any number of labels is given: each whose probability reaches its threshold, which is 0.5 unless "
                    "one is listed here.",
         "score": "The numbers are scores as the model gives them: no probabilities.",
         "sigmoid_score": "The numbers are scores from 0 to 1: the model's own through a sigmoid."}
LIBRARIES = {"onnx": "transformers.js", "gguf": "llama.cpp"}


def render(name: str, manifest: Manifest, certificate: Certificate, megabytes: float) -> str:
    """The card as Markdown. `manifest` is the one about to be sealed, `megabytes` (10^6 bytes) the model's size."""
    scheme, size = Scheme.parse(manifest.scheme), manifest.dimensions
    parts = [
        _front_matter(manifest, scheme),
        f"# {name}\n",
        f"A {manifest.family} model of {size['parameters']:,} parameters that {_does(manifest)}, packed as "
        f"`{scheme}` ({megabytes:.1f} MB). {size['layers']} layers, hidden size {size['hidden']}, "
        f"vocabulary {size['vocabulary']:,}, context {size['context']:,} tokens.\n", _cache(manifest.kv),
        _task(manifest), _origin(manifest), _settings(manifest), _proof(certificate), _use(manifest, scheme),
    ]
    return "\n".join(part for part in parts if part)


def _cache(kv: str) -> str:
    return "" if kv == AUTO else (
        f"Keys and values are kept in `{kv}`, and the certificate is of the file so run: by edgestill as it is, by "
        "llama.cpp's programs with the flags below. A file by itself does not say it.\n")


def _does(manifest: Manifest) -> str:
    return "scores text" if manifest.task.head in outputs.SCORES else KINDS[manifest.task.kind]


def _front_matter(manifest: Manifest, scheme: Scheme) -> str:
    """What model hubs read: YAML, whose strings JSON's are. A licence or base they would not know is left out."""
    bases = (str(parent["name"]) for parent in manifest.parents if parent.get("role") in ("base", "student"))
    base = next((name for name in bases if re.fullmatch(r"[\w.-]+/[\w.-]+", name)), "")
    licence = manifest.licences.get("model", "").lower()
    table = {
        "license": licence if re.fullmatch(r"[a-z0-9.-]+", licence) else "other",
        "base_model": base,
        "pipeline_tag": PIPELINES[manifest.task.kind], "library_name": LIBRARIES[scheme.format],
        "quantized_by": "edgestill",
        "tags": ["edgestill", scheme.format, scheme.type, manifest.family],
    }
    lines = [f"{key}: {json.dumps(value)}" for key, value in table.items() if value]
    return "\n".join(["---", *lines, "---\n"])


def _task(manifest: Manifest) -> str:
    task = manifest.task
    lines = []
    if task.system:
        lines.append(f"System prompt:\n\n> {task.system}\n".replace("\n> \n", "\n"))
    if task.schema:
        lines.append(f"Answers are JSON under `{task.schema}`.\n")
    if task.labels:
        shown = ", ".join(f"`{label}`" for label in task.labels[:20])
        what = "scores" if task.head in outputs.SCORES else "labels"
        lines.append(f"{len(task.labels)} {what[:-1] if len(task.labels) == 1 else what}: {shown}"
                     f"{' …' if len(task.labels) > 20 else ''}\n")
        lines += [HEADS[task.head] + "\n"] if task.head in HEADS else []
    if task.thresholds:
        lines.append("Thresholds: " + ", ".join(f"`{label}` {value:g}" for label, value in task.thresholds.items())
                     + "\n")
    return "## Task\n\n" + "\n".join(lines) if lines else ""


def _origin(manifest: Manifest) -> str:
    rows = ["## Made from\n", "| role | name | identity |", "|---|---|---|"]
    for parent in manifest.parents:
        identity = parent.get("revision") or parent.get("sha256") or ""
        rows.append(f"| {parent.get('role', '')} | {_cell(parent.get('name', ''))} | {_cell(str(identity)[:16])} |")
    rows += ["", "| licence of | |", "|---|---|"]
    rows += [f"| {role} | {_cell(manifest.licences.get(role) or 'not stated')} |"
             for role in ("model", "teacher", "data")]
    return "\n".join(rows) + "\n"


def _settings(manifest: Manifest) -> str:
    made = "\n".join(f"- {key}: {value}" for key, value in manifest.settings.items())
    versions = ", ".join(f"{name} {version}" for name, version in manifest.made_by.items())
    return f"## How\n\n{made}\n- versions: {versions}\n"


def _proof(certificate: Certificate) -> str:
    ran = ", ".join(f"{name} {version}" for name, version in certificate.ran_with.items())
    grade = certificate.grade
    named = f"**{grade.name.capitalize()}**: " if grade.name else ""
    graded = f"{named}{grade.words}.\n\n" if grade.words else ""
    rows = ["## Certificate\n", f"{graded}Measured on the packed file, against the float model, with {ran}. "
            "KL is in nats; intervals are of 95 %.\n", "| check | value | limit | sample | |", "|---|---|---|---|---|"]
    rows += [f"| {check.name} | {_measured(check)} | {_number(check.limit)} | {check.n:,} | {_state(check)} |"
             for check in certificate.checks]
    if any(check.name.startswith(other_programs.NAMED) for check in certificate.checks):
        rows.append(f"\nRows of a {other_programs.NAMED.strip()} hold that program, given this folder as it is, to the "
                    "greedy tokens of edgestill's own runtime.")
    return "\n".join(rows) + "\n\n`edgestill verify .` proves it again without torch: hashes first, then every check.\n"


def _use(manifest: Manifest, scheme: Scheme) -> str:
    if manifest.task.kind == "classify":
        run = 'edgestill classify . "your text"'
        call = 'print(load(".").classify("your text"))'
    elif manifest.task.kind == "embed":
        run = 'edgestill embed . "your text"'
        call = 'print(load(".").embed("your text"))'
    else:
        run = 'edgestill generate . "your prompt"'
        call = 'print(load(".").generate("your prompt").text)'
    lines = ["## Run\n", f"```sh\n{run}\n```\n", f"```python\nfrom edgestill.runtime import load\n{call}\n```"]
    if scheme.format == "gguf":
        kv = manifest.kv
        kept = "" if kv == AUTO else f" --cache-type-k {kv} --cache-type-v {kv} --flash-attn on"
        lines.append(f"\nThe GGUF also runs in llama.cpp: `llama-cli -m {manifest.model_file}{kept}`.")
    lines += [f"\n{text}" for layout in layouts.of(str(scheme)) if (text := layout.usage(manifest))]
    return "\n".join(lines) + "\n"


def _state(check: Check) -> str:
    if check.passed is None:
        return _cell(f"not run: {check.detail}")
    return _cell(f"{'passed' if check.passed else 'FAILED'}{': ' + check.detail if check.detail else ''}")


def _measured(check: Check) -> str:
    bounds = f" ({_number(check.low)} to {_number(check.high)})" if check.low is not None else ""
    return _number(check.value) + bounds


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
