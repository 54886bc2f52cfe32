"""What keeping state costs: a put and a pop in a LogTable with durable commits, beside a plain dict in the same run.

`python benchmarks/bench_store.py [--pending 10000,100000,1000000] [--rounds 5] [--json]`
Rounds of both are interleaved. CPU counts the whole process; wall time has the disk's fsync in it.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from headrace.infra.store import Store

VALUE = bytes(range(180))
COMMIT_EVERY = 5_000
PAIRS = 25_000  # a round


def key_of(number: int) -> str:
    """An id as long as a UUID, so that two do not share a string object."""
    return f"{number:036d}"


class PlainDict:
    """The bound: memory only, nothing durable."""

    def __init__(self, pending: int) -> None:
        self.rows = {key_of(n): VALUE for n in range(pending)}

    def commit(self, offset: int) -> None:
        pass


class Durable:
    """A store with one table."""

    def __init__(self, folder: Path, pending: int) -> None:
        self.store = Store.open(folder, b"k" * 32)
        self.rows = self.store.table("pending", bytes)
        for number in range(pending):
            self.rows[key_of(number)] = VALUE
        self.commit(0)

    def commit(self, offset: int) -> None:
        self.store.commit(offset, {"/joiner/p/0": offset}, {"clock_ms": offset, "number": offset}, {"topic": "t"})


def round_of(side: PlainDict | Durable, start: int, pending: int) -> dict[str, float]:
    """CPU and wall microseconds a pair, commits included; and a commit's milliseconds."""
    rows, commits_cpu, commits_wall = side.rows, [], []
    keys = [key_of(n) for n in range(start, start + PAIRS)]
    old = [key_of(n) for n in range(start - pending, start - pending + PAIRS)]
    cpu, wall = time.process_time(), time.perf_counter()
    for at in range(PAIRS):
        rows[keys[at]] = VALUE
        rows.pop(old[at])
        if (at + 1) % COMMIT_EVERY == 0:
            before_cpu, before_wall = time.process_time(), time.perf_counter()
            side.commit(start + at)
            commits_cpu.append(time.process_time() - before_cpu)
            commits_wall.append(time.perf_counter() - before_wall)
    return {
        "cpu_us": (time.process_time() - cpu) / PAIRS * 1e6,
        "wall_us": (time.perf_counter() - wall) / PAIRS * 1e6,
        "commit_cpu_ms": statistics.median(commits_cpu) * 1e3,
        "commit_wall_ms": statistics.median(commits_wall) * 1e3,
    }


def measure(pending: int, rounds: int) -> dict[str, float]:
    """Medians over interleaved rounds, the seconds a reopening takes, and the size on disk."""
    folder = Path(tempfile.mkdtemp())
    try:
        sides = {"dict": PlainDict(pending), "store": Durable(folder, pending)}
        seen: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
        for number in range(rounds):
            for name, side in sides.items():
                seen[name].append(round_of(side, pending + number * PAIRS, pending))
        store = sides["store"].store
        store.close()
        begin = time.process_time()
        again = Store.open(folder, b"k" * 32)
        rows = len(again.table("pending", bytes))
        reopened_s = time.process_time() - begin
        assert rows == pending
        again.close()
        middle = {
            f"{name}_{what}": statistics.median(row[what] for row in found)
            for name, found in seen.items()
            for what in found[0]
        }
        return {
            "pending": pending,
            **middle,
            "ratio_cpu": middle["store_cpu_us"] / middle["dict_cpu_us"],
            "reopened_cpu_s": reopened_s,
            "disk_mb": (folder / "data.mdb").stat().st_size / 1e6,
        }
    finally:
        shutil.rmtree(folder)


def small_commits(changes: int, rounds: int) -> dict[str, float]:
    """A commit of few rows, as every second in a quiet pipeline: mostly the disk."""
    folder = Path(tempfile.mkdtemp())
    try:
        side = Durable(folder, 10_000)
        cpu, wall = [], []
        for number in range(rounds):
            for at in range(changes):
                side.rows[key_of(10**6 + number * changes + at)] = VALUE
            begin_cpu, begin = time.process_time(), time.perf_counter()
            side.commit(number)
            cpu.append(time.process_time() - begin_cpu)
            wall.append(time.perf_counter() - begin)
        side.store.close()
        return {
            "changes": changes,
            "commit_cpu_ms": statistics.median(cpu) * 1e3,
            "commit_wall_ms": statistics.median(wall) * 1e3,
        }
    finally:
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pending", default="10000,100000,1000000")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    rows = [measure(int(pending), asked.rounds) for pending in asked.pending.split(",")]
    few = small_commits(200, 50)
    if asked.json:
        print(json.dumps({"pairs": rows, "small_commits": few}))
        return
    print(
        f"put + pop of {len(VALUE)} B, a durable commit each {COMMIT_EVERY:,} pairs; medians of {asked.rounds} rounds"
    )
    print("  pending   dict us  store us (CPU)  ratio  store us (wall)  commit ms CPU/wall  reopen s    MB")
    for row in rows:
        print(
            f"{row['pending']:>9,} {row['dict_cpu_us']:>9.2f} {row['store_cpu_us']:>15.2f} {row['ratio_cpu']:>6.1f} "
            f"{row['store_wall_us']:>16.2f} {row['store_commit_cpu_ms']:>11.2f} /{row['store_commit_wall_ms']:>6.2f} "
            f"{row['reopened_cpu_s']:>9.2f} {row['disk_mb']:>5.0f}"
        )
    print(f"a commit of {few['changes']} rows: {few['commit_cpu_ms']:.2f} ms CPU, {few['commit_wall_ms']:.2f} ms wall")


if __name__ == "__main__":
    main()
