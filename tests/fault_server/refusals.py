"""Refusals as providers document and send them: status, headers and body, for the fault server."""

from __future__ import annotations

import email.utils
import enum
import hashlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple


class Group(enum.StrEnum):
    """What a client is to make of a fault."""

    REFUSED = enum.auto()     # no work was done, asking again helps
    LOST = enum.auto()        # the work was done and costs, but its answer does not arrive whole
    SPOILT = enum.auto()      # an answer arrives whole and costs, but is of no use
    ODD = enum.auto()         # a good answer in an unusual wrapping: it must be taken
    PERMANENT = enum.auto()   # this request will never be answered, others will
    FATAL = enum.auto()       # no request will be answered before somebody does something
    CAPABILITY = enum.auto()  # this model does not take, or silently ignores, a field of the request


@dataclass(frozen=True)
class Asked:
    """A request, and what the server does for it."""

    body: Mapping[str, Any]
    headers: Mapping[str, str]
    path: str
    content: str              # hash of the body: what makes two requests the same
    attempt: int              # how often this content was asked, this time included
    answers: tuple[str, ...]  # what the teacher says, one for each of `n`
    wait: int                 # whole seconds that Retry-After names
    stall: float              # seconds that a slow answer takes
    elsewhere: str            # this server's address under another host name

    @property
    def token(self) -> str:
        """The key that the client sent."""
        return self.headers.get("authorization", "").removeprefix("Bearer ") or self.headers.get("api-key", "")

    @property
    def stream(self) -> bool:
        """Whether server-sent events are asked for."""
        return bool(self.body.get("stream"))


Content = dict[str, Any] | str


class Refusal(NamedTuple):
    """A status other than 200 with its body: JSON, or a page of HTML where it is a string."""

    group: Group
    status: int
    body: Content | Callable[[Asked], Content]
    headers: Callable[[Asked], dict[str, str]] = lambda asked: {}
    billed: bool = False
    when: Callable[[Mapping[str, Any]], bool] = lambda body: True  # other requests are answered as ever


