"""Several teachers: mixed by weight, or each asked about the rows of its route alone."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edgestill.distill import distill, fill_cache
from edgestill.distill.data.batches import Schedule, next_tokens
from edgestill.distill.data.token_sets import token_set
from edgestill.distill.loading import load_model
from edgestill.distill.prepare import open_teacher
from edgestill.distill.signals import LOGITS, Drawn, Likeliest, Mixed, Signal
from edgestill.distill.sources import resolve
from edgestill.distill.teachers._base import Wants
from edgestill.distill.teachers._several import Several
from edgestill.distill.teachers._tables import entries
from edgestill.distill.training.job import Bench, Job
from edgestill.distill.training.training_log import Progress
from edgestill.distill.training.weighted_losses import WeightedLosses, read_losses
from edgestill.distill.verbs import read_run
from edgestill.models.artifact import open_artifact
from edgestill.models.errors import DataError, UsageError
from edgestill.models.runfile import Data, RunFile, read
from edgestill.models.task import Task
from edgestill.models.toml_text import to_toml
from edgestill.runtime.data.learned_tokens import Learned
from edgestill.runtime.data.reader import Row
from edgestill.runtime.text.codec import Codec
from safetensors.numpy import load_file, save_file

from ..runtime.test_rows import jsonl
from .test_teacher_agrees import texts

WANTS, VOCABULARY = Wants(frozenset({LOGITS}), Task(), "fp32", False), 40
LANGUAGES = ("de", "en", "at")


class Says:
    """A teacher whose word is a function of a row's tokens, as dense logits or what stands for them."""

    parents = ({"role": "teacher", "name": "it"},)

    def __init__(self, seed: int, licence: str = "mit", part: str = LOGITS) -> None:
        self.seed, self.licence, self.part = seed, licence, part
        self.provides, self.prepared = frozenset({part}), list[list[int]]()

    def prepare(self, examples: Schedule, codec: Any, wants: Wants, cache: Path) -> None:
        self.prepared.append(examples.tokens.sources.tolist())

    def signal(self, batch: Any, wants: Wants) -> Any:
        logits = torch.cat([self.said(batch.of.row(row), count)
                            for row, count in zip(batch.rows, batch.counts, strict=True)])
        return {LOGITS: Signal(logits), "likeliest": Likeliest.of(logits, VOCABULARY - 1),
                "drawn": Drawn.of(logits, 4, torch.zeros(len(logits)))}[self.part]

    def said(self, ids: Any, count: int) -> torch.Tensor:
        seed = self.seed * 100_000 + int(sum(ids))
        return torch.randn(count, VOCABULARY, generator=torch.Generator().manual_seed(seed))


def examples(run: RunFile, several: Several) -> Schedule:
    """Rows of unlike length and language, of which row 3 was left out."""
    rows = [Row(text=f"row {place}", route=LANGUAGES[place % 3]) for place in range(13)]
    kept = [place for place in range(13) if place != 3]
    tokens = token_set([Learned([*range(3 + place, 9 + place + place % 4)], [(2, 5 + place % 3)]) for place in kept],
                       [0] * 12, kept)
    return Schedule(tokens, 6, 50, 0, next_tokens, rows=rows, groups=several.groups(tokens, rows))


def made(run: RunFile, *teachers: Says) -> tuple[Several, Schedule]:
    several = Several(entries(run), [(teacher, str(teacher.seed)) for teacher in teachers])
    found = examples(run, several)
    several.prepare(found, None, WANTS, Path())  # type: ignore[arg-type]
    return several, found


def table(**more: Any) -> dict[str, Any]:
    return {"kind": "local", "model": "m", **more}


MIXED = RunFile(teacher=[table(weight=1.0), table(weight=3.0)])
ROUTED = RunFile(data=Data(route="lang"), teacher=[table(route=["de", "at"]), table(route=["en"])])


