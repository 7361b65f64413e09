"""A teacher that is told more than its student says at the student's places what its model says behind that prompt."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edgestill.distill.data.batches import Schedule, next_tokens
from edgestill.distill.loading import load_model
from edgestill.distill.signals import Mixed, Signal
from edgestill.distill.students.vocabulary import kept_tokens, write_trimmed_tokenizer
from edgestill.distill.tasks._base import kind_of
from edgestill.distill.teachers import _decoder, _prompted, gguf, local
from edgestill.distill.teachers._base import Wants
from edgestill.distill.teachers._cache import Cache, CachedTeacher, about
from edgestill.distill.teachers._prompt import Told
from edgestill.distill.teachers._prompted import PromptedTeacher
from edgestill.distill.teachers._several import Several
from edgestill.distill.teachers._tables import entries
from edgestill.distill.training.weighted_losses import WeightedLosses, read_losses
from edgestill.models.errors import UsageError
from edgestill.models.runfile import RunFile
from edgestill.models.task import Task
from edgestill.runtime.data.row import Row
from edgestill.runtime.text.codec import Codec

from .. import packed, tiny

WANTS = Wants(frozenset({"logits"}), Task(), "fp32", True)
SYSTEM = "turn off the kitchen light, play some music; what is the weather like today?"
EXAMPLES = ({"role": "user", "content": "set the alarm"}, {"role": "assistant", "content": "alarm for 6:45"},
            {"role": "user", "content": "play some music"}, {"role": "assistant", "content": "music in the room"})
TOLD = Told(SYSTEM, EXAMPLES, "passage")
TOOLS = ({"type": "function", "function": {"name": "lamp", "parameters": {"type": "object", "properties": {}}}},)
TEMPLATE = (
    "{% if tools %}<|system|>{{ tools | tojson }}<|end|>{% endif %}"
    "{% for message in messages %}<|{{ 'user' if message.role == 'tool' else message.role }}|>{{ message.content }}"
    "{% for call in message.tool_calls %}{{ call.function | tojson }}{% endfor %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}")


def message(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def call(name: str) -> dict[str, Any]:
    return message("assistant", "", tool_calls=[{"type": "function", "function": {"name": name, "arguments": {}}}])


def row(number: int, *messages: dict[str, Any], **more: Any) -> Row:
    return Row(messages=messages, where=f"rows.jsonl:{number}", private=(("passage", f"weather {number} x"),), **more)


ROWS = [
    row(0, message("user", "what is the light"), message("assistant", "on")),
    row(1, message("user", "play"), message("assistant", "music today"), message("user", "and the room?"),
        message("assistant", "kitchen light in ten minutes")),
    row(2, message("system", "the weather"), message("user", "lamp"), call("lamp"), message("tool", "it is on"),
        message("assistant", "the lamp is on"), tools=TOOLS),
    row(3, message("user", "what is the light"), message("assistant", "off"), message("user", "set it"),
        message("assistant", "the alarm"), unlearned=(1,)),
]


@pytest.fixture(scope="module")
def model(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama whose template writes tools."""
    folder = tmp_path_factory.mktemp("prompted") / "model"
    shutil.copytree(tiny_llama, folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.fixture(scope="module", params=["local", "gguf"])
def teacher(request: pytest.FixtureRequest, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if request.param == "local":
        yield local.open(local.Config(str(model)), Path(), "cpu")
        return
    path = packed.pack(model, tmp_path_factory.mktemp("prompted") / "gguf", "gguf:F32")
    found = gguf.open(gguf.Config(str(path)), Path(), "cpu")
    yield found
    found._model.close()


@pytest.fixture(scope="module")
def codec(model: Path) -> Codec:
    return Codec.from_folder(model)


def schedule(codec: Codec, rows: Sequence[Row] = ROWS, tokens: int = 80, learn: str = "all",
             longest: int = 200) -> Schedule:
    found = kind_of(Task()).examples(rows, codec, Task(), longest, learn)
    return Schedule(found, 2, tokens, 0, next_tokens, rows=rows)


def said(teacher: Any, codec: Codec, examples: Schedule, told: Told = TOLD, learn: str = "all",
         wants: Wants = WANTS) -> dict[int, torch.Tensor]:
    """The logits at each row's labels."""
    prompted = PromptedTeacher(teacher, told, learn)
    prompted.prepare(examples, codec, wants, Path())
    found: dict[int, torch.Tensor] = {}
    for batch in examples.all():
        signal = prompted.signal(batch, wants)
        assert isinstance(signal, Signal)
        found |= zip(batch.rows, signal.logits.split(batch.counts), strict=True)
    return found


def by_hand(model: Path, codec: Codec, row: Row) -> torch.Tensor:
    """The same from the whole model and texts written out: one row, one turn at a time."""
    whole = load_model(model, Task()).eval()
    system, *rest = row.messages if row.messages[0]["role"] == "system" else ({"content": ""}, *row.messages)
    first = next(place for place, one in enumerate(rest) if one["role"] == "user")
    head = [message("system", f"{SYSTEM}\n\n{system['content']}".strip()), *EXAMPLES]
    asked = [message("user", f"{one['content']}\n\npassage:\n{dict(row.private)['passage']}") if place == first else one
             for place, one in enumerate(rest)]
    found = []
    for turn in row.turns:
        place = turn - (len(row.messages) - len(rest))
        before = codec.encode(codec.render([*head, *asked[:place]], row.tools))
        ids = codec.encode(codec.render([*head, *asked[:place + 1]], row.tools, False))
        with torch.no_grad():
            found.append(whole(input_ids=torch.tensor([ids])).logits[0, len(before) - 1:-1])
    return torch.cat(found)


@pytest.fixture(scope="module")
def wanted(model: Path, codec: Codec) -> list[torch.Tensor]:
    return [by_hand(model, codec, row) for row in ROWS]


def kl(found: dict[int, torch.Tensor], wanted: Sequence[torch.Tensor]) -> float:
    """The greatest divergence at any place, in nats."""
    assert sorted(found) == list(range(len(wanted)))
    return max(float(torch.nn.functional.kl_div(found[place].log_softmax(-1), one.log_softmax(-1), log_target=True,
                                                reduction="none").sum(-1).max()) for place, one in enumerate(wanted))


@pytest.mark.parametrize("wants", [WANTS, replace(WANTS, repeated=False)], ids=["kept", "asked anew"])
@pytest.mark.parametrize("tokens", [1, 80, 100_000], ids="{} tokens a batch".format)
def test_it_says_what_the_model_says_behind_its_own_prompt(teacher: Any, codec: Codec, wanted: list[torch.Tensor],
                                                           tokens: int, wants: Wants) -> None:
    assert kl(said(teacher, codec, schedule(codec, tokens=tokens), wants=wants), wanted) < 1e-6


def test_the_last_turn_alone(teacher: Any, codec: Codec, wanted: list[torch.Tensor]) -> None:
    found = said(teacher, codec, schedule(codec, learn="last"), learn="last")
    assert kl(found, [one[-len(found[place]):] for place, one in enumerate(wanted)]) < 1e-6
    assert len(found[1]) < len(wanted[1])


def shuffled(rows: Sequence[Row]) -> list[Row]:
    """Each row with its neighbour's passage."""
    return [replace(one, private=other.private) for one, other in zip(rows, [*rows[1:], rows[0]], strict=True)]


def early(tokens: Any, rows: Any, ids: Any, learned: Any) -> Any:
    found = next_tokens(tokens, rows, ids, learned)
    return replace(found, positions=found.positions - 1)


FAULTS: dict[str, Callable[[Codec, pytest.MonkeyPatch], tuple[Schedule, Told]]] = {
    "one position early": lambda codec, patch: (
        patch.setattr(_prompted, "next_tokens", early), (schedule(codec), TOLD))[1],
    "prompt left out": lambda codec, patch: (
        patch.setattr(Told, "row", lambda self, row: row), (schedule(codec), TOLD))[1],
    "system left out": lambda codec, patch: (schedule(codec), replace(TOLD, system="")),
    "examples in another order": lambda codec, patch: (
        schedule(codec), replace(TOLD, examples=(*EXAMPLES[2:], *EXAMPLES[:2]))),
    "the neighbour's passage": lambda codec, patch: (schedule(codec, shuffled(ROWS)), TOLD),
    "passage left out": lambda codec, patch: (schedule(codec), replace(TOLD, context="")),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_another_word(teacher: Any, codec: Codec, wanted: list[torch.Tensor], fault: str,
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    examples, told = FAULTS[fault](codec, monkeypatch)
    assert kl(said(teacher, codec, examples, told), wanted) > 1e-3


@pytest.mark.parametrize("kept", [False, True], ids=["live", "from its cache"])
def test_a_copy_whose_rows_carry_the_same_system_message_has_nothing_to_learn(
        teacher: Any, model: Path, tmp_path: Path, kept: bool) -> None:
    codec = Codec.from_folder(model, Task(system=SYSTEM))
    rows = [ROWS[0], ROWS[1], replace(ROWS[2], messages=(message("system", f"{SYSTEM} x"), *ROWS[2].messages[1:]))]
    examples, losses = schedule(codec, rows), read_losses(({"kind": "forward_kl"},))

    def left(told: Told) -> float:
        prompted: Any = PromptedTeacher(teacher, told, "all")
        if kept:
            prompted = CachedTeacher(tmp_path, about(prompted, told.digest, Cache()), prompted)
        learner = load_model(model, Task()).eval()
        wants = replace(WANTS, parts=frozenset({"drawn" if kept else "logits"}))
        prompted.prepare(examples, codec, wants, tmp_path)
        objective = kind_of(Task()).objective(learner, WeightedLosses(losses, learner, prompted),
                                              partial(prompted.signal, wants=wants), "fp32", Task())
        with torch.no_grad():
            return sum(float(objective(batch)) for batch in examples.all()) / int(examples.tokens.learned.sum())

    assert abs(left(Told(SYSTEM, (), ""))) < 1e-5
    assert left(Told(f"{SYSTEM}!", (), "")) > 1e-3


def marked(model: Path, folder: Path) -> Path:
    """The model with a template that writes an answer otherwise once the conversation has gone on."""
    shutil.copytree(model, folder)
    text = TEMPLATE.replace("{{ message.content }}", "{{ message.content }}"
                            "{% if message.role == 'assistant' and not loop.last %}!{% endif %}")
    (folder / "chat_template.jinja").write_text(text)
    return folder


def test_turns_find_their_own_where_templates_part_them_otherwise(model: Path, codec: Codec, tmp_path: Path) -> None:
    other = marked(model, tmp_path / "marked")
    teacher, parting = local.open(local.Config(str(other)), Path(), "cpu"), Codec.from_folder(other)
    rows = [ROWS[1], ROWS[0], ROWS[1]]
    whole = [by_hand(other, parting, row) for row in rows]
    assert kl(said(teacher, codec, schedule(codec, rows)), whole) < 1e-6  # one row of the student's, two of its own
    apart = schedule(parting, rows)
    first, second = whole[0].split([int(learned.sum()) for learned in np.split(
        apart.tokens.learned, apart.tokens.offsets[1:3])[:2]])
    assert kl(said(teacher, parting, apart), [first, second, whole[1], first, second]) < 1e-6
    short = int(apart.tokens.lengths[0])
    assert len((cut := schedule(parting, rows, longest=short)).tokens) == 2 and cut.tokens.left_out == 3
    assert kl(said(teacher, parting, cut), [first, first]) < 1e-6


def test_a_student_with_fewer_tokens_need_not_know_the_prompt(model: Path, codec: Codec, wanted: list[torch.Tensor],
                                                              tmp_path: Path) -> None:
    kept = kept_tokens(json.loads(codec.tokenizer.to_str()), schedule(codec).tokens.ids.tolist())
    shutil.copytree(model, tmp_path / "small", ignore=shutil.ignore_patterns("tokenizer*"))
    write_trimmed_tokenizer(model, tmp_path / "small", kept)
    small = Codec.from_folder(tmp_path / "small")
    assert small.vocabulary_size == len(kept) < codec.vocabulary_size
    assert len(small.encode(SYSTEM)) > len(codec.encode(SYSTEM))
    teacher = local.open(local.Config(str(model)), Path(), "cpu")
    assert kl(said(teacher, small, schedule(small)), [one[:, kept] for one in wanted]) < 1e-6


def test_what_all_prompts_begin_with_is_read_once(model: Path, codec: Codec, monkeypatch: pytest.MonkeyPatch,
                                                  tmp_path: Path) -> None:
    rows = [replace(ROWS[0], private=(("passage", str(number)),)) for number in range(6)]
    teacher, examples = local.open(local.Config(str(model)), Path(), "cpu"), schedule(codec, rows)
    found = said(teacher, codec, examples, wants=replace(WANTS, repeated=False))
    start = next(iter(teacher._model.starts.values()))
    before = codec.render([message("system", SYSTEM), *EXAMPLES,
                           message("user", "what is the light\n\npassage:\n0")]).partition("0<|end|>")[0]
    assert start.size == len(codec.encode(before)) and start._cache.get_seq_length() == start.size
    monkeypatch.setattr(_decoder.SharedStart, "states", lambda self, batch: _decoder.hidden_states(
        self.model, batch.ids).flatten(0, 1)[batch.positions])
    whole = said(teacher, codec, examples, wants=replace(WANTS, repeated=False))
    for place, one in found.items():
        torch.testing.assert_close(one, whole[place], atol=1e-4, rtol=1e-4)
    equal = [replace(ROWS[0], private=(("passage", ""),))] * 3  # nothing but the answer is left to read
    said(local_teacher := local.open(local.Config(str(model)), Path(), "cpu"), codec, schedule(codec, equal))
    assert next(iter(local_teacher._model.starts.values())).size == int(
        next(iter(local_teacher._model.starts)).lengths[0]) - len(codec.encode("on<|end|>")) - 1


def test_a_model_whose_layers_forget_reads_every_prompt_whole(codec: Codec, tmp_path: Path) -> None:

    folder = tiny.decoder(tmp_path / "model", "mistral", sliding_window=8)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    teacher = local.open(local.Config(str(folder)), Path(), "cpu")
    found = said(teacher, codec, schedule(codec))
    assert [start.size for start in teacher._model.starts.values()] == [0]
    assert kl(found, [by_hand(folder, codec, row) for row in ROWS]) < 1e-6


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "longer than the context": (
        {"told": replace(TOLD, system=SYSTEM * 9)},
        r"rows.jsonl:0: with the teacher's system message, examples and context it has \d+ tokens, and the teacher "
        "reads 256"),
    "a plain text": ({"rows": [Row(text="some words and more", where="rows.jsonl:7")]}, "a plain text is no question"),
    "read without its column": ({"rows": [replace(ROWS[0], private=())]}, "rows.jsonl:0: was read without the column "
                                "'passage'"),
    "another task": ({"wants": replace(WANTS, task=Task("classify"))}, "a prompt of its own is for decoders"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_asked_is_refused_by_name(teacher: Any, codec: Codec, case: str) -> None:
    given, expected = REFUSED[case]
    given = dict(given)
    with pytest.raises(UsageError, match=expected):
        said(teacher, codec, schedule(codec, given.pop("rows", ROWS)), **given)


@pytest.mark.parametrize(("template", "expected"), [
    (TEMPLATE.replace("<|end|>{% endfor %}{% if", "<|pad|><|end|>{% endfor %}{% if"),
     "rows.jsonl:0: teacher and student do not write its answer in the same tokens"),
    ("{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TEMPLATE,
     "as the teacher is asked it, rows.jsonl:0: .*no system"),
    (TEMPLATE.replace("{% for message in messages %}", "{% for message in messages if message.role != 'system' %}"),
     "as the teacher is asked it, rows.jsonl:0: messages.0..content: the chat template does not write it"),
])
def test_a_template_that_writes_no_such_row_is_refused_by_name(model: Path, codec: Codec, tmp_path: Path,
                                                               template: str, expected: str) -> None:
    shutil.copytree(model, tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").write_text(template)
    with pytest.raises(UsageError, match=expected):
        said(local.open(local.Config(str(tmp_path / "model")), Path(), "cpu"), codec, schedule(codec))


def test_each_of_several_teachers_is_told_its_own(model: Path, codec: Codec, tmp_path: Path) -> None:
    table = {"kind": "local", "model": str(model), "context": "passage"}
    run = RunFile(teacher=[{**table, "system": system} for system in ("a", SYSTEM)])
    found, examples = entries(run), schedule(codec)
    several = Several(found, [one.open(run, {"train": ROWS, "validation": []}, tmp_path, "cpu") for one in found])
    several.prepare(examples, codec, WANTS, tmp_path)
    own = [said(one.teacher, codec, examples, Told(system, (), "passage"))
           for one, system in zip(several.members, ("a", SYSTEM), strict=True) if isinstance(one, PromptedTeacher)]
    assert len({several.key, *(parent["prompt_sha256"] for parent in several.parents)}) == 3
    for batch in examples.all():
        mixed = several.signal(batch, WANTS)
        assert isinstance(mixed, Mixed)
        for (share, told), alone in zip(mixed.parts, own, strict=True):
            torch.testing.assert_close(told.logits, torch.cat([alone[row] for row in batch.rows]))  # type: ignore
            assert share == 0.5