def openai(message: str, kind: str | None, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """An error as OpenAI writes it."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def flat(message: Any, kind: str, code: Any = None) -> dict[str, Any]:
    """An error as Mistral and older vLLM write it: no `error` around it."""
    return {"object": "error", "message": message, "type": kind, "param": None, "code": code}


def anthropic(kind: str, message: str, **more: Any) -> dict[str, Any]:
    """An error as Anthropic writes it."""
    error = {"type": kind, "message": message, **more}
    return {"type": "error", "error": error, "request_id": "req_011CSHoEeqs5C35K2UUqR7Fy"}


def page(title: str, server: str) -> str:
    """What a proxy in front of the API says."""
    return (f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n"
            f"<hr><center>{server}</center>\r\n</body>\r\n</html>\r\n")


def limits(asked: Asked) -> dict[str, str]:
    """OpenAI's account of a limit that is used up."""
    return {"x-ratelimit-limit-requests": "500", "x-ratelimit-limit-tokens": "30000",
            "x-ratelimit-remaining-requests": "0", "x-ratelimit-remaining-tokens": "0",
            "x-ratelimit-reset-requests": f"{asked.wait}s",
            "x-ratelimit-reset-tokens": f"{asked.wait * 1000 + 18}ms"}


def after(asked: Asked) -> dict[str, str]:
    """Retry-After in seconds."""
    return {"retry-after": str(asked.wait)}


def masked(key: str) -> str:
    """A key as OpenAI quotes it: not quite hidden."""
    return f"{key[:8]}{'*' * max(len(key) - 12, 3)}{key[-4:]}"


def no_token(asked: Asked) -> Content:
    """LiteLLM's answer to a key that it does not know: its end, and its hash."""
    digest = hashlib.sha256(asked.token.encode()).hexdigest()
    return openai("Authentication Error, Invalid proxy server token passed. Received API Key = "
                  f"sk-...{asked.token[-4:]}, Key Hash (Token) ={digest}. "
                  "Unable to find token in cache or `LiteLLM_VerificationTokenTable`", "token_not_found_in_db", "401",
                  "key")


def quoted(asked: Asked) -> Content:
    """Mistral's answer to a field that it does not know: with the whole input, prompts included."""
    return flat({"detail": [{"type": "extra_forbidden", "loc": ["body", "messages", 0, "system", "name"],
                             "msg": "Extra inputs are not permitted", "input": asked.body.get("messages")}]},
                "invalid_request_error")


def at(asked: Asked) -> dict[str, str]:
    """Retry-After as a date."""
    return {"retry-after": email.utils.formatdate(math.ceil(time.time()) + asked.wait, usegmt=True)}


def together(asked: Asked) -> dict[str, str]:
    """Together's account of a limit; it sends no Retry-After."""
    return {"x-ratelimit-limit": "1", "x-ratelimit-remaining": "0", "x-ratelimit-reset": str(asked.wait)}


def azure(asked: Asked) -> dict[str, str]:
    """Azure's account of a limit, with the figures that tell nothing which it sends at times."""
    return {**after(asked), "retry-after-ms": str(asked.wait * 1000), "x-ratelimit-limit-tokens": "-1",
            "x-ratelimit-remaining-tokens": "-1", "x-ratelimit-reset-tokens": "0"}


def too_often(seconds: int) -> dict[str, Any]:
    """Azure's 429."""
    return {"error": {"code": "429", "message": (
        "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2024-10-21 have exceeded "
        f"token rate limit of your current OpenAI S0 pricing tier. Please retry after {seconds} seconds. Please go "
        "here: https://aka.ms/oai/quotaincrease if you would like to further increase the default rate limit.")}}


def filtered(asked: Asked) -> Content:
    """Azure's answer to a prompt that it does not like."""
    safe = {name: {"filtered": False, "severity": "safe"} for name in ("hate", "self_harm", "sexual")}
    found = {**safe, "violence": {"filtered": True, "severity": "medium"}}
    message = ("The response was filtered due to the prompt triggering Azure OpenAI's content management policy. "
               "Please modify your prompt and retry. To learn more about our content filtering policies please read "
               "our documentation: https://go.microsoft.com/fwlink/?linkid=2198766")
    return {"error": {"message": message, "type": None, "param": "prompt", "code": "content_filter", "status": 400,
                      "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": found}}}


def moderated(asked: Asked) -> Content:
    """OpenRouter's answer to a prompt that it does not like; it quotes it."""
    said = {"reasons": ["violence"], "flagged_input": str(asked.body["messages"][-1].get("content"))[:100],
            "provider_name": "OpenAI", "model_slug": "big"}
    return {"error": {"code": 403, "metadata": said,
                      "message": "Your chosen model requires moderation and your input was flagged"}}


def quota(code: str) -> dict[str, Any]:
    """OpenAI's 429 that waiting does not end."""
    return openai("You exceeded your current quota, please check your plan and billing details. For more information "
                  "on this error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors.",
                  "insufficient_quota", code)


INVALID = "invalid_request_error"
LIMITED = "rate_limit_exceeded"
TOKENS = ("Rate limit reached for gpt-4o in organization org-exampleorgid123 on tokens per min (TPM): Limit 30000, "
          "Used 29937, Requested 385. Please try again in 644ms.")
REQUESTS = ("Rate limit reached for gpt-4o in organization org-exampleorgid123 on requests per min (RPM): Limit 500, "
            "Used 500, Requested 1. Please try again in 120ms.")
TOO_LARGE = ("Request too large for gpt-4o in organization org-exampleorgid123 on tokens per min (TPM): Limit 30000, "
             "Requested 36278. The input or output tokens must be reduced in order to run successfully.")
