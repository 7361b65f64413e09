"""What a template writes around an answer belongs to the prompt; of a row nothing is lost on its way to the ids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from edgestill.models.errors import DataError, UsageError
from edgestill.models.task import Task
from edgestill.runtime.data import learned_tokens
from edgestill.runtime.data.answers import apart, said
from edgestill.runtime.data.row import Row
from edgestill.runtime.data.token_checks import count
from edgestill.runtime.evaluation.evaluate import evaluate
from edgestill.runtime.generation.generator import Generator
from edgestill.runtime.text.chat_template import continued
from edgestill.runtime.text.codec import Codec
from edgestill.runtime.text.template_defaults import write_template

from ..templates import CALL as CALLS
from ..templates import DROPS, KINDS, codec_of
from .test_codec import chat_folder
from .test_generator import Scripted


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def answer(content: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


TOOL = {"type": "function", "function": {"name": "search", "description": "find", "parameters": {
    "type": "object", "properties": {"q": {"type": "string"}}}}}
CALL = {"type": "function", "function": {"name": "search", "arguments": {"q": "parcel"}}}
ROWS = {
    "system": Row(({"role": "system", "content": "Obey."}, user("lamp on"), answer('{"do":"on"}'))),
    "turns": Row((user("one"), answer("uno"), user("two"), answer("dos"), user("three"), answer("tres"))),
    "call": Row((user("find news"), answer("", tool_calls=[CALL])), (TOOL,)),
    "words and call": Row((user("find news"), answer("I will.", tool_calls=[CALL])), (TOOL,)),
    "result": Row((user("find news"), answer("", tool_calls=[CALL]), {"role": "tool", "content": "none"},
                   answer("No news.")), (TOOL,)),
}
THINKS = Row((user("one"), answer("uno", reasoning_content="a number")))


@pytest.fixture(scope="module")
def make(tiny_llama: Path) -> Callable[..., Codec]:
    plain = Codec.from_folder(tiny_llama)
    return lambda source, **options: codec_of(source, plain, **options)


def spans(codec: Codec, row: Row, learn: str = "all") -> list[str]:
    found = learned_tokens.sequences(codec, row, learn)
    return [codec.decode(one.ids[start:end], False) for one in found for start, end in one.spans]


@pytest.mark.parametrize("kind", KINDS)
def test_no_opening_is_learned_and_every_turn_is(kind: str, make: Callable[..., Codec]) -> None:
    codec = make(KINDS[kind])
    wanted = '<tool_call>\n{"name": "search", "arguments": {"q": "parcel"}}\n</tool_call><|end|>'
    assert spans(codec, ROWS["system"]) == ['{"do":"on"}<|end|>']
    assert spans(codec, ROWS["turns"]) == ["uno<|end|>", "dos<|end|>", "tres<|end|>"]
    assert spans(codec, ROWS["turns"], "last") == ["tres<|end|>"]
    assert spans(codec, ROWS["call"]) == [wanted]
    assert spans(codec, ROWS["result"]) == [wanted, "No news.<|end|>"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ROWS)
def test_a_perfect_student_is_right(kind: str, name: str, make: Callable[..., Codec]) -> None:
    row = ROWS[name]
    plain = make(KINDS[kind])
    codec = make(KINDS[kind], **learned_tokens.settled(plain, [row]))
    (*_, last) = learned_tokens.sequences(codec, row)
    start, end = last.spans[-1]
    assert learned_tokens.prompt_ids(codec, row) == codec.prompt_ids(row.prompt_messages, row.tools) == last.ids[:start]
    whole = continued(codec.render(row.prompt_messages, row.tools), codec.render(row.messages, row.tools, False))
    assert whole is not None and whole.startswith(codec.decode(last.ids, False))
    engine: Any = Scripted(last.ids[start:end])
    engine.context_length = 1024
    found = evaluate(Generator(engine, codec, max_new_tokens=100), [row])
    assert found.metrics["exact_match"].value == 1.0, found.answers
    assert found.metrics["json_validity"].value == 1.0 if "json_validity" in found.metrics else name != "call"
    wrong: Any = Scripted([*codec.encode("no"), 0])
    wrong.context_length = 1024
    assert evaluate(Generator(wrong, codec), [row]).metrics["exact_match"].value == 0.0


@pytest.mark.parametrize("kind", ["switch", "fixed", "inside", "open"])
def test_reasoning_is_learned_and_not_compared(kind: str, make: Callable[..., Codec]) -> None:
    codec = make(KINDS[kind])
    assert learned_tokens.settled(codec, [THINKS, ROWS["turns"]]) == {}  # both ways: each row is asked as it answers
    (one,) = learned_tokens.sequences(codec, THINKS)
    ids = one.ids[one.spans[0][0]:-1]
    text = "a number\n</think>\n\nuno"
    assert codec.decode(ids, False) == (text if kind in ("inside", "open") else f"<think>\n{text}")
    assert apart(codec, ids, codec.decode(ids))[:2] == ("a number", "uno")
    assert said(codec, ids, codec.decode(ids), THINKS) == "uno" == THINKS.answer
    direct = Row((user("one"), answer("uno")))
    assert learned_tokens.prompt_ids(codec, THINKS) != learned_tokens.prompt_ids(codec, direct)
    closed = make(KINDS[kind], enable_thinking=False)
    with pytest.raises(DataError, match="has reasoning, and template_options.enable_thinking is false"):
        learned_tokens.sequences(closed, THINKS)


def test_thoughts_of_an_earlier_turn_reach_the_ids_where_they_are_learned(make: Callable[..., Codec]) -> None:
    talk = (*THINKS.messages, user("two"), answer("dos"))
    for learn in learned_tokens.LEARN:  # the last answer alone has no thoughts
        assert spans(make(KINDS["fixed"]), Row(talk), learn)[-1] == "dos<|end|>"
    assert "a number" in spans(make(KINDS["fixed"]), Row(talk))[0]
    with pytest.raises(DataError, match=r"messages\[1\]: the chat template does not write its reasoning"):
        learned_tokens.sequences(make(KINDS["plain"]), Row(talk))
    for learn, row in (("last", Row(talk)), ("all", Row(talk, unlearned=(1,)))):  # what is not learned may be left out
        assert spans(make(KINDS["plain"]), row, learn) == ["dos<|end|>"]


def test_a_row_is_as_long_as_its_longest_sequence(make: Callable[..., Codec]) -> None:
    codec = make(KINDS["fixed"])
    for first, second in (("two", "dos"), ("a longer question", "and a longer answer")):
        row = Row((*THINKS.messages, user(second), answer(first)))
        lengths = [len(one.ids) for one in learned_tokens.sequences(codec, row)]
        found = count([row], codec, max(lengths) - 1, "all")
        assert len(lengths) == 2 and found.tokens == [max(lengths)] and found.long == [row]
        assert not count([row], codec, max(lengths), "all").long


def test_thoughts_inside_the_words_are_learned_as_those_beside_them(make: Callable[..., Codec]) -> None:
    codec, inside = make(KINDS["open"]), Row((user("one"), answer("<think>\na number\n</think>\n\nuno")))
    assert learned_tokens.sequences(codec, inside) == learned_tokens.sequences(codec, THINKS)


def test_thoughts_inside_the_words_are_not_learned_behind_empty_ones(make: Callable[..., Codec]) -> None:
    row = Row((user("one"), answer("<think>a number</think>uno")))
    with pytest.raises(DataError, match=r"messages\[1\] has reasoning, and template_options.enable_thinking is false"):
        learned_tokens.sequences(make(KINDS["switch"], enable_thinking=False), row)


@pytest.mark.parametrize(("source", "row"), [
    (KINDS["plain"].replace(CALLS, "[{{ c.function.name }}(q='{{ c.function.arguments.q }}')]"), ROWS["call"]),
    (KINDS["plain"], Row((user("find news"), answer(
        '<tool_call>\n{"name": "search", "arguments": {"q": "parcel"}}\n</tool_call>')), (TOOL,))),
    (KINDS["plain"], Row((user("how do turns begin?"), answer("with <|user|>, say")))),
    (KINDS["channel"], Row((user("one"), answer("<think>a number</think>uno")))),
], ids=["calls in another form", "calls as words", "a special token", "other marks of thoughts"])
def test_what_was_learned_is_right_in_whatever_form(source: str, row: Row, make: Callable[..., Codec]) -> None:
    codec = make(source)
    ids, start = learned_tokens.training_ids(codec, row)
    for given, wanted in ((ids[start:], 1.0), ([*ids[start:-2], *codec.encode("no"), ids[-1]], 0.0)):
        engine: Any = Scripted(given)
        engine.context_length = 1024
        assert evaluate(Generator(engine, codec, max_new_tokens=100), [row]).metrics["exact_match"].value == wanted


def test_usual_thoughts_are_taken_apart_under_a_template_with_other_marks(make: Callable[..., Codec]) -> None:
    codec, row = make(KINDS["channel"]), ROWS["turns"]
    ids = codec.encode("<think>of it</think>tress")
    assert said(codec, ids, codec.decode(ids), row) == "tress"


def test_a_row_that_the_model_cannot_learn_is_measured_by_its_words(make: Callable[..., Codec]) -> None:
    refuses = "{{ raise_exception('no') if m.content == 'tres' else m.content }}"
    codec = make(KINDS["plain"].replace("{{ m.content }}", refuses))
    ids = codec.encode("otro")
    assert said(codec, ids, "otro", ROWS["turns"]) == "otro"


def test_thoughts_between_special_tokens_are_taken_apart_by_their_ids(make: Callable[..., Codec]) -> None:
    source = KINDS["switch"].replace("<think>\\n", "<|system|>").replace("\\n</think>\\n\\n", "<|user|>")
    codec = make(source)
    ids = codec.encode("<|system|>a number<|user|>uno")
    assert codec.thinking_marks == ("<|system|>", "<|user|>")
    assert apart(codec, ids, codec.decode(ids)) == ("a number", "uno", "uno")
    unfinished = codec.encode("<|system|>a num")
    assert apart(codec, unfinished, codec.decode(unfinished)) == ("a num", "", "")


def test_a_structure_leaves_no_room_for_thoughts_unless_they_are_asked_for(make: Callable[..., Codec]) -> None:
    codec = make(KINDS["fixed"])
    engine: Any = Scripted([*codec.encode("ab"), 0])
    engine.context_length, seen = 1024, []
    engine.prefill = lambda ids, prefill=engine.prefill: seen.append(codec.decode(ids, False)) or prefill(ids)
    for options in ({}, {"choices": ["ab"]}, {"choices": ["ab"], "template_options": {"enable_thinking": True}}):
        engine.truncate(0)
        if "template_options" in options:
            with pytest.raises(UsageError, match=r"template_options\.enable_thinking: .* reads no variable"):
                Generator(engine, codec).generate("x", **options)
        else:
            Generator(engine, codec).generate("x", **options)
    assert [text.endswith("<think>\n\n</think>\n\n") for text in seen] == [False, True]


@pytest.mark.parametrize(("options", "message"), [
    ({"enable_thinkng": False}, "enable_thinkng: .* reads no variable.*\n.*'enable_thinking'"),
    ({"messages": []}, "messages: is set by the program"), ({"bos_token": "x"}, "bos_token: is set by the program"),
    ({"enable_thinking": "no"}, "enable_thinking: 'no' is neither true nor false")])
def test_options_that_the_template_cannot_follow_are_refused(options: dict[str, Any], message: str,
                                                             make: Callable[..., Codec]) -> None:
    with pytest.raises(UsageError, match=f"task.template_options.{message}"):
        make(KINDS["switch"], **options)
    with pytest.raises(UsageError, match=f"template_options.{message}"):
        make(KINDS["switch"]).prompt([user("x")], options=options)


def test_options_without_a_template_are_refused(tiny_llama: Path) -> None:
    with pytest.raises(UsageError, match="template_options: the model has no chat template"):
        Codec(Codec.from_folder(tiny_llama).tokenizer, options={"enable_thinking": False})


def test_a_developers_message_is_the_systems(make: Callable[..., Codec]) -> None:
    row = Row(({"role": "developer", "content": "Obey."}, user("lamp on"), answer("on")))
    codec = make(DROPS["developer"])
    assert codec.decode(learned_tokens.sequences(codec, row)[0].ids, False).startswith("<|system|>Obey.<|end|><|user|>")
    knows = make(DROPS["developer"].replace("('system'", "('developer', 'system'"))
    assert knows.render(row.messages).startswith("<|developer|>Obey.")
    codec.system = "Be brief."
    assert "brief" not in codec.render(row.messages)


@pytest.mark.parametrize(("source", "row", "message"), [
    (DROPS["system"], ROWS["system"], r"messages\[0\]\.content: .* does not write it \(role 'system'\)"),
    (DROPS["developer"], ROWS["call"], r"messages\[1\]\.tool_calls\[0\]"),
    (DROPS["developer"], ROWS["result"], r"messages\[1\]\.tool_calls\[0\]"),
    (DROPS["developer"], Row(ROWS["turns"].messages, (TOOL,)), "tools: the chat template does not write them"),
    (KINDS["plain"], THINKS, r"messages\[1\]: .* does not write its reasoning"),
    (KINDS["plain"], Row((user("a") | {"wieght": 1}, answer("b"))), r"messages\[0\]\.wieght: .* does not read it"),
    (KINDS["plain"], Row((user("a") | {"name": "Bob"}, answer("b"))), r"messages\[0\]\.name"),
])
def test_what_the_template_leaves_out_is_refused_by_name(source: str, row: Row, message: str,
                                                         make: Callable[..., Codec]) -> None:
    with pytest.raises(DataError, match=message):
        learned_tokens.sequences(make(source), row)


def test_a_prompt_that_is_written_otherwise_once_it_is_answered(make: Callable[..., Codec]) -> None:
    codec = make(DROPS["answered"])
    (one,) = learned_tokens.sequences(codec, ROWS["system"])
    assert codec.decode(one.ids, False) == '<|user|>Obey.\nlamp on<|end|><|assistant|>{"do":"on"}<|end|>'
    assert spans(codec, ROWS["system"]) == ['{"do":"on"}<|end|>']


def test_a_chat_that_was_rendered_before_keeps_all_its_answers(tiny_llama: Path) -> None:
    codec = Codec.from_folder(tiny_llama)
    text = "<|user|>one<|end|><|assistant|>uno<|end|><|user|>two<|end|><|assistant|>dos<|end|>"
    for whole in (text, f"{text}\n"):
        (one,) = learned_tokens.sequences(codec, Row(text=whole))
        assert codec.decode(one.ids, False) == whole and one.spans == [(0, len(one.ids))]
    assert learned_tokens.sequences(codec, Row(text="a story"))[0].ids[-1] == codec.eos_id


@pytest.mark.parametrize("kind", ["switch", "fixed", "inside", "open"])
def test_a_trained_template_says_by_itself_how_it_is_asked(kind: str, tiny_llama: Path, tmp_path: Path) -> None:
    folder = chat_folder(tiny_llama, tmp_path / "model", KINDS[kind])
    task = Task(template_options=learned_tokens.settled(Codec.from_folder(folder), [ROWS["system"]]))
    assert task.template_options == {"enable_thinking": False}
    before = Codec.from_folder(folder, task)
    write_template(folder, task)
    alone, told = Codec.from_folder(folder), Codec.from_folder(folder, task)
    for row in ROWS.values():
        asked = [learned_tokens.prompt_ids(one, row) for one in (before, told)]
        assert asked == 2 * [alone.prompt_ids(row.prompt_messages, row.tools)]
        assert alone.render(row.messages, row.tools, False) == before.render(row.messages, row.tools, False)
    again = (folder / "chat_template.jinja").read_text()
    write_template(folder, task)
    assert (folder / "chat_template.jinja").read_text() == again
    if kind == "switch":
        assert alone.render([user("x")], options={"enable_thinking": True}).endswith("<|assistant|>")


def test_a_requests_options_go_over_the_tasks(make: Callable[..., Codec]) -> None:
    free, closed = make(KINDS["switch"]), make(KINDS["switch"], enable_thinking=False)
    asked = [user("one")]
    assert closed.prompt(asked) == free.prompt(asked, options={"enable_thinking": False}) != free.prompt(asked)
    assert closed.prompt(asked, options={"enable_thinking": True}) == free.prompt(asked)


@pytest.mark.parametrize(("row", "message"), [
    (Row((user("one"), answer("uno <|end|> y dos"))), r"messages\[1\] holds '<\|end\|>', .*: 'y dos' behind it"),
    (Row((answer("Hello, I am a bot."), user("one"), answer("uno"))), r"messages\[0\] is the assistant's: nothing"),
    (Row((user("one"), user("two"), answer("uno"))), "refuses these messages"),
])
def test_what_cannot_be_learned_is_told_with_its_row(row: Row, message: str, make: Callable[..., Codec]) -> None:
    alternate = ("{% for m in messages %}{% if not loop.first and m.role == loop.previtem.role %}"
                 "{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}")
    with pytest.raises(DataError, match=f"^rows.jsonl:7: .*{message}"):
        learned_tokens.sequences(make(alternate + KINDS["plain"]), replace(row, where="rows.jsonl:7"))


def test_an_end_that_ends_an_answer_is_its_end(make: Callable[..., Codec]) -> None:
    assert spans(make(KINDS["plain"]), Row((user("one"), answer("uno<|end|>")))) == ["uno<|end|>"]
    greeting = Row((answer("Hello."), user("one"), answer("uno")), unlearned=(0,))
    assert spans(make(KINDS["plain"]), greeting) == ["uno<|end|>"]
