"""Spoken requests to a home and the JSON calls that answer them.

A seeded grammar writes the demo's rows: paraphrases, fillers, numbers in words, times, self-corrections, two
requests in one sentence and refusals. The words stand in ``lexicon.toml``; the answers satisfy ``schema.json``.
"""

from __future__ import annotations

import json
import tomllib
import zlib
from collections.abc import Iterator
from importlib import resources
from random import Random
from typing import Any

SPLITS = ("train", "validation", "test")
NOVEL_EVERY = 3  # one test row in three needs a combination that training never showed
PAIRS_HELD_OUT = 6  # one (device, room) pair in six is kept from training
_SPLIT_BUCKETS = 8

_LEXICON: dict[str, Any] = tomllib.loads((resources.files(__package__) / "lexicon.toml").read_text(encoding="utf-8"))

Call = dict[str, Any]


def rows(split: str, count: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Yield ``count`` distinct rows of a split, the same for the same seed everywhere.

    Each row has ``prompt``, ``completion`` (compact JSON) and ``novel``: whether it needs a (device, room) or
    (device, action) pair that no row of the train split holds. Only the test split has novel rows.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; the demo has {', '.join(SPLITS)}")
    random = Random(f"{split}/{seed}")
    seen: set[str] = set()
    while len(seen) < count:
        novel = split == "test" and len(seen) % NOVEL_EVERY == 0
        prompt, answer = _row(random, novel)
        if prompt in seen or _split_of(prompt) != split:
            continue
        seen.add(prompt)
        yield {"prompt": prompt, "completion": json.dumps(answer, separators=(",", ":")), "novel": novel}


def is_held_out(call: Call) -> bool:
    """Tell whether a call uses a pair that the train split never shows."""
    return _room_held_out(call["what"], call["where"]) or _action_held_out(call["what"], call["do"])


def _split_of(prompt: str) -> str:
    # The prompt itself decides its split, so that no choice of seeds can leak a test prompt into training.
    bucket = zlib.crc32(prompt.encode()) % _SPLIT_BUCKETS
    return {0: "test", 1: "validation"}.get(bucket, "train")


def _room_held_out(device: str, room: str) -> bool:
    return zlib.crc32(f"{device}/{room}".encode()) % PAIRS_HELD_OUT == 0


def _action_held_out(device: str, action: str) -> bool:
    return action in _LEXICON["devices"][device].get("held_out", ())


def _row(random: Random, novel: bool) -> tuple[str, dict[str, Any]]:
    kind = random.random()
    if kind < 0.13 and not novel:
        text, reason = _refusal(random)
        return _dress(random, text), {"calls": [], "refuse": reason}
    if kind < 0.80:
        text, calls = _request(random, novel)
    elif kind < 0.88:
        text, calls = _shared_request(random, novel)
    else:
        # Either half may carry the novel pair; the other one stays familiar.
        first_is_novel = random.random() < 0.5
        first, calls = _request(random, novel and first_is_novel, is_alone=False)
        second, more = _request(random, novel and not first_is_novel, is_alone=False)
        text = f"{first} {random.choice(_LEXICON['links'])} {second}"
        calls = calls + more
    return _dress(random, text), {"calls": calls}


def _request(random: Random, novel: bool, is_alone: bool = True) -> tuple[str, list[Call]]:
    device, room, action = _slots(random, novel)
    template, value = _action_phrase(random, action)
    text = template.replace("{}", _target(random, device, room))
    call: Call = {"do": action, "what": device, "where": room, **value}
    if random.random() < (0.4 if is_alone else 0.15):
        # A time said before two requests would be meant for both.
        text = _timed(random, text, call, may_lead=is_alone)
    return text, [call]


def _shared_request(random: Random, novel: bool) -> tuple[str, list[Call]]:
    """One verb for two targets: "close the kitchen door and the bedroom window"."""
    device, room, action = _slots(random, novel)
    partners = [name for name in _devices_with(action) if name != device and not _action_held_out(name, action)]
    partner = random.choice(partners) if partners else device
    partner_room = random.choice([name for name in _familiar_rooms(partner) if (partner, name) != (device, room)])
    template, value = _action_phrase(random, action)
    targets = f"{_target(random, device, room)} and {_target(random, partner, partner_room)}"
    text, fields = template.replace("{}", targets), dict(value)
    if random.random() < 0.25:
        text = _timed(random, text, fields)
    pairs = ((device, room), (partner, partner_room))
    return text, [{"do": action, "what": what, "where": where, **fields} for what, where in pairs]


def _slots(random: Random, novel: bool) -> tuple[str, str, str]:
    devices: dict[str, Any] = _LEXICON["devices"]
    if novel and random.random() < 0.35:
        device = random.choice([name for name, facts in devices.items() if facts.get("held_out")])
        return device, random.choice(_familiar_rooms(device)), random.choice(devices[device]["held_out"])
    device = random.choice(list(devices))
    rooms = _familiar_rooms(device)
    if novel:
        rooms = [room for room in _LEXICON["rooms"] if room not in rooms] or rooms
    actions = [action for action in devices[device]["actions"] if not _action_held_out(device, action)]
    room, action = random.choice(rooms), random.choice(actions)
    if novel and not _room_held_out(device, room):
        return _slots(random, novel)
    return device, room, action


def _familiar_rooms(device: str) -> list[str]:
    return [room for room in _LEXICON["rooms"] if not _room_held_out(device, room)]


def _devices_with(action: str) -> list[str]:
    return [name for name, facts in _LEXICON["devices"].items() if action in facts["actions"]]


def _target(random: Random, device: str, room: str) -> str:
    thing = random.choice(_LEXICON["devices"][device]["names"])
    place = random.choice(_LEXICON["rooms"][room])
    if random.random() < 0.08:
        # The speaker corrects the room: only the last one counts.
        wrong = random.choice([name for name in _LEXICON["rooms"] if name != room])
        slip = random.choice(_LEXICON["rooms"][wrong])
        place = f"{slip} {random.choice(_LEXICON['corrections'])} the {place}"
    return random.choice((f"the {place} {thing}", f"the {thing} in the {place}"))


def _action_phrase(random: Random, action: str) -> tuple[str, Call]:
    facts = _LEXICON["actions"][action]
    template: str = random.choice(facts["say"])
    if "value" not in facts:
        return template, {}
    if facts["value"] == "colour":
        colour: str = random.choice(_LEXICON["colours"])
        return template.replace("{value}", colour), {"colour": colour}
    kind = _LEXICON["values"][facts["value"]]
    number = random.randrange(kind["low"], kind["high"] + 1, kind["step"])
    return template.replace("{value}", kind["say"].format(_words(number))), {"to": number}


def _refusal(random: Random) -> tuple[str, str]:
    reasons: dict[str, list[str]] = _LEXICON["refusals"]
    reason = random.choice((*reasons, "range"))
    device, room, action = _slots(random, novel=False)
    target = _target(random, device, room)
    if reason == "topic":
        text = random.choice(reasons[reason])
        names = random.choice(_LEXICON["devices"][device]["names"])
        return text.format(room=random.choice(_LEXICON["rooms"][room]), device=names), reason
    if reason == "action":
        text = random.choice(reasons[reason]).format(target)
    elif reason == "range":
        text = _out_of_range(random)
    else:
        template, _ = _action_phrase(random, action)
        word = random.choice(reasons[reason])
        place = random.choice(_LEXICON["rooms"][room])
        forms = (f"the {place} {word}", f"the {word} in the {place}") if reason == "device" else (word,)
        text = template.replace("{}", random.choice(forms))
    return (_timed(random, text, {}) if random.random() < 0.25 else text), reason


def _out_of_range(random: Random) -> str:
    kinds = {name: facts for name, facts in _LEXICON["values"].items() if facts["over"]}
    action = random.choice([name for name, facts in _LEXICON["actions"].items() if facts.get("value") in kinds])
    facts = _LEXICON["actions"][action]
    kind = kinds[facts["value"]]
    device = random.choice([name for name in _devices_with(action) if not _action_held_out(name, action)])
    low, high = kind["over"]
    number = _words(random.randrange(low, high + 1, kind["step"]))
    target = _target(random, device, random.choice(_familiar_rooms(device)))
    text: str = random.choice(facts["say"]).replace("{value}", kind["say"].format(number)).replace("{}", target)
    return text


def _timed(random: Random, text: str, call: Call, may_lead: bool = True) -> str:
    spoken, fields = _after(random) if random.random() < 0.5 else _clock(random)
    call.update(fields)
    return f"{spoken} {text}" if may_lead and random.random() < 0.35 else f"{text} {spoken}"


def _after(random: Random) -> tuple[str, Call]:
    whole = {"a quarter of an hour": 15, "half an hour": 30, "three quarters of an hour": 45, "an hour": 60}
    form = random.random()
    if form < 0.5:
        minutes = random.randrange(2, 60)
        spoken = f"{_words(minutes)} minutes"
    elif form < 0.75:
        spoken, minutes = random.choice([*whole.items(), ("an hour and a half", 90)])
    else:
        hours = random.randrange(2, 9)
        half = random.random() < 0.3
        spoken = f"{_words(hours)}{' and a half' if half else ''} hours"
        minutes = 60 * hours + 30 * half
    return f"in {spoken}", {"after": minutes}


def _clock(random: Random) -> tuple[str, Call]:
    if random.random() < 0.08:
        name, clock = random.choice((("noon", "12:00"), ("midnight", "00:00")))
        return f"at {name}", {"at": clock}
    hour = random.randrange(2, 12)
    minute = random.choice((0, 10, 15, 20, 30, 40, 45, 50))
    named = {0: "", 15: "a quarter", 30: "half", 45: "a quarter"}
    name = _words(hour)
    part = named.get(minute, _words(min(minute, 60 - minute)))
    if minute == 0:
        spoken = name
    elif random.random() < 0.3:
        spoken = f"{name} {_words(minute)}"
    elif minute <= 30:
        spoken = f"{part} past {name}"
    else:
        # "a quarter to seven" is said of the hour before.
        spoken = f"{part} to {_words(hour + 1)}"
    # Without a part of the day, the hour is meant as it stands: the morning.
    afternoon = "in the afternoon" if hour < 6 else random.choice(("in the evening", "tonight"))
    day = random.choice(("", "in the morning", afternoon))
    shown = hour + 12 if day == afternoon else hour
    return f"at {spoken} {day}".rstrip(), {"at": f"{shown:02d}:{minute:02d}"}


def _words(number: int) -> str:
    ones: list[str] = _LEXICON["ones"]
    if number < 20:
        return ones[number]
    if number < 100:
        tens: str = _LEXICON["tens"][number // 10 - 2]
        return f"{tens} {ones[number % 10]}" if number % 10 else tens
    rest = number % 100
    return f"{ones[number // 100]} hundred" + (f" and {_words(rest)}" if rest else "")


def _dress(random: Random, text: str) -> str:
    if random.random() < 0.45:
        text = f"{random.choice(_LEXICON['openings'])} {text}"
    if random.random() < 0.25:
        text = f"{text} {random.choice(_LEXICON['endings'])}"
    if random.random() < 0.25:
        words = text.split()
        words.insert(random.randrange(len(words)), random.choice(_LEXICON["fillers"]))
        text = " ".join(words)
    return text
