"""Writing aside and renaming, and where that must not be done."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from threading import Thread

import pytest
from edgestill.models import files


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_written_to_and_stays_one(tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = Thread(target=lambda: read.append(pipe.read_text(encoding="utf-8")), daemon=True)
    reader.start()
    files.write_text(pipe, "a line")
    reader.join(timeout=10)
    assert read == ["a line"] and stat.S_ISFIFO(pipe.stat().st_mode) and list(tmp_path.iterdir()) == [pipe]


def test_a_link_is_replaced_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    kept, link = tmp_path / "kept", tmp_path / "link"
    kept.write_text("as it was")
    link.symlink_to(kept)
    files.write_text(link, "new")
    assert kept.read_text() == "as it was" and link.read_text() == "new" and not link.is_symlink()
