"""Every field that a request may hold, level by level. What is in no table is refused by name, for a misspelt field
that is ignored changes answers without a word.

The spellings are OpenAI's, and those of vLLM and llama-server for what OpenAI has no word for.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..data.json_answers import same_value
from .validation import Refusal


@dataclass(frozen=True)
class Level:
    """An object of a request: the names of its fields."""

    honoured: frozenset[str]
    harmless: frozenset[str] = frozenset()
    """What no answer depends on: who asks, what is kept, how soon, and shapes of what is switched off."""
    neutral: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """What is taken only at these values or null, which ask for nothing."""
    hints: Mapping[str, str] = field(default_factory=dict)
    """What to write instead of fields of these names."""


def check(table: Mapping[str, Any], level: Level, where: str = "") -> None:
    """Refusal for the first field that is unknown or asks for what cannot be done; `where` is the object's own name."""
    for name, value in table.items():
        if name in level.honoured or name in level.harmless:
            continue
        full = f"{where}.{name}" if where else name
        if name not in level.neutral:
            near = (difflib.get_close_matches(name, sorted(level.honoured), n=1)
                    or difflib.get_close_matches(name, [*level.harmless, *level.neutral], n=1))
            hint = level.hints.get(name) or (f"did you mean {near[0]!r}?" if near else
                                             f"known are {', '.join(sorted(level.honoured))}")
            raise Refusal(f"{full[:200]}: an unknown field; {hint}", full[:200], code="unknown_parameter")
        allowed = level.neutral[name]
        if value is not None and not any(same_value(value, one) for one in allowed):
            only = " or ".join(json.dumps(one) for one in (*allowed, None))
            hint = f"; {level.hints[name]}" if name in level.hints else ""
            raise Refusal(f"{full}: {json.dumps(value)[:80]} is not supported, only {only}{hint}", full,
                          code="unsupported_value")


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_MARKS = _names("cache_control prompt_cache_breakpoint")
_ASKER = _names("""user metadata store safety_identifier prompt_cache_key prompt_cache_options prompt_cache_retention
    request_id session_id""")
_SPEED = _names("""id_slot n_cache_reuse n_keep n_discard speculative.n_max speculative.n_min speculative.p_min
    guided_decoding_backend stream_interval sse_ping_interval""")
_IDLE = _names("""mirostat_tau mirostat_eta dynatemp_exponent dry_base dry_allowed_length dry_penalty_last_n
    dry_sequence_breakers xtc_threshold spaces_between_special_tokens truncation_side length_penalty""")
_SAMPLING = _names("""temperature top_p top_k min_p presence_penalty frequency_penalty repetition_penalty repeat_penalty
    repeat_last_n logit_bias seed stop stop_token_ids max_tokens n_predict n n_cmpl cache_prompt""")
STRUCTURE = _names("""response_format regex grammar choices guided_json guided_regex guided_choice guided_grammar
    structured_outputs json_schema""")
"""What binds an answer, in everyone's words; see `structures`."""
_OTHERS: dict[str, tuple[Any, ...]] = {
    "typical_p": (1,), "dynatemp_range": (0,), "dry_multiplier": (0,), "xtc_probability": (0,), "mirostat": (0,),
    "min_keep": (0,), "min_tokens": (0,), "n_indent": (0,), "n_probs": (0,), "t_max_predict_ms": (0, -1),
    "samplers": (), "ignore_eos": (False,), "use_beam_search": (False,), "include_stop_str_in_output": (False,),
    "skip_special_tokens": (True,), "bad_words": ([],), "allowed_token_ids": (), "truncate_prompt_tokens": (),
    "guided_whitespace_pattern": (), "structural_tag": (), "prompt_logprobs": (), "logprob_token_ids": (),
    "return_token_ids": (False,), "return_tokens": (False,), "return_tokens_as_token_ids": (False,),
    "return_progress": (False,), "timings_per_token": (False,), "post_sampling_probs": (False,),
    "response_fields": ([],), "priority": (0,), "cache_salt": (), "lora": ([],), "kv_transfer_params": (),
    "vllm_xargs": ({},), "repetition_detection": ()}
_HINTS = {"extra_body": "openai-python writes what is in it beside the other fields: do so too",
          "functions": "give tools", "function_call": "give tool_choice",
          "allowed_token_ids": "bind the answer by choices, regex or grammar",
          "ignore_eos": "bind the answer by a grammar"}

