"""Train the demo's teacher from scratch on the grammar's train split and write models/demo/teacher/.

Growth keeps this within minutes on two cores: the first layers are trained alone, the others are then stacked on
them as identities and all train together. While they do, the first layers keep an early-exit loss of their own
(LayerSkip, arXiv 2404.16710). A student cut from them therefore starts from layers that are used to feeding the head:
part of what the demo's short distillation reaches was prepared here.

The teacher in the repository took two runs, which TRAINING.json records:

    python benchmarks/demo_teacher.py
    python benchmarks/demo_teacher.py --go-on --seed 1 --rows 76800 --rate 8e-4 --exit-weight 0
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from edgestill.models.demo import grammar
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.functional import cross_entropy, linear, rms_norm, silu
from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIAL = ("<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
IGNORED = -100
HIDDEN, FEED, HEAD, GROUP, EPSILON = 256, 512, 64, 2, 1e-6
Batch = tuple[torch.Tensor, torch.Tensor]


def build_tokenizer(texts: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer whose digits always stand alone."""
    tokenizer = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=list(SPECIAL), initial_alphabet=alphabet)
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|end|>",
        pad_token="<|pad|>",
        additional_special_tokens=["<|system|>", "<|user|>", "<|assistant|>"],
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )
    wrapped.chat_template = TEMPLATE
    return wrapped


def build_model(tokenizer: PreTrainedTokenizerFast, layers: int, first_layers: int) -> LlamaForCausalLM:
    """Build the teacher; the layers above ``first_layers`` start as identities."""
    end = tokenizer.eos_token_id
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=HIDDEN, intermediate_size=FEED, num_hidden_layers=layers,
        num_attention_heads=HIDDEN // HEAD, num_key_value_heads=HIDDEN // HEAD // GROUP, rms_norm_eps=EPSILON,
        max_position_embeddings=512, tie_word_embeddings=True,
        bos_token_id=end, eos_token_id=end, pad_token_id=tokenizer.pad_token_id, attn_implementation="eager",
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(bos_token_id=end, eos_token_id=end, pad_token_id=tokenizer.pad_token_id)
    for layer in model.model.layers[first_layers:]:
        torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
        torch.nn.init.zeros_(layer.mlp.down_proj.weight)
    return model


def batches(tokenizer: PreTrainedTokenizerFast, rows: list[dict[str, Any]], size: int) -> Iterator[Batch]:
    """Yield right-padded (inputs, labels) of rows of like length; labels cover the completion only."""
    prompts = tokenizer([f"<|user|>{row['prompt']}<|assistant|>" for row in rows])["input_ids"]
    completions = tokenizer([row["completion"] + "<|end|>" for row in rows])["input_ids"]
    pairs = list(zip(prompts, completions, strict=True))
    shuffle = random.Random(0)
    for start in range(0, len(pairs), size * 32):
        window = sorted(pairs[start : start + size * 32], key=lambda pair: len(pair[0]) + len(pair[1]))
        groups = [window[begin : begin + size] for begin in range(0, len(window), size)]
        for group in shuffle.sample(groups, len(groups)):
            width = max(len(prompt) + len(completion) for prompt, completion in group)
            # Causal attention and right padding: no real token ever sees a pad, so no mask is needed.
            inputs = torch.full((len(group), width), tokenizer.pad_token_id)
            labels = torch.full((len(group), width), IGNORED)
            for index, (prompt, completion) in enumerate(group):
                end = len(prompt) + len(completion)
                inputs[index, :end] = torch.tensor(prompt + completion)
                labels[index, len(prompt) : end] = torch.tensor(completion)
            yield inputs[:, :-1], labels[:, 1:]


@torch.compile(dynamic=True)
def run_layer(hidden: torch.Tensor, angles: list[torch.Tensor], weights: list[torch.Tensor]) -> torch.Tensor:
    """Run one Llama layer, written on bare tensors so that all layers share one compiled graph."""
    query, key, value, output, gate, up, down, first_norm, second_norm = weights
    rows, width, size = hidden.shape
    normed = rms_norm(hidden, (size,), first_norm, EPSILON)
    heads = [linear(normed, weight).view(rows, width, -1, HEAD).transpose(1, 2) for weight in (query, key, value)]
    for index, head in enumerate(heads[:2]):
        low, high = head.chunk(2, -1)
        heads[index] = head * angles[0] + torch.cat((-high, low), -1) * angles[1]
    keys, values = (head.repeat_interleave(GROUP, 1) for head in heads[1:])
    future = torch.ones(width, width, dtype=torch.bool).triu(1)
    scores = (heads[0] @ keys.transpose(2, 3) / HEAD**0.5).float().masked_fill(future, -1e9)
    mixed = (scores.softmax(-1).to(values.dtype) @ values).transpose(1, 2).reshape(rows, width, -1)
    hidden = hidden + linear(mixed, output)
    normed = rms_norm(hidden, (size,), second_norm, EPSILON)
    return hidden + linear(silu(linear(normed, gate)) * linear(normed, up), down)


