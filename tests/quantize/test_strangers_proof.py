"""An artifact whose proof anyone may have written: it proves something or is refused, and ends no process of ours."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from edgestill.models.artifact import open_artifact
from edgestill.models.errors import ArtifactError
from edgestill.quantize import verify
from edgestill.quantize.proof import divergence, prove, reference, reference_checks
from edgestill.quantize.proof.reference import Fixtures, Reference
from edgestill.runtime.engines import gguf
from edgestill.runtime.loading.foreign import UNVERIFIED
from edgestill.runtime.text.codec import Codec

from .. import packed, tiny


@pytest.fixture(scope="module")
def known(packed_llama: dict[str, Path]) -> Reference:
    """What the file says of itself: a stranger's proof that holds."""
    codec, texts = Codec.from_folder(packed_llama["gguf"]), tiny.SENTENCES[:4]
    ids = [np.array(codec.encode(text), np.int32) for text in texts]
    engine = gguf.open(open_artifact(packed_llama["gguf"]), 1, 0)
    best, logprobs, tails = zip(*(reference.top(engine.logits(one.tolist())) for one in ids), strict=True)
    engine.close()
    return Reference(Fixtures(texts, {}, [], False, sorted(codec.stop_ids), {}), ids, ids, ids, list(best),
                     list(logprobs), list(tails), np.zeros((0, 0), np.float32))


@pytest.fixture
def artifact(packed_llama: dict[str, Path], known: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = shutil.copytree(packed_llama["gguf"], tmp_path / "artifact")
    known.write(folder)
    packed.resealed(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))  # of what was made here nothing is known there
    return folder


def test_a_strangers_file_is_opened_elsewhere_first(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proven = verify(artifact, threads=1, quick=True)
    assert proven.origin == UNVERIFIED and {check.name: check.passed for check in proven.checks}["kl_nats"]

    def crashed(_: object) -> None:
        raise ArtifactError("the engine crashed (SIGABRT)", "get it again")
    monkeypatch.setattr(prove, "try_out", crashed)
    monkeypatch.setattr(prove, "Subject", lambda *_, **__: pytest.fail("it was opened here"))
    proven = verify(artifact, threads=1, quick=True)
    assert [check.name for check in proven.failed] == ["opens"] and "SIGABRT" in proven.failed[0].detail
    monkeypatch.undo()
    (artifact / "certificate.json").write_text("[" * 10**5)
    packed.resealed(artifact)
    assert "nested" in verify(artifact).failed[0].detail or "recursion" in verify(artifact).failed[0].detail


def spoilt(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Reference], Reference]:
    return lambda known: replace(known, **{name: [change(part) for part in getattr(known, name)]})


SPOILT: list[tuple[str, Callable[[Reference], Reference]]] = [
    ("no texts or no tokens", lambda known: replace(known, sequences=[], top_ids=[], top_logprobs=[], tails=[])),
    ("no texts or no tokens", lambda known: replace(known, text_ids=[], special_ids=[],
                                                    fixtures=replace(known.fixtures, texts=[]))),
    ("no texts or no tokens", spoilt("sequences", lambda part: part[:0])),
    ("fixtures.json has 4", lambda known: replace(known, text_ids=known.text_ids[1:])),
    ("no lists of whole numbers", spoilt("special_ids", lambda part: part.astype("<U8"))),
    ("no lists of whole numbers", spoilt("sequences", lambda part: part[:, None])),
    ("types of other tokens", lambda known: replace(known, type_ids=[np.zeros(1, np.int8)] * 4)),
    ("4, 4, 4, 3 sequences", lambda known: replace(known, tails=known.tails[1:])),
    ("1, 0, 0, 0 sequences", lambda known: replace(known, beyond_ids=known.sequences[:1])),
    ("likeliest ones of the shapes", spoilt("top_ids", lambda part: part[:, 0])),
    ("likeliest ones of the shapes", spoilt("tails", lambda part: part[1:])),
    ("that are no ids", spoilt("top_ids", lambda part: part.astype(np.int32) - 1000)),
    ("that are no ids", spoilt("top_ids", lambda part: part.astype(np.float32))),
    ("probabilities that are no numbers", spoilt("top_logprobs", lambda part: part * np.float16(np.nan))),
    ("probabilities that are no numbers", spoilt("tails", lambda part: part + np.float32(np.inf))),
]


@pytest.mark.parametrize(("message", "spoil"), SPOILT, ids=range(len(SPOILT)))
def test_a_reference_that_cannot_prove_anything_is_refused(message: str, spoil: Callable[[Reference], Reference],
                                                           known: Reference) -> None:
    reference_checks.check(known, True)
    with pytest.raises(ArtifactError, match=message):
        reference_checks.check(spoil(known), True)


def test_an_encoders_reference_needs_an_output_for_each_text(known: Reference) -> None:
    outputs = np.ones((4, 3), np.float32)
    reference_checks.check(replace(known, outputs=outputs, top_ids=[], top_logprobs=[], tails=[]), False)
    for wrong in (outputs[1:], outputs[:, 0], outputs * np.float32(np.nan)):
        with pytest.raises(ArtifactError, match="outputs of the shape"):
            reference_checks.check(replace(known, outputs=wrong), False)


def test_verify_looks_at_the_reference(artifact: Path, known: Reference) -> None:
    replace(known, sequences=[], top_ids=[], top_logprobs=[], tails=[]).write(artifact)
    packed.resealed(artifact)
    with pytest.raises(ArtifactError, match="no texts or no tokens"):
        verify(artifact, threads=1)


def test_what_is_no_number_is_no_evidence() -> None:
    """A probability that is none once counted as agreement."""
    ids, logits = np.array([[0, 1]]), np.zeros((1, 4), np.float32)
    logprobs = np.log(np.array([[0.25, 0.25]]))
    assert divergence.kl_of_top(ids, logprobs, np.array([0.5]), logits) == pytest.approx(0.0, abs=1e-9)
    for one, tail in ((logprobs * np.nan, 0.5), (logprobs, np.nan)):
        assert np.isnan(divergence.kl_of_top(ids, one, np.array([tail]), logits)).all()
    with pytest.raises(ArtifactError, match="go up to 9, the file has 4"):
        divergence.kl_of_top(ids + 8, logprobs, np.array([0.5]), logits)
