"""run_all.py - runs all benchmarks, or the named ones, then writes docs/benchmarks.md.

    python bench/run_all.py [NAME...]

What `make bench` does.  The page is written when there are results of every benchmark, from this
run or an earlier one.  The exit status is 1 when weir itself failed somewhere; a missing peer is no
failure, it is in the results.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import harness

# bench/NAME.py, in the order in which they run.
BENCHMARKS = (
    "process_submit",
    "process_map",
    "process_map_1ms",
    "process_skew",
    "process_array",
    "process_latency",
    "process_start",
    "process_overload",
    "thread_submit",
    "pipeline_threads",
    "pipeline_processes",
    "queue_one_thread",
    "queue_threads",
    "stats_cost",
    "async_queue",
    "limiter",
    "amap",
    "flow",
    "shared_queue",
    "rate",
    "rate_shared",
    "breaker",
    "retry",
    "c_queue",
    "c_queue_deadline",
    "c_thread_pool",
    "c_pipeline",
    "run_spawn",
    "run_memory_held",
    "run_input",
    "run_order",
    "run_cgroup",
    "run_resume",
)


def main() -> int:
    here = Path(__file__).resolve().parent
    names = sys.argv[1:] or list(BENCHMARKS)
    for name in names:
        if name not in BENCHMARKS:
            print(f'weir: bench: there is no benchmark "{name}"; there are:', file=sys.stderr)
            print(*BENCHMARKS, file=sys.stderr)
            return 2
    began = time.monotonic()
    subprocess.run([harness.ROOT / "scripts" / "build", "bench"], check=True)
    env = dict(os.environ, WEIR_BENCH_BUILT="1")
    failed = []
    for name in names:
        status = subprocess.run([sys.executable, str(here / f"{name}.py")], env=env).returncode
        if status == 130:  # Ctrl-C ends all of it
            return status
        if status:
            failed.append(name)
    print(f"{len(names)} benchmarks in {time.monotonic() - began:.0f} s")
    for name in failed:
        print(f"weir: bench: {name} failed; see above", file=sys.stderr)
    absent = [name for name in BENCHMARKS if not (harness.RESULTS / f"{name}.jsonl").exists()]
    if absent:
        print(f"docs/benchmarks.md is left as it is: no results yet of {' '.join(absent)}")
        return 1 if failed else 0
    report = subprocess.run([sys.executable, str(here / "report.py")]).returncode
    return report or (1 if failed else 0)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
