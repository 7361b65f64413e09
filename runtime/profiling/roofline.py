"""How near a model comes to what this machine can do, and what holds it back: bytes, arithmetic, or what steps cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .estimate import ATTENTION, LAYERS, WEIGHTS, kernel, prompt_parts, step_parts
from .machine_rates import MachineRates

if TYPE_CHECKING:
    from ...models.shape import Shape
    from .variants import Variant

REST = "rest"
_ENOUGH = 0.9
"""Of what all threads read, from which on one alone is as good."""
_FASTER = 1.15
"""Of what was possible, from which on the machine was slower while it was measured."""
_OVERHEAD = "what each layer costs besides its weights holds it back: fewer layers would help, fewer bits would not"


def roofline(profile: Mapping[str, Any], shape: Shape, variant: Variant, rates: MachineRates) -> dict[str, Any]:
    """A profile of a generator, as a table, held against the machine's rates with as many threads.

    `prefill` (a prompt) and `decode` (a step, where there was one) hold `achieved_ms`, the median of undisturbed
    requests, or of all where there is none; `possible_ms`, the sum of what its `parts` [ms] take at the rates that the
    engine reaches here, and `share`, the one over the other; what was computed and read, `multiply_adds` and `bytes`,
    and `roof_ms`, what memory and the fastest product alone would take; `held_by`, the part that takes most. `words`
    say it.
    """
    engine = rates.engines[variant.format]
    views = profile["views"]
    met = views["clean"] if "prefill_ms" in views["clean"] else views["as_met"]
    tokens, held = profile["prompt_tokens"], profile["prompt_tokens"] + profile["new_tokens"] // 2
    read = sum(variant.read_bytes.values())
    best = max(kernel(engine, type).multiply_adds_per_s for type in variant.weights)
    passes = {"prefill": (prompt_parts(shape, variant, engine, tokens),
                          tokens * sum(variant.layers.values()) + sum(variant.head.values())),
              "decode": (step_parts(shape, variant, engine, held), variant.weights.total())}
    found = {}
    for name, (seconds, count) in passes.items():
        if f"{name}_ms" not in met:  # answers of one token take no step
            continue
        parts = {part: 1000 * one for part, one in seconds.items()}
        achieved, possible = met[f"{name}_ms"]["p50"], sum(parts.values())
        whole = parts | {REST: max(0.0, achieved - possible)}
        found[name] = {"achieved_ms": achieved, "possible_ms": possible, "share": possible / achieved, "parts": whole,
                       "held_by": max(whole, key=lambda part: whole[part]), "multiply_adds": count, "bytes": read,
                       "roof_ms": 1000 * max(read / rates.read_bytes_per_s, count / best)}
    return {"threads": rates.threads, "read_bytes_per_s": rates.read_bytes_per_s,
            "read_bytes_per_s_by_threads": rates.read_bytes_per_s_by_threads, "multiply_adds_per_s": best, **found,
            "words": _words(found, rates, tokens, held, met is not views["clean"])}


def _words(found: Mapping[str, Mapping[str, Any]], rates: MachineRates, tokens: int, held: int,
           disturbed: bool) -> list[str]:
    told = [_line(f"a prompt of {tokens} tokens", found["prefill"], {
        WEIGHTS: "multiplying holds it back: another type of weights, a smaller model or a prompt that is kept would "
                 "help",
        ATTENTION: "attention holds it back: a shorter prompt, or one that is kept, would help", LAYERS: _OVERHEAD},
        disturbed)]
    if "decode" in found:
        told.append(_line("a step", found["decode"], {
            WEIGHTS: _bytes(found["decode"], rates), LAYERS: _OVERHEAD,
            ATTENTION: f"attention to {held} tokens holds it back: a shorter context would help"}, disturbed))
    return told


def _line(what: str, one: Mapping[str, Any], advice: Mapping[str, str], disturbed: bool) -> str:
    parts = ", ".join(f"{name} {_shown(ms)}" for name, ms in one["parts"].items())
    told = f"{what} takes {_shown(one['achieved_ms'])} ms ({parts})"
    if one["share"] > _FASTER:
        return f"{told}: faster than this machine was when it was measured, which something else kept busy then"
    told += f", where {_shown(one['possible_ms'])} are possible here, {one['share']:.0%}: "
    if one["held_by"] != REST:
        return told + advice[one["held_by"]] + "; no request was undisturbed" * disturbed
    return told + ("other programs hold it back: no request was undisturbed" if disturbed else
                   "neither bytes nor arithmetic hold it back: look for other programs, heat, or threads on slow cores")


def _shown(ms: float) -> str:
    return f"{ms:,.0f}" if ms >= 100 else f"{ms:.3g}"


def _bytes(one: Mapping[str, Any], rates: MachineRates) -> str:
    """What there is to say of a step that its weights hold back."""
    speed = one["bytes"] / one["parts"][WEIGHTS] * 1000
    told = (f"reading {one['bytes'] / 1e6:.3g} MB of weights holds it back, at {speed / 1e9:.3g} GB/s where memory "
            f"gives {rates.read_bytes_per_s / 1e9:.3g}: fewer bits or a smaller model would help")
    alone = rates.read_bytes_per_s_by_threads.get("1", 0.0)
    if rates.threads > 1 and alone > _ENOUGH * rates.read_bytes_per_s:
        told += ", more threads would not, for one reads as fast"
    return told
