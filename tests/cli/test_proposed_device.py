"""`init --device`: the student and the format that a device runs well, with the reasons in the run file."""

import pytest
from edgestill.cli import main
from edgestill.cli.commands.proposed_device import propose
from edgestill.models.errors import UsageError


def test_the_largest_student_that_is_fast_enough_is_chosen():
    fast = propose("pi5", None, False)
    assert (fast.student, fast.format) == ("smollm2-360m", "gguf")
    assert "For Raspberry Pi 5, 8 GB: smollm2-360m as gguf:Q4_0" in fast.reasons[0]
    assert "the largest of the smollm2 series that fits and writes 10 tokens/s" in fast.reasons[1]
    assert fast.gates[1].startswith("# decode_tokens_per_s >= ") and fast.gates[2].startswith("# peak_rss_bytes <= ")


def test_a_device_of_unknown_speed_gets_the_smallest():
    found = propose("imx8mplus", None, False)
    assert found.student == "smollm2-135m" and "tokens/s" not in found.reasons[0]
    assert "; how fast this device writes is not known" in found.reasons[1] and len(found.gates) == 2


def test_a_slow_device_gets_the_smallest(tmp_path):
    slow = tmp_path / "slow.toml"
    figure = 'low = 4e8\nhigh = 5e8\nbasis = "measured"\nsource = "a test"\ndate = "2026-11"\n'
    slow.write_text('title = "A slow board"\narchitecture = "arm"\nunknown = ["memory_bytes", "multiply_adds_per_s"]\n'
                    f"[read_bytes_per_s]\n{figure}")
    found = propose(str(slow), None, False)
    assert found.student == "smollm2-135m" and "fits; none writes 10 tokens/s." in found.reasons[1]


def test_a_student_that_was_asked_for_stays_and_must_fit(tmp_path):
    assert propose("pi5", "qwen2.5-1.5b", False).student == "qwen2.5-1.5b"
    small = tmp_path / "small.toml"
    small.write_text('title = "A tiny board"\narchitecture = "arm"\nunknown = ["read_bytes_per_s", '
                     '"multiply_adds_per_s"]\n[memory_bytes]\nlow = 2e8\nhigh = 2e8\nbasis = "measured"\n'
                     'source = "a test"\ndate = "2026-11"\n')
    with pytest.raises(UsageError, match="smollm2-135m: takes about .* which does not fit A tiny board"):
        propose(str(small), None, False)
    for student, message in (("owner/name", "not known before it is downloaded"), ("minilm-l6", "no decoder")):
        with pytest.raises(UsageError, match=message):
            propose("pi5", student, False)
    with pytest.raises(UsageError, match="these rows are a classifier's"):
        propose("pi5", None, True)


def test_the_run_file_tells_why(tmp_path, capsys):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a question", "completion": "an answer"}\n' * 9)
    assert main.call(["init", str(rows), "--device", "pi5", "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("# For Raspberry Pi 5, 8 GB: smollm2-360m") and 'model = "smollm2-360m"' in text
    assert text.count("[[export]]") == 1 and 'target = "gguf:' in text
    assert "# decode_tokens_per_s >= " in text
