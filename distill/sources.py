"""Where a model to train or to learn from lies: a folder, an artifact, a GGUF file, a catalogue name or a hub name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..models import catalogue, files, hub
from ..models.artifact import is_artifact, open_artifact
from ..models.errors import ArtifactError, UsageError
from ..models.family import of_config
from ..quantize.source import folder_checks
from ..quantize.source.checkpoint import stored
from ..quantize.unpack.folder import VERSION, digest, is_gguf, unpacked
from ..runtime.files.model_files import check_folder, read_table
from ..runtime.text import unembedded
from ..runtime.text.codec import Codec
from ..runtime.text.tokenizer_files import PROCESSOR_TEMPLATE

HUB_FILES = ("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "tokenizer.json",
             "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "additional_chat_templates/*",
             "README.md", "adapter_config.json", PROCESSOR_TEMPLATE)
READ_FILES = tuple(pattern for pattern in HUB_FILES if pattern != "README.md")
"""What training and export read of a folder; of its README.md only the licence."""


@dataclass(frozen=True)
class Source:
    """A checked Hugging Face folder on this machine and where it came from."""

    folder: Path
    name: str
    """What the run file calls it, such as smollm2-135m or a path."""
    revision: str
    """The hub's commit; empty for a folder."""
    licence: str
    lineage: tuple[dict[str, Any], ...] = ()
    """What the manifest of an artifact names as its parents."""

    def parent(self, role: str) -> dict[str, Any]:
        """The entry for a manifest's parents; a folder is named by the hash of its weights."""
        if self.revision:
            return {"role": role, "name": self.name, "revision": self.revision}
        return {"role": role, "name": Path(self.name).name, "sha256": weights_digest(self.folder)}


def resolve(model: str, revision: str = "", base: Path | None = None, key: str = "model") -> Source:
    """Find `model`: a folder or a GGUF file (relative to `base`), a catalogue name, or a hub name, which is downloaded
    unless it is in the hub's cache already or HF_HUB_OFFLINE is set. `key` is the run file's key, for messages.

    Raises UsageError for a name that is none of these or cannot be downloaded; ArtifactError for a folder that is
    no plain Hugging Face model: packed, pickled, with code of its own, or a LoRA adapter.
    """
    folder, name, commit = located(model, revision, base, key)
    if not commit and is_artifact(folder):
        return _artifact(folder, model)
    check(folder)
    licence = catalogue.entry(model).licence if commit and model in catalogue.names() else card_licence(folder)
    return Source(folder, name, commit, licence)


def located(model: str, revision: str = "", base: Path | None = None, key: str = "model") -> tuple[Path, str, str]:
    """The folder of `model`, unchecked, its name, and the hub's commit where it comes from there. Errors as of
    `resolve`."""
    folder = unpacked((base or Path()) / model)
    if folder.is_dir():
        return folder, model, ""
    hub_id = hub_name(model, key)
    folder = hub.snapshot(hub_id, revision) or _download(hub_id, revision, key)
    return folder, hub_id, folder.name


def hub_name(model: str, key: str = "model") -> str:
    """The hub's name of a catalogue name or of itself; UsageError for what is neither (and no folder)."""
    if model in catalogue.names():
        return catalogue.entry(model).hub_id
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", model) or model.startswith((".", "~")):
        raise UsageError(f"{key}: {model!r} is no folder, GGUF file, catalogue name or hub name (owner/name)",
                         f"catalogue names: {', '.join(catalogue.names())}")
    return model


def check(folder: Path) -> dict[str, Any]:
    """The content of config.json of a folder that training may start from.

    Raises ArtifactError or UsageError naming what is wrong with it, before any weight is read.
    """
    folder_checks.check_adapter(folder)
    if not (folder / "config.json").is_file():
        raise ArtifactError(f"{folder}: no config.json in it, so it is no Hugging Face model folder",
                            "give a folder that save_pretrained, tune or distill wrote; packed files cannot be trained")
    check_folder(folder)
    config = read_table(folder / "config.json")
    folder_checks.check_config(folder, config)
    if not any(folder.glob("*.safetensors")):
        pickled = next((path.name for path in sorted(folder.glob("*")) if path.suffix in (".bin", ".pt", ".pth")), None)
        found = f"its weights are pickled ({pickled})" if pickled else "no weights in it"
        raise ArtifactError(f"{folder}: {found}; only .safetensors are read",
                            "unpickling runs code: convert it with transformers in a place you trust (save_pretrained)")
    stored(folder, config, of_config(config, training=True))
    return config


def check_tokenizer(folder: Path) -> None:
    """Refuse a tokenizer that is not the one of the weights: ArtifactError naming token and id."""
    config = read_table(folder / "config.json")
    family = of_config(config, training=True)
    entries = stored(folder, config, family)
    embedding = next((entries[name] for name in family.embedding if name in entries), None)
    if embedding is not None:
        unembedded.check_ids(folder, Codec.from_folder(folder).tokenizer, embedding.shape[0])


def weights_digest(folder: Path) -> str:
    """One SHA-256 over all that is read of a model's folder: weights, configs, tokenizer, its settings, templates."""
    import hashlib

    digest = hashlib.sha256()
    for path in sorted({path for pattern in READ_FILES for path in folder.glob(pattern) if path.is_file()}):
        digest.update(f"{path.relative_to(folder).as_posix()} {files.sha256(path)}\n".encode())
    return digest.hexdigest()


def stands_for_model(name: str, revision: str, key: str, fetch: bool) -> Any:
    """What stands for a model where content counts, as JSON values: of a folder or file a digest, of the hub's the
    commit (None for one that is not here, unless `fetch` allows a download); with the licence that is passed on. Errors
    as of `resolve`."""
    path = Path(name)
    if folder_checks.is_adapter(path):  # with its base it becomes a model; alone it is refused when it is trained
        return {"sha256": weights_digest(path)}
    if is_gguf(path):
        return {"sha256": digest(path), "unpacked": VERSION}
    if path.is_dir():
        source = resolve(name, key=key)
        return {"sha256": weights_digest(source.folder), "licence": source.licence}
    hub_id = hub_name(name, key)
    if fetch:
        return {"name": hub_id, "commit": located(name, revision, key=key)[2]}
    here = hub.snapshot(hub_id, revision)
    return {"name": hub_id, "commit": here.name if here else None}


def _download(hub_id: str, revision: str, key: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub_id, revision=revision or None, allow_patterns=list(HUB_FILES)))
    except Exception as error:  # the hub's client raises a dozen types; all of them mean: not there, or no way there
        reason = str(error).strip().splitlines()
        raise UsageError(f"{key}: {hub_id!r} could not be loaded from the hub: {reason[0] if reason else error!r}",
                         "check name, revision and network; a private model needs `hf auth login`; "
                         "offline only models downloaded before can be used") from error


def _artifact(folder: Path, name: str) -> Source:
    artifact = open_artifact(folder)
    manifest = artifact.manifest
    if manifest.scheme != "hf":
        raise ArtifactError(f"{folder}: holds a model packed as {manifest.scheme}, which cannot be trained",
                            "give the trained artifact it was exported from")
    artifact.verify()
    check(folder)
    return Source(folder, name, "", manifest.licences.get("model", "unknown"), tuple(manifest.parents))


def card_licence(folder: Path) -> str:
    """The licence that the front matter of the model's README.md names."""
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    front = text.split("\n---", 1)[0] if text.startswith("---") else ""
    match = re.search(r"^licen[sc]e:\s*[\"']?([^\s\"']+)", front, re.MULTILINE)
    return match[1] if match else "unknown"
