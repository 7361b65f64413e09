"""Templates that never end are refused in bounded time and memory; those of real models are not touched."""

from __future__ import annotations

import json
import resource
import time

import pytest
from edgestill.models.errors import ArtifactError, DataError
from edgestill.runtime.text import template_budget
from edgestill.runtime.text.chat_template import ChatTemplate

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
    "join filter": "{% set a = 'a' * 9999999 %}{{ [a] * 99999 | join }}".replace("[a] * 99999", "([a] * 99999)"),
    "join of parts": "{% set a = 'a' * 99999 %}{{ ([1] * 99999) | join(a) }}",
    "join of a map": "{% set a = 'a' * 9999 %}{{ range(99999) | map('string') | join(a) }}",
    "join of nested lists": "{% set n = namespace(s=['a']) %}{% for i in range(60) %}"
    "{% set n.s = [n.s, n.s] %}{% endfor %}{{ n.s | join }}",
    "nested lists written": "{% set n = namespace(s=['a']) %}{% for i in range(60) %}"
    "{% set n.s = [n.s, n.s] %}{% endfor %}{{ n.s }}",
    "nested lists as text": "{% set n = namespace(s=['a']) %}{% for i in range(60) %}"
    "{% set n.s = [n.s, n.s] %}{% endfor %}{{ '%s' % (n.s,) }}",
    "nested lists formatted": "{% set n = namespace(s=['a']) %}{% for i in range(60) %}"
    "{% set n.s = [n.s, n.s] %}{% endfor %}{{ '{}'.format(n.s) }}",
    "tojson of nested lists": "{% set n = namespace(s=['a']) %}{% for i in range(60) %}"
    "{% set n.s = [n.s, n.s] %}{% endfor %}{{ n.s | tojson }}",
    "tojson's indent": "{{ [1] | tojson(indent=500000000) }}",
    "tojson's indent as text": "{% set a = ' ' * 99999 %}{{ ([1] * 9999) | tojson(indent=a) }}",
    "many widths": "{% set a = '%99999d' * 9999 %}{{ a % ((1,) * 9999) }}",
    "a width given": "{{ '%*d' % (500000000, 1) }}", "a width nested": "{{ '{:{}}'.format(1, 500000000) }}",
    "fields of one value": "{% set a = 'a' * 99999 %}{{ ('{0}' * 99999).format(a) }}",
    "indent of many lines": "{{ ('a\n' * 9999) | indent(9999) }}",
    "sum of lists": "{{ ([[1] * 9] * 99999) | sum(start=[]) }}",
    "format map": "{% set a = 'a' * 99999 %}{{ ('{x}' * 99999).format_map({'x': a}) }}",
    "a date": "{{ strftime_now('%500000000Y') }}",
    "replace a few times": "{% set a = 'a' * 99999 %}{{ a.replace('a', a, 9999) }}",
    "macros": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "whole numbers": "{% set n = namespace(x=9 ** 999) %}{% for i in range(30) %}{% set n.x = n.x * n.x %}{% endfor %}",
    "division": "{{ ('f' * 4000000) | int(0, 16) // 3 }}",
    "compared lists": "{% set n = namespace(a=[], b=[]) %}{% for i in range(60) %}{% set n.a = [n.a, n.a] %}"
    "{% set n.b = [n.b, n.b] %}{% endfor %}{{ n.a == n.b }}",
    "compared by a test": "{% set n = namespace(a=[], b=[]) %}{% for i in range(60) %}{% set n.a = [n.a, n.a] %}"
    "{% set n.b = [n.b, n.b] %}{% endfor %}{{ [n.a] | select('eq', n.b) | list }}",
    "a key of tuples": "{% set n = namespace(a=(1,)) %}{% for i in range(60) %}{% set n.a = (n.a, n.a) %}{% endfor %}"
    "{{ {}[n.a] }}", "a written key": "{% set n = namespace(a=(1,)) %}{% for i in range(60) %}"
    "{% set n.a = (n.a, n.a) %}{% endfor %}{{ {n.a: 1} }}", "a key asked for": "{% set n = namespace(a=(1,)) %}"
    "{% for i in range(60) %}{% set n.a = (n.a, n.a) %}{% endfor %}{{ {}.get(n.a) }}",
    "slices": "{% set a = 'a' * 9999999 %}{% for i in range(99999) %}{% set b = a[1:] %}{% endfor %}",
    "compared texts": "{% set a = 'ab' * 4000000 %}{% set b = 'ab' * 4000000 %}{% for i in range(99999) %}"
    "{% set c = a == b %}{% endfor %}", "looked into": "{% set a = 'a' * 8000000 %}{% for i in range(99999) %}"
    "{% set c = 'b' in a %}{% endfor %}", "a map of many": "{{ ([0] * 12000000) | map('e') | list | length }}",
    "copies": "{% set d = dict(range(99999) | batch(2)) %}{% for i in range(99999) %}{% set x = d.items() | list %}"
    "{% endfor %}", "arguments": "{% macro f() %}{% endmacro %}{% for i in range(999) %}{{ f(*range(99999)) }}"
    "{% endfor %}", "letters": "{{ ('😀' * 8000000) | list | length }}",
    "captured": "{% set x %}{% for a in range(99999) %}{{ messages[0].content }}{% for b in range(50) %}"
    "{{ messages[0].content }}{% endfor %}{% endfor %}{% endset %}",
}


