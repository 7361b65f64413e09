"""Chat templates that write something of their own around an answer, each as small as its kind allows."""

from __future__ import annotations

from typing import Any

from edgestill.models.task import Task
from edgestill.runtime.text.chat_template import ChatTemplate
from edgestill.runtime.text.codec import Codec

CALL = '<tool_call>\n{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}\n</tool_call>'
LOOP = """{%- for m in messages %}<|{{ m.role }}|>
{%- if m.role == 'assistant' %}OPEN{%- endif %}{{ m.content }}
{%- for c in m.tool_calls or [] %}""" + CALL + """{%- endfor %}<|end|>
{%- endfor %}"""
PROMPT = "{%- if add_generation_prompt %}<|assistant|>GO{%- endif %}"
TOOLS = "{%- for t in tools or [] %}<tool>{{ t | tojson }}</tool>{%- endfor %}"
THOUGHTS = ("{%- if loop.last %}{{ '<think>\\n' ~ (m.reasoning_content or '') ~ '\\n</think>\\n\\n' }}{%- endif %}")
KINDS = {
    # As Qwen3: before the last answer alone, and in a prompt where the caller switches thinking off.
    "switch": TOOLS + LOOP.replace("OPEN", THOUGHTS) + PROMPT.replace(
        "GO", "{%- if enable_thinking is defined and not enable_thinking %}{{ '<think>\\n\\n</think>\\n\\n' }}"
              "{%- endif %}"),
    # The same without a switch.
    "fixed": TOOLS + LOOP.replace("OPEN", THOUGHTS) + PROMPT.replace("GO", ""),
    # Its prompts end inside of the thoughts.
    "inside": TOOLS + LOOP.replace("OPEN", THOUGHTS) + PROMPT.replace("GO", "{{ '<think>\\n' }}"),
    # As DeepSeek-R1's: so do these, and no answered conversation has any thoughts.
    "open": TOOLS + LOOP.replace("OPEN", "").replace("{{ m.content }}", "{{ m.content.split('</think>')[-1] }}")
            + PROMPT.replace("GO", "{{ '<think>\\n' }}"),
    # As DeepSeek-R1's whole template: what follows results of tools has no opening of its own, and no thoughts.
    "results": TOOLS + "{%- set ns = namespace(tool=false) %}{%- for m in messages %}{%- if m.role == 'tool' %}"
               "{%- set ns.tool = true %}<|output|>{{ m.content }}{%- else %}{%- if ns.tool %}<|results|>{%- else %}"
               "<|{{ m.role }}|>{%- endif %}{%- set ns.tool = false %}{{ m.content.split('</think>')[-1] }}"
               "{%- for c in m.tool_calls or [] %}" + CALL + "{%- endfor %}<|end|>{%- endif %}{%- endfor %}"
               "{%- if ns.tool %}<|results|>"
               "{%- elif add_generation_prompt %}<|assistant|>{{ '<think>\\n' }}{%- endif %}",
    # A channel for every answer.
    "channel": TOOLS + LOOP.replace("OPEN", "<|channel|>{{ 'thought ' ~ m.reasoning_content ~ '<|/channel|>' "
                                            "if m.reasoning_content }}final:") + PROMPT.replace("GO", "<|channel|>"),
    # Nothing at all.
    "plain": TOOLS + LOOP.replace("OPEN", "") + PROMPT.replace("GO", ""),
}
DROPS = {
    "developer": "{%- for m in messages %}{%- if m.role in ('system', 'user', 'assistant') %}<|{{ m.role }}|>"
                 "{{ m.content }}<|end|>{%- endif %}{%- endfor %}" + PROMPT.replace("GO", ""),
    "system": "{%- for m in messages if m.role != 'system' %}<|{{ m.role }}|>{{ m.content }}<|end|>{%- endfor %}"
              + PROMPT.replace("GO", ""),
    # As Mistral's: the system's message stands before the user's last words, unless they are answered.
    "answered": "{%- for m in messages if m.role != 'system' %}<|{{ m.role }}|>{%- if loop.last and "
                "messages[0].role == 'system' and m.role == 'user' %}{{ messages[0].content }}\n{% endif %}"
                "{{ m.content }}<|end|>{%- endfor %}" + PROMPT.replace("GO", ""),
}


def codec_of(source: str, plain: Codec, **options: Any) -> Codec:
    """`plain`'s tokenizer with another template, and the options of a task."""
    return Codec(plain.tokenizer, ChatTemplate({"default": source}, {"bos_token": "<|pad|>"}), None, plain.eos_id,
                 plain.pad_id, plain.stop_ids, "", Task(template_options=options).template_options)