CHAT = Level(
    _SAMPLING | STRUCTURE | _names("""messages model stream stream_options max_completion_tokens logprobs top_logprobs
        tools tool_choice parallel_tool_calls chat_template_kwargs reasoning_effort enable_thinking reasoning_format
        include_reasoning thinking_token_budget thinking_budget_tokens"""),
    _ASKER | _SPEED | _IDLE | _names("prediction"),
    _OTHERS | {
        "audio": (), "modalities": (["text"],), "moderation": (), "web_search_options": (), "verbosity": ("medium",),
        "service_tier": ("auto", "default"), "functions": ([],), "function_call": ("none", "auto"), "echo": (False,),
        "add_generation_prompt": (True,), "continue_final_message": (False,), "add_special_tokens": (False,),
        "chat_template": (), "documents": ([],), "media_io_kwargs": ({},), "mm_processor_kwargs": ({},),
        "return_prompt_text": (False,), "parse_tool_calls": (True,), "reasoning_control": (False,)},
    _HINTS | {"prompt": "this address takes messages; texts go to /v1/completions"})
COMPLETION = Level(
    _SAMPLING | STRUCTURE | _names("prompt model stream stream_options max_completion_tokens logprobs echo"),
    _ASKER | _SPEED | _IDLE,
    _OTHERS | {"best_of": (1,), "suffix": ("",), "add_special_tokens": (True,), "prompt_embeds": (),
               "top_logprobs": (0,)},
    _HINTS | {"messages": "this address takes a prompt; conversations go to /v1/chat/completions"})
EMBEDDING = Level(
    _names("input model encoding_format dimensions truncate_prompt_tokens"), _ASKER,
    {"add_special_tokens": (True,), "priority": (0,)})
CLASSIFY = Level(_names("text text_pair model top_k"), _ASKER, {}, {"input": "write text", "messages": "write text"})

MESSAGES = {role: Level(_names("role content name " + more), _MARKS, {
    name: values for name, values in {
        "tool_calls": ([],), "tool_call_id": (), "reasoning_content": ("",), "reasoning": ("",), "refusal": ("",),
        "annotations": ([],), "audio": (), "function_call": ()}.items() if name not in more.split()})
    for role, more in {"system": "", "developer": "", "user": "", "tool": "tool_call_id",
                       "assistant": "tool_calls reasoning_content reasoning"}.items()}
"""By role."""
TEXT_PART = Level(_names("type text"), _MARKS)
CALL = Level(_names("id type function"), _names("index"))
CALLED = Level(_names("name arguments"))
TOOL = Level(_names("type function"), _MARKS, {"defer_loading": (False,)})
FUNCTION = Level(_names("name description parameters strict"), _MARKS, {"defer_loading": (False,)})
CHOICE = Level(_names("type function allowed_tools"))
CHOSEN = Level(_names("name"))
ALLOWED = Level(_names("mode tools"))
STREAM_OPTIONS = Level(_names("include_usage"), _names("include_obfuscation"), {"continuous_usage_stats": (False,)})
RESPONSE_FORMAT = Level(_names("type json_schema schema"))
JSON_SCHEMA = Level(_names("schema"), _names("name description strict"))
STRUCTURED = Level(
    _names("json regex choice grammar json_object"), _names("disable_fallback disable_any_whitespace"),
    {"disable_additional_properties": (False,), "whitespace_pattern": (), "structural_tag": ()})

RESPONSES = Level(
    _names("""input model instructions max_output_tokens temperature top_p tools tool_choice parallel_tool_calls text
        stream stream_options reasoning"""),
    _ASKER - {"store"},
    {"store": (False,), "previous_response_id": (), "conversation": (), "background": (False,), "prompt": (),
     "truncation": ("disabled",), "service_tier": ("auto", "default"), "max_tool_calls": (), "include": ([],),
     "top_logprobs": (0,), "context_management": ([],), "moderation": ()},
    {"store": "nothing is kept here", "previous_response_id": "nothing is kept here: send the earlier items in input",
     "conversation": "nothing is kept here: send the earlier items in input", "messages": "this address takes input",
     "max_tokens": "write max_output_tokens", "max_completion_tokens": "write max_output_tokens",
     "response_format": "write text.format", "reasoning_effort": "write reasoning.effort"})
RESPONSE_STREAM_OPTIONS = Level(frozenset(), _names("include_obfuscation"))
REASONING = Level(_names("effort"), _names("summary generate_summary"))
TEXT = Level(_names("format"), frozenset(), {"verbosity": ("medium",)})
TEXT_FORMAT = Level(_names("type name description schema strict"))
RESPONSE_TOOL = Level(_names("type name description parameters strict"), frozenset(), {"defer_loading": (False,)})
RESPONSE_ALLOWED = Level(_names("type mode tools"))
INPUT = {
    "message": Level(_names("type role content"), _names("id status phase")),
    "function_call": Level(_names("type call_id name arguments"), _names("id status")),
    "function_call_output": Level(_names("type call_id output"), _names("id status")),
    "reasoning": Level(_names("type content"), _names("id status summary"), {"encrypted_content": ()})}
"""By an item's type."""
INPUT_TEXT = Level(_names("type text"), _MARKS | {"annotations", "logprobs"})
