"""Memory, disk and queues over a long stream: does any of it grow without bound?

All services on genuine Kafka; 1 million entities and as many ids as rows, 10 % of the labels never come, 5 % more come
without an example. Each second: resident memory, state folders (LMDB), models and checkpoints, the DuckDB store, lag.
In the last half every bounded table is full, so memory and state must be flat there; the store keeps history, so it
has a budget a row. Exit status 1 where a bound did not hold: `make bounds ROWS=5000000`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from common import COLUMNS, WEIGHTS
from stack import Stack, stack, wait

from headrace.infra import checkpoints, processes
from headrace.infra.release import release_file
from headrace.services import FOLDS, SERVICES

ENTITIES = 1_000_000
LATE = 1_000  # rows between an example and its label
AHEAD = 20_000  # records that may wait for the slowest fold before the publisher waits; more is what a broker holds
# budgets: MB of memory for each service; growth in the last half where it is more than noise; disk
STORE_MEMORY_MB = 128  # DuckDB fills what it may have; with the default (1 GB) a run of hours would look like a leak
RSS_MB = {"recorder": STORE_MEMORY_MB + 400, "validator": 500, "joiner": 700}
RSS_OTHERS_MB = 400
NOISE_MB, SLOPE_MB = 24.0, 8.0  # MB over the last half; MB for each million records of it
STATE_MB = 1_500
ARTIFACTS_MB = 200  # models; checkpoints are held to as many copies of all states as are kept, and one in the making
CHECKPOINT_S = 60  # instead of 600: so that old ones give way to new ones within the run
STORE_BYTES_A_ROW = 1_000
LAG = 3 * AHEAD  # what waited for one fold moves on and waits for the next one, beside what waits there already
SOURCE = '''
from headrace import Contract, Labels, Pipeline, Retention
from river import linear_model, preprocessing

class Bounds(Contract):
    """Eight numbers of an entity."""
{columns}

def recipe(seed: int):
    return preprocessing.StandardScaler() | linear_model.LogisticRegression()

pipeline = Pipeline(
    name="bounds", contract=Bounds, label=bool, recipe=recipe, entity=True,
    labels=Labels(max_pending={pending}), retention=Retention(dedupe_ids={ids}),
)
'''
Sample = dict[str, float]
Sent = tuple[bytes, bytes]  # key, body


def stream(rows: int) -> Iterator[Sent]:
    """Examples, and LATE rows later their labels, as JSON; features repeat, ids and entities do not."""
    rng = random.Random(7)
    kept = []
    for _ in range(2_000):
        values = [round(rng.gauss(0, 1), 4) for _ in COLUMNS]
        features = ",".join(f'"{name}":{value}' for name, value in zip(COLUMNS, values, strict=True))
        kept.append((features, "true" if sum(map(float.__mul__, WEIGHTS, values)) > 0 else "false"))
    head = '{"id":"%s-%d","time":"2026-01-01T12:00:00Z"'
    for number in range(rows + LATE):
        if number < rows:
            entity = f"e{number * 7_919 % ENTITIES}"
            body = head % ("row", number) + f',"features":{{{kept[number % 2_000][0]}}},"entity":"{entity}"}}'
            yield entity.encode(), body.encode()
        known = number - LATE
        if known >= 0 and known % 10 != 3:
            yield _label("row", known, kept[known % 2_000][1])
        if known >= 0 and known % 20 == 7:
            yield _label("nobody", known, "true")


def _label(prefix: str, number: int, label: str) -> Sent:
    entity = f"e{number * 7_919 % ENTITIES}"
    body = f'{{"id":"{prefix}-{number}","time":"2026-01-01T12:00:00Z","label":{label},"entity":"{entity}"}}'
    return entity.encode(), body.encode()


def folder_mb(path: Path) -> float:
    """What a folder takes on the disk, in MB: LMDB's files are sparse."""
    size = 0
    for file in path.rglob("*") if path.exists() else ():
        with contextlib.suppress(OSError):
            size += file.stat().st_blocks * 512
    return size / 1e6


def places(told: Any) -> Iterator[tuple[str, int]]:
    """`topic-partition` and offset, wherever a service tells them in its health."""
    for key, value in told.items() if isinstance(told, dict) else ():
        if isinstance(value, dict) and isinstance(value.get("offset"), int):
            yield key, value["offset"]
        else:
            yield from places(value)


class Watch:
    """Samples of everything that could grow."""

    def __init__(self, made: Stack) -> None:
        self.samples: list[Sample] = []
        self.lag = self._most_lag = 0
        self._made, self._began, self._at = made, time.monotonic(), 0.0
        self._topics = set(made.bus.topics())
        self.restarts = 0

    def when_due(self, sent: int) -> None:
        """One sample a second; `sent` records were published by now."""
        if time.monotonic() >= self._at:
            self._at = time.monotonic() + 1
            self.samples.append(self.sample(sent))

    def sample(self, sent: int) -> Sample:
        home = self._made.home
        found: Sample = {"s": time.monotonic() - self._began, "sent": sent}
        for name, state in processes.states(home).items():
            self.restarts = max(self.restarts, int(str(state.get("restarts", 0))))
            with contextlib.suppress(psutil.Error):
                found[f"rss {name}"] = psutil.Process(int(str(state["pid"]))).memory_info().rss / 1e6
        for folder in (self._made.settings.state_dir / "bench").glob("*"):
            found[f"state {folder.name}"] = folder_mb(folder)
        artifacts = Path(self._made.settings.artifact_url)
        found["checkpoints"] = folder_mb(artifacts / checkpoints.ROOT)
        found["artifacts"] = folder_mb(artifacts) - found["checkpoints"]
        found["store"] = folder_mb(self._made.settings.store_path.parent)
        found["lag"], self._most_lag = self._most_lag, self.lag
        return found

    def look(self) -> None:
        """How far the slowest fold is behind."""
        self.lag = self._slowest()
        self._most_lag = max(self._most_lag, self.lag)

    def _slowest(self) -> int:
        most = 0
        for service in sorted({fold.service for fold in FOLDS} - {"scheduler"} | {"recorder"}):
            for part in self._made.health(service):
                for place, offset in places(part):
                    topic, _, partition = place.rpartition("-")
                    if topic in self._topics:
                        most = max(most, self._made.bus.offsets((topic, int(partition)))[1] - offset)
        return most


