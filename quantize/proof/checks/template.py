"""The chat template renders the same bytes as the float model's."""

from __future__ import annotations

from ....models.errors import DataError
from ..certificate import Check
from ..packed_file import Subject
from ..reference import Rendering, text_hash

TASKS = ("generate",)
CAUSE = "template"


def check(subject: Subject) -> list[Check]:
    """Rendered conversations, and for a GGUF that the file carries the very same template."""
    fixtures = subject.reference.fixtures
    template = subject.codec.template
    if not fixtures.renderings:
        return [Check("template", template is None, "template", n=1,
                      detail="" if template is None else "the float model has no chat template, the artifact has one")]
    if template is None:
        return [Check("template", False, "template", n=1, detail="the artifact has no chat template")]
    checks = []
    if subject.inner is not None:
        checks.append(_in_file(subject, template))
    if fixtures.clock and subject.float_model is None:
        return [*checks, Check("template", None, detail="the template writes today's date: compared at export only")]
    wrong = [index for index, chat in enumerate(fixtures.renderings) if _render(subject, chat) != chat.sha256]
    detail = f"conversations {wrong} of {len(fixtures.renderings)} render differently" if wrong else ""
    return [*checks, Check("template", not wrong, "template", float(len(wrong)), 0.0, len(fixtures.renderings), detail)]


def _in_file(subject: Subject, template: str) -> Check:
    """The template of a GGUF, and the tokens that it prints by name, which other programs take from the file."""
    codec, inside = subject.codec, subject.inner.special()
    named = {"bos_token": codec.bos_id, "eos_token": codec.eos_id}
    wrong = [f"{name} is {inside.get(name, 'missing')}, not {token}" for name, token in named.items()
             if token is not None and codec.reads(name) and inside.get(name) != token]
    if subject.inner.chat_template() != template:
        wrong.append("the template in the GGUF is not the artifact's")
    return Check("template_in_file", not wrong, "template", n=1, detail="; ".join(wrong))


def _render(subject: Subject, rendering: Rendering) -> str:
    try:
        return text_hash(subject.codec.render(rendering.messages, rendering.tools, rendering.add_generation_prompt))
    except DataError:
        return ""  # refused, as the float model's template may do too