def states_at(model: LlamaForCausalLM, inputs: torch.Tensor, depths: tuple[int, ...]) -> list[torch.Tensor]:
    """Return what the head would see after each of the depths; the layers above the last one do not run."""
    body = model.model
    hidden = body.embed_tokens(inputs)
    angles = [table[:, None] for table in body.rotary_emb(hidden, torch.arange(inputs.shape[1])[None])]
    states = []
    for depth, layer in enumerate(body.layers[: max(depths)], start=1):
        attention, feed = layer.self_attn, layer.mlp
        parts = (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)
        parts += (feed.gate_proj, feed.up_proj, feed.down_proj, layer.input_layernorm, layer.post_attention_layernorm)
        hidden = run_layer(hidden, angles, [part.weight for part in parts])
        if depth in depths:
            states.append(body.norm(hidden))
    return states


def train(model: LlamaForCausalLM, stream: list[Batch], arguments: argparse.Namespace) -> dict[str, Any]:
    """Train on every batch once: first the lower layers alone, then all of them with the early exit."""
    groups = [
        {"params": [weight for weight in model.parameters() if weight.dim() > 1], "weight_decay": 0.05},
        {"params": [weight for weight in model.parameters() if weight.dim() == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=arguments.rate, betas=(0.9, 0.95), fused=True)
    grow_at = 0 if arguments.go_on else round(len(stream) * arguments.first_share)
    begin, tokens, recent = time.perf_counter(), 0, 0.0
    for step, (inputs, labels) in enumerate(stream):
        progress = step / len(stream)
        rate = arguments.rate * min(1.0, (step + 1) / 100) * (0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * progress)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        grown = step >= grow_at
        depths = (arguments.first_layers, arguments.layers) if grown else (arguments.first_layers,)
        chosen = labels != IGNORED
        with torch.autocast("cpu", torch.bfloat16):
            states = states_at(model, inputs, depths)
            losses = [cross_entropy(model.lm_head(state[chosen]).float(), labels[chosen]) for state in states]
        loss = losses[-1] + (arguments.exit_weight * losses[0] if grown else 0.0)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        tokens += inputs.numel()
        recent = 0.95 * recent + 0.05 * losses[-1].item() if step else losses[-1].item()
        if step % 50 == 0:
            seconds = time.perf_counter() - begin
            speed = f"{tokens / seconds:.0f} tokens/s, {seconds:.0f} s"
            print(f"step {step}/{len(stream)}: loss {recent:.4f}, exit {losses[0].item():.4f}, {speed}", flush=True)
    seconds = time.perf_counter() - begin
    return {"steps": len(stream), "tokens": tokens, "seconds": round(seconds, 1), "final_loss": round(recent, 5)}


@torch.no_grad()
def exact_match(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, rows: list[dict[str, Any]]) -> float:
    """Return the share of rows that greedy decoding answers exactly.

    Greedy decoding yields the reference if and only if, given the reference so far, every next token is the most
    likely one: one forward pass over the reference decides it.
    """
    right = 0
    for inputs, labels in batches(tokenizer, rows, 128):
        best = model(inputs).logits.argmax(-1)
        right += int(((best == labels) | (labels == IGNORED)).all(-1).sum())
    return right / len(rows)


def main() -> None:
    """Train, measure on held-out test rows, and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(grammar.__file__).with_name("teacher"))
    parser.add_argument("--rows", type=int, default=220_000, help="train rows, each seen once")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--vocabulary", type=int, default=896)
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--first-layers", type=int, default=3, help="layers trained first, with the early exit")
    parser.add_argument("--first-share", type=float, default=0.55, help="share of the steps before growing")
    parser.add_argument("--exit-weight", type=float, default=0.3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--go-on", action="store_true", help="train the teacher in --out further, on another --seed")
    parser.add_argument("--seed", type=int, default=0, help="seed of the train rows")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    rows = list(grammar.rows("train", arguments.rows, arguments.seed))
    runs: list[dict[str, Any]] = []
    if arguments.go_on:
        tokenizer = AutoTokenizer.from_pretrained(arguments.out)
        model = LlamaForCausalLM.from_pretrained(arguments.out, dtype=torch.float32, attn_implementation="eager")
        runs = json.loads((arguments.out / "TRAINING.json").read_text(encoding="utf-8"))["runs"]
    else:
        texts = [row[key] for row in rows[:20_000] for key in ("prompt", "completion")]
        tokenizer = build_tokenizer(texts, arguments.vocabulary)
        model = build_model(tokenizer, arguments.layers, arguments.first_layers)
    measured = train(model, list(batches(tokenizer, rows, arguments.batch)), arguments)
    model = model.to(torch.bfloat16)
    test = list(grammar.rows("test", 3000))
    novel = [row for row in test if row["novel"]]
    settings = {name: value for name, value in vars(arguments).items() if name != "out"}
    record = {
        "parameters": model.num_parameters(), "runs": [*runs, {"settings": settings, **measured}],
        "test_rows": len(test), "test_exact_match": exact_match(model, tokenizer, test),
        "novel_rows": len(novel), "novel_exact_match": exact_match(model, tokenizer, novel),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }  # fmt: skip
    model.save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)
    (arguments.out / "TRAINING.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
