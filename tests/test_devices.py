"""What a device installs: compiled modules alone, or a zip; the packages of what it runs, and nothing else."""

from __future__ import annotations

import compileall
import json
import os
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from edgestill.cli.extras import EXTRAS
from edgestill.models import family, kinds
from edgestill.quantize import export
from edgestill.runtime import load

from . import proving
from .wheels import PACKAGE, ROOT, tracked

PACKAGES = ("runtime.engines", "quantize.methods", "quantize.proof.checks", "distill.losses")
PROBE = "import edgestill, numpy\nprint(edgestill.__path__[0])\n"
"""A module that only the copies here have."""
APP = """
import json, subprocess, sys
place, absent, packages, proven, folders = json.loads(sys.argv[1])
sys.path.insert(0, place)
for name in absent:
    sys.modules[name] = None  # importing it is an error
import edgestill
from edgestill.cli.main import call
from edgestill.models import kinds
from edgestill.runtime import load
from edgestill.runtime.files.limited_process import command
answers = []
for folder in folders:
    with load(folder, threads=1) as model:  # in a process of its own first
        answers.append(model.generate("turn off the light", max_new_tokens=4).ids)
codes = [call(words) for words in (["--help"], ["--version"], ["models"], ["verify", proven, "--quick"], ["demo"])]
print(json.dumps({
    "from": edgestill.__path__[0], "answers": answers, "codes": codes,
    "child": subprocess.run(command("edgestill.probe"), capture_output=True, text=True, check=True).stdout.strip(),
    "kinds": [kinds.names(package) for package in packages],
    "families": kinds.names("models.families", ".toml")}))
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as compiled modules and data, without one line of source."""
    folder = tmp_path_factory.mktemp("compiled")
    for name in tracked(*PACKAGE):
        (folder / "edgestill" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / "edgestill" / name)
    (folder / "edgestill" / "probe.py").write_text(PROBE)
    assert compileall.compile_dir(folder, legacy=True, quiet=1)
    for path in folder.rglob("*.py"):
        path.unlink()
    return folder


