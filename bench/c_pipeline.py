"""How many items a second go through a C pipeline of three empty stages?

A source makes pointers, three stages hand them on, a sink counts them; count, sum and order are
checked. In "serial" each stage does one item at a time; in "parallel" the stages may do several,
and the sink still gets them in order. Nothing is done to an item: it is the hand-over that counts.
"""

from __future__ import annotations

from collections.abc import Callable

import harness
from harness import Subject

ITEMS = 2_000_000
SECONDS = 0.4

Command = Callable[[str, float], list[str]]


def weir(kind: str) -> Command:
    def command(case: str, effort: float) -> list[str]:
        ms = max(10, int(SECONDS * 1000 * effort))
        return [harness.program("pipeline_weir", "a C compiler"), kind, str(ms)]

    return command


def peer(program: str, needs: str, bound: int) -> Command:
    def command(case: str, effort: float) -> list[str]:
        if program == "pipeline_condvar" and case == "parallel":
            raise harness.Missing("it has no parallel stages that keep the order")
        return [harness.program(program, needs), case, str(bound), str(int(ITEMS * effort))]

    return command


QUESTION = harness.Question(
    __file__,
    __doc__,
    unit="M items/s",
    better="more",
    cases=("serial", "parallel"),
    rounds=7,
    timeout=60,
    weir=(
        Subject(
            "weir_pipeline",
            command=weir("threads"),
            note="a thread for each stage, which takes up to 64 items at a time; queues of 1024",
        ),
        Subject("weir_pipeline, one item at a time", command=weir("one")),
        Subject("weir_pipeline, inline stages", command=weir("inline"), note="one thread for all"),
    ),
    peers=(
        Subject(
            "TBB parallel_pipeline, 1 token",
            command=peer("pipeline_tbb", "libtbb-dev", 1),
            note="one item inside at a time: nothing runs beside anything",
        ),
        *(
            Subject(
                f"TBB parallel_pipeline, {tokens} tokens",
                command=peer("pipeline_tbb", "libtbb-dev", tokens),
                target=">= 1",
            )
            for tokens in (4, 16, 64, 1024)
        ),
        Subject(
            "threads, mutex + condvar",
            command=peer("pipeline_condvar", "a C compiler", 1024),
            target=">= 1",
            note="rings of 1024",
        ),
    ),
)

if __name__ == "__main__":
    raise SystemExit(harness.ask(QUESTION))
