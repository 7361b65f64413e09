"""A teacher that reads a system message of some 400 tokens, and a student that reads none, on the demo's rows.

    python benchmarks/prompted.py out/prompted

The demo's teacher (6.1M parameters) follows no instructions, so it is tuned first with prompted_system.txt before every
row: from then on it needs the message, as the last line shows. The student is cut from it and learns from what it says
behind the message.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from edgestill.cli.commands.running import write_demo_rows
from edgestill.cli.main import call
from edgestill.cli.pipeline.evaluate import FloatSubject
from edgestill.models.task import Task
from edgestill.runtime.data.reader import read_rows

HERE = Path(__file__).resolve().parent
DEMO = HERE.parent / "models" / "demo" / "teacher"


def main(out: Path) -> None:
    """Tune, distil, export, measure."""
    started = time.perf_counter()
    write_demo_rows(out / "data")
    run, data = str(HERE / "prompted.toml"), f"data.dir={json.dumps(str(out / 'data'))}"
    system = json.dumps((HERE / "prompted_system.txt").read_text().strip())
    tuned = f"teacher.model={json.dumps(str(out / 'teacher'))}"
    for verb in (["tune", run, "-o", str(out / "teacher"), "--set", data, "--set", f"task.system={system}",
                  "--set", f"student.model={json.dumps(str(DEMO))}", "--set", "student.layers=[]", "--set",
                  "teacher={}"],
                 ["run", run, "-o", str(out / "run"), "--set", data, "--set", tuned]):
        if call(verb):
            raise SystemExit(f"failed: {' '.join(verb[:2])}")
    print(f"{time.perf_counter() - started:.0f} s")
    found = FloatSubject(out / "teacher", Task(max_new_tokens=96)).evaluate(read_rows(out / "data" / "test.jsonl"))
    print(f"teacher without its system message: {found.metrics['exact_match']}")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
