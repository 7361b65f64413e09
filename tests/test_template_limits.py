"""Templates that never end are refused in bounded time and memory; those of real models are not touched."""

from __future__ import annotations

import time

import pytest
from edgestill.models.errors import ArtifactError, DataError
from edgestill.runtime.template import ChatTemplate

CHAT = [{"role": "user", "content": "hello " * 100}]
POISONED = {
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "many turns": "{% for a in range(99999) %}{% for b in range(99) %}{{ b }}{% endfor %}{% endfor %}",
    "times": "{{ 'a' * 10000000000 }}", "times from the right": "{{ 10000000000 * [1] }}",
    "power": "{{ 9 ** 999999999 }}", "doubling": "{% set n = namespace(s='a') %}{% for i in range(60) %}"
    "{% set n.s = n.s ~ n.s %}{% endfor %}", "sums": "{% set n = namespace(s='a') %}{% for i in range(60) %}"
    "{% set n.s = n.s + n.s %}{% endfor %}", "method": "{{ 'a'.ljust(10000000000) }}",
    "filter": "{{ 'a' | center(10000000000) }}", "indent": "{{ 'a\\n' | indent(10000000000) }}",
    "format": "{{ '{:10000000000}'.format('a') }}", "percent": "{{ '%10000000000d' % 1 }}",
    "percent filter": "{{ '%10000000000d' | format(1) }}",
    "replace": "{% set a = 'a' * 999999 %}{{ a.replace('a', a) }}",
    "replace filter": "{% set a = 'a' * 999999 %}{{ a | replace('a', a) }}",
    "join": "{% set a = 'a' * 999999 %}{{ a.join(a) }}",
    "macros": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "captured": "{% set x %}{% for a in range(99999) %}{{ messages[0].content }}{% for b in range(50) %}"
    "{{ messages[0].content }}{% endfor %}{% endfor %}{% endset %}",
}


@pytest.mark.parametrize("name", POISONED)
def test_a_template_without_end_is_refused(name: str) -> None:
    started = time.process_time()
    with pytest.raises(DataError, match="chat template"):
        ChatTemplate({"default": POISONED[name]}, {}).render(CHAT)
    assert time.process_time() - started < 20


def test_a_template_too_deep_is_refused() -> None:
    with pytest.raises(ArtifactError, match="chat template"):
        ChatTemplate({"default": "{{" + "(" * 60_000 + "}}"}, {}).render(CHAT)


def test_long_conversations_are_rendered() -> None:
    source = ("{% for m in messages %}{% for other in messages %}{% if loop.last %}{{ loop.index }}{% endif %}"
              "{% endfor %}{{ '<' ~ m.role ~ '>' + m['content'] | trim }}{{ '\\n' if not loop.last }}{% endfor %}")
    chat = [{"role": "user", "content": "a" * 4000}] * 500
    assert ChatTemplate({"default": source}, {}).render(chat).splitlines() == ["500<user>" + "a" * 4000] * 500
    undefined = "{% for tool in nothing %}{{ tool }}{% endfor %}{{ nothing }}{{ missing is defined }}"
    assert ChatTemplate({"default": undefined}, {}).render(CHAT) == "False"
