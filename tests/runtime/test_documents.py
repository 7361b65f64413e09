"""Documents: what is read of each kind, what a stranger's file cannot do, passages that lose nothing, and support."""

from __future__ import annotations

import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edgestill.models.errors import DataError, EdgestillError, MissingExtra, UsageError
from edgestill.runtime.data.documents import document
from edgestill.runtime.data.documents.child import text_of
from edgestill.runtime.data.documents.document import Document, Section, find, read
from edgestill.runtime.data.documents.page_text import sections_of
from edgestill.runtime.data.documents.passages import passages, pieces
from edgestill.runtime.data.documents.support import unsupported
from edgestill.runtime.files.limited_process import Outcome
from hypothesis import given, settings
from hypothesis import strategies as st


def pdf(*contents: bytes, compressed: bool = False, more: bytes = b"", length: int | None = None) -> bytes:
    """A PDF with a page for each stream of drawing commands."""
    kids = b" ".join(b"%d 0 R" % (4 + 2 * place) for place in range(len(contents)))
    objects = [b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[%b]/Count %d>>" % (kids, len(contents)),
               b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"]
    for place, content in enumerate(contents):
        data = zlib.compress(content) if compressed else content
        objects += [b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Resources<</Font<</F 3 0 R>>>>/Contents %d 0 R>>"
                    % (5 + 2 * place), b"<</Length %d%b>>stream\n%b\nendstream" % (
                        len(data) if length is None else length, b"/Filter/FlateDecode" * compressed, data)]
    found, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(found))
        found += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    return found + b"xref\n0 %d\n0000000000 65535 f \n%btrailer<</Size %d/Root 1 0 R%b>>\nstartxref\n%d\n%%%%EOF" % (
        len(objects) + 1, table, len(objects) + 1, more, len(found))


def shown(text: str) -> bytes:
    """Drawing commands for one line."""
    return b"BT /F 12 Tf 40 700 Td (%b) Tj ET" % text.encode()


def file(folder: Path, name: str, content: bytes | str) -> Path:
    """A file in a folder."""
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read in this process what is read in one of its own, which costs a second."""
    def run(module: str, job: dict[str, Any], **limits: Any) -> Outcome:
        try:
            return Outcome(list(text_of(job)))
        except EdgestillError as error:
            return Outcome([], error=error)

    monkeypatch.setattr("edgestill.runtime.files.limited_process.run", run)


PAGE = """<html><head><title>Not this</title><script>var x = "<p>nor this</p>";</script><style>p {}</style></head><body>
<h1>Big  <b>day</b></h1><p>Hello&nbsp;there &amp; you,<br>all.</p><ul><li>one<li>two <i>more</i></ul>
<pre>
def f():
    return 1
