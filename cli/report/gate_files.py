"""Gates of a profile as files that continuous integration shows: JUnit XML, and Markdown for a pull request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from ...models import files
from ...runtime.profiling.limits import Judged
from ...runtime.profiling.measures import RATES
from ..output import cell


def junit(path: Path, judged: Mapping[str, Sequence[Judged]]) -> None:
    """Write a suite for everything that was measured, by name, with a test case for each gate; a gate without a number
    is a failure, too."""
    suites = ElementTree.Element("testsuites")
    for name, found in judged.items():
        failures = str(sum(not one.passed for one in found))
        suite = ElementTree.SubElement(suites, "testsuite", name=f"edgestill profile {name}", tests=str(len(found)),
                                       failures=failures, errors="0")
        for one in found:
            case = ElementTree.SubElement(suite, "testcase", classname=name, name=str(one.limit))
            if not one.passed:
                ElementTree.SubElement(case, "failure", message=told(one)).text = told(one)
    ElementTree.indent(suites)
    files.write_text(path, '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suites, "unicode") + "\n")


def markdown(path: Path, judged: Mapping[str, Sequence[Judged]], profiles: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the gates of everything that was measured as a table, and below it what held the figures back."""
    files.write_text(path, "\n".join(line for name, found in judged.items()
                                     for line in _section(name, found, profiles[name])) + "\n")


def _section(name: str, judged: Sequence[Judged], profile: Mapping[str, Any]) -> list[str]:
    met = profile["views"]["as_met"]
    lines = [f"### {_escaped(name)}", "", "| gate | 95 % bound | measured | |", "|---|---:|---:|---|"]
    for one in judged:
        lines.append(f"| {'✅' if one.passed else '❌'} `{one.limit}` | {cell(one.bound)} | "
                     f"{cell(measured(one, profile))} | {_escaped(one.reason)} |")
    threads = f"threads: {profile['threads']}, " if profile["threads"] else ""
    lines += ["", f"{met['requests']} requests, {threads}{_escaped(profile['machine']['cpu'])}.", ""]
    return [*lines, *(f"- {_escaped(line)}" for line in profile["verdict"]), ""]


def told(one: Judged) -> str:
    """A gate and what became of it, in one line."""
    if one.bound is None:
        return f"{one.limit}: {one.reason}"
    kind = "95 % bound " if one.limit.part not in ("", "max") or one.limit.number in RATES else ""
    return f"{one.limit}: {kind}{cell(one.bound)}" + (f", {one.reason}" if one.reason else "")


def measured(one: Judged, profile: Mapping[str, Any]) -> float | None:
    """The number itself, without its bound."""
    found = profile["views"]["as_met"].get(one.limit.number)
    if isinstance(found, Mapping):
        return float(found[one.limit.part or "p50"])
    return one.bound


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
