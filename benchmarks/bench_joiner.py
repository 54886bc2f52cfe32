"""The joiner beside the pure River loop: CPU per pair (a prediction and its label), interleaved in one run.

`python benchmarks/bench_joiner.py [--rows 20000] [--late 5000] [--rounds 5] [--kafka ADDRESS] [--json]`
A ratio above 1 means that joining a pair costs less than predicting, scoring and learning a row. "durable" keeps what
waits in LMDB, a commit per 5,000 records; labels come `--late` rows after their predictions. With `--kafka` (or
KAFKA_BOOTSTRAP_SERVERS) the whole service is measured too: consume, decode, drop repeats, join, publish, commit.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import random
import statistics
import tempfile
import uuid
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from time import process_time
from typing import Any

from river import linear_model, preprocessing

from headrace.infra.store import Store
from headrace.schemas.codec import TYPE_OF, encode, headers_of
from headrace.schemas.record import SEQUENCES_PER_OFFSET, Record
from headrace.schemas.stream import ArmPrediction, Baselines, LabelArrived, PredictionMade, StreamEvent
from headrace.services.joiner import core

COMMIT, WINDOW, KEY = 5_000, 1_000, b"bench"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
KNOWN_MS = int(NOON.timestamp() * 1000)
SOURCE = "/predictor/bench/0a1b2c3d/0"
Row = tuple[dict[str, float], bool]


def made_up(rows: int) -> list[Row]:
    rng = random.Random(0)
    return [({f"column_{n}": round(rng.gauss(0, 1), 4) for n in range(8)}, rng.random() < 0.5) for _ in range(rows)]


def events(rows: list[Row], late: int) -> list[StreamEvent]:
    """A prediction and a label for each row, the label so many rows later."""
    rng = random.Random(1)
    ids = [str(uuid.UUID(int=rng.getrandbits(128))) for _ in rows]
    arms = {"champion": ArmPrediction(version=1, run="a", learned_to=1_000, value=0.5)}
    log: list[StreamEvent] = []
    for n in range(len(rows) + late):
        if n < len(rows):
            log.append(
                PredictionMade(
                    id=ids[n],
                    time=NOON,
                    features=dict(rows[n][0]),
                    predictions=arms,
                    served="champion",
                    release=1,
                    epoch=1,
                    origin=(0, n),
                    baselines=Baselines(majority=True, mean=0.5, last=True),
                )
            )
        if n >= late:
            log.append(LabelArrived(id=ids[n - late], time=NOON, label=rows[n - late][1]))
    return log


def records(log: list[StreamEvent]) -> list[Record]:
    made = []
    for offset, event in enumerate(log):
        body, key = encode(event), event.id.encode()  # type: ignore[attr-defined]
        twin = core.DECODERS[type(event).__name__](body)
        sequence = offset * SEQUENCES_PER_OFFSET
        made.append(Record(twin, KNOWN_MS, "<p>.predictions", "bench", 0, offset, key, body, SOURCE, sequence))
    return made


def join(log: list[Record]) -> float:
    """CPU seconds of step alone, what waits in dicts."""
    state, step = core.State(), core.step
    begin = process_time()
    for record in log:
        step(state, record, None)
    spent = process_time() - begin
    assert state.counts["joined"] * 2 == len(log)
    return spent


def join_durably(log: list[Record]) -> float:
    """The same with what waits in the store, the state committed now and then."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Path(folder) / "state", KEY)
        tables: dict[str, Any] = {name: store.table(name, kind) for name, kind in core.TABLES.items()}
        state, step = core.State(**tables), core.step
        begin = process_time()
        for n, record in enumerate(log, 1):
            step(state, record, None)
            if n % COMMIT == 0:
                fields = {name: getattr(state, name) for name in state.__dataclass_fields__ if name not in tables}
                store.commit(record.offset + 1, {}, fields, {})
        spent = process_time() - begin
        store.close()
    return spent