@pytest.fixture(scope="module")
def zipped(compiled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in a zip."""
    path = tmp_path_factory.mktemp("zipped") / "app.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in compiled.rglob("*"):
            archive.write(file, file.relative_to(compiled))
    return path


@pytest.fixture(scope="module")
def proven(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama with a certificate."""
    out = tmp_path_factory.mktemp("proven")
    return export(tiny_llama, ["gguf:F16"], out, proving.ROWS[:2], proving.TEST_ROWS[:2])["gguf:F16"]


@pytest.mark.parametrize("layout", ["compiled", "zipped"])
def test_compiled_modules_and_a_zip_do_what_the_source_does(
        layout: str, packed_llama: dict[str, Path], proven: Path, tmp_path: Path,
        request: pytest.FixtureRequest) -> None:
    place: Path = request.getfixturevalue(layout)
    absent = [name for extra in ("train", "export", "serve", "structure") for name in EXTRAS[extra]]
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}  # nothing counts as made or tried here
    job = json.dumps([str(place), absent, PACKAGES, str(proven), [str(path) for path in packed_llama.values()]])
    done = subprocess.run([sys.executable, "-c", APP, job], env=environment, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["codes"] == [0, 0, 0, 0, 2], done.stderr
    assert "error: the demo's teacher is not installed" in done.stderr and "make demo" in done.stderr
    assert found["from"] == found["child"] == str(place / "edgestill")
    assert found["kinds"] == [kinds.names(package) for package in PACKAGES] and all(found["kinds"])
    assert found["families"] == family.names() and "llama" in found["families"]
    for folder, ids in zip(packed_llama.values(), found["answers"], strict=True):
        with load(folder, threads=1) as model:
            assert ids == model.generate("turn off the light", max_new_tokens=4).ids


@pytest.mark.parametrize("layout", ["compiled", "zipped"])
def test_data_files_are_found_wherever_they_lie(layout: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    code = ("import sys\nsys.path.insert(0, sys.argv[1])\nfrom pathlib import Path\n"
            "from edgestill.models.demo import grammar\nfrom edgestill.cli.report import markup\n"
            "from edgestill.distill.student_template import read\nfrom edgestill.quantize import apps\n"
            "from edgestill.runtime.server import application\n"
            "assert next(grammar.rows('train', 1)) and 'im_start' in read('chatml', Path())\n"
            "assert markup.STYLE.read_text() and application._PAGE.read_text()\n"
            "apps.copy(apps.TEMPLATES / 'android' / 'common', Path('app'))\n")
    subprocess.run([sys.executable, "-c", code, request.getfixturevalue(layout)], check=True, cwd=tmp_path)
    wanted = ROOT / "quantize" / "apps" / "templates" / "android" / "common"
    assert {path.relative_to(tmp_path / "app"): path.read_bytes() for path in (tmp_path / "app").rglob("*.*")} == {
        path.relative_to(wanted): path.read_bytes() for path in wanted.rglob("*.*")}


def test_a_process_of_its_own_finds_the_package_in_the_working_folder(compiled: Path, tmp_path: Path) -> None:
    """Where `python -m edgestill` found it; what else lies there comes after everything that is installed."""
    code = ("import subprocess\nfrom edgestill.runtime.files.limited_process import command\n"
            "subprocess.run(command('edgestill.probe'), check=True)")
    (tmp_path / "edgestill").symlink_to(compiled / "edgestill")
    (tmp_path / "numpy.py").write_text("raise SystemExit(3)")
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert found.stdout.strip() == str(tmp_path / "edgestill")


@pytest.mark.parametrize("how", ["-m edgestill", "-c 'import edgestill.__main__'"])
def test_without_the_command_line_only_the_library_is_there(how: str, tmp_path: Path) -> None:
    """The second is what the installed script does first (the wheel's test holds it to that)."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['click'] = None\n")
    found = subprocess.run([sys.executable, *shlex.split(how)], env=os.environ | {"PYTHONPATH": str(tmp_path)},
                           capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr == ("error: click is not installed, and this step needs it\n"
                            "hint: pip install 'edgestill[cli]'\n")


def test_a_user_without_a_home_is_told_what_to_set(packed_llama: dict[str, Path], tmp_path: Path) -> None:
    """HOME is not set, and the system does not know the user."""
    (tmp_path / "sitecustomize.py").write_text("import pwd\ndef unknown(user):\n    raise KeyError(user)\n"
                                               "pwd.getpwuid = unknown\n")
    code = ("import sys\nfrom edgestill.cli.main import call\nfrom edgestill.models.user_cache import user_cache\n"
            "from edgestill.runtime import load\n"
            "with load(sys.argv[1], threads=0) as model:\n    assert model.generate('x', max_new_tokens=2).ids\n"
            "print(user_cache(), user_cache().is_dir(), call(['generate', 'smollm2-135m', 'x']))")
    environment = {name: value for name, value in os.environ.items()
                   if name not in ("HOME", "XDG_CACHE_HOME") and not name.startswith(("HF_", "HUGGINGFACE_"))}
    found = subprocess.run([sys.executable, "-c", code, packed_llama["gguf"]], capture_output=True, text=True,
                           check=False, env=environment | {"PYTHONPATH": str(tmp_path), "TMPDIR": str(tmp_path)})
    assert found.returncode == 0, found.stderr
    folder, was_there, exit_code = found.stdout.split()
    assert Path(folder).parent == tmp_path and (was_there, exit_code) == ("True", "2") and not Path(folder).exists()
    assert found.stderr.count("set XDG_CACHE_HOME to a folder that stays") == 1
    assert "error: ~/.cache/huggingface/hub: this user has no home" in found.stderr
    assert "hint: set HF_HOME to a folder that stays" in found.stderr
