"""The errors a user can cause.

Every message names the thing, its value and the limit; the hint names the next step. `cli/main.py` is
the one place that turns them into exit codes, and no other exception type is shown without a traceback.
"""

from __future__ import annotations


class EdgestillError(Exception):
    """A failure with a next step. `exit_code` is what the command line returns for it."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class UsageError(EdgestillError):
    """An option, a run file or a name that cannot be used as given."""

    exit_code = 2


class ContextError(UsageError):
    """A text that is longer than the model reads; `limit` is the most tokens of a text and its answer together."""

    def __init__(self, message: str, hint: str, limit: int) -> None:
        super().__init__(message, hint)
        self.limit = limit


class DataError(EdgestillError):
    """Rows that cannot be read or must not be trained on."""


class ArtifactError(EdgestillError):
    """A model folder or file that is incomplete, changed or of a kind not known here."""


class TrainingError(EdgestillError):
    """Training that cannot go on, such as a loss that is no longer finite."""


class CheckFailed(EdgestillError):
    """A gate or a check of a certificate did not hold; the message names the cause."""

    exit_code = 3


class MissingExtra(EdgestillError):
    """A package that is not there; `base` is the extra of those that are always installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed, and this step needs it",
                         "pip install edgestill" if extra == "base" else f"pip install 'edgestill[{extra}]'")
