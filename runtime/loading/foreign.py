"""Models made elsewhere, a bare .gguf, an ONNX folder or a Hugging Face folder, as artifacts of unverified origin.

Each is read strictly first, by this project's own readers; what an engine makes of it is then tried in a limited
process before it is opened in this one. What only they need is imported inside functions: our own files start fast.
"""

from __future__ import annotations

import re
from pathlib import Path

from ...models import origin
from ...models.artifact import FOREIGN, MANIFEST, Artifact, FileEntry, Manifest, Tokenizer, is_artifact, open_artifact
from ...models.errors import ArtifactError, UsageError
from ...models.scheme import bits_of
from ...models.task import Task
from ..files.model_files import check_folder, classifier_config, read_table
from ..text.codec import Codec

UNVERIFIED = "origin unverified"
CERTIFICATE = "certificate.json"
TRIAL, TRIAL_SECONDS = f"{__package__}.trial", 300.0
"""The module that opens a model made elsewhere, and how long it may take."""
_POOLINGS = {1: "mean", 2: "cls"}
"""llama.cpp's numbers of the ways to pool."""


def open_model(path: Path) -> Artifact:
    """An artifact, or a model made elsewhere as one that stands in memory alone.

    Raises ArtifactError for what is damaged or no model, UsageError for a kind that no engine here knows.
    """
    if path.is_file():
        if path.suffix == ".gguf":
            return _gguf(path)
        if path.suffix == ".onnx":
            return _onnx(path.parent.parent if path.parent.name == "onnx" else path.parent, path)
        raise ArtifactError(f"{path}: neither a .gguf nor an .onnx file",
                            "give an artifact, a .gguf file, an ONNX folder or a Hugging Face folder")
    if path.suffix in (".gguf", ".onnx") and not path.exists():
        raise ArtifactError(f"{path}: no such file", "give an artifact, a .gguf file, an ONNX folder or a Hugging Face "
                            "folder")
    # A folder with a certificate and no manifest is an export that failed or never ended, not a foreign model.
    if not path.is_dir() or is_artifact(path) or (path / CERTIFICATE).is_file():
        return open_artifact(path)
    graph = _graph(path)
    if graph is not None:
        return _onnx(path, graph)
    files = sorted(path.glob("*.gguf"))
    if len(files) == 1:
        return _gguf(files[0])
    if files:
        raise UsageError(f"{path}: {len(files)} GGUF files in it", f"name one, such as {files[0]}")
    if (path / "config.json").is_file() and any(path.glob("*.safetensors")):
        return _hugging_face(path)
    return open_artifact(path)


def is_foreign(artifact: Artifact) -> bool:
    """Whether nothing says where a model comes from."""
    return artifact.manifest.stage == FOREIGN


def is_stranger(artifact: Artifact) -> bool:
    """Whether a model was made elsewhere: without a manifest, or with one that was not written here."""
    manifest = artifact.folder / MANIFEST  # written last: what has none yet is being made here
    return is_foreign(artifact) or (manifest.is_file() and not origin.is_ours(manifest))


def place(artifact: Artifact) -> Path:
    """The path that `open_model` opens it by again."""
    return artifact.model_path if is_foreign(artifact) else artifact.folder


def codec_of(artifact: Artifact, task: Task | None = None) -> Codec:
    """Tokenizer and template of a model: of the files beside it, or of a bare GGUF file itself."""
    if is_foreign(artifact) and artifact.model_path.suffix == ".gguf":
        from ..text import gguf_tokenizer

        return gguf_tokenizer.codec(artifact.model_path, task)
    return Codec.from_folder(artifact.folder, task, is_stranger(artifact))


def try_out(artifact: Artifact) -> None:
    """Check the hashes of a model made elsewhere, where it has any, open it in a limited process and let it answer
    once; ArtifactError when that fails. With hashes, the same bytes are tried once on a machine."""
    import logging

    from ..files import limited_process

    manifest = artifact.folder / MANIFEST
    if not is_foreign(artifact):
        artifact.verify()
        if origin.was_tried(manifest):
            return
    logging.getLogger(__name__).warning("%s: %s", artifact.model_path, UNVERIFIED)
    outcome = limited_process.run(TRIAL, {"path": str(place(artifact))}, artifact.model_bytes(), TRIAL_SECONDS)
    if outcome.error is not None:
        raise outcome.error
    if outcome.crash:
        raise ArtifactError(f"{artifact.model_path}: {outcome.crash}",
                            "the file is damaged or not made for this engine: get it again from who made it")
    if not is_foreign(artifact):
        origin.note(manifest, origin.TRIED)


