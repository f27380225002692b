#!/usr/bin/env python3
"""spill.py - a burst larger than memory, and a kill in the middle of it.

Eight sensors send 2,000 readings of 20 kB as fast as the disk takes them; the consumer uses 200 a
second. 50 readings are in memory, the others on disk, and no sensor waits for the consumer. When
half of them are used the process is killed (SIGKILL); the next one goes on with what nobody had
acknowledged. No reading is lost; those whose acknowledgement was still to be written come again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time

import show
import weir

READING = 20_000  # bytes
SENSORS = 8  # their puts wait for the disk together


def main() -> int:
    if sys.argv[1:2] == ["life"]:
        return life(sys.argv[2], *map(int, sys.argv[3:]))
    args = show.options(__doc__, items=2000, memory=50, consumer_rate=200.0)
    rate = int(args.consumer_rate * args.speed)
    with tempfile.TemporaryDirectory() as directory:
        print("a process that is killed half way:")
        sent, before = live(directory, args.items, args.memory, rate, kill_after=args.items // 2)
        print("\nthe next one, to which nobody sends anything:")
        _, after = live(directory, 0, args.memory, rate)
    twice = len(before & after)
    print(
        f"\n{len(before):,} readings used before the kill, {len(after):,} after it, {twice} twice"
    )
    sent |= before | after  # the last ones may be on disk without having been reported
    return show.check_law("readings sent", len(sent), {"used": len(before | after)})


def live(directory: str, *numbers: int, kill_after: int = -1) -> tuple[set[int], set[int]]:
    """Runs a process; returns the readings it reports as sent and as used, and prints the rest."""
    reported: dict[str, set[int]] = {"sent": set(), "used": set()}
    command = [sys.executable, __file__, "life", directory, *map(str, numbers)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            what, _, number = line.partition(" ")
            if what not in reported:
                print(" ", line, end="")
                continue
            reported[what].add(int(number))
            if len(reported["used"]) == kill_after:
                process.send_signal(signal.SIGKILL)
    return reported["sent"], reported["used"]


def life(directory: str, to_send: int, memory: int, rate: int) -> int:
    """What a process does: sends readings, and uses at its own speed what is there."""
    disk = weir.Spill(f"{directory}/readings", max_bytes=256 << 20, durable=True)
    queue: weir.Queue[tuple[int, bytes]] = weir.Queue(memory, overflow="spill", spill=disk)
    say(f"{queue.stats().recovered:,} readings were on disk")
    sensors = [
        threading.Thread(target=send, args=(queue, range(first, to_send, SENSORS)))
        for first in range(SENSORS)
    ]
    for sensor in sensors:
        sensor.start()
    threading.Thread(target=end, args=(queue, sensors)).start()
    began = time.monotonic()
    for count in range(1, sys.maxsize):
        try:
            (number, _), ack = queue.get_ack()
        except weir.ShutDown:
            break
        time.sleep(max(0.0, began + count / rate - time.monotonic()))
        say(f"used {number}")
        ack()
        if count % 250 == 0:
            say(describe(queue))
    return 0


def send(queue: weir.Queue[tuple[int, bytes]], numbers: range) -> None:
    for number in numbers:
        queue.put((number, bytes(READING)))  # on the disk, when it returns
        say(f"sent {number}")


def end(queue: weir.Queue[tuple[int, bytes]], sensors: list[threading.Thread]) -> None:
    for sensor in sensors:
        sensor.join()
    queue.shutdown()


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())  # in one piece, from any thread


def describe(queue: weir.Queue[tuple[int, bytes]]) -> str:
    s = queue.stats()
    return (
        f"{s.qsize - s.spilled:3} in memory, {s.spilled:5,} on disk only; "
        f"files {show.mib(s.disk_bytes)}, RSS {show.mib(show.rss())}"
    )


if __name__ == "__main__":
    sys.exit(main())
