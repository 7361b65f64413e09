"""What is foretold of a file: its bytes, its memory's terms, rates within what others have published."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from edgestill.models import catalogue, device
from edgestill.models.device import Device, Figure, Kernel, Rates
from edgestill.models.errors import ArtifactError, UsageError
from edgestill.models.shape import Shape
from edgestill.runtime.profiling import estimate, model_shape, variants

SHAPE = Shape(layers=4, hidden=256, inner=512, heads=4, heads_kv=2, head_size=64, vocabulary=1000, context=4096)
PUBLISHED = json.loads((Path(__file__).parents[2] / "benchmarks/llama_bench.json").read_text("utf-8"))
MEASURED = Rates({"Q4_0": Kernel(4e9, 5e10), "Q8_0": Kernel(8e9, 4e10)}, 1e-5, 1e-4, 1e9, 1e10)


def figure(low: float, high: float = 0.0) -> Figure:
    return Figure(low, high or low, "measured", "a test", "2026-11")


def on(target: str, machine: Device, **given):
    return estimate.estimate(SHAPE, variants.planned(SHAPE, target), machine, **given)


def test_bytes_are_those_of_every_matrix_at_its_type():
    layer = 4 * (256 * 64 * 2 * (4 + 2) + 3 * 256 * 512)
    assert SHAPE.layer_weights == layer and SHAPE.table_weights == 256_000
    small = variants.planned(SHAPE, "gguf:Q4_0")
    assert small.layers == {"Q4_0": layer} and small.head == {"Q8_0": 256_000}
    assert small.file_bytes == layer * 9 // 16 + 256_000 * 34 // 32 + 4 * 9 * 256 + 36 * 1000
    apart = variants.planned(replace(SHAPE, tied=False), "gguf:Q4_0")
    assert apart.file_bytes - small.file_bytes == small.table_bytes == 272_000
    assert variants.planned(SHAPE, "onnx:int8").layers == {"int8": layer}
    mixed = variants.planned(SHAPE, "gguf:mixed")
    plain = layer * 9 / 16 + 272_000
    assert sum(mixed.read_bytes.values()) == pytest.approx(1.1 * plain, rel=0.001)
    assert sum(mixed.layers.values()) == layer
    six = variants.planned(SHAPE, "gguf:Q4_K_M").layers["Q6_K"]
    assert 0 < six < layer / 2


def test_a_target_that_is_not_foretold_is_refused():
    with pytest.raises(UsageError, match="gguf:IQ4_XS: the bytes of this type are not foretold"):
        variants.planned(SHAPE, "gguf:IQ4_XS")


def test_an_engine_keeps_some_types_twice_and_others_in_another_form():
    def memory(target: str, architecture: str) -> dict[str, int]:
        found = variants.planned(SHAPE, target)
        return estimate.memory(SHAPE, found, Device("", architecture), 2048, 128, 64)

    four, eight = (variants.planned(SHAPE, target) for target in ("gguf:Q4_0", "gguf:Q8_0"))
    assert memory("gguf:Q4_0", "x86")["weights"] == four.file_bytes + four.read_bytes["Q4_0"]
    assert memory("gguf:Q8_0", "x86")["weights"] == eight.file_bytes
    assert memory("gguf:Q8_0", "arm")["weights"] == eight.file_bytes + eight.read_bytes["Q8_0"]
    assert memory("gguf:Q4_0", "armv8.0")["weights"] == four.file_bytes
    packed = variants.planned(SHAPE, "onnx:int4")
    scales = sum(packed.weights.values()) / 8
    assert memory("onnx:int4", "x86")["weights"] == pytest.approx(
        sum(packed.read_bytes.values()) + scales + packed.table_bytes, rel=0.001)


def test_the_cache_is_that_of_the_context_and_its_type():
    machine = Device("", "x86")
    keys = {kv: on("gguf:Q8_0", machine, context=1000, kv=kv).memory_parts["keys and values"]
            for kv in ("", "f16", "q8_0", "q4_0")}
    assert keys[""] == keys["f16"] == 2 * 4 * 2 * 64 * 1024 * 2, "llama.cpp rounds up to 256 tokens"
    assert keys["q8_0"] * 32 == keys["f16"] * 17 and keys["q4_0"] * 32 == keys["f16"] * 9
    assert on("onnx:int4", machine, context=1000).memory_parts["keys and values"] == 2 * 4 * 2 * 64 * 1000 * 4
    assert on("gguf:F16", machine, context=1024).memory_parts["keys and values"] == 2 * keys["f16"], "lossless: floats"
    with pytest.raises(UsageError, match="onnxruntime keeps keys and values in f32"):
        on("onnx:int4", machine, kv="q8_0")
    with pytest.raises(UsageError, match="a cache of type 'q5'"):
        on("gguf:Q8_0", machine, kv="q5")


def test_what_fits_is_what_the_devices_memory_leaves():
    whole = on("gguf:Q8_0", Device("", "x86"), context=1024)
    assert whole.fits is None and whole.largest_context == 4096
    enough = figure(whole.memory_bytes[1] / estimate.USABLE)
    roomy = on("gguf:Q8_0", Device("", "x86", memory_bytes=enough), context=1024)
    assert roomy.fits is True and roomy.largest_context == pytest.approx(1024, abs=1)
    tight = on("gguf:Q8_0", Device("", "x86", memory_bytes=figure(whole.memory_bytes[1])), context=1024)
    assert tight.fits is False and tight.largest_context == 0
    with pytest.raises(UsageError, match="5000 tokens, the model's limit is 4096"):
        on("gguf:Q8_0", Device("", "x86"), context=5000)


def test_measured_rates_make_times_of_bytes_products_and_overhead():
    machine, held, file = Device("", "x86", engines={"gguf": MEASURED}), 160, variants.planned(SHAPE, "gguf:Q4_0")
    step = 1e-4 + 4e-5 + file.read_bytes["Q4_0"] / 4e9 + file.read_bytes["Q8_0"] / 8e9 + 2 * 4 * 4 * 64 * held / 1e9
    assert estimate.step_s(SHAPE, file, machine, held) == pytest.approx(
        (step * (1 - estimate.DECODE_SPREAD), step * (1 + estimate.DECODE_SPREAD)))
    attention, head = 4 * 4 * 64 * 600**2 / 1e10, file.read_bytes["Q8_0"] / 8e9
    prompt = 2 * 1.4e-4 + 600 * file.layers["Q4_0"] / 5e10 + head + attention
    assert estimate.prefill_s(SHAPE, file, machine, 600) == pytest.approx(
        (prompt * (1 - estimate.PREFILL_SPREAD), prompt * (1 + estimate.PREFILL_SPREAD)))
    other = variants.planned(SHAPE, "onnx:int4")
    assert estimate.step_s(SHAPE, other, machine, held) is None, "no rates of that engine"
    assert estimate.kernel(MEASURED, "Q6_K").read_bytes_per_s == 8e9, "the nearest by bits"


def test_a_device_that_does_not_say_a_figure_gets_no_rate():
    silent = on("gguf:Q4_0", Device("", "arm"))
    assert silent.prefill_tokens_per_s is None and silent.decode_tokens_per_s is None
    reads = on("gguf:Q4_0", Device("", "arm", read_bytes_per_s=figure(1e9, 2e9)))
    low, high = reads.decode_tokens_per_s
    assert reads.prefill_tokens_per_s is None and high / 2.5 < low < high / 2


@pytest.mark.parametrize("row", PUBLISHED["rows"], ids=lambda row: f"{row['device']} {row['model']} {row['decode']}")
def test_published_rates_lie_within_what_is_foretold(row):
    shapes = {name: Shape(**table) for name, table in PUBLISHED["shapes"].items()}
    shape = shapes.get(row["model"]) or catalogue.entry(row["model"]).shape
    file, machine = variants.planned(shape, row["target"]), device.device(row["device"])
    found = {"prefill": estimate.prefill_s(shape, file, machine, 512),
             "decode": estimate.step_s(shape, file, machine, 64)}
    for name in row.keys() & found:
        assert found[name][0] <= (512 if name == "prefill" else 1) / row[name] <= found[name][1], name


CONFIG = """{"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 4, "hidden_size": 256,
"intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 1000,
"tie_word_embeddings": true, "max_position_embeddings": 4096}"""


def test_a_config_alone_says_the_shape(tmp_path):
    (tmp_path / "config.json").write_text(CONFIG)
    assert model_shape.read(tmp_path) == (SHAPE, None)
    (tmp_path / "config.json").write_text(CONFIG.replace("Llama", "Lfm2").replace("intermediate_size", "other"))
    with pytest.raises(UsageError, match="lfm2 family has layers of the kind convolution"):
        model_shape.read(tmp_path)
    (tmp_path / "config.json").write_text('{"architectures": ["BertForSequenceClassification"]}')
    with pytest.raises(UsageError, match="bert family is an encoder"):
        model_shape.read(tmp_path)
    with pytest.raises(ArtifactError):
        model_shape.read(tmp_path / "nothing")


def test_a_packed_file_says_its_own_bytes(packed_llama):
    shape, found = model_shape.read(packed_llama["gguf"])
    assert found.file_bytes == (packed_llama["gguf"] / "model.gguf").stat().st_size
    assert sum(found.weights.values()) == shape.layer_weights + shape.table_weights and shape.tied
    with pytest.raises(UsageError, match="onnx:fp32: the bytes of this type are not foretold"):
        model_shape.read(packed_llama["onnx"])
