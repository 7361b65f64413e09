"""Records of logs as their sources write them, with secrets beside what is asked and answered."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

SYSTEM = "You turn orders into JSON."
SECRETS = ("sk-proj-secret", "user-4711", "session=cookie", "198.51.100.7", "team-blue", "hash-88")
"""In every golden record, and to be in nothing that is made of one."""
SCHEMA = {"type": "object", "properties": {"do": {"type": "string"}, "at": {"type": "string"}}, "required": ["do"]}
TOOL = {"type": "function", "function": {"name": "dim", "description": "Dims.",
                                         "parameters": {"type": "object", "properties": {}}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "dim", "arguments": "{\"to\": 3}"}}

Record = dict[str, Any]


def asks(text: str = "dim the lamp", system: str = SYSTEM, **more: Any) -> Record:
    """A request's body to /v1/chat/completions."""
    messages = [{"role": "system", "content": system}] * bool(system) + [{"role": "user", "content": text}]
    return {"model": "big-1", "messages": messages, "user": "user-4711", "metadata": {"team": "team-blue"}, **more}


def says(text: str | None = '{"do": "dim"}', finish: str | None = "stop", **message: Any) -> Record:
    """A chat.completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text, "refusal": None, "annotations": [],
                                      **message}, "logprobs": None, "finish_reason": finish}
    return {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "big-1", "choices": [choice],
            "usage": {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}, "system_fingerprint": "fp"}


def pair(request: Any = None, response: Any = None, **more: Any) -> Record:
    """A request with its response, as a program logs them, headers and all."""
    headers = {"authorization": "Bearer sk-proj-secret", "cookie": "session=cookie"}
    return {"request": {"url": "https://api.example/v1/chat/completions", "headers": headers,
                        "body": request or asks()},
            "response": {"status_code": 200, "headers": headers, "body": says() if response is None else response},
            **more}


def form(schema: Mapping[str, Any] = SCHEMA) -> Record:
    """A response_format of chats."""
    return {"type": "json_schema", "json_schema": {"name": "order", "strict": True, "schema": schema}}


def responses_asks(text: str = "dim the lamp", **more: Any) -> Record:
    """A request's body to /v1/responses."""
    return {"model": "big-1", "instructions": SYSTEM, "input": text, "safety_identifier": "user-4711",
            "text": {"format": {"type": "json_schema", "name": "order", "schema": SCHEMA}}, **more}


def responses_says(*output: Record, **more: Any) -> Record:
    """A response object; by default with a summary of thoughts and one message."""
    message = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed",
               "content": [{"type": "output_text", "text": '{"do": "dim"}', "annotations": []}]}
    thoughts = {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "I thought."}]}
    return {"id": "resp_1", "object": "response", "status": "completed", "error": None, "incomplete_details": None,
            "model": "big-1", "output": list(output) or [thoughts, message], "user": "user-4711",
            "usage": {"input_tokens": 20, "output_tokens": 5, "total_tokens": 25}, **more}


def batch(key: str, request: Record | None = None, response: Record | None = None) -> tuple[Record, Record]:
    """A line of a batch's input and one of its output."""
    return ({"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": request or asks()},
            {"id": f"batch_req_{key}", "custom_id": key, "error": None,
             "response": {"status_code": 200, "request_id": "hash-88", "body": response or says()}})


def litellm(request: Record | None = None, response: Any = None, **more: Any) -> Record:
    """A StandardLoggingPayload of LiteLLM's."""
    request = request or asks()
    parameters = {name: value for name, value in request.items() if name not in ("messages", "input", "metadata")}
    return {"id": "chatcmpl-1", "trace_id": "t", "call_type": "acompletion", "stream": False, "response_cost": 0.0125,
            "response_cost_failure_debug_info": None, "status": "success", "custom_llm_provider": "openai",
            "total_tokens": 25, "prompt_tokens": 20, "completion_tokens": 5, "startTime": 1.0, "endTime": 2.0,
            "model": "big-1", "api_base": "https://api.example", "cache_hit": None, "request_tags": [],
            "metadata": {"user_api_key_hash": "hash-88", "user_api_key_team_alias": "team-blue"},
            "end_user": "user-4711", "requester_ip_address": "198.51.100.7",
            "messages": request.get("messages", request.get("input")),
            "response": says() if response is None else response, "error_str": None, "error_information": None,
            "model_parameters": parameters, "hidden_params": {"additional_headers": {"x": "session=cookie"}}, **more}


def langfuse(asked: Any = None, answered: Any = None, **more: Any) -> Record:
    """An observation as Langfuse writes it to blob storage, input and output as text."""
    asked = asks()["messages"] if asked is None else asked
    answered = {"role": "assistant", "content": '{"do": "dim"}'} if answered is None else answered
    return {"id": "o1", "trace_id": "t1", "project_id": "p", "environment": "default", "type": "GENERATION",
            "parent_observation_id": "", "start_time": "2026-05-29 13:46:19.963000", "name": "OpenAI-generation",
            "metadata": {"response_format": form(), "team": "team-blue", "key": "sk-proj-secret"}, "level": "DEFAULT",
            "status_message": "", "input": text(asked), "output": text(answered), "provided_model_name": "big-1",
            "model_parameters": '{"temperature": 0}', "usage_details": {"input": 12, "input_cached_tokens": 8,
                                                                        "output": 5, "total": 25},
            "cost_details": {"input": 0.01, "output": 0.0025}, "total_cost": 0.0125, "tool_calls": [],
            "tool_definitions": {}, "user_id": "user-4711", "session_id": "session=cookie", "tags": ["team-blue"],
            **more}


def text(value: Any) -> str:
    """A value as a cell of a table."""
    return value if isinstance(value, str) else json.dumps(value)


def write(path: Path, records: Iterable[Any]) -> Path:
    """JSON lines; a record that is text already is written as it is."""
    path.write_text("".join(text(record) + "\n" for record in records), encoding="utf-8")
    return path
