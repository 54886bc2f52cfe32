"""The trainer's real loop beside the pure River loop: CPU and wall per labelled example, interleaved, in one process.

`python benchmarks/bench_trainer.py [--bus kafka|memory] [--json]`. The loop consumes, decodes, predicts, scores,
learns, takes its snapshots and commits, as the service does; a broker is the one of KAFKA_BOOTSTRAP_SERVERS. The
pure loop predicts, scores accuracy and log-loss, and learns. A ratio above 1 means cheaper than River alone.
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
from collections.abc import Callable
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter, process_time, time
from typing import Any

from river import linear_model, preprocessing

from headrace import fast_path
from headrace.infra import create_topics, pipeline_files
from headrace.infra.artifacts import Artifacts
from headrace.infra.bus import Bus
from headrace.infra.memory_bus import MemoryBus
from headrace.infra.service import Wiring, tidy_memory
from headrace.infra.settings import Settings
from headrace.infra.store import Store
from headrace.schemas.codec import TYPE_OF, encode, headers_of
from headrace.schemas.control import PipelineReleased, TrainingRequested
from headrace.schemas.stream import ArmPrediction, Baselines, ExampleLabelled, PredictionMade
from headrace.schemas.topics import full_name
from headrace.services.trainer.__main__ import build

ROUNDS, ROWS = 5, 40_000
COLUMNS = tuple(f"column_{n}" for n in range(8))
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
NOW_MS = int(time() * 1000)  # older records would be past their topic's retention
KEY = b"bench"
SOURCE = f'''
from headrace import Contract, Pipeline
from river import linear_model, preprocessing

class Bench(Contract):
    """Eight numbers."""
{chr(10).join(f"    {name}: float" for name in COLUMNS)}

def recipe(seed):
    return preprocessing.StandardScaler() | linear_model.LogisticRegression()

pipeline = Pipeline(name="bench", contract=Bench, label=bool, recipe=recipe)
'''.encode()

Row = tuple[dict[str, float], bool]
Cost = tuple[float, float]  # CPU and wall, µs a row


def rows(n: int = ROWS) -> list[Row]:
    rng = random.Random(0)
    return [({name: rng.gauss(0, 1) for name in COLUMNS}, rng.random() < 0.5) for _ in range(n)]


def river(data: list[Row]) -> Cost:
    """The pure loop."""
    model = preprocessing.StandardScaler() | linear_model.LogisticRegression()
    predict, learn = model.predict_proba_one, model.learn_one
    hits, loss = 0, 0.0
    cpu, wall = process_time(), perf_counter()
    for x, y in data:
        p = predict(x)[True]
        hits += (p > 0.5) == y
        loss -= math.log(p if y else 1 - p)
        learn(x, y)
    return (process_time() - cpu) / len(data) * 1e6, (perf_counter() - wall) / len(data) * 1e6


class Plant:
    """A namespace of its own with a released pipeline, and the wiring of one service."""

    def __init__(self, bus: Bus, home: Path) -> None:
        self.bus, self.namespace = bus, f"b{uuid.uuid4().hex[:8]}-"
        settings = Settings(home=home, namespace=self.namespace, instance="bench", artifact_key=KEY.decode())
        self.artifacts = Artifacts(settings.artifact_url, KEY)
        create_topics.create(bus, self.namespace)
        file = home / "bench.py"
        file.write_bytes(SOURCE)
        pipeline = pipeline_files.load_file(file)
        create_topics.create_pipeline(bus, "bench", 1, pipeline.policies(), self.namespace)
        _, uri = self.artifacts.put_source(SOURCE)
        definition = pipeline_files.definition(pipeline, SOURCE, uri)
        self.released = PipelineReleased(
            pipeline="bench", release=1, definition=definition, partitions=1, request="r", by="bench"
        )
        self.wiring = Wiring(
            settings,
            bus,
            self.artifacts,
            KEY,
            lambda fold, place: Store.open(home / "state" / fold / f"{place[0]}-{place[1]}", KEY),
            timing={"commit_s": settings.commit_s, "commit_records": settings.commit_records},
        )
        self._said: dict[str, int] = {}
        self.say("pipelines", self.released)

    def say(self, topic: str, *events: Any, source: str = "/bench/-/0") -> None:
        """Publish events to one topic, as a service writes them; returns when all are acknowledged."""
        producer = self.bus.producer("bench")
        name = full_name(topic, "bench", self.namespace)
        for event in events:
            number = self._said[topic] = self._said.get(topic, -1) + 1
            headers = headers_of(TYPE_OF[type(event)], source, number << 16)
            producer.produce(name, 0, b"bench", encode(event), headers, NOW_MS)
        producer.flush()
        producer.close()


def labelled(number: int, row: Row) -> ExampleLabelled:
    """As the joiner writes it, one arm."""
    x, y = row
    arm = ArmPrediction(version=1, run="r1a2b3c4d", learned_to=number, value=0.123456789)
    prediction = PredictionMade(
        id=f"2026-01-01-{number:08}",
        time=NOON,
        features=x,
        predictions={"champion": arm},
        served="champion",
        release=1,
        epoch=1,
        origin=(0, number),
        baselines=Baselines(majority=True, last=False),
    )
    return ExampleLabelled(
        prediction=prediction,
        label=y,
        predicted_at_ms=NOW_MS,
        labelled_at_ms=NOW_MS,
        partition=0,
        number=number,
        pending_from=number + 1,
        known_to=number << 16,
    )


def train(bus: Bus, data: list[Row]) -> Cost:
    """The service's parts, from the first labelled example to the last one learned and committed."""
    with tempfile.TemporaryDirectory() as folder:
        plant = Plant(bus, Path(folder))
        request = TrainingRequested(
            pipeline="bench",
            request="q",
            trigger="first_model",
            cause="",
            release=1,
            seed=0,
            start=0,
        )
        plant.say("control-log", plant.released, request)
        events = [labelled(number, row) for number, row in enumerate(data)]
        lockstep, control = build(plant.wiring)
        copied = 0
        while not any(numbers.get("runs") for numbers in lockstep.counts().values()):
            control.tick(0.01)
            lockstep.tick(0.01)
            if not copied and bus.offsets((full_name("training-runs", namespace=plant.namespace), 0))[1]:
                _sequence_run(plant)
                copied = 1
        plant.say("<p>.labelled-examples", *events, source="/joiner/bench/0/0")
        del events
        cpu, wall = process_time(), perf_counter()
        while next(iter(lockstep.counts().values()))["offset"] < len(data):
            lockstep.tick(0.05)
        lockstep.close()
        spent = (process_time() - cpu) / len(data) * 1e6, (perf_counter() - wall) / len(data) * 1e6
        control.close()
        return spent


