"""Names and texts that are written for clouds."""

from __future__ import annotations

import re

import pytest
import yaml
from edgestill.models.cloud_names import resource_name, yaml_text


@pytest.mark.parametrize(("given", "name"), [
    ("gguf-Q4_0", "gguf-q4-0"), ("my model: v2", "my-model-v2"), ("Küche ☕", "k-che"), ("日本", "model"),
    ("123", "model-123"), ("null", "null"), ("x" * 300, "x" * 40), ("a" * 39 + " b", "a" * 39),
    ('a"\n- b', "a-b")])
def test_names_are_what_the_clouds_take(given: str, name: str) -> None:
    assert resource_name(given) == name
    assert re.fullmatch(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", name)


@pytest.mark.parametrize("text", ["", "null", "1e3", 'a"b\\c', "ü 日本 😀", "a: b # c\n- d\x85\u2028e\x00\x7f",
                                  "x" * 300, "{a}", "~"])
def test_yaml_reads_a_text_as_itself(text: str) -> None:
    assert yaml.safe_load(f"key: {yaml_text(text)}") == {"key": text} and yaml_text(text).isascii()
