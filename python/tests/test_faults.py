"""Every call of the extension fails once, and each allocation of Python: fault_scenarios.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "build/tests/libweir_faults.so"

pytestmark = [
    pytest.mark.skipif(not LIBRARY.parent.exists(), reason="an installed package has no build/"),
    pytest.mark.skipif("WEIR_SANITIZER" in os.environ, reason="a sanitizer has the allocator"),
]

# What has to be reached, or the test would pass by looking at nothing.
AT_LEAST = {
    "queue": {"python": 30, "malloc": 2, "eventfd": 1},
    "queue_that_is_awaited": {"python": 30},
    "queue_of_bytes": {"python": 30, "malloc": 2},
    "queue_that_spills": {"python": 30, "malloc": 5, "open": 5, "pwrite": 5},
    "queue_that_is_opened_again": {"python": 10, "malloc": 5, "open": 5, "pread": 5},
    "shared_queue": {"python": 30, "malloc": 2, "mmap": 1, "memfd_create": 1, "fallocate": 2},
    "bucket": {"python": 20, "malloc": 2},
    "limiter": {"python": 30, "malloc": 2},
    "breaker": {"python": 20, "malloc": 2},
    "watermark": {"python": 10, "malloc": 1, "eventfd": 1},
    "governor": {"python": 20, "malloc": 2, "open": 3},
    "thread_pool": {"python": 30},
    "process_pool": {"malloc": 2, "mmap": 1, "memfd_create": 1, "eventfd": 1},
    "shared_array": {"python": 1, "malloc": 1, "mmap": 1, "memfd_create": 1, "fallocate": 1},
}


@pytest.mark.parametrize("scenario", AT_LEAST)
def test_each_call_may_fail_and_nothing_is_lost_or_left(scenario: str) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-X",
            "faulthandler",
            Path(__file__).with_name("fault_scenarios.py"),
            scenario,
        ],
        env={**os.environ, "LD_PRELOAD": str(LIBRARY)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    failed = json.loads(done.stdout)
    for kind, n in AT_LEAST[scenario].items():
        assert failed[kind] >= n, failed