</pre><table><tr><td>a</td><td>b</td></tr></table><noscript>no</noscript><h2>Next</h2>tail</body></html>"""


def test_a_page_is_what_its_reader_sees(tmp_path: Path) -> None:
    found = read(file(tmp_path, "page.html", PAGE))
    assert [section.heading for section in found.sections] == ["Big day", "Next"]
    assert found.sections[0].text == ("Big day\n\nHello there & you,\nall.\n\n- one\n- two more\n\ndef f():\n"
                                      "    return 1\n\na b\n\n")
    assert found.sections[1].text == "Next\n\ntail\n\n"


def test_the_words_of_odd_pages_are_found_or_left_and_never_run() -> None:
    for source, text in [("<p>a" * 5000, "a\n\n" * 5000), ("<div>" * 20_000 + "deep", "deep\n\n"),
                         ("<script>if (a</b) <p>x", ""), ("a<svg><title>no</svg>b</title></svg>c", "ac\n\n"),
                         ("&#0;&#xD800;x", "\ufffd\ufffdx\n\n"), ("a<td>b</td> <p> c</p>", "a b\n\nc\n\n")]:
        assert "".join(section["text"] for section in sections_of(source)) == text


def test_markdown_has_headings_but_in_code(tmp_path: Path) -> None:
    text = "intro\n# One #\r\ntext\n```sh\n# no\n~~~\n```\n## Two\n~~~\n# no\n"
    found = read(file(tmp_path, "a.md", text))
    assert found.text == text and [section.heading for section in found.sections] == ["", "One", "Two"]


@pytest.mark.parametrize(("name", "content", "text"), [
    ("a.txt", b"\xef\xbb\xbfgr\xc3\xbcn", "grün"), ("a.txt", "grün".encode("utf-16"), "grün"),
    ("a.html", b"<meta charset='windows-1252'><p>gr\xfcn \x80", "grün €\n\n"),
    ("a.html", '<meta http-equiv=x content="text/html; charset=utf-8">grün', "grün\n\n")])
@pytest.mark.usefixtures("in_process")
def test_encodings_that_a_file_says_are_read(name: str, content: bytes | str, text: str, tmp_path: Path) -> None:
    assert read(file(tmp_path, name, content)).text == text


@pytest.mark.parametrize(("name", "content", "words"), [
    ("a.txt", b"gr\xfcn", "not utf-8 at byte 2"), ("a.txt", b"a\0b", "a NUL character at 1"),
    ("a.md", b"\xff\xfe\0\0x\0\0\0", "a NUL character at 0"), ("a.txt", " \n", "there is no text in it"),
    ("a.txt", b"\xff\xfea", "not utf-16-le"),
    ("a.html", b"<meta charset=zip_codec>x\x9c", "not zip_codec"), ("a.html", b"<p>a\0b", "a NUL character"),
    ("a.html", b"<meta charset=utf-16><p>odd", "not utf-16"), ("a.html", "<script>all", "there is no text in it")])
@pytest.mark.usefixtures("in_process")
def test_what_is_no_text_is_refused_by_name(name: str, content: bytes | str, words: str, tmp_path: Path) -> None:
    path = file(tmp_path, name, content)
    with pytest.raises(DataError) as refused:
        read(path)
    assert refused.value.message.startswith(f"{path}: {words}")


def test_files_are_found_and_others_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    paths = [file(tmp_path, name, "x") for name in ("b.md", "a.PDF", "c.docx")]
    assert find([tmp_path, paths[0]]) == [paths[1], paths[0]]
    assert f"{tmp_path}: not read, since their kinds are not known here: 1 files, as {paths[2]}" in \
        capsys.readouterr().err
    linked = tmp_path / "elsewhere" / "linked"
    linked.parent.mkdir()
    linked.symlink_to(tmp_path, target_is_directory=True)
    assert find([linked.parent]) == [linked / "a.PDF", linked / "b.md"]
    with pytest.raises(UsageError, match=r"c.docx: '.docx' is no kind of document"):
        find([paths[2]])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="empty: no document in this folder"):
        find([tmp_path / "empty"])
    with pytest.raises(DataError, match="none.txt: no such file"):
        read(tmp_path / "none.txt")
    monkeypatch.setattr(document, "MOST_CHARACTERS", 3)
    with pytest.raises(DataError, match="more than 3 characters of text"):
        read(file(tmp_path, "long.txt", "four"))
    monkeypatch.setattr(document, "MOST_BYTES", 3)
    with pytest.raises(DataError, match=r"long.txt: 4 bytes, and documents of up to 3 are read"):
        read(tmp_path / "long.txt")


def test_pages_of_a_pdf_are_numbered(tmp_path: Path) -> None:
    pytest.importorskip("pypdf", reason="the extra label")
    found = read(file(tmp_path, "a.pdf", pdf(shown("First page."), b"", shown("Third page."), compressed=True)))
    assert [(section.page, section.text) for section in found.sections] == [
        (1, "First page.\n\n"), (3, "Third page.\n\n")]


BOMB = zlib.compress(b"0 " * 40_000_000, 1)
ENCRYPTED = b"/Encrypt<</Filter/Standard/V 1/R 2/O(%b)/U(%b)/P -4>>/ID[(0)(0)]" % (b"o" * 32, b"u" * 32)


@pytest.mark.parametrize(("content", "words"), [
    (pdf(shown("x"), more=ENCRYPTED), "it is encrypted"), (b"no PDF at all", "damaged, or made to be"),
    (pdf(shown("x")).replace(b"/Pages 2 0 R", b"/Pages 9 0 R"), "damaged, or made to be")])
def test_pdfs_that_cannot_be_read_are_refused_by_name(content: bytes, words: str, tmp_path: Path) -> None:
    pytest.importorskip("pypdf", reason="the extra label")
    path = file(tmp_path, "a.pdf", content)
    with pytest.raises(DataError) as refused:
        list(text_of({"path": str(path), "pdf": True}))
    assert refused.value.message.startswith(f"{path}: {words}")


@pytest.mark.parametrize(("content", "words"), [
    (lambda: pdf(b""), "there is no text in it"),
    (lambda: pdf(BOMB).replace(b"/Length", b"/Filter/FlateDecode/Length"), "damaged"),
    (lambda: pdf(shown("x")).replace(b"/Kids[4 0 R]", b"/Kids[2 0 R]"), "")])
def test_pdfs_that_are_made_to_harm_are_refused_by_name(content: Callable[[], bytes], words: str,
                                                        tmp_path: Path) -> None:
    pytest.importorskip("pypdf", reason="the extra label")
    path = file(tmp_path, "a.pdf", content())
    began = time.monotonic()
    with pytest.raises(DataError) as refused:
        read(path)
    assert refused.value.message.startswith(f"{path}: {words}") and time.monotonic() - began < 30


def test_a_length_of_two_gigabytes_is_a_claim_and_no_more(tmp_path: Path) -> None:
    pytest.importorskip("pypdf", reason="the extra label")
    path = file(tmp_path, "a.pdf", pdf(shown("Small after all."), length=2**31))
    assert path.stat().st_size < 2000
    try:
        assert read(path).text == "Small after all.\n\n"
    except DataError as refused:
        assert refused.message.startswith(f"{path}: ")


def test_a_reader_that_does_not_come_to_an_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "SECONDS", 0.05)
    with pytest.raises(DataError, match=r"a.html: its text cannot be taken out within 0.05 s .*longer than"):
        read(file(tmp_path, "a.html", "<p>x"))


def test_too_much_text_and_a_missing_package_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgestill.runtime.data.documents.child.MOST_CHARACTERS", 3)
    with pytest.raises(DataError, match="characters of text"):
        list(text_of({"path": str(file(tmp_path, "a.html", "four")), "pdf": False}))
    monkeypatch.setitem(sys.modules, "pypdf", None)
    with pytest.raises(MissingExtra, match="pypdf is not installed"):
        list(text_of({"path": str(file(tmp_path, "a.pdf", "x")), "pdf": True}))


SECTIONS = st.lists(st.builds(Section, st.text("ab. \n", min_size=1, max_size=60), st.sampled_from([None, 1, 2]),
                              st.sampled_from(["", "H"])), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(SECTIONS, st.integers(2, 50))
def test_passages_joined_are_the_document(sections: list[Section], longest: int) -> None:
    made = Document("d", tuple(sections))
    found = list(passages(made, longest))
    assert "".join(passage.text for passage in found) == made.text
    assert all(made.text[passage.start:passage.end] == passage.text for passage in found)
    assert all(0 < len(passage.text) <= longest for passage in found)


def test_passages_end_where_something_ends() -> None:
    assert list(pieces("One. Two three.\n\nFour five. Six", 20)) == ["One. Two three.\n\n", "Four five. Six"]
    assert list(pieces("aaaa bbbb cccc dddd", 11)) == ["aaaa bbbb ", "cccc dddd"]
    assert list(pieces("x" * 25, 10)) == ["x" * 10, "x" * 10, "x" * 5]
    made = Document("d.md", (Section("intro\n"), Section("# A\nshort\n", heading="A"),
                             Section("# B\nlong\n", heading="B")))
    assert [(passage.heading, passage.place, passage.text) for passage in passages(made, 20)] == [
        ("A", "d.md, A", "intro\n# A\nshort\n"), ("B", "d.md, B", "# B\nlong\n")]
    paged = Document("m.pdf", (Section("a", 1), Section("b", 2)))
    assert [passage.source() for passage in passages(paged, 20)][1] == {
        "passage": "b", "document": "m.pdf", "page": 2, "start": 1, "end": 2}


TEXT = """The pump runs at 12 bar and 1,200 rpm. Ada Lovelace's team built three GPUs for it in May 2031.
They said “never again” and set `max_rows`."""


@pytest.mark.parametrize(("answer", "reason"), [
    ("At 1200 rpm.", ""), ("At 1,200 rpm and 12 bar.", ""), ("It was Ada Lovelace.", ""),
    ("By the Ada team: a GPU.", ""),
    ('They said "never  again".', ""), ("Set 'max_rows' so.", ""), ("Because it runs.", ""),
    ("At 2 bar.", "a number"), ("At 1200.5 rpm.", "a number"), ("In 031.", "a number"), ("Napoleon did.", "a name"),
    ("It was Ada Byron.", "a name"), ("It was NATO.", "a name"), ("With one iPump.", "a name"),
    ('They said "never".', ""), ('They said "always".', "quotes"), ("Set `min_rows`.", "quotes"),
    ("Es sagte «nein».", "quotes"), ("The pumps of the teams.", ""), ("It is cheap, fast and pretty.", "words"),
    ("It overheats whenever somebody forgets it.", "words that are mostly")])
def test_what_an_answer_names_must_stand_in_its_passage(answer: str, reason: str) -> None:
    assert unsupported(TEXT, "What of the pressure and the pump?", answer).startswith(reason)
    assert bool(unsupported(TEXT, "What of the pressure and the pump?", answer)) == bool(reason)


def test_a_question_must_stand_in_the_passage_too() -> None:
    assert unsupported(TEXT, "Who is Napoleon?", "It was Ada.") == "a name that is not in the passage"
    assert unsupported(TEXT, "What was in 1999?", "The pump.") == "a number that is not in the passage"
    assert unsupported(TEXT, "Welcher?", "12 bar") == ""
