"""Quiet by default: a whole run opens no connection, native code included."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
from edgestill.cli.main import call
out = sys.argv[2]
code = call(["tune", sys.argv[1], "-o", f"{out}/student"])
code = code or call(["export", f"{out}/student", "--to", "gguf:Q8_0", "--to", "onnx:int8", "-o", out,
                     "--rows", sys.argv[1]])
for name in ("gguf-Q8_0", "onnx-int8"):
    code = code or call(["verify", f"{out}/{name}"])
    code = code or call(["generate", f"{out}/{name}", "turn off the light", "--max-new-tokens", "4"])
sys.exit(code)
"""


def test_a_whole_run_opens_no_connection(tiny_llama: Path, tmp_path: Path) -> None:
    """onnxruntime and the hub's libraries phone home unless told otherwise; strace sees what Python cannot."""
    if shutil.which("strace") is None:
        pytest.skip("needs strace to see the system calls of native code")
    rows = [{"prompt": f"turn off light {number}", "completion": f'{{"light":{number}}}'} for number in range(24)]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    run = tmp_path / "run.toml"
    run.write_text(f'[data]\ntrain = "rows.jsonl"\n[student]\nmodel = {json.dumps(str(tiny_llama))}\n'
                   "[tune]\nsteps = 2\n", encoding="utf-8")
    log = tmp_path / "calls"
    done = subprocess.run(
        ["strace", "-f", "--seccomp-bpf", "-qq", "-o", str(log), "-e", "trace=connect,sendto,sendmsg",
         sys.executable, "-c", SCRIPT, str(run), str(tmp_path / "out")],
        capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    connections = [line for line in log.read_text().splitlines() if re.search(r"AF_INET6?\b", line)]
    assert connections == []
