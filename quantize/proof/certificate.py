"""A certificate: checks with measured values, limits and sample sizes, and the cause when one does not hold."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...models import files
from ...models.artifact import MANIFEST, Manifest
from ...models.errors import ArtifactError, CheckFailed, UsageError
from ...models.strict import build
from .grade import Grade

FILE = "certificate.json"
SCHEMA = 3
"""Of certificate.json: 2 added intervals, versions and origin, 3 the grade."""
CAUSES = ("files", "tokenizer", "template", "stop ids", "weights", "cache")
"""What can be wrong, roots first: another tokenizer also spoils answers, wrong weights also spoil decoding."""


@dataclass(frozen=True)
class Check:
    """One measured property of a packed file."""

    name: str
    passed: bool | None
    """None: not run, and `detail` says why."""
    cause: str = ""
    """What is wrong when it did not pass: one of CAUSES."""
    value: float | None = None
    limit: float | None = None
    n: int = 0
    """Sample size: texts, tokens, rows."""
    detail: str = ""
    low: float | None = None
    """Bounds of the value's 95 % interval, where rows were resampled."""
    high: float | None = None


@dataclass(frozen=True)
class Certificate:
    """All checks of one packed file."""

    target: str
    checks: tuple[Check, ...]
    manifest_sha256: str = ""
    """Of the manifest without its list of files, so that a change of the manifest shows too."""
    ran_with: dict[str, str] = field(default_factory=dict)
    """Versions of the engines and tokenizers that the checks ran in."""
    origin: str = "exported by edgestill"
    """For a file made elsewhere: origin unverified."""
    grade: Grade = field(default_factory=Grade)
    """How good the file is, apart from whether it is what it claims to be."""
    schema: int = SCHEMA

    @property
    def passed(self) -> bool:
        """Whether no check failed; checks that were not run do not fail."""
        return not self.failed

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that did not hold."""
        return tuple(check for check in self.checks if check.passed is False)

    @property
    def causes(self) -> tuple[str, ...]:
        """What is wrong, roots first."""
        found = {check.cause for check in self.failed}
        return tuple(sorted(found, key=lambda cause: CAUSES.index(cause) if cause in CAUSES else len(CAUSES)))

    def summary(self) -> dict[str, Any]:
        """The checks as the manifest carries them: {name: {passed, value, limit, n} or {not_run: why}}, and the
        grade, {name, words}, where there is one."""
        kept = ("passed", "value", "limit", "n")
        table = {check.name: {"not_run": check.detail} if check.passed is None else
                 {key: getattr(check, key) for key in kept} for check in self.checks}
        return table | ({"grade": {"name": self.grade.name, "words": self.grade.words}} if self.grade.words else {})

    def require(self, where: str = "") -> None:
        """Raise CheckFailed naming the cause when a check failed; `where` is what the user can look at."""
        if self.passed:
            return
        listed = "; ".join(f"{check.name}: {check.detail}" for check in self.failed)
        raise CheckFailed(f"{self.target}: the packed file is not the float model; cause: {', '.join(self.causes)} "
                          f"({listed})", where or "export it again; `edgestill verify` lists every check")

    def write(self, folder: Path) -> None:
        """Write certificate.json."""
        files.write_json(folder / FILE, asdict(self))


def at_most(name: str, value: float, limit: float | None, n: int, why: str, cause: str = "weights",
            note: str = "") -> Check:
    """A check that holds for a finite `value` up to `limit`, or without one. The detail is `note`, or where it does not
    hold the value with its unit and meaning, `why`."""
    passed = math.isfinite(value) and (limit is None or value <= limit)
    told = f"{value:.3g} {why}, at most {math.inf if limit is None else limit:.3g} is allowed"
    return Check(name, passed, cause, rounded(value), None if limit is None else rounded(limit), n,
                 note if passed else told)


def rounded(value: float) -> float | None:
    """A measured number as it is written down: four digits; None for one that is not finite, which JSON cannot hold."""
    return float(f"{value:.4g}") if math.isfinite(value) else None


def read(folder: Path) -> Certificate:
    """Read certificate.json; ArtifactError when it is missing, damaged or of another schema."""
    try:
        table = json.loads((folder / FILE).read_text(encoding="utf-8"))
        if not isinstance(table, dict) or table.get("schema") != SCHEMA:
            raise ValueError(f"its schema is not {SCHEMA}")
        return build(Certificate, table, FILE)
    except (OSError, ValueError, RecursionError, UsageError) as error:
        raise ArtifactError(f"{folder / FILE}: cannot be read: {error}",
                            "copy the artifact again, or export it again") from error


def manifest_hash(manifest: Manifest) -> str:
    """SHA-256 of everything in a manifest but its list of files (which holds the certificate's own hash)."""
    table = {key: value for key, value in asdict(manifest).items() if key != "files"}
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode("utf-8")).hexdigest()


def check_hashes(folder: Path, manifest: Manifest, expected_manifest: str) -> Iterable[Check]:
    """One check a file, and one for the manifest itself, which no hash in it can cover."""
    for name, entry in manifest.files.items():
        found = files.sha256(folder / name)
        yield Check(f"hash {name}", found == entry.sha256, "files", n=entry.bytes, detail=(
            "" if found == entry.sha256 else f"{name}: SHA-256 {found[:16]}…, the manifest says {entry.sha256[:16]}…"))
    written = (folder / MANIFEST).read_text(encoding="utf-8")
    plain = json.dumps(asdict(manifest), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    same = written == plain and (not expected_manifest or manifest_hash(manifest) == expected_manifest)
    yield Check(f"hash {MANIFEST}", same, "files", n=len(written),
                detail="" if same else f"{MANIFEST}: changed after the artifact was sealed")