def test_mixed_teachers_pull_as_the_mixture_of_what_they_say() -> None:
    """KL to each, weighted, has the gradient of the KL to the mixture, and the loss on labels counts once."""
    one, two = Says(1), Says(2)
    several, found = made(MIXED, one, two)
    (batch, *_) = found.step(0)
    told = several.signal(batch, WANTS)
    assert isinstance(told, Mixed) and len(found.split(np.arange(3))) == 1
    losses = WeightedLosses(read_losses([{"kind": "forward_kl"}, {"kind": "ce", "weight": 0.5}]), torch.nn.Linear(1, 1),
                            several)
    assert losses.needs == {"drawn"}
    logits = torch.randn(batch.count, VOCABULARY, requires_grad=True)
    labels = batch.labels % VOCABULARY
    loss = torch.cat([losses(Signal(logits[part]), told[part], labels[part])
                      for part in (slice(0, 2), slice(2, None))]).sum()
    mixture = 0.25 * one.signal(batch, WANTS).logits.softmax(-1) + 0.75 * two.signal(batch, WANTS).logits.softmax(-1)
    log_q = logits.log_softmax(-1)
    ce = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    wanted = -(mixture * log_q).sum() + 0.5 * ce
    torch.testing.assert_close(torch.autograd.grad(loss, logits)[0],
                               torch.autograd.grad(wanted, logits)[0], atol=1e-6, rtol=1e-5)
    one.part = "likeliest"
    two.part = "drawn"
    parts = several.signal(batch, WANTS)
    sparse = losses(Signal(logits), parts, labels)
    assert sparse.shape == (batch.count,) and sparse.isfinite().all()


def test_each_row_asks_the_teacher_of_its_route() -> None:
    one, two = Says(1), Says(2)
    several, found = made(ROUTED, one, two)
    assert one.prepared == [[0, 2, 5, 6, 8, 9, 11, 12]] and two.prepared == [[1, 4, 7, 10]]
    seen = list[int]()
    for batch in [*found.step(0), *found.step(1), *found.all()]:
        told = several.signal(batch, WANTS)
        assert isinstance(told, Signal)
        asked = [two if found.rows[found.tokens.sources[row]].route == "en" else one for row in batch.rows]
        wanted = [teacher.said(found.tokens.row(row), count)
                  for teacher, row, count in zip(asked, batch.rows, batch.counts, strict=True)]
        assert torch.equal(told.logits, torch.cat(wanted))
        seen += batch.rows
    assert sorted(seen) == sorted([*range(12)] * 2)


def test_a_teacher_whose_route_has_no_row_of_a_set_is_not_asked() -> None:
    run = RunFile(data=Data(route="lang"), teacher=[table(route=list(LANGUAGES)), table(route=["fr"])])
    one, two = Says(1), Says(2)
    made(run, one, two)
    assert len(one.prepared) == 1 and two.prepared == []


def test_what_is_learned_depends_on_shares_and_routes_and_names_all_parents() -> None:
    keys = {made(run, Says(1, licence), Says(2))[0].key for licence, run in {
        "mit": MIXED, "a": RunFile(teacher=[table(weight=3.0), table(weight=1.0)]), "b": ROUTED,
        "c": RunFile(teacher=[table(), table()])}.items()}
    assert len(keys) == 4
    same, unlike = made(MIXED, Says(1), Says(2))[0], made(MIXED, Says(1, "cc-by-nc-4.0"), Says(2))[0]
    assert same.licence == "mit" and unlike.licence == "cc-by-nc-4.0, mit" and len(same.parents) == 2
    assert same.key == made(RunFile(teacher=[table(weight=2.0), table(weight=6.0)]), Says(1), Says(2))[0].key


