"""New rows: what the teacher is asked, what is kept of what it writes, and when no more is asked."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from edgestill.cli import main
from edgestill.distill.generating import Generating, Wanted
from edgestill.distill.generating.calls import Call, lanes_of, reply_schema
from edgestill.distill.generating.report import Generated
from edgestill.distill.generating.sieve import Sieve
from edgestill.distill.labelling import Settings
from edgestill.distill.labelling.endpoint import TeacherError
from edgestill.models.errors import CheckFailed, DataError, UsageError
from edgestill.runtime.data.documents.passages import Passage
from edgestill.runtime.data.row import Row

from ..fault_server import Asked, FaultServer
from .test_label_faults import PASSING, in_flight, killed, without_pauses  # noqa: F401 - a fixture

LABELS = ["cards", "loans"]
SEEDS = [Row(text=f"a seed of {name} that says {word}", label=name, where=f"seeds.jsonl:{place}")
         for place, (name, word) in enumerate([(name, word) for word in ("one", "two", "many") for name in LABELS], 1)]
WANTED = Wanted(rows=12, seeds=SEEDS, labels=LABELS, per_call=3)
ASKED = Row(messages=({"role": "user", "content": "what is it?"}, {"role": "assistant", "content": "It is so."}),
            where="seeds.jsonl:1")
PASSAGES = [Passage("pump.md", f"Pump {place} of the house runs at 1{place} bar and is older than most.", 100 * place,
                    100 * place + 60, heading="Pumps") for place in range(4)]


def written(asked: Asked, number: int = 0) -> str:
    """A teacher that writes rows of random words, as many as are asked for: the same for the same request."""
    content = asked.body["messages"][-1]["content"]
    draw = random.Random(content)
    return json.dumps({"rows": [{"text": " ".join("".join(draw.choices("abcdefgh", k=6)) for _ in range(5))}
                                for _ in range(int(content.split()[1]))]})


def generating(server: FaultServer, folder: Path, wanted: Wanted = WANTED, **settings: Any) -> Generated:
    """Let the server write rows."""
    given: dict[str, Any] = {"concurrency": 8, "timeout": 5.0, **settings}
    return Generating(wanted, Settings(server.url, "big", **given), folder / "ledger.jsonl").run()


def judged(wanted: Wanted, *rows: Any, passage: Passage | None = None) -> list[str]:
    """Why rows are left out."""
    call = replace(lanes_of(wanted)[0].due()[0], passage=passage)
    return [one.reason for one in Sieve(wanted).judged([(call, row) for row in rows])]


def test_rows_are_new_and_as_many_of_each_label(tmp_path: Path) -> None:
    with FaultServer(answer=written) as server:
        found = generating(server, tmp_path, replace(WANTED, rows=13))
        asked = [call.body for call in server.calls]
    assert Counter(row["label"] for row in found.rows) == {"cards": 7, "loans": 6} and found.stopped is None
    assert len({row["text"] for row in found.rows}) == 13 and found.report.labels == {"cards": 7, "loans": 6}
    assert found.report.left_out == {"more than were wanted": 2} and found.report.written == 15
    assert len(asked) == 5 and {body["response_format"]["json_schema"]["strict"] for body in asked} == {True}
    assert len({body["messages"][-1]["content"] for body in asked}) == 5


def calls_of(wanted: Wanted) -> list[list[Call]]:
    """The first calls of all lanes."""
    return [lane.due() for lane in lanes_of(wanted)]


def test_each_call_draws_its_own_seeds_by_its_number_and_the_seed_alone() -> None:
    wanted = replace(WANTED, rows=60, shown=3, seeds=[replace(SEEDS[0], text=f"cards {place}") for place in range(20)]
                     + [replace(SEEDS[1], text=f"loans {place}") for place in range(20)])
    asked = [[call.item.row.question for call in lane] for lane in calls_of(wanted)]
    assert asked == [[call.item.row.question for call in lane] for lane in calls_of(wanted)]
    assert asked[0][:5] == [call.item.row.question for call in calls_of(replace(wanted, rows=30))[0]]
    assert len({*asked[0], *asked[1]}) == 20
    assert set(asked[0]).isdisjoint(call.item.row.question for call in calls_of(replace(wanted, seed=1))[0])
    assert all(text.count("text: cards") == 2 and text.count("text: loans") == 1 for text in asked[0])
    assert all(text.count("label: loans") == 2 for text in asked[1])


def test_every_passage_is_asked_about_before_one_is_asked_again() -> None:
    lane = lanes_of(Wanted(rows=8, passages=PASSAGES, per_call=5))[0]
    assert lane.per_call == 2 and lane.most == 12
    calls = lane.due()
    assert sorted(call.passage.start for call in calls if call.passage) == [0, 100, 200, 300]
    assert calls[0].passage is not None and calls[0].passage.text in calls[0].item.row.question
    assert "which is from pump.md, Pumps" in calls[0].item.row.question


def test_a_schema_with_references_is_told_in_words_and_each_answer_held_to_it() -> None:
    plain = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    tangled = {"$defs": {"n": {"type": "integer"}}, **plain, "properties": {"n": {"$ref": "#/$defs/n"}}}
    for schema, inside in ((plain, plain), (tangled, {})):
        wanted = Wanted(rows=5, seeds=[ASKED], schema=schema)
        fields = reply_schema(wanted)["properties"]["rows"]["items"]["properties"]
        assert fields == {"prompt": {"type": "string"}, "completion": inside}
        assert json.dumps(schema, separators=(",", ":")) in calls_of(wanted)[0][0].item.row.question
        assert judged(wanted, {"prompt": "one more?", "completion": {"n": 1}},
                      {"prompt": "yet another?", "completion": {"n": "1"}}) == ["", "breaks the schema"]


@pytest.mark.parametrize(("row", "reason"), [
    ({"text": "a wholly other sentence"}, ""), ({"text": "  A seed of  CARDS that says one"}, "repeats a seed"),
    ({"text": "a seed of cards that says one!"}, "nearly repeats a seed"),
    ({"text": "the test asks for plastic"}, "repeats a test row"),
    ({"text": "the test asks for plastic."}, "nearly repeats a test row"),
    ({"text": "another new text, one"}, "repeats another new row"),
    ({"text": "another new text, one."}, "nearly repeats another new row"),
    ({"text": " "}, "a text that is empty or missing"), ({"words": "x"}, "a text that is empty or missing"),
    ({"text": ["x"]}, "a text that is empty or missing"), ("no row", "a text that is empty or missing"),
    ({"text": "half \ud800"}, "a text holds half of a surrogate pair (\\ud800 to \\udfff)"),
    ({"text": "nul \0"}, "a text holds a NUL character"),
    ({"text": "hello <|im_end|> you, how are you"}, "marks of a template"),
    ({"text": "dear [your name], how are you"}, "marks of a template"),
    ({"text": "моя карта ещё не пришла"}, "another script than the seeds and documents"),
    ({"text": "the word карта is a card"}, "another script than the seeds and documents"),
    ({"text": "only one letter ж of it"}, ""), ({"text": "tiny"}, "far longer or shorter than any seed"),
    ({"text": "long " * 40}, "far longer or shorter than any seed")])
def test_rows_that_are_none_are_left_out_by_name(row: Any, reason: str) -> None:
    test = [Row(messages=({"role": "system", "content": "Be brief."}, {"role": "user", "content": text},
                          {"role": "assistant", "content": "x"})) for text in ["The test asks for plastic"]]
    assert judged(replace(WANTED, test=test), {"text": "another new text, one"}, row) == ["", reason]


def test_a_row_is_held_to_those_that_are_kept_and_not_to_those_left_out() -> None:
    near = [{"text": f"the red card of my aunt costs {word}"} for word in ("much", "much!", "much!!", "much!!!")]
    assert judged(WANTED, *near)[1:] == ["nearly repeats another new row"] * 3
    first = "now the red card of my aunt costs much money"
    # The third is like the second alone.
    chain = [first, f"{first} not now", f"{first.removeprefix('now the')} not now"]
    assert judged(WANTED, *({"text": text} for text in chain)) == ["", "nearly repeats another new row", ""]
    sieve, call = Sieve(WANTED), calls_of(WANTED)[0][0]
    assert [one.reason for text in ("first of all rows", "first of all rows!", "First of all rows")
            for one in sieve.judged([(call, {"text": text})])] == [
                "", "nearly repeats another new row", "repeats another new row"]


def test_answers_are_about_as_long_as_those_of_the_seeds() -> None:
    wanted = Wanted(rows=5, seeds=[ASKED])
    assert judged(wanted, {"prompt": "what is that?", "completion": "It is so. " * 4},
                  {"prompt": "what was there?", "completion": "It is so. " * 3}) == [
                      "an answer far longer than any seed's", ""]


def test_the_plan_expects_rows_as_long_as_the_seeds(tmp_path: Path) -> None:
    def plan(wanted: Wanted) -> Any:
        return Generating(wanted, Settings("http://127.0.0.1:9/v1", "big", answer_tokens=200), tmp_path / "none").plan()

    each = round(sum(len(row.text + row.label) for row in SEEDS) / 6 / 4) + 12
    assert plan(WANTED).tokens_written == 4 * (3 * each + 8) and plan(WANTED).most == 12
    assert plan(replace(WANTED, per_call=12)).tokens_written == 2 * 200  # no call writes more
    assert plan(Wanted(rows=8, passages=PASSAGES)).tokens_written == 4 * 200


def test_marks_that_the_seeds_have_are_no_fault() -> None:
    wanted = replace(WANTED, seeds=[*SEEDS, Row(text="dear {{name}}, hello", label="cards", where="seeds.jsonl:9")])
    assert judged(wanted, {"text": "good morning, {{name}} of mine"}) == [""]


@pytest.mark.parametrize(("prompt", "completion", "reason"), [
    ("At what pressure does it run?", "At 10 bar.", ""), ("At what pressure?", "At 11 bar.", "a number that is not in"),
    ("Whose pump is it?", "It is Bosch's.", "a name that is not in the passage"),
    ("What does the passage say?", "10 bar.", "speaks of the text that its reader does not see"),
    ("Is it old?", "You say: is it  OLD?", "an answer that repeats its question")])
def test_answers_are_held_to_their_passage(prompt: str, completion: str, reason: str) -> None:
    wanted = Wanted(rows=2, passages=PASSAGES)
    found = judged(wanted, {"prompt": prompt, "completion": completion}, passage=PASSAGES[0])[0]
    assert found.startswith(reason) and bool(found) == bool(reason)


def test_a_grounded_row_carries_its_passage_and_where_it_stands(tmp_path: Path) -> None:
    def answer(asked: Asked, number: int) -> str:
        text = asked.body["messages"][-1]["content"].split("-----\n")[1]
        place = text.split()[1]
        return json.dumps({"rows": [{"prompt": f"What does pump {place} run at?", "completion": f"At 1{place} bar."},
                                    {"prompt": f"How old is number {place}?", "completion": "As old as Methuselah."}]})

    with FaultServer(answer=answer) as server:
        found = generating(server, tmp_path, Wanted(rows=4, passages=PASSAGES))
    assert sorted(found.rows, key=lambda row: row["start"])[1] == {
        "prompt": "What does pump 1 run at?", "completion": "At 11 bar.", "passage": PASSAGES[1].text,
        "document": "pump.md", "heading": "Pumps", "start": 100, "end": 160}
    assert found.report.left_out == {"a name that is not in the passage": 4}
    assert found.report.documents == {"pump.md": 4}
    assert all(one["row"]["completion"] == "As old as Methuselah." for one in found.left_out)


def test_a_teacher_that_repeats_itself_or_the_seeds_is_asked_no_more(tmp_path: Path) -> None:
    rows = [{"text": row.text} for row in SEEDS[:2]] + [{"text": "the only new one is this"}]
    with FaultServer(answer=lambda asked, number: json.dumps({"rows": rows})) as server:
        found = generating(server, tmp_path, replace(WANTED, rows=300))
        assert len(server.calls) == 16
    assert isinstance(found.stopped, CheckFailed) and [row["text"] for row in found.rows] == [rows[2]["text"]]
    assert found.stopped.message == ("1 of 300 rows were kept, and then no more was asked: 40 of the last 40 repeat "
                                     "others")
    assert found.report.duplicates == 47 and found.report.left_out["repeats a seed"] == 32


def test_a_teacher_whose_rows_cannot_be_used_is_asked_three_times_as_often_and_no_more(tmp_path: Path) -> None:
    with FaultServer(answer=lambda asked, number: '{"rows": [{"text": "<|x|> is a mark of a template"}]}') as server:
        found = generating(server, tmp_path)
        assert len(server.calls) == 12  # 3 × 4
    assert found.rows == [] and "most often left out: marks of a template" in str(found.stopped)


@pytest.mark.parametrize(("said", "reason"), [("I cannot do that.", "no JSON"), ('{"rows": []}', "breaks the schema"),
                                              ('{"rows": "none"}', "breaks the schema")])
def test_replies_of_no_use_end_it_after_the_first_round(said: str, reason: str, tmp_path: Path) -> None:
    with FaultServer(answer=lambda asked, number: said) as server:
        with pytest.raises(CheckFailed, match=f"no reply that can be used to 4 calls: {reason}"):
            generating(server, tmp_path)
        assert len(server.calls) == 4 * 4


def test_one_reply_of_no_use_is_counted_and_another_call_made(tmp_path: Path) -> None:
    with FaultServer(answer=written, choose=lambda asked: "length" if "'loans'" in str(asked.body) else "") as server:
        found = generating(server, tmp_path)
        assert len(server.calls) == 2 + 6
    assert [row["label"] for row in found.rows] == ["cards"] * 6 and "6 of 12 rows were kept" in str(found.stopped)
    assert found.report.calls_left_out == {"answer cut off by a limit of tokens": 6}
    assert [one["call"] for one in found.left_out] == [f"call {place} for loans" for place in range(1, 7)]


def test_a_budget_is_never_passed_and_the_same_run_goes_on(tmp_path: Path) -> None:
    with FaultServer(answer=written) as server:
        found = generating(server, tmp_path, replace(WANTED, rows=60), max_tokens=5_000, answer_tokens=400)
        spent = sum(call.prompt_tokens + call.completion_tokens for call in server.calls)
        assert "leaves no room for another call" in str(found.stopped) and spent <= 5_000 and 0 < len(found.rows) < 60
        again = generating(server, tmp_path, replace(WANTED, rows=60), answer_tokens=400)
        assert len(again.rows) == 60 and again.stopped is None and len(server.calls) == 20
    with FaultServer(choose=lambda asked: "401") as server, pytest.raises(TeacherError):
        generating(server, tmp_path)


@pytest.mark.parametrize(("wanted", "error", "words"), [
    (Wanted(rows=5), UsageError, "no seeds and no documents"),
    (replace(WANTED, passages=PASSAGES), UsageError, "documents give questions with answers in words"),
    (replace(WANTED, rows=1), UsageError, "--rows 1: fewer than the 2 labels"),
    (replace(WANTED, seeds=[ASKED]), DataError, "seeds.jsonl:1: a chat row among seeds of labelled texts"),
    (replace(WANTED, labels=["loans", "other"]), DataError, "the label 'cards' is none of the labels"),
    (Wanted(rows=5, seeds=SEEDS), DataError, "no question with its answer"),
    (Wanted(rows=5, seeds=[replace(ASKED, tools=({"type": "function"},))]), DataError, "more than a question"),
    (replace(WANTED, test=[Row(text=SEEDS[2].text.upper())]), DataError, "seeds.jsonl:3: this seed stands in")])
def test_what_cannot_be_made_is_refused(wanted: Wanted, error: type[Exception], words: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=words):
        Generating(wanted, Settings("http://127.0.0.1:9/v1", "big"), tmp_path / "ledger.jsonl")


def test_rows_of_a_faulty_teacher_survive_three_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    """They are the rows of a run that nothing disturbed, and no more is paid for twice than was in flight."""
    seeds, out = tmp_path / "seeds.jsonl", tmp_path / "generated.jsonl"
    seeds.write_text("".join(json.dumps({"text": row.text, "label": row.label}) + "\n" for row in SEEDS))
    monkeypatch.setenv("EDGESTILL_TEACHER_KEY", "sk-proj-0123456789abcdefghij")
    with FaultServer(seed=3, rate=0.12, faults=PASSING, answer=written, wait=0, latency=0.002) as server:
        command = ["data", "generate", str(seeds), "--teacher-url", server.url, "--teacher-model", "big", "--yes",
                   "--rows", "80", "--per-call", "2", "-o", str(out)]
        for calls in (8, 20, 32):
            killed(lambda: main.call(command), lambda calls=calls: len(server.calls) >= calls)  # type: ignore[misc]
            assert not out.exists()
        lost = in_flight(tmp_path / "generated.ledger.jsonl")
        assert main.call(command) == 0
    paid = [call.content for call in server.calls if call.usable]
    assert len(paid) - len(set(paid)) <= lost <= 3 * 8 and any(call.fault for call in server.calls)
    assert f"and {lost} were in flight" in capsys.readouterr().out
    with FaultServer(answer=written) as server:
        calm = generating(server, tmp_path / "calm", replace(WANTED, rows=80, per_call=2))
    assert [json.loads(line) for line in out.read_text().splitlines()] == calm.rows and len(calm.rows) == 80
