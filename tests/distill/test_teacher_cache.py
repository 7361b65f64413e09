"""What a teacher said, kept on disk: asked once, whole after any stop, read by later students without the teacher."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from edgestill.cli.main import call
from edgestill.distill import distill, fill_cache
from edgestill.distill.data.batches import Schedule, next_tokens
from edgestill.distill.data.token_sets import token_set
from edgestill.distill.signals import Drawn, Likeliest, Signal
from edgestill.distill.teachers import _decoder, _shards, cached
from edgestill.distill.teachers._base import Wants
from edgestill.distill.teachers._cache import Cache, CachedTeacher, about
from edgestill.models import files
from edgestill.models.artifact import open_artifact
from edgestill.models.errors import TrainingError, UsageError
from edgestill.models.task import Task
from edgestill.runtime.data.learned_tokens import Learned
from edgestill.runtime.text.codec import Codec
from safetensors.numpy import load_file

from ..runtime.test_rows import jsonl

WANTS = Wants(frozenset({"drawn"}), Task(), "fp32", True)
VOCABULARY = 300


class Says:
    """A teacher whose word is a function of row and place; it stops before its `stop`th batch."""

    provides = frozenset({"logits"})
    parents = ({"role": "teacher", "name": "it", "sha256": "0"},)
    licence = "mit"

    def __init__(self, stop: int = 1000) -> None:
        self.prepared, self.asked, self.stop, self.follows_precision = 0, list[int](), stop, False

    def prepare(self, examples: Schedule, codec: Codec, wants: Wants, cache: Path) -> None:
        assert wants.parts == {"logits"} and not wants.repeated
        self.prepared += 1

    def signal(self, batch: Any, wants: Wants) -> Signal:
        if len(self.asked) >= self.stop:
            raise InterruptedError
        self.asked += batch.rows
        return Signal(torch.cat([self.said(row, count) for row, count in zip(batch.rows, batch.counts, strict=True)]))

    @staticmethod
    def said(row: int, count: int) -> torch.Tensor:
        return torch.randn(count, VOCABULARY, generator=torch.Generator().manual_seed(row)) * 3


@pytest.fixture(scope="module")
def codec(tiny_llama: Path) -> Codec:
    return Codec.from_folder(tiny_llama)


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch) -> Schedule:
    """Rows of many lengths, in several files."""
    monkeypatch.setattr(_shards, "PLACES", 10)
    rows = [Learned(list(range(5, 10 + row % 5)), [(2, 4 + row % 3)]) for row in range(12)]
    return Schedule(token_set(rows, [0] * 12, range(12)), 4, 20, 0, next_tokens)


def opened(folder: Path, teacher: Any, **cache: Any) -> CachedTeacher:
    return CachedTeacher(folder, about(teacher, "key", Cache(**cache)), teacher)


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*/*/*.shard"))}


@pytest.mark.parametrize(("keep", "tokens"), [("drawn", 24), ("likeliest", 8), ("likeliest", 255)])
def test_what_is_read_is_what_was_said(examples: Schedule, codec: Codec, tmp_path: Path, keep: str,
                                       tokens: int) -> None:
    teacher = opened(tmp_path, Says(), keep=keep, tokens=tokens)
    teacher.prepare(examples, codec, WANTS, tmp_path)
    assert teacher.provides == {keep} and len(shards(tmp_path)) == 4
    random = np.concatenate([teacher._known[examples.tokens][0].random(index) for index in range(4)])
    assert len(set(random.tolist())) == len(random) == examples.tokens.learned.sum()
    for batch in [*examples.step(2), *examples.step(0)]:
        said = torch.cat([Says.said(row, count) for row, count in zip(batch.rows, batch.counts, strict=True)])
        found = teacher.signal(batch, WANTS)
        if isinstance(found, Likeliest):
            wanted = Likeliest.of(said, tokens)
            assert torch.equal(found.ids, wanted.ids) and found.vocabulary == VOCABULARY
            torch.testing.assert_close(found.log_probabilities, wanted.log_probabilities, atol=4e-3, rtol=1e-3)
            torch.testing.assert_close(found.log_probabilities.logsumexp(-1), torch.zeros(batch.count))
        else:
            assert isinstance(found, Drawn)
            places = teacher._known[examples.tokens][0].places(batch.rows)
            drawn = Drawn.of(said, tokens, torch.from_numpy(random[places]))
            assert torch.equal(found.ids, drawn.ids) and found.vocabulary == VOCABULARY
            torch.testing.assert_close(found.weights, drawn.weights)
            torch.testing.assert_close(found.own, drawn.own)


def test_it_goes_on_where_it_was_stopped(examples: Schedule, codec: Codec, tmp_path: Path) -> None:
    opened(tmp_path / "whole", Says()).prepare(examples, codec, WANTS, tmp_path)
    whole, done = shards(tmp_path / "whole"), set()
    for stop in (0, 2, 4, 7, 10):
        folder, again = tmp_path / str(stop), Says()
        with pytest.raises(InterruptedError):
            opened(folder, Says(stop)).prepare(examples, codec, WANTS, tmp_path)
        before = shards(folder)
        done.add(len(before))
        assert before.items() <= whole.items()
        opened(folder, again).prepare(examples, codec, WANTS, tmp_path)
        assert shards(folder) == whole and again.prepared == 1
        assert len(again.asked) == len({*again.asked}) == 12 - sum(map(len, rows(examples, before)))
    assert done == {0, 1, 2, 3}


def rows(examples: Schedule, names: Any) -> list[Any]:
    """Those that stand in the first files."""
    return _shards.Shards(Path(), examples.tokens).rows[:len(names)]


def test_a_later_student_of_the_tokenizer_asks_nothing(examples: Schedule, codec: Codec, tmp_path: Path) -> None:
    opened(tmp_path, Says()).prepare(examples, codec, WANTS, tmp_path)
    again = Says()
    as_read_later = Schedule(replace(examples.tokens), 3, 50, 7, next_tokens)
    opened(tmp_path, again).prepare(as_read_later, Codec(codec.tokenizer), WANTS, tmp_path)
    assert again.prepared == 0


def flipped(folder: Path, path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def another(folder: Path, path: Path) -> None:
    shutil.copyfile(path.with_name("000002.shard"), path)


def cut(folder: Path, path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


@pytest.mark.parametrize("spoil", [flipped, another, cut])
def test_a_damaged_file_is_named_and_made_again(examples: Schedule, codec: Codec, tmp_path: Path, spoil: Any,
                                                caplog: pytest.LogCaptureFixture) -> None:
    opened(tmp_path, Says()).prepare(examples, codec, WANTS, tmp_path)
    before = shards(tmp_path)
    path = next(tmp_path.glob("*/*/000001.shard"))
    spoil(tmp_path, path)
    again = Says()
    opened(tmp_path, again).prepare(examples, codec, WANTS, tmp_path)
    assert shards(tmp_path) == before and 0 < len(again.asked) < 12
    assert [record.getMessage() for record in caplog.records] == [f"{path}: damaged, and made again"]


def test_other_rows_teachers_tokenizers_and_ways_to_keep_are_told_apart(
        examples: Schedule, codec: Codec, tmp_path: Path) -> None:
    teacher = Says()
    others = [replace(examples.tokens, learned=np.roll(examples.tokens.learned, 1)),
              replace(examples.tokens, ids=examples.tokens.ids + 1)]
    for tokens in (examples.tokens, *others):
        opened(tmp_path, teacher).prepare(Schedule(tokens, 4, 20, 0, next_tokens), codec, WANTS, tmp_path)
    for said in (Cache(tokens=9), Cache(keep="likeliest")):
        CachedTeacher(tmp_path, about(teacher, "key", said), teacher).prepare(examples, codec, WANTS, tmp_path)
    CachedTeacher(tmp_path, about(teacher, "other", Cache()), teacher).prepare(examples, codec, WANTS, tmp_path)
    trimmed = SimpleNamespace(vocabulary_size=VOCABULARY, tokenizer=SimpleNamespace(get_vocab=lambda **_: {"a": 0}))
    opened(tmp_path, teacher).prepare(examples, trimmed, WANTS, tmp_path)  # type: ignore[arg-type]
    assert teacher.prepared == 7
    for follows, precision, asked in ((False, "bf16", 7), (True, "bf16", 8), (True, "fp32", 9), (True, "bf16", 9)):
        teacher.follows_precision = follows
        opened(tmp_path, teacher).prepare(examples, codec, replace(WANTS, precision=precision), tmp_path)
        assert teacher.prepared == asked


def test_a_full_disk_is_no_crash(examples: Schedule, codec: Codec, tmp_path: Path,
                                 monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_json", lambda *_: None)
    monkeypatch.setattr(files, "write_bytes", full)
    with pytest.raises(TrainingError, match="could not be kept: .*No space left"):
        opened(tmp_path, Says()).prepare(examples, codec, WANTS, tmp_path)


def test_without_the_teacher_what_is_kept_must_be_enough(examples: Schedule, codec: Codec, tmp_path: Path) -> None:
    config = cached.Config("kept")
    with pytest.raises(UsageError, match="kept holds what 0 teachers say"):
        cached.key(config, tmp_path)
    opened(tmp_path / "kept", Says()).prepare(examples, codec, WANTS, tmp_path)
    teacher = cached.open(config, tmp_path, "cpu")
    assert teacher.parents == [dict(Says.parents[0])] and teacher.licence == "mit"
    assert cached.key(config, tmp_path) == about(Says(), "key", Cache()).key  # type: ignore[arg-type]
    teacher.prepare(examples, codec, WANTS, tmp_path)
    next((tmp_path / "kept").glob("*/*/000003.shard")).unlink()
    with pytest.raises(UsageError, match=r"says of 3 of 12 rows, .* is not kept here"):
        cached.open(config, tmp_path, "cpu").prepare(examples, codec, WANTS, tmp_path)
    with pytest.raises(UsageError, match="a cache is for decoders"):
        teacher.prepare(examples, codec, replace(WANTS, task=Task("classify")), tmp_path)
    opened(tmp_path / "kept", Says(), tokens=9).prepare(examples, codec, WANTS, tmp_path)
    with pytest.raises(UsageError, match="kept holds what 2 teachers say"):
        cached.open(config, tmp_path, "cpu")
    found = next((tmp_path / "kept").glob("*/about.json"))
    found.write_text("{")
    with pytest.raises(UsageError, match="about.json: damaged"):
        cached.open(config, tmp_path, "cpu")


def test_a_student_learns_from_the_cache_alone(tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                               capsys: pytest.CaptureFixture[str]) -> None:
    jsonl(tmp_path / "rows.jsonl", [{"prompt": f"turn on the light {row}", "completion": "on"} for row in range(12)])
    (tmp_path / "run.toml").write_text(
        f"data.train = 'rows.jsonl'\nstudent = {{ model = '{tiny_llama}', layers = [0] }}\n"
        f"teacher = {{ kind = 'local', model = '{tiny_llama}', cache = {{ folder = 'kept' }} }}\n"
        "[distill]\nsteps = 3\nbatch_size = 4\n")
    run = str(tmp_path / "run.toml")
    assert call(["distill", run, "-o", str(tmp_path / "one"), "--cache-only"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'kept'}\n"
    assert call(["distill", run, "-o", str(tmp_path / "one"), "--cache-only", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"caches": [str(tmp_path / "kept")]}
    (kept,) = (json.loads(path.read_text()) for path in tmp_path.glob("kept/*/about.json"))
    assert kept["precision"] == "fp32", "what a local teacher says depends on it"
    with pytest.raises(UsageError, match="--cache-only: no loss of distill.losses reads what the teacher says"):
        fill_cache(run, tmp_path / "none", ["distill.losses=[{kind = 'ce'}]"])
    assert len(shards(tmp_path / "kept")) == 1 and not (tmp_path / "one").exists()

    def loaded(*_: Any) -> None:
        raise AssertionError("the teacher was loaded")

    monkeypatch.setattr(_decoder.Decoder, "__init__", loaded)
    one = open_artifact(distill(run, tmp_path / "one"))
    (tmp_path / "run.toml").write_text((tmp_path / "run.toml").read_text().replace(
        f"kind = 'local', model = '{tiny_llama}', cache = {{ folder = 'kept' }}", "kind = 'cached', folder = 'kept'"))
    two = open_artifact(distill(run, tmp_path / "two"))
    first, second = (load_file(made.folder / "model.safetensors") for made in (one, two))
    assert all((first[name] == second[name]).all() for name in first)
    assert [parent["role"] for parent in one.manifest.parents].count("teacher") == 1
    assert one.manifest.parents == two.manifest.parents
    assert str(tmp_path) not in (one.folder / "run.toml").read_text()
    with pytest.raises(UsageError, match="no cache that a teacher would fill"):
        fill_cache(run, tmp_path / "three")