@pytest.mark.parametrize(("tables", "route", "message"), [
    ([table(route=["de"]), table(route=["en", "de"])], "lang", r"teacher\[1\].route: 'de' is taken by teacher\[0\]"),
    ([table(route=["de"]), table()], "lang", r"teacher\[1\].route: is missing"),
    ([table(route=["de"]), table(route=["en"], weight=2)], "lang", r"teacher\[1\].weight: 2, and each row has one"),
    ([table(route=["de"]), table(route=["en"])], "", "data.route: no column is named"),
    ([table(), table()], "lang", "data.route: 'lang', and no teacher has a route"),
    (table(), "lang", "data.route: 'lang', and there are no teachers to choose from"),
    (table(weight=2), "", "teacher.weight: unknown key"),
    ([table(), table(weight=0)], "", r"teacher\[1\].weight: 0, so it teaches nothing"),
    ([table(), table(weight=-1)], "", r"teacher\[1\].weight: -1.0 is below the limit"),
    ([table(), table(tune=True)], "", r"teacher\[1\].tune: of several teachers none is tuned"),
    ([table(cache={}), table(cache={})], "", r"teacher\[1\].cache.folder: teacher-cache is that of teacher\[0\]"),
    ([table(), {"kind": "gguf", "mdoel": "m"}], "", r"teacher\[1\].mdoel: unknown key"),
])
def test_tables_that_cannot_be_are_refused(tables: Any, route: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        entries(RunFile(data=Data(route=route), teacher=tables))


def test_what_is_wrong_with_one_of_several_names_its_table(tmp_path: Path) -> None:
    run = RunFile(teacher=[table(), {"kind": "local", "model": "m", "system": " "}])
    with pytest.raises(UsageError, match=r"^teacher\[1\].system: is blank"):
        entries(run)[1].told(run, tmp_path, [])
    run = RunFile(teacher=[table(), {"kind": "local", "model": "no/such/folder"}])
    with pytest.raises(UsageError, match=r"^teacher\[1\].model: 'no/such/folder'"):
        entries(run)[1].open(run, {"train": []}, tmp_path, "cpu")

    class Refuses(Says):
        def prepare(self, examples: Schedule, codec: Any, wants: Wants, cache: Path) -> None:
            raise UsageError("teacher: is for decoders")

    with pytest.raises(UsageError, match=r"^teacher\[1\]: is for decoders"):
        made(MIXED, Says(1), Refuses(2))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    """A model, the same once more, one of other weights, and rows of two languages."""
    folder = tmp_path_factory.mktemp("several")
    shutil.copytree(tiny_llama, folder / "other")
    weights = load_file(folder / "other" / "model.safetensors")
    save_file({name: value * (1.5 if "mlp" in name else 1) for name, value in weights.items()},
              folder / "other" / "model.safetensors", {"format": "pt"})
    jsonl(folder / "rows.jsonl", [{"prompt": f"turn on the light {row}", "completion": f"on {row}" * (1 + row % 2),
                                   "lang": LANGUAGES[row % 3]} for row in range(10)])
    jsonl(folder / "plain.jsonl", [{"text": f"the light {row}", "lang": "de"} for row in range(10)])
    (folder / "run.toml").write_text(
        f"data = {{ train = 'rows.jsonl', validation_share = 0.0, test_share = 0.0 }}\nstudent.model = '{tiny_llama}'\n"
        "[distill]\nsteps = 3\nbatch_size = 4\nmicro_batch_tokens = 16\n")
    return folder


def start(home: Path, tmp_path: Path, tables: list[dict[str, Any]], **data: str) -> Mapping[int, float]:
    """The loss of each row at step 0."""
    run, _, splits = read_run(home / "run.toml", [f"data.{key}={value}" for key, value in data.items()], None,
                              tmp_path / "out")
    run = RunFile(run.task, run.data, run.student, tables, distill=run.distill)
    teacher, key = open_teacher(run, home, splits)
    job = Job("distill", run, home, splits, resolve(run.student.model), run.distill, run.distill.losses, teacher, key)
    bench = Bench(job, tmp_path / "out", tmp_path / "work", "cpu", "fp32", {}, "", Progress("test"))
    codec, learner = Codec.from_folder(job.student.folder, run.task), load_model(job.student.folder, run.task).eval()
    schedules = bench.schedules(codec, bench.read_tokens(codec))
    with torch.no_grad():
        terms = WeightedLosses(read_losses(job.losses), learner, teacher)
        objective = bench.objectives(learner, terms, codec, schedules)["train"]
        return {batch.rows[0]: float(objective(batch)) / batch.count for batch in schedules["train"].all()}


def test_two_equal_teachers_have_nothing_to_teach_their_copy(home: Path, tiny_llama: Path, tmp_path: Path) -> None:
    same, other = table(model=str(tiny_llama)), table(model="other")
    kept = same | {"cache": {"folder": str(tmp_path / "kept")}}
    assert max(map(abs, start(home, tmp_path, [same | {"weight": 1}, kept | {"weight": 2}]).values())) < 1e-5
    one, three = (start(home, tmp_path, [same | {"weight": 4 - weight}, other | {"weight": weight}])
                  for weight in (1, 3))
    assert min(one.values()) > 0.001 and all(three[row] == pytest.approx(3 * one[row], rel=1e-3) for row in one)


def test_with_routes_a_copy_has_nothing_to_learn_of_its_own_rows(home: Path, tiny_llama: Path, tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    tables = [table(model=str(tiny_llama), route=["de", "at"], cache={"folder": str(tmp_path / "kept")}),
              table(model="other", route=["en"])]
    found = start(home, tmp_path, tables, route="lang")
    learned = {row for row, loss in found.items() if abs(loss) > 1e-5}
    assert len(found) == 10 and learned == {1, 4, 7} and min(found[row] for row in learned) > 0.001
    groups = Several.groups
    monkeypatch.setattr(Several, "groups", lambda self, *given: np.roll(groups(self, *given), 1))  # type: ignore
    planted = start(home, tmp_path / "planted", [tables[0] | {"cache": None}, tables[1]], route="lang")
    assert {row for row, loss in planted.items() if abs(loss) > 1e-5} == {2, 5, 8}


def test_classifiers_mix(tmp_path: Path, tiny_bert: Path, tiny_llama: Path) -> None:
    """Each read in the student's order of labels."""
    rows, turned = texts(tmp_path, tiny_llama, tiny_bert)
    jsonl(tmp_path / "rows.jsonl", [*rows, *rows])
    (tmp_path / "run.toml").write_text(
        "task.kind = 'classify'\ndata = { train = 'rows.jsonl', validation_share = 0.0, test_share = 0.0 }\n"
        f"student.model = '{tiny_bert}'\n[distill]\nsteps = 1\n")
    found = start(tmp_path, tmp_path, [table(model=str(tiny_bert)), table(model=str(turned), weight=2)])
    assert len(found) == 1 and max(map(abs, found.values())) < 1e-5


def with_teachers(home: Path, tmp_path: Path, *tables: dict[str, Any]) -> Path:
    text, path = to_toml(RunFile(teacher=list(tables))), home / f"{tmp_path.name}.toml"
    path.write_text((home / "run.toml").read_text() + text[text.index("[[teacher]]"):text.index("[tune]")])
    return path


def test_a_run_file_with_several_makes_one_student(home: Path, tiny_llama: Path, tmp_path: Path) -> None:
    path = with_teachers(home, tmp_path, table(model=str(tiny_llama), cache={"folder": str(tmp_path / "a")}),
                         table(model="other", weight=0.5, cache={"folder": str(tmp_path / "b"), "keep": "likeliest"}))
    assert fill_cache(path, tmp_path / "out") == [tmp_path / "a", tmp_path / "b"]
    made = open_artifact(distill(path, tmp_path / "out"))
    assert [parent["name"] for parent in made.manifest.parents if parent["role"] == "teacher"] == [
        tiny_llama.name, "other"]
    written = read(made.folder / "run.toml")
    assert [each["model"] for each in written.teachers] == [tiny_llama.name, "other"]
    assert str(tmp_path) not in (made.folder / "run.toml").read_text()
    with pytest.raises(UsageError, match=r"losses\[0\]: jsd needs likeliest of teacher\[0\], which provides drawn"):
        distill(path, tmp_path / "jsd", ["distill.losses=[{kind = 'jsd'}]"])
    with pytest.raises(UsageError, match="hidden compares what is inside of two models, and there are 2 teachers"):
        distill(path, tmp_path / "hidden", ["distill.losses=[{kind = 'hidden'}]"])
    with pytest.raises(UsageError, match="--cache-only: .* no cache"):
        fill_cache(with_teachers(home, tmp_path, table(model="other", cache={}), table(model="other")), tmp_path / "c")
    with pytest.raises(UsageError, match="2 teachers are no model folder that could be trained or cut"):
        distill(path, tmp_path / "cut", ["student.model="])


def test_a_row_that_no_route_takes_is_named_before_training(home: Path, tmp_path: Path) -> None:
    path = with_teachers(home, tmp_path, table(model="other", route=["de"]), table(model="other", route=["en"]))
    with pytest.raises(DataError, match=r"rows.jsonl:3: lang is 'at', and no teacher's route takes it"):
        distill(path, tmp_path / "out", ["data.route=lang"])
    with pytest.raises(DataError, match=r"plain.jsonl:1: a plain text, .* so no route finds it"):
        distill(path, tmp_path / "out", ["data.route=lang", "data.train=plain.jsonl"])
    with pytest.raises(DataError, match="the column 'lnag' is missing") as refused:
        distill(path, tmp_path / "out", ["data.route=lnag"])
    assert "did you mean 'lang'?" in (refused.value.hint or "")