@pytest.mark.parametrize("name", POISONED)
def test_a_template_without_end_is_refused(name: str) -> None:
    started = time.process_time()
    with pytest.raises(DataError, match="chat template"):
        ChatTemplate({"default": POISONED[name]}, {}).render(CHAT)
    assert time.process_time() - started < 20


@pytest.mark.parametrize("source", [
    "{{ '{:{}}'.format(1, 900000000) }}", "{{ '{0:{1}}'.format('a', '900000000') }}",
    "{{ '{x:>{x}}'.format_map({'x': 900000000}) }}", "{{ '{0:{0[a]}}'.format({'a': 900000000}) }}",
    "{{ ('{:{}}' | e).format(1, 900000000) }}"])
def test_a_width_that_a_value_says_is_refused_before_anything_is_made(source: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match="width that a value says"):
        ChatTemplate({"default": source}, {}).render(CHAT)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024
    assert ChatTemplate({"default": "{{ '{{{}}} {:>3}'.format('a', 1) }}"}, {}).render(CHAT) == "{a}   1"


def test_time_ends_what_steps_do_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_budget, "SECONDS", 0.2)
    source = "{% set x = ('f' * 4000000) | int(0, 16) %}{% for i in range(99999) %}{% set y = -x %}{% endfor %}"
    with pytest.raises(DataError, match=r"it takes more than 0\.2 s"):
        ChatTemplate({"default": source}, {}).render(CHAT)
    tested = source.replace("{% set y = -x %}{% endfor %}", "{% endfor %}").replace("range(99999)",
                                                                                    "range(99999) if -x")
    with pytest.raises(DataError, match=r"it takes more than 0\.2 s"):
        ChatTemplate({"default": tested}, {}).render(CHAT)


def test_nothing_is_computed_while_a_template_is_compiled() -> None:
    source = "{% if false %}" + "{{ 'x' | center(999999) }}" * 2000 + "{% endif %}"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert ChatTemplate({"default": source}, {}).render(CHAT) == ""
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024


def test_large_tools_are_rendered() -> None:
    parameters = {"type": "object", "properties": {f"p{place}": {"enum": list(range(100))} for place in range(1200)}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": parameters}}]
    source = ("{% if tools is defined and tools is iterable and tools is not none %}{% for t in tools %}"
              "{% for key, value in t.function.items() %}{{ key }}{% endfor %}{{ t | tojson }}{% endfor %}{% endif %}")
    assert ChatTemplate({"default": source}, {}).render(CHAT, tools) == "nameparameters" + json.dumps(tools[0])


def test_a_template_longer_than_any_is_refused() -> None:
    with pytest.raises(ArtifactError, match="131073 characters, the limit is 131072"):
        ChatTemplate({"default": "a" * 131073}, {}).render(CHAT)


@pytest.mark.parametrize("source", [
    "{{ lipsum(99999) }}", "{{ 'a' | lipsum }}", "{{ 'a' | xmlattr }}", "{{ 'a' | pprint }}", "{{ [1] | random }}",
    "{{ 'a'.ljust(9) }}", "{{ 'a'.encode() }}", "{{ ''.__class__.mro() }}", "{{ messages.append(1) }}",
    "{{ messages[0].update({}) }}", "{{ cycler.__init__.__globals__ }}", "{% include 'x' %}",
    "{% import 'x' as y %}", "{% extends 'x' %}", "{{ self.__class__.x }}", "{{ 1 is filter }}",
    "{{ messages | map('pprint') | list }}", "{{ messages.__len__() }}"])
def test_what_no_chat_template_needs_is_refused(source: str) -> None:
    with pytest.raises((ArtifactError, DataError), match="template"):
        ChatTemplate({"default": source}, {}).render(CHAT)


def test_filters_give_what_jinja_and_json_give() -> None:
    given = [{"role": "user", "content": "a\nb<>", "list": [1, "ü", None, {"x": 2.5}]}]
    source = ("{{ messages[0].list | tojson }}|{{ messages[0].list | tojson(indent=2, sort_keys=true) }}|"
              "{{ messages | map(attribute='role') | join(', ') }}|{{ messages | join('-', attribute='content') }}|"
              "{{ messages[0].content | indent(2, first=true) }}|{{ messages[0].content | replace('a', 'c', 1) }}|"
              "{{ messages[0].content.replace('b', '') }}|{{ [1, 2] | sum }}|{{ messages[0].list | string }}|"
              "{{ '%s-%05.1f' | format('x', 2) }}|{{ '%d' % 3 }}|{{ '{:>4}'.format('r') }}|{{ [[1, 2], 3] }}|"
              "{{ ', '.join(['a', 'b']) }}|{{ {'b': 1, 'a': 2} | dictsort }}|{{ ' x ' | trim | upper }}")
    expected = "|".join([
        '[1, "ü", null, {"x": 2.5}]', json.dumps(given[0]["list"], ensure_ascii=False, indent=2, sort_keys=True),
        "user", "a\nb<>", "  a\n  b<>", "c\nb<>", "a\n<>", "3", "[1, 'ü', None, {'x': 2.5}]", "x-002.0", "3", "   r",
        "[[1, 2], 3]", "a, b", "[('a', 2), ('b', 1)]", "X"])
    assert ChatTemplate({"default": source}, {}).render(given) == expected


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
