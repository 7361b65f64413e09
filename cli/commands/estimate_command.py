"""`edgestill estimate`: bytes, memory and speed on a device, before anything is trained, packed or copied there."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...models import catalogue, device, files, toml_text
from ...models.errors import UsageError
from .. import options, output

if TYPE_CHECKING:
    from ...models.device import Device
    from ...models.shape import Shape
    from ...runtime.profiling.estimate import Estimate
    from ...runtime.profiling.variants import Variant

HERE = "here"
SECONDS = 20.0


@click.command("estimate", epilog=options.example(
    "edgestill estimate smollm2-135m --device pi5", "edgestill estimate out/gguf-Q4_0 --device here --context 4096",
    "edgestill estimate --calibrate -o board.toml"))
@click.argument("model", required=False)
@click.option("--device", "device_name", metavar="NAME", help="A device that --devices lists, a device file ending in "
              ".toml, or here: this machine, measured first.")
@click.option("--context", type=click.IntRange(0), default=0, metavar="N",
              help="Tokens of context; default: what engines take, 2048 at most.")
@click.option("--target", "targets", multiple=True, metavar="TARGET",
              help="Only this file, such as gguf:Q4_0; may be repeated.")
@click.option("--prompt-tokens", type=click.IntRange(1), default=128, show_default=True, help="Tokens of the prompt.")
@click.option("--new-tokens", type=click.IntRange(1), default=64, show_default=True, help="Tokens of the answer.")
@click.option("--kv", default="", metavar="TYPE", help="Type of keys and values in GGUF: f16, q8_0, q4_0.")
@click.option("--memory", type=click.FloatRange(0, min_open=True), metavar="GB",
              help="The device's memory, where boards differ.")
@click.option("--devices", is_flag=True, help="List the devices, with what is known of each.")
@click.option("--calibrate", is_flag=True, help="Measure this machine, some 20 seconds; -o writes its device file.")
@options.out_file("Write the estimates to this JSON file, or with --calibrate the device to this .toml file.")
@options.threads
@options.as_json
@options.verbose
def command(model: str | None, device_name: str | None, context: int, targets: tuple[str, ...], prompt_tokens: int,
            new_tokens: int, kv: str, memory: float | None, devices: bool, calibrate: bool, out: Path | None,
            threads: int, as_json: bool) -> None:
    """Foretell bytes, memory, speed and the largest context of a model on a device.

    MODEL is a name that `edgestill models` lists, a Hugging Face folder (its config.json is enough), a GGUF file or an
    artifact; no weight is read. What nobody measured or published of a device stays empty.
    """
    if devices + calibrate + (model is not None) != 1:
        raise UsageError("estimate: one of MODEL, --devices and --calibrate is wanted",
                         "edgestill estimate smollm2-135m --device pi5")
    if devices:
        _list(as_json)
        return
    if calibrate:
        _calibrate(out, threads, as_json)
        return
    if not device_name:
        raise UsageError("--device is missing",
                         f"known: {', '.join([*device.names(), HERE])}, or a file ending in .toml")
    from ...runtime.profiling.estimate import estimate

    shape, variants = _model(str(model), targets)
    chosen = _device(device_name, threads)
    if memory is not None:
        told = device.Figure(memory * 1e9, memory * 1e9, "published", "--memory", "now")
        chosen = replace(chosen, memory_bytes=told, unknown=[each for each in chosen.unknown if each != "memory_bytes"])
    found = [estimate(shape, variant, chosen, context, prompt_tokens, new_tokens,
                      kv if variant.format == "gguf" else "") for variant in variants]
    table = {"model": str(model), "device": chosen.title, "parameters": shape.parameters,
             "prompt_tokens": prompt_tokens, "new_tokens": new_tokens, "files": found}
    if out is not None:
        files.write_json(out, output.plain(table))
    if as_json:
        output.result(table)
    else:
        _show(found, chosen)


def _model(name: str, targets: tuple[str, ...]) -> tuple[Shape, list[Variant]]:
    """The shape of a model, and the files that are asked for: by default the one that it is, or all it can become."""
    from ...runtime.profiling import model_shape, variants

    path = Path(name)
    if name in catalogue.names() and not path.exists():
        shape = catalogue.entry(name).shape
        if shape is None:
            raise UsageError(f"{name}: no decoder whose layers are all attention, which estimates are made for",
                             "export it and measure it with edgestill profile")
        packed = None
    else:
        shape, packed = model_shape.read(path)
    if packed is not None and not targets:
        return shape, [packed]
    return shape, [variants.planned(shape, target) for target in targets or variants.TARGETS]


def _device(name: str, threads: int) -> Device:
    if name != HERE:
        return device.device(name)
    output.note(f"measuring this machine, about {SECONDS:.0f} seconds; keep it with --calibrate -o FILE.toml")
    from ...runtime.profiling.machine_rates import this_device

    return this_device(threads, SECONDS)


def _calibrate(out: Path | None, threads: int, as_json: bool) -> None:
    if out is not None and out.suffix != ".toml":
        raise UsageError(f"--out: {out} does not end in .toml, by which --device knows a file", "name it so")
    from ...runtime.profiling.machine_rates import this_device

    found = this_device(threads, SECONDS)
    table = {key: value for key, value in asdict(found).items() if value not in (None, [], "", {})}
    text = toml_text.to_toml(table)
    if out is not None:
        files.write_text(out, text)
    if as_json:
        output.result(table)
    elif out is None:
        click.echo(text, nl=False)
    else:
        output.note(f"next: edgestill estimate MODEL --device {out}")
        click.echo(out)


def _list(as_json: bool) -> None:
    found = {name: device.device(name) for name in device.names()}
    if as_json:
        output.result(found)
        return
    output.table(["name", "device", "memory", "reads per s", "not known", "note"], [
        [name, each.title, output.size(round(each.memory_bytes.low)) if each.memory_bytes else None,
         _range((each.read_bytes_per_s.low, each.read_bytes_per_s.high), 1e9, " GB") if each.read_bytes_per_s else None,
         ", ".join(each.unknown), each.note] for name, each in found.items()])


def _show(found: list[Estimate], chosen: Device) -> None:
    output.table(["file", "bytes", "memory", "prefill tokens/s", "decode tokens/s", "largest context", "fits"], [
        [each.target, output.size(each.file_bytes), _range(each.memory_bytes, 1e6, " MB"),
         _range(each.prefill_tokens_per_s), _range(each.decode_tokens_per_s), each.largest_context,
         {True: "yes", False: "no", None: "?"}[each.fits]] for each in found])
    notes = [f"{chosen.title}; context {found[0].context}"]
    if chosen.unknown:
        notes.append(f"not known of this device: {', '.join(chosen.unknown)}")
    for line in [*notes, *filter(None, [chosen.note])]:
        output.note(line)


def _range(found: tuple[float, float] | None, unit: float = 1.0, name: str = "") -> Any:
    """Both ends with two significant digits."""
    if found is None:
        return None
    low, high = (f"{float(f'{end / unit:.2g}'):,g}" if end / unit < 100 else f"{end / unit:,.0f}" for end in found)
    return (low if low == high else f"{low} to {high}") + name