def run(rows: int) -> tuple[list[Sample], int]:
    """Publish everything at the pace of the slowest fold; returns the samples and the most restarts of a service."""
    with stack(HEADRACE_STORE_MEMORY=f"{STORE_MEMORY_MB}MB", HEADRACE_CHECKPOINT_S=f"{CHECKPOINT_S}") as made:
        path = made.home / "bounds.py"
        columns = "\n".join(f"    {column}: float" for column in COLUMNS)
        pending, ids = min(1_000_000, max(rows // 50, 100)), min(1_000_000, max(rows // 10, 1_000))
        path.write_text(SOURCE.format(columns=columns, pending=pending, ids=ids))
        release_file(path, made.settings, made.bus, by="bounds")
        watch, topic = Watch(made), made.topic("<p>.data-arrived", "bounds")
        producer = made.bus.producer("bounds-publisher")
        sent = 0
        for key, body in stream(rows):
            producer.produce(topic, None, key, body, [], 0)
            sent += 1
            if sent % 5_000 == 0:
                producer.flush()
                watch.look()
                watch.when_due(sent)
                while watch.lag > AHEAD:
                    time.sleep(0.05)
                    watch.look()
                    watch.when_due(sent)
        producer.flush()

        def is_done() -> bool:
            watch.look()
            watch.when_due(sent)
            return watch.lag < 100  # ticks go on

        wait(is_done, "the end of every topic", limit_s=600, every_s=0.2)
        producer.close()
        watch.samples.append(watch.sample(sent))
        return watch.samples, watch.restarts


def slope(samples: list[Sample], name: str) -> tuple[float, float]:
    """Growth over these samples by least squares: MB, and MB for each million records."""
    points = [(one["sent"] / 1e6, one[name]) for one in samples if name in one]
    if len({x for x, _ in points}) < 2:
        return 0.0, 0.0
    mean_x, mean_y = (sum(column) / len(points) for column in zip(*points, strict=True))
    each = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
    return each * (points[-1][0] - points[0][0]), each


def judge(samples: list[Sample], rows: int, restarts: int) -> list[dict[str, Any]]:
    """Every bound with its numbers and whether it held."""
    half = [one for one in samples if one["sent"] >= samples[-1]["sent"] / 2]
    names = sorted({name for one in half for name in one} - {"s", "sent", "lag", "store", "checkpoints"})
    told = []
    for name in names:
        kind, _, service = name.partition(" ")
        budget = {"rss": RSS_MB.get(service, RSS_OTHERS_MB), "state": STATE_MB, "artifacts": ARTIFACTS_MB}[kind]
        most = max(one.get(name, 0.0) for one in samples)
        grew, each = slope(half, name)
        flat = grew <= NOISE_MB or each <= SLOPE_MB
        told.append(
            {"what": name, "most": most, "budget": budget, "grew": grew, "slope": each, "held": flat and most <= budget}
        )
    a_row = samples[-1]["store"] * 1e6 / rows
    states = max(sum(mb for name, mb in one.items() if name.startswith("state ")) for one in samples)
    most = max(one["checkpoints"] for one in samples)
    limits = [
        {"what": "checkpoints", "most": most, "budget": round((checkpoints.KEPT + 1) * states)},
        {"what": "store, bytes a row", "most": a_row, "budget": STORE_BYTES_A_ROW},
        {"what": "lag, records", "most": max(one["lag"] for one in samples), "budget": LAG},
        {"what": "restarts of a service", "most": restarts, "budget": 0},
    ]
    return told + [one | {"held": one["most"] <= one["budget"]} for one in limits]


def show(told: list[dict[str, Any]]) -> None:
    """A line for each bound."""
    print(f"{'':28}{'most':>10}{'budget':>10}{'last half':>12}{'a million':>12}")
    for one in told:
        growth = f"{one['grew']:>+10.1f} MB{one['slope']:>+9.1f} MB" if "grew" in one else " " * 24
        print(f"{one['what']:28}{one['most']:>10,.0f}{one['budget']:>10,}{growth}  {'ok' if one['held'] else 'BROKEN'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--samples", type=Path, help="write every sample to this file, a JSON object a line")
    asked = parser.parse_args()
    samples, restarts = run(asked.rows)
    if asked.samples is not None:
        asked.samples.write_text("".join(f"{json.dumps(one)}\n" for one in samples))
    told = judge(samples, asked.rows, restarts)
    last = samples[-1]
    print(f"{asked.rows:,} rows, {last['sent']:,.0f} records in {last['s']:,.0f} s, {len(SERVICES)} services")
    show(told)
    sys.exit(0 if all(one["held"] for one in told) else 1)


if __name__ == "__main__":
    main()
