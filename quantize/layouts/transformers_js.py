"""transformers.js 3 and 4: where it looks for a graph, and what its own table in config.json must say.

The graph's name says how it is stored, external data is read only when config.json declares it, and the chat template
is read from tokenizer_config.json alone. Version 3 sizes the cache from config.json, version 4 from the graph.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ...models import files, outputs
from ...models.errors import ArtifactError
from ...models.scheme import HALF, MIXED, Scheme
from ...runtime.encoders.classifier import head_of
from ...runtime.encoders.head import THRESHOLD

if TYPE_CHECKING:
    from pathlib import Path

    from ...models.artifact import Artifact, Manifest
    from ...runtime.text.codec import Codec

FORMAT = "onnx"
DTYPES = {"fp32": "fp32", "int8": "q8", "int4": "q4", HALF: "q4f16", MIXED: "q4"}
"""Our scheme's type → transformers.js's name of the dtype."""
SUFFIXES = {"fp32": "", "q8": "_quantized", "q4": "_q4", "q4f16": "_q4f16"}
_PROBLEMS = {head: problem for problem, head in outputs.PROBLEMS.items()} | {outputs.SIGMOID_SCORE: None}
_ACTIVATIONS = {outputs.SCORE: "torch.nn.modules.linear.Identity",
                outputs.SIGMOID_SCORE: "torch.nn.modules.activation.Sigmoid"}
"""Of heads that score, in sentence-transformers' words."""
PIPELINES = {"generate": "text-generation", "classify": "text-classification", "embed": "feature-extraction"}


def model_file(type: str) -> str:
    """The place of a graph of the ONNX scheme type `type`, relative to the artifact's folder."""
    return f"onnx/model{SUFFIXES[DTYPES[type]]}.onnx"


def write(packed: Artifact, codec: Codec) -> None:
    """Complete config.json, tokenizer_config.json and generation_config.json."""
    folder, manifest = packed.folder, packed.manifest
    config = _outputs(packed, _table(folder / "config.json") | _cache(folder))
    type = Scheme.parse(manifest.scheme).type
    settings: dict[str, Any] = {"dtype": DTYPES[type]}
    if type == HALF:
        settings["kv_cache_dtype"] = {DTYPES[type]: "float16"}
    graph = folder / model_file(type)
    if graph.with_name(f"{graph.name}_data").is_file():
        settings["use_external_data_format"] = {graph.name: 1}
    files.write_json(folder / "config.json", config | {"transformers.js_config": settings})

    given = _table(folder / "tokenizer_config.json")
    if codec.template and not isinstance(given.get("chat_template"), list):  # a list holds several, by name
        given["chat_template"] = codec.template
        files.write_text(folder / "chat_template.jinja", codec.template)
    files.write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"} | given)
    if manifest.task.kind == "generate":
        generation = _table(folder / "generation_config.json")
        files.write_json(folder / "generation_config.json", generation | {"eos_token_id": sorted(codec.stop_ids)})


def usage(manifest: Manifest) -> str:
    """How to load the folder in Node or a browser."""
    pipeline = PIPELINES[manifest.task.kind]
    task = manifest.task
    call = {"generate": 'const answer = await model([{ role: "user", content: "your prompt" }], '
                        f'{{ max_new_tokens: {task.max_new_tokens} }});',
            "classify": 'const answer = await model("your text");',
            "embed": f'const vector = await model("your text", {{ pooling: "{task.pooling}", '
                     f'normalize: {str(task.normalise).lower()} }});'}[task.kind]
    shared = model_file(Scheme.parse(manifest.scheme).type)
    # One that holds no blocks of 8 bits is for all.
    second = "" if shared == manifest.model_file else (
        f"\nIt reads `{shared}`, which has 4-bit products alone, as version 3 needs. `{manifest.model_file}` is the "
        "same model for other programs; both have their weights in one file.\n")
    device = ', { device: "webgpu" }' if Scheme.parse(manifest.scheme).type == HALF else ""
    imported, lines = "pipeline", f'const model = await pipeline("{pipeline}", "NAME"{device});\n{call}'
    if task.head in (outputs.SIGMOID, *outputs.SCORES):
        imported = "AutoModelForSequenceClassification, AutoTokenizer"
        lines = _outputs_call(manifest)
    return ("[transformers.js](https://huggingface.co/docs/transformers.js) 3 and 4, in Node and in browsers, with "
            "this folder as `models/NAME`:\n\n```js\n"
            f'import {{ env, {imported} }} from "@huggingface/transformers";\nenv.localModelPath = "models/";\n'
            f'{lines}\n```\n{second}')


def _outputs_call(manifest: Manifest) -> str:
    """The lines for a head that the pipeline does not know: it would make a softmax of it, which of one score is 1."""
    task = manifest.task
    values = "logits.data" if task.head == outputs.SCORE else "logits.sigmoid().data"
    last = f"const scores = {values};"
    if task.head == outputs.SIGMOID:
        limits = json.dumps([task.thresholds.get(label, THRESHOLD) for label in task.labels])
        last = (f"const thresholds = {limits};\n"
                "const labels = Array.from(logits.sigmoid().data).flatMap((probability, place) =>\n"
                "  probability >= thresholds[place] ? [[model.config.id2label[place], probability]] : []);")
    return ('const tokenizer = await AutoTokenizer.from_pretrained("NAME");\n'
            'const model = await AutoModelForSequenceClassification.from_pretrained("NAME");\n'
            '// of a pair: tokenizer("first text", { text_pair: "second text", truncation: true })\n'
            f'const {{ logits }} = await model(tokenizer("your text", {{ truncation: true }}));\n{last}')


def _cache(folder: Path) -> dict[str, Any]:
    """A decoder's sizes under the names that version 3 reads, which configs of some families leave to be derived."""
    decoder = _table(folder / "genai_config.json").get("model", {}).get("decoder", {})
    names = {"num_hidden_layers": "num_hidden_layers", "num_attention_heads": "num_attention_heads",
             "num_key_value_heads": "num_key_value_heads", "head_dim": "head_size"}
    return {ours: decoder[theirs] for ours, theirs in names.items() if theirs in decoder}


def _outputs(packed: Artifact, config: dict[str, Any]) -> dict[str, Any]:
    """A model's config with its labels, and with what their numbers mean."""
    head = head_of(packed)
    if head is None:
        return config
    names = {"id2label": {str(index): label for index, label in enumerate(head.labels)},
             "label2id": {label: index for index, label in enumerate(head.labels)},
             "problem_type": _PROBLEMS[head.kind]}
    told = config | names
    if _meaning(told, len(head.labels)) != head.kind:  # the task says otherwise
        own = told.get("sentence_transformers") or {}
        told["sentence_transformers"] = own | {"activation_fn": _ACTIVATIONS.get(head.kind)}
        told |= dict.fromkeys((outputs.CROSS_ENCODER, "function_to_apply"))
    return told


def _meaning(config: dict[str, Any], count: int) -> str:
    try:
        return outputs.head(config, count)
    except ArtifactError:  # the config says what is not known, and the task says what it means
        return ""


def _table(path: Path) -> dict[str, Any]:
    table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return table
