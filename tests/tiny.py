"""Tiny random checkpoints of true architectures, as plain Hugging Face folders.

Weights are scaled so that logits spread (standard deviation of about 1 or more): with the usual
initialisation every model predicts the same flat distribution, and a wrong export would go unseen.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

SENTENCES = [
    "turn off the kitchen light in ten minutes", "what is the weather like today?",
    "set the alarm for 6:45", "play some music in the living room", "Grüße aus Köln, naïve café", "привет мир",
    "你好，世界", "x = [i ** 2 for i in range(10)]", '{"action":"turn_on","device":"light","room":"bedroom"}',
    "   leading blanks\tand tabs\n\nand lines", "🙂 emoji 👍🏽", "12345 67890",
] * 4
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|pad|>"]


def decoder(folder: Path, model_type: str, seed: int = 0, **changes: Any) -> Path:
    """Write a decoder with a byte-level BPE tokenizer; `changes` are config keys."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    size = byte_level_tokenizer(folder)
    shape: dict[str, Any] = {
        "vocab_size": size, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 256,
        "tie_word_embeddings": True, "eos_token_id": 0, "bos_token_id": None, "pad_token_id": 4,
    }
    if model_type == "gpt2":
        shape = {"vocab_size": size, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 256, "eos_token_id": 0,
                 "bos_token_id": 0, "pad_token_id": 4}
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **(shape | changes)))
    _spread(model)
    model.save_pretrained(folder)
    return folder


LABELS = ("light", "music", "weather")


def classifier(folder: Path, model_type: str, labels: tuple[str, ...] = LABELS, seed: int = 0, **changes: Any) -> Path:
    """Write an encoder with a classification head and its tokenizer; `changes` are config keys."""
    names = dict(enumerate(labels))
    changes |= {"id2label": names, "label2id": {label: index for index, label in names.items()}}
    return _encoder(folder, model_type, "AutoModelForSequenceClassification", seed, changes)


def embedder(folder: Path, model_type: str, pooling: str = "mean", seed: int = 0, **changes: Any) -> Path:
    """Write an encoder without a head, its tokenizer and what sentence-transformers says about pooling."""
    _encoder(folder, model_type, "AutoModel", seed, changes)
    modules = ["Transformer", "Pooling", "Normalize"]
    (folder / "modules.json").write_text(json.dumps([
        {"idx": index, "name": str(index), "path": f"{index}_{name}" if index else "",
         "type": f"sentence_transformers.models.{name}"} for index, name in enumerate(modules)]))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({
        "word_embedding_dimension": 64, "pooling_mode_cls_token": pooling == "cls",
        "pooling_mode_mean_tokens": pooling == "mean", "pooling_mode_max_tokens": pooling == "max"}))
    return folder


def _encoder(folder: Path, model_type: str, auto_class: str, seed: int, changes: dict[str, Any]) -> Path:
    import torch
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    sentence_pieces = model_type in ("roberta", "xlm-roberta")
    size = (unigram_tokenizer if sentence_pieces else word_piece_tokenizer)(folder)
    shape: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
                             "num_attention_heads": 4, "max_position_embeddings": 128, "pad_token_id": 0}
    if model_type == "distilbert":
        shape = {"dim": 64, "hidden_dim": 128, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 128,
                 "pad_token_id": 0}
    elif sentence_pieces:
        shape |= {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "type_vocab_size": 1}
    elif model_type == "modernbert":  # layers 0 and 3 see everything, 1 and 2 four tokens to each side
        shape |= {"num_hidden_layers": 4, "local_attention": 8, "cls_token_id": 2, "bos_token_id": 2,
                  "sep_token_id": 3, "eos_token_id": 3}
    torch.manual_seed(seed)
    model = getattr(transformers, auto_class).from_config(
        transformers.AutoConfig.for_model(model_type, **({"vocab_size": size} | shape | changes)))
    _spread(model)
    model.save_pretrained(folder)
    return folder


def byte_level_tokenizer(folder: Path) -> int:
    """Write a byte-level BPE tokenizer with a chat template; return its vocabulary size."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(SENTENCES, trainers.BpeTrainer(
        vocab_size=384, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|pad|>",
                                   additional_special_tokens=SPECIAL[1:4], clean_up_tokenization_spaces=False)
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 0, "pad_token_id": 4}))
    return int(tokenizer.get_vocab_size())


def word_piece_tokenizer(folder: Path) -> int:
    """Write a BERT tokenizer of every second word and all letters; return its vocabulary size.

    Not trained: the trainer breaks ties as its hash tables fall, so every run would test another model.
    """
    from transformers import BertTokenizerFast

    text = " ".join(SENTENCES).lower()
    letters = sorted(set(re.findall(r"\S", text)))
    words = sorted({word for word in re.findall(r"\w+", text) if len(word) > 1})[::2]
    inner = [f"##{letter}" for letter in letters]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *inner, *words]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    return len(vocabulary)


def unigram_tokenizer(folder: Path) -> int:
    """Write a SentencePiece-style Unigram tokenizer as XLM-RoBERTa has it; return its vocabulary size."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer.train_from_iterator(SENTENCES, trainers.UnigramTrainer(
        vocab_size=256, special_tokens=special, unk_token="<unk>", show_progress=False))
    tokenizer.post_processor = processors.TemplateProcessing(
        "<s> $A </s>", "<s> $A </s> </s> $B </s>", [("<s>", 0), ("</s>", 2)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", cls_token="<s>", sep_token="</s>",
        pad_token="<pad>", unk_token="<unk>", mask_token="<mask>").save_pretrained(folder)
    return int(tokenizer.get_vocab_size())


def _spread(model: Any) -> None:
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0.0, 1.2 / parameter.shape[1] ** 0.5)
            elif parameter.ndim == 1 and not bool((parameter == 1).all()):
                parameter.normal_(0.0, 0.1)
