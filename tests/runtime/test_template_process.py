"""A stranger's template runs in a process of its own, which ends when it takes too long."""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path

import pytest
from edgestill.models.errors import ArtifactError, DataError
from edgestill.runtime.loading import foreign, trial
from edgestill.runtime.text import template_process, tokenizer
from edgestill.runtime.text.chat_template import ChatTemplate

CHAT = [{"role": "user", "content": "ü \ud800 hello"}]
SLOW = "{% if messages[0].content == 'slow' %}{% set x = ('f' * 4000000) | int(0, 16) %}" \
       "{% for i in range(99999) %}{% set y = -x %}{% endfor %}{% endif %}{{ messages[0].content }}"


def test_it_says_what_it_says_here() -> None:
    source = "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}{{ flag }}{% endfor %}"
    here, apart = (ChatTemplate({"default": source}, {"bos_token": "<s>"}, apart) for apart in (False, True))
    assert apart.render(CHAT, options={"flag": "!"}) == here.render(CHAT, options={"flag": "!"})
    assert apart._read == here._read == {"flag"}
    assert not apart._compiled, "a stranger's template was compiled in this process"


@pytest.mark.parametrize(("source", "kind", "message"), [
    ("{{ raise_exception('no system messages') }}", DataError, "no system messages"),
    ("{% if %}", ArtifactError, "chat template, line 1"), ("{{ ''.__class__.mro() }}", DataError, "unsafe"),
    ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", DataError, "steps")])
def test_its_errors_are_those_it_raises_here(source: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        ChatTemplate({"default": source}, {}, apart=True).render(CHAT)


def test_what_takes_too_long_is_ended_and_the_next_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    template = ChatTemplate({"default": SLOW}, {}, apart=True)
    assert template.render([{"role": "user", "content": "a"}]) == "a"
    monkeypatch.setattr(template_process, "SECONDS", 0.5)
    started = time.perf_counter()
    with pytest.raises(DataError, match=r"does not come to an end: it takes more than 0\.5 s"):
        template.render([{"role": "user", "content": "slow"}])
    assert time.perf_counter() - started < 9
    monkeypatch.setattr(template_process, "SECONDS", 30.0)
    assert template.render([{"role": "user", "content": "b"}]) == "b"


def test_what_takes_too_much_memory_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    source = "{% set a = '\U0001f600' * 12000000 %}{% set b = a | upper %}{{ 1 }}"
    assert ChatTemplate({"default": source}, {}, apart=True).render(CHAT) == "1"
    monkeypatch.setattr(template_process, "MEMORY", 2**27)
    with pytest.raises(DataError, match="MemoryError|MiB"):
        ChatTemplate({"default": source}, {}, apart=True).render(CHAT)


def test_threads_get_their_own_texts() -> None:
    template = ChatTemplate({"default": "{{ messages[0].content }}"}, {}, apart=True)
    found: dict[int, str] = {}

    def ask(number: int) -> None:
        found[number] = template.render([{"role": "user", "content": str(number)}])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: str(number) for number in range(8)}


def test_strangers_templates_are_rendered_apart_and_our_own_here(packed_llama: dict[str, Path], tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    ours = foreign.codec_of(foreign.open_model(packed_llama["gguf"]))
    assert ours._template is not None and not ours._template.apart
    shutil.copy(packed_llama["gguf"] / "model.gguf", tmp_path / "x.gguf")
    bare = foreign.codec_of(foreign.open_model(tmp_path / "x.gguf"))
    monkeypatch.setattr(foreign.origin, "is_ours", lambda manifest: False)
    theirs = foreign.codec_of(foreign.open_model(packed_llama["gguf"]))
    for codec in (bare, theirs, theirs.changed({})):
        assert codec._template is not None and codec._template.apart


def test_a_tokenizer_that_goes_back_and_forth_is_refused_where_it_is_tried(
        packed_llama: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "graph"
    shutil.copytree(packed_llama["onnx"], folder, ignore=shutil.ignore_patterns("manifest.json"))
    assert list(trial.trial({"path": str(folder)})) == [{"answered": True}]
    table = json.loads((folder / "tokenizer.json").read_text())
    slow = {"type": "Split", "pattern": {"Regex": r"(?:[a-z ]|[0-9])*[\x{E000}-\x{E0FF}]"}, "behavior": "Isolated",
            "invert": False}
    table["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [slow, table["pre_tokenizer"]]}
    (folder / "tokenizer.json").write_text(json.dumps(table))
    monkeypatch.setattr(tokenizer, "PROBE_SECONDS", 0.05)
    with pytest.raises(ArtifactError, match=r"the tokenizer takes .* s for \d+ characters, the limit is 0\.05"):
        list(trial.trial({"path": str(folder)}))
