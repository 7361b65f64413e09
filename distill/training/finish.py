"""From a trained model to an artifact: a plain Hugging Face folder with its manifest."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...models import files, kinds
from ...models.artifact import Tokenizer, seal
from ...models.errors import UsageError
from ...models.family import of_config
from ...models.runfile import RunFile
from ...models.toml_text import to_toml
from ...runtime.text.codec import Codec
from ...runtime.text.template_defaults import write_template
from ..loading import copy_tokenizer, parameters, save_model
from ..students.vocabulary import write_trimmed_tokenizer
from ..teachers._prompt import hidden
from .training_log import METRICS, WATCHERS

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Facts:
    """What a manifest says about how a model came to be."""

    stage: str
    parents: Sequence[Mapping[str, Any]]
    licences: Mapping[str, str]
    checks: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


def write(out: Path, model: Any, tokenizer: Path, run: RunFile, base: Path, facts: Facts, work: Path | None = None,
          kept: Sequence[int] | None = None) -> Path:
    """Write `out` in one step: weights, the tokenizer of the folder `tokenizer` (only the ids `kept` where given),
    resolved run file, schema, training curves from `work`, manifest.

    Raises EdgestillError when `out` is not empty, UsageError when the task's schema is missing.
    """
    task = run.task
    with files.new_folder(out) as folder:
        save_model(model, folder)
        if kept is None:
            copy_tokenizer(tokenizer, folder)
        else:
            write_trimmed_tokenizer(tokenizer, folder, kept)
        if task.template_options:
            write_template(folder, task)
        if task.schema:
            files.write_text(folder / "schema.json", read_schema(base / task.schema))
            task = replace(task, schema="schema.json")
        files.write_text(folder / "run.toml", to_toml(replace(told(run, base), task=task)))
        if work is not None:
            shutil.copyfile(work / METRICS, folder / METRICS)
            for name in kinds.names(WATCHERS):
                if (work / name).is_dir():
                    shutil.copytree(work / name, folder / name)
        codec = Codec.from_folder(folder, task)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        text, family = model.config.get_text_config(), of_config(config)
        seal(folder, stage=facts.stage, task=task, family=family.name, scheme="hf", model_file=WEIGHTS,
             dimensions={"parameters": parameters(model), "layers": text.num_hidden_layers, "hidden": text.hidden_size,
                         "vocabulary": text.vocab_size, "context": family.context(config)},
             tokenizer=Tokenizer(
                 codec.bos_id, codec.eos_id, sorted(codec.stop_ids), codec.adds_bos,
                 hashlib.sha256(codec.template.encode()).hexdigest() if codec.template else ""),
             parents=[dict(parent) for parent in facts.parents], licences=dict(facts.licences),
             checks=dict(facts.checks), settings=dict(facts.settings))
    return out


def told(run: RunFile, base: Path = Path()) -> RunFile:
    """The run file as others may read it: of a path on this machine the last name alone, as in a manifest's parents, of
    what the teacher alone is told a hash. Paths are relative to `base`."""
    data, student, teacher = run.data, run.student, hidden(run.teacher, base)
    return replace(
        run, teacher=[*map(_named, teacher)] if isinstance(teacher, list) else _named(teacher),
        data=replace(data, dir="." if Path(data.dir).is_absolute() else data.dir, train=_name(data.train),
                     validation=_name(data.validation), test=_name(data.test)),
        student=replace(student, model=_name(student.model), base=_name(student.base),
                        template=_name(student.template)))


def _named(table: Mapping[str, Any]) -> dict[str, Any]:
    """A [teacher] table, and the cache in it, without the places of model and folder."""
    return {key: _named(value) if isinstance(value, Mapping) else
            _name(value) if key in ("model", "folder") and isinstance(value, str) else value
            for key, value in table.items()}


def _name(path: str) -> str:
    return Path(path).name if Path(path).is_absolute() else path


def read_schema(path: Path) -> str:
    """The text of a JSON schema file; UsageError when it is missing or no JSON."""
    try:
        text = path.read_text(encoding="utf-8")
        json.loads(text)
    except OSError as error:
        raise UsageError(f"task.schema: {path} cannot be read", "the path is relative to the run file") from error
    except ValueError as error:
        raise UsageError(f"task.schema: {path} is no valid JSON: {error}", "correct the schema") from error
    return text
