"""The recorder beside DuckDB's own Arrow ingest of the same rows: CPU and wall, interleaved, median of the rounds.

One row of the stream is four records: a prediction, its label passed on, the two joined, and every hundredth a
reject. The recorder starts from messages that were polled and ends with a durable DuckDB file; DuckDB's own side
gets the same rows as Arrow tables that are ready, in the same transactions. `--kafka ADDRESS` reads the same records
from a genuine broker as well, the client's work included.

    python benchmarks/bench_recorder.py --rows 50000 --rounds 7
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from headrace.infra import create_topics
from headrace.infra.bus import Bus, Message, Place, Reader
from headrace.infra.memory_bus import MemoryBus
from headrace.infra.service import tidy_memory
from headrace.schemas.codec import TYPE_OF, encode, headers_of
from headrace.schemas.contract import ContractSpec, FeatureSpec, LabelSpec
from headrace.schemas.control import PipelineReleased, ReleaseDefinition
from headrace.schemas.policies import Policies
from headrace.schemas.stream import (
    ArmPrediction,
    Baselines,
    ExampleLabelled,
    LabelArrived,
    PredictionMade,
    Problem,
    RecordRejected,
)
from headrace.schemas.topics import full_name
from headrace.services.recorder.recorder import Recorder
from headrace.services.recorder.store import Store

CHUNK = 100  # rows written before the recorder reads them, so that it meets fresh messages, as it does live
AIM = 0.4  # × DuckDB's own Arrow ingest, CPU
FEATURES = ("temperature", "dew_point", "sea_level_pressure", "visibility", "wind", "max_wind", "max_t", "min_t")
WEATHER = ContractSpec(
    name="Weather",
    features=tuple(FeatureSpec(name=name, type="float") for name in FEATURES),
    label=LabelSpec(type="bool"),
)
START_MS = time.time_ns() // 1_000_000 - 3_600_000  # of now: brokers delete what is old by its own timestamp


class Stream:
    """What the services write for a stream, some rows at a time."""

    def __init__(self, bus: Bus, namespace: str) -> None:
        create_topics.create(bus, namespace)
        create_topics.create_pipeline(bus, "rainfall", 1, Policies(), namespace)
        self.written = self._rows = 0
        self._producer, self._namespace, self._rng = bus.producer("bench"), namespace, random.Random(1)
        definition = ReleaseDefinition(
            contract=WEATHER,
            policies=Policies(),
            contract_digest="",
            policies_digest="",
            recipe_digest="",
            source_digest="",
            source_uri="",
        )
        release = PipelineReleased(
            pipeline="rainfall", release=1, definition=definition, partitions=1, request="r", by="b"
        )
        origin = [("ce_correlationid", ""), ("ce_causationid", ""), ("ce_origin", "pipelines/1f3a9c2e/0/0")]
        self._send("control-log", release, "/registry/-/1f3a9c2e/0", 1, origin)
        self._producer.flush()

    def write(self, rows: int) -> None:
        """Some rows more."""
        for n in range(self._rows, self._rows + rows):
            self._write(n)
        self._rows += rows
        self._producer.flush()

    def _write(self, n: int) -> None:
        rng, at = self._rng, datetime.fromtimestamp(START_MS / 1000, UTC) + timedelta(milliseconds=n)
        made = PredictionMade(
            id=f"station-1-{n:07d}",
            time=at,
            features={name: rng.gauss(0, 1) for name in FEATURES},
            served="champion",
            predictions={"champion": ArmPrediction(version=3, run="run-5f1c09ab", learned_to=n, value=rng.random())},
            release=1,
            epoch=4,
            origin=(0, 2 * n),
            baselines=Baselines(majority=False, mean=0.31, last=n % 3 == 0),
        )
        label = LabelArrived(id=made.id, time=at, label=rng.random() < 0.3)
        joined = ExampleLabelled(
            prediction=made,
            label=label.label,
            predicted_at_ms=START_MS + n,
            labelled_at_ms=START_MS + n + 1_500,
            partition=0,
            number=n,
            pending_from=n,
            known_to=n,
        )
        self._send("<p>.predictions", made, "/predictor/rainfall/1f3a9c2e/0", 2 * n)
        self._send("<p>.predictions", label, "/predictor/rainfall/1f3a9c2e/0", 2 * n + 1)
        self._send("<p>.labelled-examples", joined, "/joiner/rainfall/1f3a9c2e/0", 2 * n + 1)
        if n % 100 == 0:
            reject = RecordRejected(
                id=f"bad-{n}",
                topic="rainfall.data-arrived",
                partition=0,
                offset=n,
                value=b"{}" * 60,
                problems=[Problem(code="out_of_range", message="wind is 94, over 20", feature="wind")],
            )
            self._send("<p>.data-rejected", reject, "/validator/rainfall/1f3a9c2e/0", n)

    def _send(self, topic: str, event: Any, source: str, number: int, more: Any = ()) -> None:
        name = full_name(topic, "rainfall" if topic.startswith("<p>.") else "", self._namespace)
        headers = headers_of(TYPE_OF[type(event)], source, number * 65_536) + list(more)
        self._producer.produce(name, 0, b"k", encode(event), headers, START_MS + number)
        self.written += 1


class InHand:
    """A bus whose readers poll ahead, outside of what is measured: what is left is the recorder's own work."""

    def __init__(self, bus: MemoryBus) -> None:
        self._bus, self._polled = bus, deque[list[Message]]()
        self._reader = bus.reader()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    def reader(self) -> Reader:
        return self

    def assign(self, offsets: Mapping[Place, int]) -> None:
        self._polled.clear()
        self._reader.assign(offsets)

    def poll_ahead(self) -> None:
        while messages := self._reader.poll(100, 0):
            self._polled.append(messages)

    def poll(self, limit: int, timeout_s: float) -> list[Message]:
        return self._polled.popleft() if self._polled else []

    def close(self) -> None:
        self._reader.close()