def _gguf(path: Path) -> Artifact:
    from ...models import family
    from ..files import gguf_header

    header = gguf_header.read(path)
    known = {rules.architecture: name for name in reversed(family.names()) if (rules := family.load(name).gguf)}
    if header.architecture not in known:
        raise UsageError(f"{path}: a GGUF file of the architecture {header.architecture!r}, which is not known here",
                         f"known: {', '.join(sorted(known))}")
    if header.values.get("split.count", 0) > 1:
        raise UsageError(f"{path}: one of {header.values['split.count']} parts",
                         "join them first, with llama-gguf-split --merge")
    matrices = [tensor.type for tensor in header.tensors if len(tensor.shape) > 1]
    dimensions = {"parameters": header.parameters, "vocabulary": header.tokens,
                  "layers": header.dimension("block_count"), "hidden": header.dimension("embedding_length"),
                  "context": header.dimension("context_length")}
    ids = {name: header.values.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos")}
    name = known[header.architecture]
    task = Task(kind="generate")
    if "generate" not in family.load(name).tasks:
        pooling = header.values.get(f"{header.architecture}.pooling_type")
        if pooling not in _POOLINGS:
            raise UsageError(f"{path}: an encoder that pools in the way {pooling!r}, which is not known here",
                             f"known: {', '.join(f'{number} ({way})' for number, way in _POOLINGS.items())}")
        task = Task(kind="embed", pooling=_POOLINGS[pooling])
    return _artifact(path.parent, path, f"gguf:{min(matrices, key=bits_of)}", name, task, dimensions,
                     Tokenizer(ids["bos"], ids["eos"]), [path])


def _onnx(folder: Path, path: Path) -> Artifact:
    from ..files import onnx_header

    header = onnx_header.read(path)
    config, genai = read_table(folder / "config.json"), read_table(folder / "genai_config.json", "model")
    if not config and not genai:
        raise ArtifactError(f"{folder}: neither config.json nor genai_config.json in it, which say what the graph is",
                            "copy the whole model folder")
    names = config.get("architectures")
    name = str(names[0]) if isinstance(names, list) and names else ""
    task = Task()
    if name.endswith("ForSequenceClassification"):
        from ..encoders.head import Head

        head = Head.of(Task(kind="classify"), classifier_config(folder))
        task = Task(kind="classify", labels=list(head.labels), head=head.kind)
    elif re.search(r"For(?!CausalLM|ConditionalGeneration)\w+$", name):
        raise UsageError(f"{path}: config.json says {name}, and heads of that kind are not run",
                         "give a generator (…ForCausalLM) or a classifier (…ForSequenceClassification)")
    needed = {"input_ids", "attention_mask"} - header.inputs | {"logits"} - header.outputs
    if needed:
        raise ArtifactError(f"{path}: no {' and no '.join(sorted(needed))} among its inputs and outputs",
                            "generators and classifiers are run, exported with input_ids, attention_mask and logits")
    context = genai.get("context_length") or config.get("max_position_embeddings") or config.get("n_positions")
    decoder = read_table(folder / "genai_config.json", "model", "decoder")
    dimensions = {"vocabulary": genai.get("vocab_size") or config.get("vocab_size"), "context": context,
                  "layers": decoder.get("num_hidden_layers") or config.get("num_hidden_layers"),
                  "hidden": decoder.get("hidden_size") or config.get("hidden_size")}
    ends = genai.get("eos_token_id", [])
    stop_ids = [end for end in (ends if isinstance(ends, list) else [ends]) if isinstance(end, int)]
    outside = {path.parent / place["location"] for place in header.places}
    return _artifact(folder, path, f"onnx:{header.type}", str(config.get("model_type") or genai.get("type", "")), task,
                     {key: value for key, value in dimensions.items() if isinstance(value, int)},
                     Tokenizer(stop_ids=stop_ids), [path, *sorted(outside)])


def _hugging_face(folder: Path) -> Artifact:
    from ...models import family

    check_folder(folder)
    config = read_table(folder / "config.json")
    member = family.of_config(config, training=True)
    dimensions = {key: int(member.of(config, key)) for key in ("layers", "hidden")}
    weights = sorted(folder.glob("*.safetensors"))
    task = Task(kind=member.tasks[0])
    return _artifact(folder, weights[0], "hf", member.name, task, dimensions, Tokenizer(), weights)


def _artifact(folder: Path, model: Path, scheme: str, name: str, task: Task, dimensions: dict[str, int],
              tokenizer: Tokenizer, files: list[Path]) -> Artifact:
    entries = {file.relative_to(folder).as_posix(): FileEntry("", file.stat().st_size) for file in files}
    return Artifact(folder, Manifest(
        stage=FOREIGN, task=task, family=name, scheme=scheme, model_file=model.relative_to(folder).as_posix(),
        dimensions=dimensions, tokenizer=tokenizer, files=entries))


def _graph(folder: Path) -> Path | None:
    """The graph of an ONNX folder: what genai_config.json names, or the only one there is; None without any."""
    named = read_table(folder / "genai_config.json", "model", "decoder").get("filename")
    if named is not None:
        path = folder / str(named)
        if not path.is_file() or not path.resolve().is_relative_to(folder.resolve()):
            raise ArtifactError(f"{folder}: genai_config.json names {named!r}, and there is no such file in the folder",
                                "copy the whole model folder")
        return path
    found = sorted([*folder.glob("*.onnx"), *folder.glob("onnx/*.onnx")])
    if len(found) > 1:
        raise UsageError(f"{folder}: {len(found)} ONNX graphs in it", f"name one, such as {found[0]}")
    return found[0] if found else None
