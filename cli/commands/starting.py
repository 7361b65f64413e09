"""From rows to the run file that `edgestill init` writes."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...models import catalogue, family, kinds
from ...models.errors import ArtifactError, UsageError
from ...models.runfile import RunFile, Training
from ...models.strict import build
from ...models.task import Task
from ...runtime.files.model_files import read_table, stored_parameters
from ..pipeline import costs, gguf_files
from . import proposed_targets, proposed_task

if TYPE_CHECKING:
    from ...models.family import Family
    from ...models.runfile import Export
    from ...runtime.data.reader import Row

DEFAULT_STUDENT = {"generate": "smollm2-135m", "classify": "minilm-l6"}
TASKS = ("generate", "classify")
NOTHING = Task()
METRICS = {"label": "accuracy", "labels": "micro_f1", "score": "spearman", "text": "bits_per_character"}
"""What files are judged by on rows of a kind; on others, exact_match."""
LOSSES = ("bits_per_character",)
UNKNOWN_CONTEXT = 131072
"""A hub model's context is read when it is downloaded; until then the rows alone set the lengths."""
MOST_TRAINED_WHOLE = 50_000_000
"""Parameters above which adapters are trained: gradients and moments of all weights take three times their memory."""
LORA_LEARNING_RATE = 5e-4
TOOL_TEMPLATE = "chatml"
"""A file of models/templates that writes tools, calls and results."""
COUNTED_ROWS = 2000
"""Rows whose tokens are counted, at the most."""
TURN_CHARACTERS = 24
"""What a chat template writes around a message."""
TOKEN_CHARACTERS = 3
"""Characters of a token, at the least, in the languages that these tokenizers were made for."""


@dataclass(frozen=True)
class Model:
    """What the run file must know of a model to start from."""

    name: str
    tasks: tuple[str, ...]
    context: int
    learning_rate: float = Training().learning_rate
    adapter: str = "full"
    family: Family | None = None
    """None where only the name is known."""


@dataclass(frozen=True)
class Start:
    """What was found out about the rows, and the models that fit them."""

    task: str
    rows: int
    labels: int
    json_answers: bool
    max_tokens: int
    """Holds 99 of 100 rows."""
    max_new_tokens: int
    student: str
    teacher: str
    """Empty where the catalogue has no larger model of the student's series."""
    learning_rate: float
    adapter: str
    metric: str
    """What the rows are measured by."""
    template: str
    """Empty where the student's own chat template has a place for all that the rows hold."""
    counted: bool
    """Whether the lengths are those of the student's own tokens."""
    exports: tuple[Export, ...]
    given: Task
    """What the file beside the rows says of the task."""


def model(name: str) -> Model:
    """The model of a catalogue name, of a Hugging Face folder or a GGUF file, or of a hub name (owner/name), of which
    only the name is known here.

    Raises UsageError for a name that is none of these, ArtifactError for a folder without a readable config.json.
    """
    if name in catalogue.names():
        entry = catalogue.entry(name)
        whole = entry.parameters <= MOST_TRAINED_WHOLE
        return Model(name, (entry.task,), entry.context,
                     entry.learning_rate_full if whole else entry.learning_rate_lora,
                     "full" if whole else "lora", family.load(entry.family))
    folder = gguf_files.folder(Path(name))
    if folder.is_dir():
        config = read_table(folder / "config.json")
        if not config:
            raise ArtifactError(f"{folder}: no config.json in it that says anything",
                                "give a Hugging Face folder, a catalogue name or a hub name")
        found = family.of_config(config, training=True)
        whole = stored_parameters(folder) <= MOST_TRAINED_WHOLE
        return Model(name, tuple(found.tasks), found.context(config),
                     Training().learning_rate if whole else LORA_LEARNING_RATE, "full" if whole else "lora", found)
    if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name):
        return Model(name, TASKS, UNKNOWN_CONTEXT)
    raise kinds.unknown("model", name, catalogue.names())


