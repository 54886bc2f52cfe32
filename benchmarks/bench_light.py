"""What `headrace up` weighs: memory of everything but the broker, CPU while nothing happens, seconds until all is up.

`python benchmarks/bench_light.py [--rounds 5] [--seconds 10] [--json]`. Memory is PSS (shared pages counted once), with
one pipeline released and served. It is held to what was asked of the services that came first, without the monitor
(550 MB, 3 %), and of all (600 MB, 4 %). Up is timed from the call to the moment every service says it is ready.
"""

from __future__ import annotations

import contextlib
import statistics
import time

import psutil
from common import Line, arguments, broker, in_child, made_up, note, tell
from stack import Stack, encoded, prepared, publish, wait

from headrace.infra import processes
from headrace.services import SERVICES


def up(made: Stack) -> float:
    """Seconds until every service is ready."""
    began = time.perf_counter()
    processes.up(made.home)
    missing = processes.wait_ready(made.home, tuple(SERVICES), 120)
    if missing:
        raise RuntimeError(f"{', '.join(missing)} did not start; see {made.home}/logs")
    return time.perf_counter() - began


def memory_mb(made: Stack) -> dict[str, float]:
    """PSS of every process by name."""
    found = {}
    for name, process in made.processes().items():
        with contextlib.suppress(psutil.NoSuchProcess):
            found[name] = process.memory_full_info().pss / 2**20
    return found


def idle_cpu(made: Stack, seconds: float) -> dict[str, float]:
    """Percent of a core by process, over so many seconds without a record (but the scheduler's ticks)."""
    before = made.cpu_s()
    time.sleep(seconds)
    return {name: (spent - before.get(name, 0.0)) / seconds * 100 for name, spent in made.cpu_s().items()}


def main() -> None:
    asked = arguments(__doc__, seconds=10, rows=20_000)
    address = broker()
    seconds: list[float] = []
    idle: list[dict[str, float]] = []
    with prepared() as made:
        try:
            for number in range(asked.rounds):
                seconds.append(up(made))
                note(f"up {number + 1} of {asked.rounds}: {seconds[-1]:.1f} s")
                if number + 1 < asked.rounds:
                    processes.down(made.home)
            empty = memory_mb(made)
            made.release()
            in_child(publish, address, made.topic("<p>.data-arrived"), encoded(made_up(asked.rows), 500, "l"))
            wait(lambda: made.end("<p>.labelled-examples") >= asked.rows, "the last label")
            wait(lambda: sum(idle_cpu(made, 1.0).values()) < 20, "rest")
            served = memory_mb(made)
            for number in range(asked.rounds):
                idle.append(idle_cpu(made, asked.seconds))
                note(f"idle {number + 1} of {asked.rounds}: {sum(idle[-1].values()):.2f} %")
        finally:
            processes.down(made.home)
    tell("What the services weigh", report(seconds, empty, served, idle, asked.rows), asked.json)


def report(
    seconds: list[float], empty: dict[str, float], served: dict[str, float], idle: list[dict[str, float]], rows: int
) -> list[Line]:
    cpu = statistics.median(sum(one.values()) for one in idle)
    by_name = {name: statistics.median(one.get(name, 0.0) for one in idle) for name in idle[0]}
    return [
        Line("up, all services ready", round(statistics.median(seconds), 2), "s", "< 6", spread(seconds)),
        Line("memory (PSS), just up (asked of the first)", round(sum(empty.values())), "MB", "< 550", listed(empty)),
        Line(
            f"memory, after {rows:,} rows (asked of the first)",
            round(sum(served.values())),
            "MB",
            "< 550",
            listed(served),
        ),
        Line(f"memory, after {rows:,} rows (asked of all)", round(sum(served.values())), "MB", "< 600"),
        Line("idle CPU (asked of the first)", round(cpu, 2), "% of a core", "< 3", listed(by_name, 2)),
        Line("idle CPU (asked of all)", round(cpu, 2), "% of a core", "< 4"),
    ]


def spread(values: list[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in values)


def listed(numbers: dict[str, float], digits: int = 0) -> str:
    """Largest first."""
    ordered = sorted(numbers.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {number:.{digits}f}" for name, number in ordered)


if __name__ == "__main__":
    main()
