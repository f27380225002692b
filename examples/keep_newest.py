#!/usr/bin/env python3
"""keep_newest.py - a sensor whose newest reading is what counts (scenario S8).

20 readings/s come, 5/s are used.  The buffer holds 5; when it is full the oldest reading makes
room for the newest.  The sensor never waits, each drop is logged and counted, and the last reading
always arrives.
"""

from __future__ import annotations

import sys
import threading
import time
from argparse import Namespace

import show
import weir


def main() -> int:
    args = show.options(__doc__, items=20, buffer=5, sensor_rate=20.0, consumer_rate=5.0)
    dropped: list[int] = []
    used: list[int] = []

    def log_drop(reading: int, reason: object) -> None:
        dropped.append(reading)
        print(f"{clock():6.2f} s  dropped reading {reading:3} ({reason})")

    began = time.monotonic()

    def clock() -> float:
        return (time.monotonic() - began) * float(args.speed)

    readings: weir.Queue[int] = weir.Queue(args.buffer, overflow="drop_oldest", on_drop=log_drop)
    sensor = threading.Thread(target=measure, args=(readings, args))
    sensor.start()
    for reading in readings:  # ends when the sensor has shut the queue down and it is empty
        print(f"{clock():6.2f} s     used reading {reading:3}")
        used.append(reading)
        time.sleep(1 / args.consumer_rate / args.speed)
    sensor.join()

    print(f"the last reading, {args.items},", "arrived" if args.items in used else "WAS LOST")
    status = show.check_law("measured", args.items, {"used": len(used), "dropped": len(dropped)})
    return status if args.items in used else 1


def measure(readings: weir.Queue[int], args: Namespace) -> None:
    for number in range(1, args.items + 1):
        readings.put(number)  # never waits
        time.sleep(1 / args.sensor_rate / args.speed)
    readings.shutdown()


if __name__ == "__main__":
    sys.exit(main())
