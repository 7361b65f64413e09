"""How good a proven file is: a grade from what the certificate measured, in words, and what to take instead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ...models.scheme import CODED, bits_of
from .limits import GOOD, GRADES, LEAST_RIGHT, LEAST_ROWS, LEAST_SURE, Border

DECISIVE, LOSS = "same_top1_decisive", "task_metric_drop"
SHARES = (DECISIVE, "same_decisions_decisive")
DISTANCES = ("cosine_distance", "score_error")
"""The checks that a grade rests on: shares of tokens or labels that agree, distances of vectors or scores, and LOSS."""
BEST_METHOD = "gptq"
FINER = {"gguf": ("Q4_K_M", "Q6_K", "Q8_0", "F16", "F32"), "onnx": ("int8", "fp32")}
"""Types to propose instead, coarsest first."""
ORDER = ("Q4_0", "int4", "q4f16", "IQ4_XS", "IQ4_NL", "Q4_K_S", "mixed", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "int8",
         "F16", "BF16", "F32", "fp32")
"""All types, from what loses most."""
PROPOSALS = 3


@dataclass(frozen=True)
class Grade:
    """How near a packed file comes to its float model. Shares are 0 to 1."""

    name: str = ""
    """One of limits.GRADES; empty where too little was measured for a grade to rest on."""
    words: str = ""
    """What the numbers mean, for a reader who knows none of them; without a grade, why there is none."""
    agree: float | None = None
    """Share of the decisive tokens (of a classifier's texts) that agree."""
    agree_n: int = 0
    loss: float | None = None
    """What the task's metric loses, float minus packed; None where it was not measured."""
    loss_bound: float | None = None
    """Its upper 95 % bound."""
    loss_n: int = 0
    instead: list[str] = field(default_factory=list)
    """Flags of `edgestill export` that make a better file, where this one is below good."""

    @property
    def good(self) -> bool:
        """Whether the file is good or better; also where nothing was graded."""
        return not self.name or self.name in {border.name for border in GRADES[:GOOD + 1]}


def of(checks: Iterable[Any], target: str, method: str = "", at_export: Iterable[Any] = ()) -> Grade:
    """The grade of what certificate.Check values say.

    `method` is what made the codes; `at_export` are the checks of the sealed certificate, whose loss of the task
    counts where it was not measured again.
    """
    found = {check.name: check for check in checks}
    run = (found[name] for name in (*SHARES, *DISTANCES) if name in found)
    close = next((check for check in run if check.value is not None), None)
    if close is None:
        return Grade()
    here, where = found.get(LOSS), ""
    task = here if here is not None and here.high is not None else None
    if task is None:
        task = next((check for check in at_export if check.name == LOSS and check.high is not None), None)
        where = ", as measured at export"
    border = next(border for border in GRADES if _keeps(border, close, task))
    if close.name in SHARES and close.n < LEAST_SURE and GRADES.index(border) <= GOOD:
        return Grade(words=f"not graded: {close.n} choices of which the float model is sure are too few, {LEAST_SURE} "
                           f"are needed", agree=close.value, agree_n=close.n)
    why = here.detail if here is not None else ""
    words = f"{border.words}: {_of_outputs(close)}; {_untold(why) if task is None else _of_task(task, where)}"
    result = Grade(border.name, words, close.value if close.name in SHARES else None, close.n,
                   instead=[] if GRADES.index(border) <= GOOD else instead(target, method))
    return result if task is None else replace(result, loss=task.value, loss_bound=task.high, loss_n=task.n)


def _keeps(border: Border, close: Any, task: Any) -> bool:
    near = close.value >= border.agree if close.name in SHARES else close.value <= getattr(border, close.name)
    return near and (task is None or task.high <= border.loss) or border is GRADES[-1]


def instead(target: str, method: str = "") -> list[str]:
    """Flags of `edgestill export` for a better file than `target`, cheapest first; none above the finest type.

    A file made elsewhere may be of a type that is not made here, such as Q4_K: its bits say what is finer.
    """
    format, _, type = target.partition(":")
    found = [f"--to {target} --method {BEST_METHOD}"] if type in CODED and method != BEST_METHOD else []
    if type in ORDER:
        finer = [other for other in FINER[format] if ORDER.index(other) > ORDER.index(type)]
    else:
        finer = [other for other in FINER[format] if bits_of(other) > bits_of(type)]
    return (found + [f"--to {format}:{other}" for other in finer])[:PROPOSALS]


def told(target: str, grade: Mapping[str, Any] | Grade) -> str:
    """One line for a human; empty without a grade. Takes the table that a certificate or summary holds, too."""
    known = grade if isinstance(grade, Grade) else Grade(**grade)
    if not known.name:
        return f"{target} is {known.words}" if known.words else ""
    better = f"; better: {' or '.join(known.instead)}" if known.instead else ""
    return f"{target} is {known.name}: {known.words}{better}"


def shows_loss(rows: int, right: float) -> str:
    """Why so many rows, of which the float model has `right`, show no loss; empty where they do."""
    if rows < LEAST_ROWS:
        return f"{rows} rows are too few to see a loss of {GRADES[GOOD].loss:.0%}: {LEAST_ROWS} are needed"
    if right < LEAST_RIGHT:
        return (f"the float model has {right:g} of {rows} rows right, and what it cannot do cannot be lost: "
                f"{LEAST_RIGHT} are needed")
    return ""


def _of_outputs(close: Any) -> str:
    if close.name == "cosine_distance":
        return f"vectors are {close.value:.4f} away on average (1 - cosine, {close.n:,} texts)"
    if close.name == "score_error":
        return f"scores are {close.value:.3f} of their own spread away (n = {close.n:,})"
    return (f"where the float model is sure of its choice (at least twice as likely as the next), the file makes the "
            f"same one {100 * close.value:.1f} % of the time (n = {close.n:,})")


def _of_task(task: Any, where: str) -> str:
    return (f"the task loses {100 * task.value:.1f} points of 100, at most {100 * task.high:.1f} with 95 % certainty "
            f"({task.n:,} rows{where})")


def _untold(why: str) -> str:
    return f"what the task loses was not run{f' ({why})' if why else ''}, so the grade rests on this alone"