ANTHROPIC = "This request would exceed your organization's rate limit of 50 requests per minute."
LITELLM = "No deployments available for selected model, Try again in 60 seconds. Passed model=big."
CONTEXT = ("This model's maximum context length is 4097 tokens. However, your messages resulted in 6988 tokens. Please "
           "reduce the length of the messages.")
CONTEXT_VLLM = ("This model's maximum context length is 16384 tokens. However, you requested 122946 tokens (112946 in "
                "the messages, 10000 in the completion). Please reduce the length of the messages or completion.")
CONTEXT_TOGETHER = ("Input token count + max_tokens parameter must be less than the context length of the model being "
                    "queried.")
CONTEXT_LLAMA = {"code": 400, "message": "the request exceeds the available context size, try increasing it",
                 "type": "exceed_context_size_error", "n_prompt_tokens": 14429, "n_ctx": 8192}
SPENT = "You have reached your API usage limit. Access resumes on the first day of the next month at 00:00 UTC."
NOT_LOGPROBS = "Unsupported parameter: 'logprobs' is not supported with this model."
NOT_MAX_TOKENS = ("Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' "
                  "instead.")
NOT_SCHEMA = "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model."
G = Group

REFUSALS: dict[str, Refusal] = {
    "429_seconds": Refusal(G.REFUSED, 429, openai(TOKENS, "tokens", LIMITED),
                           lambda asked: limits(asked) | after(asked)),
    "429_ms": Refusal(G.REFUSED, 429, openai(REQUESTS, "requests", LIMITED),
                      lambda asked: limits(asked) | {"retry-after-ms": str(asked.wait * 1000)}),
    "429_date": Refusal(G.REFUSED, 429, openai("Too many requests", "rate_limit_error", "slow_down"), at),
    "429_together": Refusal(G.REFUSED, 429, openai(
        "You have been rate limited. Your rate limit is 60 queries per minute.", "credit_limit"), together),
    "429_azure": Refusal(G.REFUSED, 429, lambda asked: too_often(asked.wait), azure),
    "429_mistral": Refusal(G.REFUSED, 429, {**flat("Rate limit exceeded", "rate_limited", "1300"),
                                            "raw_status_code": 429}),
    "429_anthropic": Refusal(G.REFUSED, 429, openai(ANTHROPIC, "rate_limit_error", "rate_limit_error"),
                             lambda asked: limits(asked) | after(asked)),
    "429_litellm": Refusal(G.REFUSED, 429, openai(LITELLM, "throttling_error", "429"), after),
    "429_at_once": Refusal(G.REFUSED, 429, openai(TOKENS, "tokens", LIMITED), lambda asked: {"retry-after": "0"}),
    "408": Refusal(G.REFUSED, 408, {"error": {"code": 408, "message": "Your request timed out"}}),
    "500": Refusal(G.REFUSED, 500, openai("The server had an error while processing your request. Sorry about that!",
                                          "server_error")),
    "500_vllm": Refusal(G.REFUSED, 500, flat("Internal server error", "InternalServerError", 500)),
    "502_html": Refusal(G.REFUSED, 502, page("502 Bad Gateway", "cloudflare"),
                        lambda asked: {"server": "cloudflare", "cf-ray": "8c135d3eeec4a97a-SYD"}),
    "503": Refusal(G.REFUSED, 503, openai("The engine is currently overloaded, please try again later",
                                          "service_unavailable_error", "server_is_overloaded"), after),
    "503_llama": Refusal(G.REFUSED, 503, {"error": {"code": 503, "message": "Loading model",
                                                    "type": "unavailable_error"}}),
    "503_html": Refusal(G.REFUSED, 503, page("503 Service Temporarily Unavailable", "nginx")),
    "529": Refusal(G.REFUSED, 529, anthropic("overloaded_error", "Overloaded")),
    # A gateway gave up, what stands behind it did not.
    "504_html": Refusal(G.LOST, 504, page("504 Gateway Time-out", "nginx"), billed=True),
    "524": Refusal(G.LOST, 524, page("524: A timeout occurred", "cloudflare"), billed=True),

    "400_context": Refusal(G.PERMANENT, 400, openai(CONTEXT, INVALID, "context_length_exceeded", "messages")),
    "400_context_vllm": Refusal(G.PERMANENT, 400, flat(CONTEXT_VLLM, "BadRequestError", 400)),
    "400_context_llama": Refusal(G.PERMANENT, 400, {"error": CONTEXT_LLAMA}),
    "400_content_filter": Refusal(G.PERMANENT, 400, filtered),
    "403_context": Refusal(G.PERMANENT, 403, openai(CONTEXT_TOGETHER, INVALID)),
    "403_moderation": Refusal(G.PERMANENT, 403, moderated),
    "413_html": Refusal(G.PERMANENT, 413, page("413 Request Entity Too Large", "nginx")),
    "422_quotes_input": Refusal(G.PERMANENT, 422, quoted),
    "429_too_large": Refusal(G.PERMANENT, 429, openai(TOO_LARGE, "tokens", LIMITED)),

    "401": Refusal(G.FATAL, 401, lambda asked: openai(
        f"Incorrect API key provided: {masked(asked.token)}. You can find your API key at "
        "https://platform.openai.com/account/api-keys.", INVALID, "invalid_api_key")),
    "401_litellm": Refusal(G.FATAL, 401, no_token),
    "402": Refusal(G.FATAL, 402, {"error": {
        "code": 402, "message": "Insufficient credits. Add more credits and retry the request."}}),
    "403": Refusal(G.FATAL, 403, openai("Country, region, or territory not supported", "request_forbidden",
                                        "unsupported_country_region_territory")),
    "404_model": Refusal(G.FATAL, 404, lambda asked: openai(
        f"The model `{asked.body.get('model')}` does not exist or you do not have access to it.", INVALID,
        "model_not_found")),
    "404_html": Refusal(G.FATAL, 404, page("404 Not Found", "nginx")),
    "429_quota": Refusal(G.FATAL, 429, quota("insufficient_quota")),
    "429_credit": Refusal(G.FATAL, 429, quota("credit_balance_exhausted"), after),
    "429_spend_limit": Refusal(G.FATAL, 429, quota("project_spend_limit_exceeded"), after),
    "429_spent_anthropic": Refusal(G.FATAL, 429, anthropic("rate_limit_error", SPENT,
                                                           details={"error_code": "enforced_spend_limit_reached"})),
    "429_a_day": Refusal(G.FATAL, 429, too_often(86400), lambda asked: {"retry-after": "86400"}),
    "307_elsewhere": Refusal(G.FATAL, 307, page("307 Temporary Redirect", "nginx"),
                             lambda asked: {"location": asked.elsewhere + asked.path}),

    "400_temperature": Refusal(G.CAPABILITY, 400, lambda asked: openai(
        f"Unsupported value: 'temperature' does not support {asked.body['temperature']} with this model. Only the "
        "default (1) value is supported.", INVALID, "unsupported_value", "temperature"),
        when=lambda body: body.get("temperature") not in (None, 1)),
    "400_max_tokens": Refusal(G.CAPABILITY, 400, openai(NOT_MAX_TOKENS, INVALID, "unsupported_parameter", "max_tokens"),
                              when=lambda body: body.get("max_tokens") is not None),
    "400_logprobs": Refusal(G.CAPABILITY, 400, openai(NOT_LOGPROBS, INVALID, "unsupported_parameter", "logprobs"),
                            when=lambda body: bool(body.get("logprobs"))),
    "403_logprobs": Refusal(G.CAPABILITY, 403, openai("You are not allowed to request logprobs from this model",
                                                      INVALID), when=lambda body: bool(body.get("logprobs"))),
    "400_schema": Refusal(G.CAPABILITY, 400, openai(NOT_SCHEMA, INVALID, None, "response_format"),
                          when=lambda body: (body.get("response_format") or {}).get("type") == "json_schema"),
}
