"""The container app: what is written for docker, Kubernetes, Cloud Run and SageMaker, and its entry command at work."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from edgestill.cli.extras import EXTRAS
from edgestill.models.artifact import open_artifact
from edgestill.models.errors import EdgestillError, UsageError
from edgestill.quantize import apps
from edgestill.quantize.apps import _requirements, container
from edgestill.runtime import load

KEY = "0123456789abcdef"
TORCH = {"torch", "transformers", "onnx", "gguf", "accelerate", "peft", "datasets", "optimum"}
"""Importing these is an error where the entry command runs; distill and quantize are not even there."""


@pytest.fixture(scope="module")
def folders(packed_llama: dict[str, Path], packed_bert: Path,
            tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The apps of a generator and of a classifier whose name YAML would read as nothing."""
    out = tmp_path_factory.mktemp("containers")
    labels = Path(shutil.copytree(packed_bert, out / "null"))
    return {name: apps.write(open_artifact(path), "container", out)
            for name, path in {"gguf": packed_llama["gguf"], "labels": labels}.items()}


def instructions(folder: Path) -> list[tuple[str, str]]:
    lines = (folder / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    found = [line.partition(" ") for line in lines if line and not line.startswith("#")]
    return [(name, rest) for name, _, rest in found]


def test_the_dockerfile_is_well_formed_and_copies_what_is_there(folders: dict[str, Path]) -> None:
    known = {"FROM", "RUN", "COPY", "ENV", "WORKDIR", "ARG", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT"}
    for name, folder in folders.items():
        said = instructions(folder)
        assert {word for word, _ in said} <= known and [word for word, _ in said].count("FROM") == 2
        assert f"python:{sys.version_info.major}.{sys.version_info.minor}-slim" in said[0][1]
        copied = [rest.split()[0] for word, rest in said if word == "COPY" and not rest.startswith("--from")]
        assert copied == ["requirements.txt", "edgestill", "model"] and all((folder / path).exists() for path in copied)
        assert ("ARG", "RUN_AS=10001") in said and ("USER", "${RUN_AS}:${RUN_AS}") in said
        check = next(rest for word, rest in said if word == "HEALTHCHECK")
        compile(json.loads(check[check.index("["):])[2], "health", "exec")
        assert ("DGGML_NATIVE=OFF" in (folder / "Dockerfile").read_text()) == (name == "gguf")


def test_the_requirements_are_those_of_serving_alone(folders: dict[str, Path]) -> None:
    for name, engine in (("gguf", "llama-cpp-python"), ("labels", "onnxruntime")):
        pins = dict(line.split("==") for line in (folders[name] / "requirements.txt").read_text().splitlines())
        assert pins[engine] == metadata.version(engine) and pins["starlette"] and pins["numpy"] and pins["click"]
        assert {"llama-cpp-python", "onnxruntime"} & {*pins} == {engine}
        assert not {*EXTRAS["train"].values(), *EXTRAS["export"].values()} & {*pins}
        assert ("llguidance" in pins) == (name == "gguf")  # requests to a generator may bind its answers
        assert {"huggingface-hub", "h11", "markupsafe"} <= {*pins}  # what those need, too
        assert not {"distill", "quantize"} & {path.name for path in (folders[name] / "edgestill").iterdir()}


def test_what_is_not_installed_here_is_asked_for_as_the_project_does(monkeypatch: pytest.MonkeyPatch) -> None:
    version = metadata.version

    def without(name: str) -> str:
        if name == "uvicorn":
            raise metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(metadata, "version", without)
    assert "uvicorn>=0.40" in _requirements.pinned(["serve"])
    monkeypatch.setattr(_requirements, "PROJECT", "not-installed-anywhere")
    with pytest.raises(EdgestillError, match="not-installed-anywhere is not installed here"):
        _requirements.pinned(["serve"])


def test_the_manifests_ask_for_what_was_measured(folders: dict[str, Path]) -> None:
    folder = folders["gguf"]
    deployment, service = yaml.safe_load_all((folder / "kubernetes.yaml").read_text())
    pod = deployment["spec"]["template"]["spec"]
    (server,) = pod["containers"]
    measured = float(re.findall(r"take ([\d.]+) MB", (folder / "README.md").read_text())[0])
    asked, most = (int(server["resources"][kind]["memory"].removesuffix("Mi")) for kind in ("requests", "limits"))
    assert 20 < measured < 500 and measured / 1.048576 + container.SERVER_MIB <= asked <= measured / 1.048576 + 192
    assert 1.5 * asked <= most < 1.5 * asked + 64
    probes = {name: server[name]["httpGet"]["path"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert probes == {"startupProbe": "/health", "readinessProbe": "/ready", "livenessProbe": "/health"}
    assert pod["securityContext"]["runAsNonRoot"] and server["securityContext"]["readOnlyRootFilesystem"]
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"] == {"app": "gguf"}
    run = yaml.safe_load((folder / "service.yaml").read_text())["spec"]["template"]["spec"]["containers"][0]
    assert run["resources"]["limits"] == {"cpu": "2", "memory": f"{most}Mi"}
    assert (run["startupProbe"]["httpGet"]["path"], run["livenessProbe"]["httpGet"]["path"]) == ("/ready", "/health")
    for keyed in (run, server):
        key = next(one for one in keyed["env"] if one["name"] == "EDGESTILL_API_KEY")
        assert key["valueFrom"]["secretKeyRef"]["name"] == "gguf-key"
    model, endpoint, serverless = (json.loads((folder / f"sagemaker-{name}.json").read_text())
                                   for name in ("model", "endpoint", "serverless"))
    assert model["PrimaryContainer"]["Environment"] == {"EDGESTILL_SAGEMAKER": "1"}
    assert endpoint["ProductionVariants"][0]["InstanceType"] == "ml.c5.large"
    assert serverless["ProductionVariants"][0]["ServerlessConfig"]["MemorySizeInMB"] == 1024


@pytest.mark.parametrize(("gigabytes", "cpus", "instance", "serverless"), [
    (1.5, 2, "ml.c5.large", 3072), (4, 2, "ml.m5.large", 7168), (9, 4, "ml.m5.xlarge", 14336)])
def test_larger_models_get_larger_machines(gigabytes: float, cpus: int, instance: str, serverless: int) -> None:
    found = container.machine(int(gigabytes * 2**30))
    assert (found["cpus"], found["instance"], found["serverless_mb"]) == (cpus, instance, serverless)


def test_what_no_machine_there_holds_is_refused_or_left_out(packed_bert: Path, tmp_path: Path,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="takes 25.0 GiB while it is served"):
        container.machine(25 * 2**30)
    monkeypatch.setattr(container, "peak_bytes", lambda *_: 5 * 2**30)
    monkeypatch.setattr(container, "ROOMS", ("models",))
    folder = apps.write(open_artifact(packed_bert), "container", tmp_path)
    assert not (folder / "sagemaker-serverless.json").exists() and (folder / "sagemaker-endpoint.json").exists()


def test_a_name_that_yaml_reads_otherwise_stays_a_name(folders: dict[str, Path]) -> None:
    found = [*yaml.safe_load_all((folders["labels"] / "kubernetes.yaml").read_text()),
             yaml.safe_load((folders["labels"] / "service.yaml").read_text())]
    assert [one["metadata"]["name"] for one in found] == ["null"] * 3


@contextlib.contextmanager
def started(folder: Path, cache: Path, *words: str, **environment: str) -> Iterator[int]:
    """The image's entry command in the folder that the image holds, with the words that are given behind it."""
    for name in TORCH:
        (folder / f"{name}.py").write_text("raise AssertionError(__name__)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    entry = json.loads(next(rest for word, rest in instructions(folder) if word == "ENTRYPOINT"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen([*entry, *words], cwd=folder, stderr=subprocess.PIPE, text=True, env={
        **os.environ, "PATH": path, "PORT": str(port), "THREADS": "1", "XDG_CACHE_HOME": str(cache), **environment})
    try:
        while ask(port, "GET", "/ready")[0] != 200:
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        yield port
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) in (0, -signal.SIGTERM, 130)
    finally:
        process.kill()
        process.communicate()


def ask(port: int, method: str, path: str, body: Any = None, key: str = "") -> tuple[int, Any]:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    try:
        connection.request(method, path, json.dumps(body) if body else None, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except OSError:
        return 0, b""
    finally:
        connection.close()


def test_the_entry_command_serves_the_model(folders: dict[str, Path], packed_llama: dict[str, Path],
                                            tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "turn off the light"}]
    with started(folders["gguf"], tmp_path, EDGESTILL_API_KEY=KEY) as port:
        assert ask(port, "GET", "/v1/models")[0] == 401 and ask(port, "GET", "/health")[0] == 200
        status, body = ask(port, "POST", "/v1/chat/completions", {"messages": chat, "max_tokens": 6}, KEY)
    with load(packed_llama["gguf"], threads=1) as model:
        assert status == 200 and json.loads(body)["choices"][0]["message"]["content"] == model.chat(
            chat, max_new_tokens=6).text


def test_sagemaker_starts_it_with_a_word_and_asks_its_two_routes(folders: dict[str, Path], packed_bert: Path,
                                                                 tmp_path: Path) -> None:
    with started(folders["labels"], tmp_path, "serve", EDGESTILL_SAGEMAKER="1") as port:
        assert ask(port, "GET", "/ping")[0] == 200 and ask(port, "GET", "/v1/models")[0] == 404
        status, body = ask(port, "POST", "/invocations", {"text": "turn off the light"})
    with load(packed_bert, threads=1) as model:
        wanted = model.classify("turn off the light").label
    assert status == 200 and json.loads(body)["results"][0]["label"] == wanted


def test_without_a_key_it_does_not_start(folders: dict[str, Path]) -> None:
    entry = json.loads(next(rest for word, rest in instructions(folders["labels"]) if word == "ENTRYPOINT"))
    done = subprocess.run(entry, cwd=folders["labels"], capture_output=True, text=True, env={
        **os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PORT": "0",
        "THREADS": "1", "EDGESTILL_API_KEY": ""})
    assert done.returncode == 2 and "no API key is set" in done.stderr
