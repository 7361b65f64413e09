"""OpenAI's API over models of this machine; needs the extra `serve`."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...models.errors import EdgestillError, MissingExtra, UsageError
from ...models.outputs import SOFTMAX

if TYPE_CHECKING:
    from .answer_log import AnswerLog
    from .work_queue import Station

__all__ = ["serve"]
SHORTEST_KEY = 16
FALLBACK_TRIES = 2
"""A client waits meanwhile, and tries again itself."""


def serve(paths: Sequence[Path | str], host: str = "127.0.0.1", port: int = 8080, *, key: str = "", threads: int = 0,
          context: int = 0, streams: int = 4, places: int = 64, fallback: str = "", fallback_model: str = "",
          fallback_key: str = "", threshold: float | Mapping[str, float] | None = None, shadow: float = 0.0,
          allowed_hosts: Sequence[str] = (), allow_origins: Sequence[str] = (), sagemaker: bool = False,
          log: Path | None = None, log_share: float = 1.0,
          ready: Callable[[str, Mapping[str, Any]], None] = lambda url, models: None) -> None:
    """Serve models until the process is told to stop; each is named as its folder or file is.

    `streams` requests to a generator are answered at a time, `places` wait. `threads` 0 measures how many run a model
    fastest, once: it is remembered. `ready` is called with the address and the models once they are open.
    Chats where a model is less sure than `threshold` (0 to 1, or each field's own, as `cascade` fits them) are handed
    on whole to `fallback_model` at the OpenAI-compatible address `fallback`; a share `shadow` of the others is asked of
    it too, and compared. `allowed_hosts` are names that clients may call this server by, beside its address and this
    machine's own; web pages of `allow_origins` may ask it, too. With `sagemaker` it answers what Amazon SageMaker asks
    a container for, `/ping` and `/invocations`, and beside them health alone: SageMaker lets in who may, and sends no
    key. A share `log_share` of what classifiers are asked and say is kept in the file `log` (see AnswerLog).
    Raises UsageError for an address that others reach without a key of at least 16 characters, a key or web pages
    together with `sagemaker`, a log of models that do not classify, two models of one name, a port that is taken, or a
    fallback without a threshold or shadow; MissingExtra without starlette and uvicorn; and as `load` does.
    """
    try:
        from .application import Service
        from .running import bind, run, server_of
    except ImportError as error:
        raise MissingExtra(error.name or "starlette", "serve") from error
    from ..generation.remote import Remote
    from .fallback import Fallback
    from .work_queue import Station

    if not sagemaker:
        check_address(host, key)
    elif key or allow_origins:
        raise UsageError("--sagemaker: SageMaker sends no API key, and no web page asks it",
                         "leave out --api-key (EDGESTILL_API_KEY) and --allow-origin")
    hosts = hosts_of(host, allowed_hosts)
    check_origins(allow_origins)
    if fallback and threshold is None and not shadow:
        raise UsageError("--fallback: nothing says when it is asked", "fit a threshold with edgestill cascade "
                         "-o fit.json and give --threshold fit.json, or compare with --shadow")
    remote = Remote(fallback, fallback_model, fallback_key, tries=FALLBACK_TRIES) if fallback else None
    names = names_of(paths)
    try:
        bound = bind(host, port)
    except OSError as error:
        raise UsageError(f"{host}:{port}: cannot listen there: {error.strerror or error}",
                         "choose another --port, or 0 for a free one") from error
    behind = None if remote is None else Fallback(remote, 0.0 if threshold is None else threshold, shadow)
    stations: list[Station] = []
    kept = None
    try:
        for name, path in names.items():
            stations.append(Station.open(name, path, places, streams, threads or _fastest(path), context))
        if log is not None:
            kept = _logged(stations, log, log_share)
        if behind is not None:
            check_heads(stations)
        service = Service(stations, key, hosts, allow_origins, behind, sagemaker)
        ready(f"http://{f'[{host}]' if ':' in host else host}:{bound.getsockname()[1]}",
              {station.name: station.model for station in stations})
        server = server_of(service.application)
        run(server, bound)
        if not server.started:
            raise EdgestillError("the server did not start", "its log on stderr says why")
    finally:
        bound.close()
        for station in stations:
            station.close()
        if behind is not None:
            behind.close()
        if kept is not None:
            kept.close()


def _logged(stations: Sequence[Station], path: Path, share: float) -> AnswerLog:
    """A log of what the classifiers among the stations are asked and say."""
    from ..encoders.classifier import Classifier
    from .answer_log import AnswerLog

    classifiers = {station.name: station.model for station in stations if isinstance(station.model, Classifier)}
    if not classifiers:
        raise UsageError("--log: keeps what classifiers say, and none is served", "leave it out")
    log = AnswerLog(path, share)
    for name, model in classifiers.items():
        model.on_answer = partial(log.add, name)
    return log


def _fastest(path: Path) -> int:
    """The number of threads that a measurement of the model speaks for."""
    from ..loading.foreign import open_model
    from ..machine.remembered_threads import recall
    from ..profiling.fastest_threads import tune

    artifact = open_model(path)
    return recall(artifact) or tune(artifact)[0]


def check_address(host: str, key: str) -> None:
    """UsageError for an address that others reach, where no key is asked of them, and for a key easily guessed or
    that no client could send."""
    if key and len(key) < SHORTEST_KEY:
        raise UsageError(f"the API key has {len(key)} characters, the limit is {SHORTEST_KEY}",
                         "make one: python -c 'import secrets; print(secrets.token_urlsafe())'")
    if not (key.isascii() and key.isprintable() and key == key.strip()):
        raise UsageError("the API key has characters that no header carries",
                         "use letters, digits and signs of ASCII, and no blank at its ends")
    if not key and not is_loopback(host):
        raise UsageError(f"--host {host}: other machines reach this address, and no API key is set",
                         "set EDGESTILL_API_KEY or --api-key, or leave out --host")


def hosts_of(host: str, allowed: Sequence[str]) -> list[str]:
    """The names that a server at `host` answers to; any, where it listens at every address and none are `allowed`.
    UsageError for what is no name."""
    for name in allowed:
        if not re.fullmatch(r"\*|(\*\.)?[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]", name):
            raise UsageError(f"--allowed-host {name!r} is no host's name",
                             "give it without scheme and port: box.lan, *.example.org, [fd00::1], or * for any")
    everywhere = host in ("0.0.0.0", "::")
    if everywhere and not allowed:
        return ["*"]
    own = [] if everywhere else [f"[{host}]" if ":" in host else host]
    return [name.lower() for name in ("127.0.0.1", "localhost", "[::1]", *own, *allowed)]


def check_origins(origins: Sequence[str]) -> None:
    """UsageError for what no browser calls an origin."""
    for origin in origins:
        if not re.fullmatch(r"\*|[a-z][a-z0-9+.-]*://[^/\s]+", origin):
            raise UsageError(f"--allow-origin {origin!r} is no web page's origin",
                             "give scheme, host and port alone: https://app.example.org, or * for any")


def check_heads(stations: Sequence[Station]) -> None:
    """UsageError for a classifier with a head that does not say how sure it is of one answer."""
    from ..encoders.classifier import Classifier

    for station in stations:
        if isinstance(station.model, Classifier) and station.model.head.kind != SOFTMAX:
            raise UsageError(f"--fallback: {station.name} answers by its head {station.model.head.kind}, "
                             "which does not say how sure it is of an answer", "serve it without a fallback")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def names_of(paths: Sequence[Path | str]) -> dict[str, Path]:
    """Models by the names they are asked for by; UsageError for two of one name."""
    names: dict[str, Path] = {}
    for path in map(Path, paths):
        name = path.resolve().stem if path.suffix == ".gguf" else path.resolve().name
        if name in names:
            raise UsageError(f"{path}: a second model of the name {name!r}, beside {names[name]}",
                             "rename one of the folders")
        names[name] = path
    return names