def measured(work: Callable[[], None]) -> tuple[float, float]:
    """CPU and wall seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def record(
    bus: Bus, namespace: str, path: Path, rows: int, capture: list[Any] | None = None
) -> tuple[float, float, int]:
    """The recorder follows a stream, to a checkpointed file: CPU, wall, records. Only its own time counts."""
    store = Store(path)
    if capture is not None:
        commit = store.commit

        def keep(batches: Any, positions: Any) -> None:
            capture.append(list(batches))
            commit(capture[-1], positions)

        store.commit = keep  # type: ignore[method-assign]
    stream = Stream(bus, namespace)
    recorder = Recorder(bus, store, namespace=namespace, commit_s=1e9)
    done = 0
    while not store.features:  # the tables are made before the clock starts, as on the other side
        poll_ahead(bus)
        done += recorder.tick(1.0)

    def catch_up() -> None:
        nonlocal done
        while done < stream.written:
            done += recorder.tick(1.0)

    def finish() -> None:
        recorder.commit()
        store.checkpoint()

    chunk = CHUNK if isinstance(bus, InHand) else rows  # a producer's threads would count while Kafka is read
    spent = []
    for _ in range(0, rows, chunk):
        stream.write(chunk)
        poll_ahead(bus)
        spent.append(measured(catch_up))
    spent.append(measured(finish))
    recorder.close()
    return sum(cpu for cpu, _ in spent), sum(wall for _, wall in spent), stream.written


def poll_ahead(bus: Any) -> None:
    if isinstance(bus, InHand):
        bus.poll_ahead()


def ingest(path: Path, transactions: list[Any]) -> tuple[float, float]:
    """DuckDB alone: the same Arrow tables, in the same transactions, to a checkpointed file."""
    store = Store(path)
    store.add_pipeline("rainfall", [WEATHER])
    con = store.connection

    def work() -> None:
        for tables in transactions:
            con.execute("BEGIN")
            for name, table in tables:
                con.register("incoming", table)
                con.execute(f'INSERT INTO "{name}" SELECT * FROM incoming')
            con.execute("COMMIT")
        store.checkpoint()

    spent = measured(work)
    store.close()
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kafka", metavar="ADDRESS")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    sides: dict[str, Callable[[], tuple[Any, str]]] = {"messages in hand": lambda: (InHand(MemoryBus()), "")}
    if chosen.kafka:
        from headrace.infra.kafka_bus import KafkaBus

        kafka = KafkaBus(chosen.kafka)
        sides["Kafka"] = lambda: (kafka, f"bench-{uuid.uuid4().hex[:6]}-")
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in (*sides, "DuckDB alone")}
    with tempfile.TemporaryDirectory() as folder:
        transactions: list[Any] = []
        *_, records = record(InHand(MemoryBus()), "", Path(folder) / "warm-up.duckdb", chosen.rows, transactions)
        tidy_memory()
        for number in range(chosen.rounds):
            for name, side in sides.items():
                cpu, wall, _ = record(*side(), Path(folder) / f"{name}-{number}.duckdb", chosen.rows)
                results[name].append((cpu, wall))
            results["DuckDB alone"].append(ingest(Path(folder) / f"alone-{number}.duckdb", transactions))
    report = summary(results, records)
    print(json.dumps(report) if chosen.json else "\n".join(lines(report)))
    sys.exit(int(report["messages in hand"]["cpu_ratio"] < AIM))


def summary(results: dict[str, list[tuple[float, float]]], records: int) -> dict[str, Any]:
    """Medians, and the ratio of each round to DuckDB alone in the same round."""
    alone = results["DuckDB alone"]
    return {"records": records, "rounds": len(alone)} | {
        name: {
            "cpu_us": statistics.median(cpu for cpu, _ in spent) / records * 1e6,
            "records_per_s": records / statistics.median(wall for _, wall in spent),
            "cpu_ratio": statistics.median(base[0] / cpu for base, (cpu, _) in zip(alone, spent, strict=True)),
            "cpu_ratios": [round(base[0] / cpu, 3) for base, (cpu, _) in zip(alone, spent, strict=True)],
        }
        for name, spent in results.items()
    }


def lines(report: dict[str, Any]) -> list[str]:
    """The report for people."""
    ratio = report["messages in hand"]["cpu_ratio"]
    verdict = "reached" if ratio >= AIM else "MISSED"
    return [*_costs(report), f"recorder, messages in hand: {ratio:.2f} × (must >= {AIM}: {verdict})"]


def _costs(report: dict[str, Any]) -> list[str]:
    return [f"{report['records']:,} records, median of {report['rounds']} interleaved rounds"] + [
        f"{name:>18}: {of['cpu_us']:5.2f} µs CPU a record, {of['records_per_s']:9,.0f} records/s, "
        f"{of['cpu_ratio']:.2f} × DuckDB's own Arrow ingest (CPU; rounds {of['cpu_ratios']})"
        for name, of in report.items()
        if isinstance(of, dict)
    ]


if __name__ == "__main__":
    main()
