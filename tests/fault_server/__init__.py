"""A teacher behind OpenAI's chat completions on loopback that fails as real ones do, and keeps a ledger.

    with FaultServer(seed=1, rate=0.12) as server:               in this process: server.url, server.calls
    python -m tests.fault_server --port 0 --seed 1 --rate 0.12   as one: prints its address, answers GET /ledger

Which fault a request meets is drawn by seed, the request's body, and how often that body was asked. A request counts as
billed once the answer's work is done, whether it reached the client or not. What providers send was taken from what
they document, and from what their users report: OpenAI, Azure OpenAI, Anthropic's compatible endpoint, Mistral,
Together, DeepSeek, OpenRouter, vLLM, llama-server, LiteLLM, and the proxies in front of them.
"""

from .refusals import Asked, Group
from .server import FAULTS, Call, FaultServer, of_group

__all__ = ["FAULTS", "Asked", "Call", "FaultServer", "Group", "of_group"]
