"""A click group that shows help without importing a single command.

click asks every command for its help line, so a group that loads commands on use still imports them all
for the root help. Here the line stands beside the name, and a test keeps it equal to the command's own.
"""

from __future__ import annotations

import importlib

import click

SECTIONS: dict[str, dict[str, str]] = {
    "make": {
        "demo": "Distil, export and prove the embedded model, in minutes.",
        "init": "Write a commented run file that fits your data.",
        "run": "Run every stage of a run file, skipping what is unchanged.",
        "data": "Make rows of logs or anew, label rows, look at rows, check them.",
        "shrink": "Cut a model to a size, before any training.",
        "tune": "Train a student on labels alone.",
        "distill": "Train a student to match a teacher.",
        "export": "Quantize and pack a trained model, then prove it.",
    },
    "prove": {
        "verify": "Prove an artifact again: hashes, tokens, template, agreement.",
        "evaluate": "Measure task metrics on the file that ships.",
        "estimate": "Foretell bytes, memory, speed and the largest context of a model on a device.",
        "profile": "Measure latency, throughput and memory, here or on other machines.",
        "compare": "Compare artifacts on the same rows, or saved profiles.",
        "cascade": "Fit how sure a small model must be to answer in a bigger one's place.",
        "drift": "Say whether inputs have moved from what a model was tested on.",
    },
    "use": {
        "generate": "Answer one prompt.",
        "chat": "Talk with a model, with its own chat template.",
        "classify": "Label texts, with probabilities.",
        "embed": "Turn texts into vectors.",
        "serve": "Answer OpenAI's API with one or more artifacts.",
    },
    "look": {
        "inspect": "Show what an artifact is, holds and has proven.",
        "report": "Write the HTML page of a run, or of profiles.",
        "models": "List the small models to start from.",
        "doctor": "Check this installation and say what is missing.",
    },
}


class LazyGroup(click.Group):
    """The root command: names and help lines come from SECTIONS, a command's module is imported when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for section in SECTIONS.values() for name in section]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f".commands.{name}_command", __package__)
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not name.startswith("-") and name not in self.list_commands(ctx):
            from ..models import kinds

            raise kinds.unknown("command", name, self.list_commands(ctx))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, section in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(list(section.items()), col_max=12)