def describe(rows: Sequence[Row], student: Model | None, teacher: Model | None, given: Task = NOTHING) -> Start:
    """Choose the task from the rows' kind, the models from the catalogue, the lengths from the rows' tokens (from their
    characters where the student's tokenizer is not here).

    Raises UsageError for a student or teacher that is for another task, and for pairs of texts.
    """
    kind = rows[0].kind
    task = "classify" if rows[0].classified else "generate"
    if any(row.pair for row in rows):
        raise UsageError("these rows are pairs of texts, and models are trained on single texts",
                         "join both texts in one column; a model that reads pairs is exported and run as it is")
    chosen = student or model(DEFAULT_STUDENT[task])
    larger = _larger(chosen.name) if kind not in ("labels", "score") else ""
    teacher = teacher or (model(larger) if larger else None)
    for role, named in (("--student", chosen), ("--teacher", teacher)):
        if named and task not in named.tasks:
            fitting = ", ".join(key for key in catalogue.names() if catalogue.entry(key).task == task)
            raise UsageError(f"{role} {named.name}: is for {named.tasks[0]}, these are {rows[0].kind} rows, a task of "
                             f"kind {task}", f"choose one of: {fitting}")
    template = TOOL_TEMPLATE if _lacks_tools(rows, chosen.name) else ""
    counted = _counted(rows, replace(NOTHING, kind=task, system=given.system), chosen.name, template)
    whole, said = counted or ([len(given.system) + _characters(row) for row in rows], [len(row.answer) for row in rows])
    longest, answers = _tokens(whole, 0.99, not counted), _tokens(said, 1.0, not counted)
    return Start(
        task=task,
        rows=len(rows),
        labels=len({name for row in rows for name in row.named}),
        json_answers=_all_json(rows),
        max_tokens=min(longest, chosen.context),
        max_new_tokens=min(answers, chosen.context),
        student=chosen.name,
        teacher=teacher.name if teacher else "",
        learning_rate=chosen.learning_rate,
        adapter=chosen.adapter,
        metric=METRICS.get(kind, "exact_match"),
        template=template,
        counted=counted is not None,
        exports=proposed_targets.propose(task, chosen.family, costs.shape(chosen.name),
                                costs.Lengths(len(rows), sum(whole) * len(rows) // len(whole), 0)),
        given=given,
    )


def run_file(start: Start, data: Path, test: Path | None, columns: Mapping[str, str], out: Path,
             skip_bad: bool = False) -> str:
    """The text of a commented run file, with paths relative to where it will lie."""
    base = out.resolve().parent
    quoted = {name: json.dumps(text, ensure_ascii=False) for name, text in (
        ("train", _relative(data, base)), ("test", _relative(test, base) if test else ""))}
    mapping = "{" + ", ".join(f"{json.dumps(ours)} = {json.dumps(theirs)}" for ours, theirs in columns.items()) + "}"
    training = [f"learning_rate = {start.learning_rate:g}"]
    if start.adapter == "lora":
        training += ['adapter = {kind = "lora", rank = 16}  # merged at the end; {kind = "full"} trains every weight']
    lines = [
        "# Made for your data by `edgestill init`. Next: edgestill run " + out.name + " -o out",
        "# Every key that is not here has a default; `edgestill run --dry-run` prints them all.", "",
        "[task]", f'kind = "{start.task}"',
    ]
    if start.metric == "spearman":
        lines += ['head = "score"  # a number as it is; "sigmoid_score" for scores from 0 to 1']
    elif start.task == "classify":
        lines += proposed_task.classifier(start.metric == "micro_f1", start.labels, start.given)
    else:
        schema = _relative(Path(start.given.schema), base) if start.given.schema else ""
        lines += proposed_task.generator(start.max_new_tokens, start.json_answers, replace(start.given, schema=schema))
    lines += ["", "[data]  # paths are relative to this file", f"train = {quoted['train']}  # {start.rows} rows"]
    lines += [f"test = {quoted['test']}"] if test else ["test_share = 0.1  # or test = \"a file of its own\""]
    lines += ["validation_share = 0.05"]
    lines += [f"columns = {mapping}"] if columns else []
    lines += ["skip_bad = true  # bad rows are left out and listed"] if skip_bad else []
    if start.task == "classify" or start.max_tokens:
        how = "counted in the student's tokens" if start.counted else f"at {TOKEN_CHARACTERS} characters a token"
        lines += [f"max_tokens = {start.max_tokens}  # holds 99 of 100 rows, {how}"]
    lines += ["", "[student]  # `edgestill models` lists more", f'model = {_name(start.student, base)}']
    if start.template:
        lines += [f'template = "{start.template}"  # your rows have tools, which the model\'s own template leaves out']
    if start.teacher:
        lines += ["", "[teacher]", 'kind = "local"',
                  f"model = {_name(start.teacher, base)}  # must share the student's tokenizer",
                  "tune = true  # first fine-tune it on your rows, as [tune] says", "", "[tune]", "epochs = 3.0",
                  *training, "", "[distill]", "epochs = 3.0", *training,
                  "labels_control = true  # also train the student on labels alone, to see what the teacher adds",
                  'losses = [{kind = "forward_kl", weight = 1.0}, {kind = "ce", weight = 0.5}]']
    else:
        lines += ["", "[tune]  # training on labels alone; add [teacher] and [distill] to learn from a larger model",
                  "epochs = 3.0", *training]
    lines += proposed_targets.lines(start.exports)
    loss = start.metric in LOSSES
    lines += [
        "",
        "# Limits on measured numbers: a shipped file that breaks one ends the run with exit code 3.",
        "[gates.maximum]  # lower is better" if loss else "[gates.minimum]",
        f"# {start.metric} = {'1.5' if loss else '0.9'}",
    ]
    lines += ["[gates.minimum]"] if loss and start.teacher else []
    lines += ["# ratio_to_teacher = 0.97"] if start.teacher else []
    return "\n".join(lines) + "\n"


def check(text: str) -> RunFile:
    """The run file that `text` is; UsageError if it were none."""
    return build(RunFile, tomllib.loads(text))


def _lacks_tools(rows: Sequence[Row], name: str) -> bool:
    """Whether rows hold tools and the template of the model in the folder `name` writes none."""
    folder = gguf_files.folder(Path(name))
    if not folder.is_dir() or not any(row.tools for row in rows):
        return False
    from ...runtime.text.codec import Codec
    from ...runtime.text.tool_calls import ToolFormat

    try:
        ToolFormat.of(Codec.from_folder(folder).render)
    except UsageError:
        return True
    return False


def _larger(name: str) -> str:
    """The next larger catalogue model whose name begins as this one's does: those of a series share a tokenizer."""
    known = {key: catalogue.entry(key) for key in catalogue.names()}
    series = name.rpartition("-")[0]
    if name not in known or not series:
        return ""
    larger = [key for key, item in known.items() if key.rpartition("-")[0] == series
              and item.parameters > known[name].parameters and item.task == known[name].task]
    return min(larger, key=lambda key: known[key].parameters, default="")


def _name(name: str, base: Path) -> str:
    """A model's name as TOML text; the path of a folder or file is written from `base`."""
    return json.dumps(name if name in catalogue.names() else _relative(Path(name), base), ensure_ascii=False)


def _counted(rows: Sequence[Row], task: Task, student: str, template: str) -> tuple[list[int], list[int]] | None:
    """The tokens of rows as they are trained on, tools and template included, and of their answers; None where the
    student's tokenizer is not on this machine. Of many rows, some of them, evenly spaced."""
    from ...models.runfile import Student
    from ...runtime.data import learned_tokens
    from ..pipeline import student_tokenizer

    rows = rows[:: -(-len(rows) // COUNTED_ROWS)]
    run = RunFile(task=task, student=Student(model=student, template=template))
    codec = student_tokenizer.codec_of(run, Path(), rows)
    if codec is None:
        return None
    whole, answers = [], []
    for row in rows:
        found = learned_tokens.sequences(codec, row) if row.messages else []
        whole += [len(one.ids) for one in found] or [len(codec.encode(row.text, True)) + len(codec.encode(row.pair))]
        answers += [end - start for one in found for start, end in one.spans] or [0]
    return whole, answers


def _characters(row: Row) -> int:
    """About the characters of a row as a template writes it."""
    calls = [message.get("tool_calls") or "" for message in row.messages]
    return len(json.dumps([*row.tools, *filter(None, calls)])) + len(row.text) + sum(
        len(str(message["content"])) + len(str(message.get("reasoning_content", ""))) + TURN_CHARACTERS
        for message in row.messages)


def _tokens(lengths: Sequence[int], share: float, characters: bool) -> int:
    """Tokens that hold the given share of the texts, rounded up to a multiple of 32."""
    wanted = sorted(lengths)[min(len(lengths) - 1, int(share * len(lengths)))]
    wanted = wanted // TOKEN_CHARACTERS + 16 if characters else wanted
    return max(32, -(-wanted // 32) * 32)


def _all_json(rows: Sequence[Row]) -> bool:
    try:
        return all(isinstance(json.loads(row.answer), (dict, list)) for row in rows)
    except ValueError:
        return False


def _relative(path: Path, base: Path) -> str:
    """`path` from `base`; a hub name stays as it is."""
    return os.path.relpath(path.resolve(), base) if path.exists() else str(path)
