"""What training lets the C library keep is the system's again when training is over."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

CHILD = """
import numpy as np, psutil
from edgestill.distill.training.machine import freed_memory_kept

def resident():
    return psutil.Process().memory_info().rss / 2**20

def work():
    blocks, pins = [], []
    for _ in range(20):  # what lives on between large blocks keeps the heap from shrinking by itself
        blocks.append(np.ones(2**21))
        pins.append(bytes(100_000))
    return pins

before = resident()
with freed_memory_kept():
    pins = work()
    print(resident() - before)
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_freed_memory_is_kept_inside_and_given_back_behind() -> None:
    done = subprocess.run([sys.executable, "-P", "-c", CHILD], capture_output=True, text=True, check=True)
    inside, behind = map(float, done.stdout.split())
    assert inside > 300 and behind < 50