def _sequence_run(plant: Plant) -> None:
    """Copy the RunStarted into `control-log`, as the sequencer does."""
    from headrace.infra.follow import Follower

    follower = Follower(plant.bus, plant.namespace, [full_name("training-runs", namespace=plant.namespace)])
    plant.say("control-log", *(record.event for record in follower.read_to_end()))
    follower.close()


@contextmanager
def without_fast_path() -> Any:
    """River's own methods, as for recipes whose shape is not known."""
    kept = fast_path._plain_steps, fast_path._is_plain_linear
    fast_path._plain_steps, fast_path._is_plain_linear = lambda model: None, lambda model: False
    try:
        yield
    finally:
        fast_path._plain_steps, fast_path._is_plain_linear = kept


def measured_beside_river(ways: dict[str, Callable[[], Cost]], data: list[Row]) -> dict[str, dict[str, float]]:
    """Median CPU and wall of each way over interleaved rounds, and their ratios to the pure loop of the same round."""
    costs: dict[str, list[Cost]] = {name: [] for name in ("river", *ways)}
    tidy_memory()
    for _ in range(ROUNDS):
        for name, measure in {"river": lambda: river(data), **ways}.items():
            gc.collect()
            costs[name].append(measure())
    found = {}
    for name, cost in costs.items():
        ratios = [[pure[k] / one[k] for pure, one in zip(costs["river"], cost, strict=True)] for k in (0, 1)]
        found[name] = {
            "cpu_us": round(statistics.median(one[0] for one in cost), 2),
            "wall_us": round(statistics.median(one[1] for one in cost), 2),
            "cpu_ratio": round(statistics.median(ratios[0]), 2),
            "wall_ratio": round(statistics.median(ratios[1]), 2),
        }
    return found


def bus_of(name: str) -> Bus:
    """A genuine broker or the in-process log."""
    if name == "memory":
        return MemoryBus()
    from headrace.infra.kafka_bus import KafkaBus

    return KafkaBus(os.environ["KAFKA_BOOTSTRAP_SERVERS"])


def report(title: str, found: dict[str, dict[str, float]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(found))
        return
    print(f"{title}: µs a row, median of {ROUNDS} rounds of {ROWS:,}; ratio to pure River of the same round")
    for name, numbers in found.items():
        print(
            f"  {name:<34} CPU {numbers['cpu_us']:>7.2f} ({numbers['cpu_ratio']:.2f})   "
            f"wall {numbers['wall_us']:>7.2f} ({numbers['wall_ratio']:.2f})"
        )


def arguments(text: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=text)
    default = "kafka" if os.environ.get("KAFKA_BOOTSTRAP_SERVERS") else "memory"
    parser.add_argument("--bus", choices=["kafka", "memory"], default=default)
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    return parser.parse_args()


def main() -> None:
    asked = arguments(__doc__.splitlines()[0])
    bus, data = bus_of(asked.bus), rows()

    def plainly() -> Cost:
        with without_fast_path():
            return train(bus, data)

    ways: dict[str, Callable[[], Cost]] = {
        "trainer": lambda: train(bus, data),
        "trainer without the fast path": plainly,
    }
    report(f"trainer over {asked.bus}", measured_beside_river(ways, data), asked.json)


if __name__ == "__main__":
    main()
