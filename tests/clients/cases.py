"""Exported models for the clients, and what our own runtime answers with them."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from edgestill.models.artifact import Artifact, open_artifact
from edgestill.runtime import load

TOKENS = 24
QUESTIONS = [
    "turn off the kitchen light", "could you dim the lamp in the study to forty percent at half past six tonight",
    "what is the weather like today?", "play some jazz in the living room", "set an alarm for 6:45", "stop the music",
    "make it two degrees warmer in the bedroom", "Grüße aus Köln, naïve café", "你好 🙂\n\n  def f(x):  return x",
    "open the blinds halfway in ten minutes",
]
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Case:
    """One artifact of a decoder."""

    name: str
    folder: Path
    chats: list[list[dict[str, str]]]

    @property
    def artifact(self) -> Artifact:
        return open_artifact(self.folder)

    @cached_property
    def expected(self) -> list[dict[str, Any]]:
        """{text, prompt, ids} of every chat: rendered template, prompt ids, greedy ids without the stop id."""
        model = load(self.folder, threads=1)
        found = []
        for chat in self.chats:
            prompt = model.codec.prompt_ids(chat)
            ids = list(model.generate_ids(prompt, max_new_tokens=TOKENS).ids)
            found.append({"text": model.codec.render(chat), "prompt": prompt, "ids": self.answer(ids)})
        model.close()
        return found

    @property
    def stop(self) -> int:
        return self.artifact.manifest.tokenizer.stop_ids[0]

    def gaps(self, prompt: list[int], ids: list[int]) -> list[float]:
        """How far each of `ids` lies below our own choice after those before it, in standard deviations of the
        logits; an answer that is shorter than it could be chose to stop."""
        chosen = ids if len(ids) == TOKENS else [*ids, self.stop]
        model = load(self.folder, threads=1)
        logits = model.engine.logits(prompt + ids)[len(prompt) - 1:]
        model.close()
        return [float((row.max() - row[token]) / row.std()) for row, token in zip(logits, chosen, strict=False)]

    def answer(self, ids: list[int]) -> list[int]:
        """`ids` up to the first stop id: some programs return it, some do not."""
        stops = self.artifact.manifest.tokenizer.stop_ids
        return next((ids[:index] for index, token in enumerate(ids) if token in stops), ids)


def chats(count: int) -> list[list[dict[str, str]]]:
    """One question each; every third is the second turn of a talk under a system message."""
    made = []
    for index, question in enumerate(QUESTIONS[:count]):
        before = [] if index % 3 else [
            {"role": "system", "content": "Answer briefly."}, {"role": "user", "content": "hello"},
            {"role": "assistant", "content": "hi"}]
        made.append([*before, {"role": "user", "content": question}])
    return made


def smollm2_shape(shared: Path, folder: Path) -> Path:
    """A Hugging Face folder of SmolLM2-135M's shape and tokenizer with random weights and a ChatML template."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    folder.mkdir(parents=True)
    shutil.copy(shared / "tokenizers" / "smollm2" / "tokenizer.json", folder)
    settings = {"tokenizer_class": "GPT2Tokenizer", "bos_token": "<|im_start|>", "eos_token": "<|im_end|>",
                "pad_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "chat_template.jinja").write_text(CHATML)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 2}))
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(shared / "configs" / "SmolLM2-135M", bos_token_id=1, eos_token_id=2)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0.0, 1.2 / parameter.shape[1] ** 0.5)
    model.save_pretrained(folder)
    return folder
