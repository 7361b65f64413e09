"""The [task] lines of the run file that `edgestill init` proposes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...runtime.data.calls import task_file

if TYPE_CHECKING:
    from ...models.task import Task


def classifier(several: bool, count: int, given: Task) -> list[str]:
    """Of rows with labels, `several` a text or one."""
    lines = ['head = "sigmoid"  # any number of labels a text, from thresholds fitted on validation rows'] * several
    if given.labels:
        return lines + task_file.lines({"labels": given.labels})
    return [*lines, f"# labels: the {count} labels of the training rows, sorted; list them here to fix their order"]


def generator(max_new_tokens: int, json_answers: bool, given: Task) -> list[str]:
    """Of conversations and texts; the schema's path is written as it is."""
    lines = [f"max_new_tokens = {max_new_tokens}  # holds the longest answer of your rows"]
    if given.system:
        lines += ["# Goes before every prompt that comes without one. To train a student that needs none, remove it.",
                  *task_file.lines({"system": given.system})]
    else:
        lines.append('# system = "…"  # goes before every prompt')
    if given.schema:
        lines += task_file.lines({"schema": given.schema})
    elif json_answers:
        lines.append('# schema = "schema.json"  # all your answers are JSON: a schema would hold decoding to it')
    return lines
