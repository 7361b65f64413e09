"""The tokenizer of a run file's student, where it is on this machine: nothing is downloaded to look at rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...models import catalogue
from . import gguf_files

if TYPE_CHECKING:
    from ...models.runfile import RunFile
    from ...runtime.data.reader import Row
    from ...runtime.text.codec import Codec

FILES = ("tokenizer*.json", "special_tokens_map.json", "chat_template.jinja", "additional_chat_templates/*",
         "generation_config.json", "config.json")


def folder_of(model: str, revision: str = "", base: Path | None = None) -> Path | None:
    """The folder of a model (a folder or a GGUF file relative to `base`, a catalogue or a hub name) whose
    tokenizer.json lies here; None where it does not."""
    folder = gguf_files.folder((base or Path()) / model)
    if model and not folder.is_dir():
        try:
            from huggingface_hub import snapshot_download
            from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
        except ImportError:
            return None
        name = catalogue.entry(model).hub_id if model in catalogue.names() else model
        try:
            folder = Path(snapshot_download(name, revision=revision or None, allow_patterns=list(FILES),
                                            local_files_only=True))
        except (HFValidationError, LocalEntryNotFoundError):
            return None
    return folder if model and (folder / "tokenizer.json").is_file() else None


def codec_of(run: RunFile, base: Path, rows: Sequence[Row], given: Path | None = None) -> Codec | None:
    """The student's tokenizer and template as training uses them on `rows`; of the folder `given`, where there is one.
    None where neither lies on this machine."""
    from ...runtime.data.learned_tokens import settled
    from ...runtime.text.codec import Codec

    folder = given or folder_of(run.start, run.student.revision, base)
    if folder is None:
        return None
    codec = Codec.from_folder(folder, replace(run.task, template_options={}))
    template = ""
    if run.student.template and given is None:
        from ...distill.student_template import read

        template = read(run.student.template, base)
    codec = codec.changed(run.task.template_options, template)
    return codec.changed(settled(codec, rows), template) if run.task.kind == "generate" else codec
