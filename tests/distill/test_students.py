"""Students: fewer layers and smaller vocabularies that still are the model they were cut from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from edgestill.distill import alignment
from edgestill.distill.loading import load_model, save_model
from edgestill.distill.students import vocabulary
from edgestill.distill.students.depth import cut_config, keep_layers, layers_path
from edgestill.distill.students.vocabulary import kept_tokens, trim_model, trim_tokenizer, write_trimmed_tokenizer
from edgestill.models.errors import UsageError
from edgestill.models.task import Task
from edgestill.runtime.text.codec import Codec
from tokenizers import Tokenizer

from .. import gguf_vocabulary, tiny, unigram

LABELS = Task("classify", labels=["light", "music", "weather"])
COVERED = ["turn off the kitchen light", "Grüße aus Köln", "你好，世界", "play 12345"]


def load(folder: Path, task: Task = Task()) -> Any:  # noqa: B008 (a frozen dataclass)
    return load_model(folder, task).eval()


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "qwen3", "gpt2"])
def test_a_decoder_with_fewer_layers_is_those_layers_and_nothing_else(model_type: str, tmp_path: Path) -> None:
    model = load(tiny.decoder(tmp_path / "whole", model_type))
    student = keep_layers(model, [0, 2])
    assert student.config.num_hidden_layers == 2
    layers = model.get_submodule(layers_path(model))
    del layers[1]  # the same cut, made by hand
    ids = torch.arange(5, 17)[None]
    with torch.no_grad():
        torch.testing.assert_close(student(ids).logits, model(ids, use_cache=False).logits)
        cached = student.generate(ids, max_new_tokens=6, do_sample=False, min_new_tokens=6)
        whole = student.generate(ids, max_new_tokens=6, do_sample=False, use_cache=False, min_new_tokens=6)
    assert cached.tolist() == whole.tolist(), "layers must be renumbered, or they share a place in the cache"
    save_model(student, tmp_path / "cut")
    with torch.no_grad():
        torch.testing.assert_close(load(tmp_path / "cut")(ids).logits, student(ids).logits)


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "xlm-roberta"])
def test_an_encoder_with_fewer_layers(model_type: str, tmp_path: Path) -> None:
    model = load(tiny.classifier(tmp_path / "whole", model_type), LABELS)
    student = keep_layers(model, [1])
    del model.get_submodule(layers_path(model))[0]
    ids = torch.arange(5, 17)[None]
    with torch.no_grad():
        torch.testing.assert_close(student(ids).logits, model(ids).logits)
    save_model(student, tmp_path / "cut")
    assert load(tmp_path / "cut", LABELS).config.num_hidden_layers == 1


def test_layers_of_several_kinds_stay_what_they_are(tmp_path: Path) -> None:
    model = load(tiny.classifier(tmp_path / "whole", "modernbert"), LABELS)
    student = keep_layers(model, [0, 2])
    assert student.config.layer_types == ["full_attention", "sliding_attention"]
    layers = model.get_submodule(layers_path(model))
    del layers[3], layers[1]
    ids = torch.arange(5, 30)[None]
    with torch.no_grad():
        torch.testing.assert_close(student(ids).logits, model(ids).logits)


def test_a_layer_that_cannot_stand_in_the_first_place_is_refused(tmp_path: Path) -> None:
    model = load(tiny.classifier(tmp_path / "whole", "modernbert"), LABELS)
    with pytest.raises(UsageError, match=r"layers.0.attn_norm.weight is in a layer of one place"):
        keep_layers(model, [1, 2])


def test_positions_numbered_from_the_padding_are_not_renumbered(tmp_path: Path) -> None:
    model = load(tiny.classifier(tmp_path / "whole", "roberta"), LABELS)
    with pytest.raises(UsageError, match="the padding token 1 would get another number"):
        trim_model(model, [1, 2, 5])
    assert trim_model(model, [0, 1, 2, 5]).config.pad_token_id == 1


def test_lists_with_one_entry_a_layer_are_cut_too() -> None:
    from transformers import Qwen2Config

    config = Qwen2Config(num_hidden_layers=3, use_sliding_window=True, max_window_layers=1, sliding_window=8)
    assert config.layer_types == ["full_attention", "sliding_attention", "sliding_attention"]
    cut = cut_config(config, [0, 2])
    assert (cut.layer_types, cut.num_hidden_layers) == (["full_attention", "sliding_attention"], 2)
    assert cut_config(config, [2]).max_window_layers == 0


@pytest.mark.parametrize("layers", [[], [3], [-1], [1, 0], [0, 0]])
def test_layers_that_the_model_has_not_are_refused(layers: list[int], tiny_llama: Path) -> None:
    with pytest.raises(UsageError, match="layers 0 to 2"):
        keep_layers(load(tiny_llama), layers)


def content(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "tokenizer.json").read_text(encoding="utf-8")))


def pieces(tokenizer: Tokenizer, text: str, special: bool = True) -> list[str]:
    return list(tokenizer.encode(text, add_special_tokens=special).tokens)


def trim(folder: Path) -> tuple[Tokenizer, Tokenizer, list[int]]:
    whole = Tokenizer.from_file(str(folder / "tokenizer.json"))
    used = {token for text in COVERED for token in whole.encode(text).ids}
    kept = kept_tokens(content(folder), used)
    return whole, Tokenizer.from_str(json.dumps(trim_tokenizer(content(folder), kept))), kept


@pytest.mark.parametrize("fixture", ["tiny_llama", "tiny_bert"])
def test_covered_text_is_cut_into_the_same_pieces(fixture: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(fixture)
    whole, cut, kept = trim(folder)
    assert cut.get_vocab_size() == len(kept) < whole.get_vocab_size()
    for text in COVERED:
        assert pieces(cut, text) == pieces(whole, text)
        assert [kept[token] for token in cut.encode(text).ids] == whole.encode(text).ids
    for special in whole.get_added_tokens_decoder().values():
        assert cut.token_to_id(special.content) is not None


def test_text_that_no_row_held_falls_apart_and_is_not_lost(tiny_llama: Path) -> None:
    whole, cut, _ = trim(tiny_llama)
    text = "weather 👍🏽 in the bedroom\n\ttoday?"
    assert pieces(cut, text) != pieces(whole, text)
    assert cut.decode(cut.encode(text).ids) == text


def test_ascii_words_that_no_row_held_are_spelled_by_word_piece(tiny_bert: Path) -> None:
    _, cut, _ = trim(tiny_bert)
    assert "[UNK]" not in pieces(cut, "weather bedroom today?")


@pytest.mark.parametrize("name", ["qwen2.5", "smollm2"])
def test_real_tokenizers_cut_covered_text_the_same(name: str, shared: Path) -> None:
    folder = shared / "tokenizers" / name
    text = (shared / "data" / "tinyshakespeare" / "input.txt").read_text(encoding="utf-8")[:20000]
    whole = Tokenizer.from_file(str(folder / "tokenizer.json"))
    kept = kept_tokens(content(folder), set(whole.encode(text).ids))
    cut = Tokenizer.from_str(json.dumps(trim_tokenizer(content(folder), kept)))
    assert len(kept) < 6000
    assert [kept[token] for token in cut.encode(text).ids] == whole.encode(text).ids
    other = "<|im_start|>Ünseen wörds 你好 🙂 <0x0A>"
    assert cut.decode(cut.encode(other).ids, skip_special_tokens=False) == whole.decode(
        whole.encode(other).ids, skip_special_tokens=False)


def test_a_tokenizer_with_bytes_as_tokens_keeps_them(shared: Path) -> None:
    folder = shared / "models" / "stories260K"
    whole = Tokenizer.from_file(str(folder / "tokenizer.json"))
    kept = kept_tokens(content(folder), set(whole.encode("Once upon a time").ids))
    cut = Tokenizer.from_str(json.dumps(trim_tokenizer(content(folder), kept)))
    assert pieces(cut, "Once upon a time") == pieces(whole, "Once upon a time")
    assert {f"<0x{byte:02X}>" for byte in range(256)} <= set(cut.get_vocab())


def test_a_tokenizer_of_another_type_is_refused_by_name() -> None:
    table = {"added_tokens": [], "model": {"type": "WordLevel", "vocab": {"a": 0}}}
    with pytest.raises(UsageError, match="of type WordLevel cannot be trimmed"):
        kept_tokens(table, {0})


@pytest.mark.parametrize("form", [unigram.xlm_roberta, unigram.camembert])
def test_a_unigram_tokenizer_cuts_covered_text_the_same_here_and_in_llama_cpp(
        form: Callable[[Path], Path], tmp_path: Path) -> None:
    source, cut = form(tmp_path / "whole"), tmp_path / "cut"
    whole = Codec.from_folder(source)
    texts = [*COVERED, "🙂 привет 🙂🙂 x", "naïve café", *tiny.SENTENCES[:4]]
    kept = kept_tokens(content(source), {token for text in texts for token in whole.encode(text)})
    assert len(kept) < whole.vocabulary_size // 2
    cut.mkdir()
    write_trimmed_tokenizer(source, cut, kept)
    trimmed = Codec.from_folder(cut)
    for text in texts:
        for special in (True, False):
            assert [kept[token] for token in trimmed.encode(text, special)] == whole.encode(text, special), text
    assert trimmed.decode(trimmed.encode("zebra quiz"), True) == "zebra quiz", "other words are spelled"
    with gguf_vocabulary.both(cut, tmp_path / "cut.gguf") as (codec, loaded, _):
        assert len(gguf_vocabulary.assert_same_but(codec, loaded, texts)) < len(texts) // 2


def test_what_an_unknown_character_costs_stays_the_same() -> None:
    """It hangs on the lowest score of all: without that piece the unknown one would win here, at -26 against -27."""
    from tokenizers import models

    pieces = [("<unk>", 0.0), ("яб", -12.0), ("в", -15.0), ("бв", -1.0), ("б", -3.0), ("rare", -20.0), ("other", -2.0)]
    whole = Tokenizer(models.Unigram(pieces, 0))
    used = {token for text in ("ябв", "бв") for token in whole.encode(text).ids}
    kept = kept_tokens(json.loads(whole.to_str()), used)
    cut = Tokenizer.from_str(json.dumps(trim_tokenizer(json.loads(whole.to_str()), kept)))
    assert cut.encode("ябв").tokens == whole.encode("ябв").tokens == ["яб", "в"]
    assert [cut.id_to_token(place) for place in range(len(kept))] == ["<unk>", "яб", "в", "бв", "б", "rare"]


@pytest.mark.parametrize("tied", [True, False])
def test_logits_of_kept_tokens_are_what_they_were(tied: bool, tmp_path: Path) -> None:
    folder = tiny.decoder(tmp_path / "whole", "llama", tie_word_embeddings=tied)
    model = load(folder)
    whole, _, kept = trim(folder)
    ids = torch.tensor([whole.encode(COVERED[0]).ids])
    with torch.no_grad():
        before = model(ids).logits
    student = trim_model(model, kept)
    write_folder(student, folder, tmp_path / "cut", kept)
    again = load(tmp_path / "cut")
    new_ids = torch.tensor([Codec.from_folder(tmp_path / "cut").encode(COVERED[0])])
    with torch.no_grad():
        torch.testing.assert_close(again(new_ids).logits, before[..., kept])
    assert again.config.vocab_size == len(kept)
    assert (again.lm_head.weight is again.model.embed_tokens.weight) == tied


def write_folder(model: Any, source: Path, folder: Path, kept: list[int]) -> None:
    folder.mkdir()
    save_model(model, folder)
    write_trimmed_tokenizer(source, folder, kept)


def test_a_greedy_generation_config_with_values_for_sampling_is_saved(tiny_llama: Path, tmp_path: Path) -> None:
    """As some models are published; transformers saves it back unchanged only."""
    model = load(tiny_llama)
    model.generation_config.update(do_sample=False, temperature=0.6, top_p=0.9)
    save_model(trim_model(model, [0, *range(2, 384)]), tmp_path / "cut")
    saved = json.loads((tmp_path / "cut" / "generation_config.json").read_text())
    assert saved["pad_token_id"] == 3 and "temperature" not in saved


def test_token_ids_in_the_configurations_follow(tiny_llama: Path, tmp_path: Path) -> None:
    before = Codec.from_folder(tiny_llama)
    table = content(tiny_llama)
    used = set(before.encode(COVERED[0]))
    kept = kept_tokens(table, used)
    write_folder(trim_model(load(tiny_llama), kept), tiny_llama, tmp_path / "cut", kept)
    after = Codec.from_folder(tmp_path / "cut")
    for name in ("eos_id", "bos_id", "pad_id"):
        old, new = getattr(before, name), getattr(after, name)
        assert (old is None and new is None) or kept[new] == old
    assert {kept[token] for token in after.stop_ids} == before.stop_ids
    config = json.loads((tmp_path / "cut" / "config.json").read_text())
    assert kept[config["eos_token_id"]] == before.eos_id


def test_a_classifier_loses_embeddings_and_keeps_its_answers(tiny_bert: Path, tmp_path: Path) -> None:
    model = load(tiny_bert, LABELS)
    whole, cut, kept = trim(tiny_bert)
    with torch.no_grad():
        before = model(torch.tensor([whole.encode(COVERED[0]).ids])).logits
        after = trim_model(model, kept)(torch.tensor([cut.encode(COVERED[0]).ids])).logits
    torch.testing.assert_close(before, after)


def test_the_teachers_ids_of_a_trimmed_students_tokens(tiny_llama: Path, tmp_path: Path) -> None:
    whole, cut, kept = trim(tiny_llama)
    assert alignment.of_tokens(Codec(cut), Codec(whole)) == kept
    assert alignment.of_tokens(Codec(whole), Codec(whole)) == list(range(whole.get_vocab_size()))
    with pytest.raises(UsageError, match="lacks"):
        alignment.of_tokens(Codec(whole), Codec(cut))


def test_a_tokenizer_of_another_model_is_refused(tiny_llama: Path) -> None:
    with pytest.raises(UsageError, match="has no embedding"):
        trim_model(load(tiny_llama), [0, 1, 100000])


def test_ids_of_a_configuration_get_their_new_numbers() -> None:
    table = {"eos_token_id": [5, 9], "pad_token_id": 0, "bos_token_id": 7, "suppress_tokens": [5, 7], "vocab_size": 10,
             "bad_words_ids": [[5, 9], [7]], "begin_suppress_tokens": None, "decoder_start_token_id": None}
    assert vocabulary.trim_ids(table, {0: 0, 5: 1, 9: 2}) == {
        "eos_token_id": [1, 2], "pad_token_id": 0, "bos_token_id": None, "suppress_tokens": [1],
        "bad_words_ids": [[1, 2]]}
