"""Device files: every one that comes along is whole, and a wrong one is refused with the key."""

import pytest
from edgestill.models import catalogue, device
from edgestill.models.errors import UsageError
from edgestill.models.shape import shape_of

from .. import catalogue_models

FIGURE = '{ low = 1.0, high = 2.0, basis = "published", source = "a page", date = "2026-11" }'
UNKNOWN = 'unknown = ["memory_bytes", "read_bytes_per_s", "multiply_adds_per_s"]'


@pytest.mark.parametrize("name", device.names())
def test_every_device_gives_each_figure_with_its_source_or_says_that_it_is_not_known(name):
    found = device.device(name)
    for figure in (found.memory_bytes, found.read_bytes_per_s, *found.multiply_adds_per_s.values()):
        assert figure is None or (figure.source and figure.date[:2] == "20" and 0 < figure.low <= figure.high)
    assert {"pi4", "pi5", "jetson-orin-nano", "imx8mplus", "rk3588", "n100", "pixel8", "pixel9", "galaxy-s24",
            "iphone15", "iphone16", "apple-m", "x86", "arm", "browser"} == set(device.names())


@pytest.mark.parametrize(("lines", "message"), [
    (f"{UNKNOWN}\nspeed = 1", r"speed: unknown key"),
    (f"memory_bytes = {FIGURE}", r"read_bytes_per_s is neither given nor named in `unknown`"),
    (f"{UNKNOWN}\nmemory_bytes = {FIGURE}", r"memory_bytes is given and named in `unknown`"),
    (f"{UNKNOWN[:-1]}, 5]", r"unknown\[3\]: 5 is int"),
    (f"{UNKNOWN}\nmemory_bytes = {FIGURE.replace('2.0', '0.5')}".replace('"memory_bytes", ', ""), "above high"),
    (f"{UNKNOWN}\nmemory_bytes = {FIGURE.replace('published', 'guessed')}", "'guessed' is not one of the choices"),
    ("= 1", "is not TOML"),
])
def test_a_file_that_is_none_is_refused_with_its_key(tmp_path, lines, message):
    path = tmp_path / "board.toml"
    path.write_text(f'title = "A board"\narchitecture = "arm"\n{lines}\n')
    with pytest.raises(UsageError, match=message):
        device.device(str(path))


def test_an_unknown_device_suggests_the_nearest(tmp_path):
    with pytest.raises(UsageError, match="'pi55' is not known") as caught:
        device.device("pi55")
    assert "did you mean 'pi5'?" in caught.value.hint
    with pytest.raises(UsageError, match=r"board.toml: cannot be read") as caught:
        device.device(str(tmp_path / "board.toml"))
    assert "--calibrate" in caught.value.hint


def test_the_catalogue_has_the_shapes_that_were_published():
    for name, told in catalogue_models.facts().items():
        entry = catalogue.entry(name)
        if entry.shape is None:
            with pytest.raises(UsageError, match="encoder|layers of the kind"):
                shape_of(told["config"])
        else:
            assert entry.shape == shape_of(told["config"])
            assert entry.shape.parameters == pytest.approx(entry.parameters, rel=0.011)