def serve(log: list[StreamEvent], address: str) -> float:
    """CPU seconds of the whole service over a genuine broker, librdkafka's threads included."""
    from headrace.infra import create_topics
    from headrace.infra.kafka_bus import KafkaBus
    from headrace.infra.runtime import fold_runner
    from headrace.schemas.policies import Policies
    from headrace.schemas.topics import full_name
    from headrace.services import folds_of

    namespace = f"bench-{uuid.uuid4().hex[:8]}-"
    bus = KafkaBus(address)
    create_topics.create(bus, namespace)
    create_topics.create_pipeline(bus, "bench", 1, Policies(), namespace)
    publish(bus, namespace, full_name("<p>.predictions", "bench", namespace), log)
    with tempfile.TemporaryDirectory() as folder:
        runner = fold_runner(
            folds_of("joiner"),
            core,
            bus,
            namespace=namespace,
            instance="bench",
            open_store=lambda fold, place: Store.open(Path(folder) / place[0], KEY),
        )
        while not runner.tick(0.1):  # until the first records come: membership is no work on rows
            pass
        first, begin = runner.handled, process_time()
        while runner.handled < len(log):
            runner.tick(0.1)
        runner.commit()
        spent = (process_time() - begin) * len(log) / (len(log) - first)
        runner.close()
    bus.close()
    return spent


def publish(bus: Any, namespace: str, topic: str, log: list[StreamEvent]) -> None:
    """The predictor's output, and the marker by which services learn of the pipeline's topics."""
    from headrace.schemas.control import PipelineReleased, ReleaseDefinition

    body = json.loads((Path(__file__).parents[1] / "schemas/examples/PipelineReleased/v1/minimal.json").read_text())
    definition = ReleaseDefinition.model_validate(body["definition"])
    marker = PipelineReleased(pipeline="bench", release=1, definition=definition, partitions=1, request="r", by="bench")
    producer = bus.producer("bench")
    headers = headers_of(TYPE_OF[PipelineReleased], "/registry/-/0a1b2c3d/0", 0)
    producer.produce(f"{namespace}pipelines", 0, b"bench", encode(marker), headers, KNOWN_MS)
    for offset, event in enumerate(log):
        headers = headers_of(TYPE_OF[type(event)], SOURCE, offset * SEQUENCES_PER_OFFSET)
        producer.produce(topic, 0, event.id.encode(), encode(event), headers, KNOWN_MS)  # type: ignore[attr-defined]
        if offset % 1_000 == 0:
            producer.poll()
    producer.flush()
    producer.close()


def river(rows: list[Row]) -> float:
    """CPU seconds of the pure loop: predict, score over a window, learn."""
    model = preprocessing.StandardScaler() | linear_model.LogisticRegression()
    window: deque[tuple[bool, float]] = deque()
    hits, loss = 0, 0.0
    begin = process_time()
    for x, y in rows:
        p = model.predict_proba_one(x)[True]
        score = (p >= 0.5) is y, -math.log(max(p if y else 1 - p, 1e-15))
        window.append(score)
        hits += score[0]
        loss += score[1]
        if len(window) > WINDOW:
            old = window.popleft()
            hits -= old[0]
            loss -= old[1]
        model.learn_one(x, y)
    return process_time() - begin


def run(rows: int, late: int, rounds: int, kafka: str | None) -> dict[str, dict[str, float]]:
    """Median µs a pair and ratio of every way."""
    data = made_up(rows)
    soon, later = records(events(data, 3)), records(events(data, late))
    measured: dict[str, Callable[[], float]] = {
        "river": lambda: river(data),
        "step": lambda: join(soon),
        "step, durable": lambda: join_durably(soon),
        f"step, durable, labels {late:,} late": lambda: join_durably(later),
    }
    if kafka:
        log = events(data, late)
        measured[f"service over Kafka, labels {late:,} late"] = lambda: serve(log, kafka)
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)  # as the services run
    costs: dict[str, list[float]] = {name: [] for name in measured}
    for _ in range(rounds):
        for name, measure in measured.items():
            costs[name].append(measure() / rows * 1e6)
    return {
        name: {
            "us": round(statistics.median(cost), 2),
            "ratio": round(statistics.median(r / c for r, c in zip(costs["river"], cost, strict=True)), 2),
        }
        for name, cost in costs.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--late", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kafka", default=os.environ.get("KAFKA_BOOTSTRAP_SERVERS"), help="a broker's address")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    options = parser.parse_args()
    found = run(options.rows, options.late, options.rounds, options.kafka)
    if options.json:
        print(json.dumps(found))
        return
    print(f"joiner: CPU µs a pair, median of {options.rounds} rounds of {options.rows:,}; ratio to pure River")
    for name, numbers in found.items():
        print(f"  {name:<44} {numbers['us']:>7.2f} µs {numbers['ratio']:>7.2f}")


if __name__ == "__main__":
    main()
