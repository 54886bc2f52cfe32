"""The predictor's real loop beside the pure River loop: CPU and wall per record, interleaved, in one process.

`python benchmarks/bench_predictor.py [--bus kafka|memory] [--json]`. A row is an example and a separate label; the
loop consumes, decodes, predicts with one arm, encodes, produces and commits both. The pure loop predicts and learns.
"""

from __future__ import annotations

import tempfile
from datetime import timedelta
from pathlib import Path
from time import perf_counter, process_time

from bench_trainer import NOON, Cost, Plant, Row, arguments, bus_of, measured_beside_river, report, rows

from headrace import model_bytes
from headrace.infra.artifacts import Manifest
from headrace.infra.bus import Bus
from headrace.infra.pipeline_files import load_stored
from headrace.schemas.control import ModelUpdated
from headrace.schemas.stream import ExampleArrived, LabelArrived, StreamEvent
from headrace.schemas.topics import full_name
from headrace.services.predictor.__main__ import build

LABELS_BEHIND = 100


def stream(data: list[Row]) -> list[StreamEvent]:
    """Examples, each followed by the label of the one 100 rows earlier."""
    told: list[StreamEvent] = []
    for number, (x, _) in enumerate(data):
        time = NOON + timedelta(seconds=number)
        told.append(ExampleArrived(id=f"2026-01-01-{number:08}", time=time, features=x))
        late = number - LABELS_BEHIND
        told.append(LabelArrived(id=f"2026-01-01-{late:08}", time=time, label=data[late][1]))
    return told


def predict(bus: Bus, data: list[Row]) -> Cost:
    """The service's parts, from the first record to the last one answered and committed; per record."""
    with tempfile.TemporaryDirectory() as folder:
        plant = Plant(bus, Path(folder))
        model = load_stored(plant.artifacts, plant.released.definition).recipe(0)
        for x, y in data[:1_000]:
            model.learn_one(x, y)
        uri = plant.artifacts.put(model_bytes.dumps(model), Manifest(kind="model", pipeline="bench", run="r"))
        champion = ModelUpdated(
            pipeline="bench",
            alias="champion",
            version=1,
            run="r",
            release=1,
            snapshot_offset=1_000,
            uri=uri,
            follows=True,
            epoch=1,
            reason="bench",
        )
        plant.say("model-updates", champion)
        plant.say("<p>.data-validated", plant.released, *stream(data), source="/validator/bench/0/0")
        total = 2 * len(data) + 1
        runner, arms = build(plant.wiring)
        while not runner.counts():
            runner.tick(0.01)
        done = next(iter(runner.counts().values()))["offset"]
        cpu, wall = process_time(), perf_counter()
        while next(iter(runner.counts().values()))["offset"] < total:
            runner.tick(0.05)
            arms.tick(0.0)
        runner.close()
        spent = (process_time() - cpu) / (total - done) * 1e6, (perf_counter() - wall) / (total - done) * 1e6
        arms.close()
        answered = bus.offsets((full_name("<p>.predictions", "bench", plant.namespace), 0))[1]
        assert answered == total, f"{answered} of {total} records were told"
        return spent


def main() -> None:
    asked = arguments(__doc__.splitlines()[0])
    bus, data = bus_of(asked.bus), rows()
    found = measured_beside_river({"predictor, one arm, a record": lambda: predict(bus, data)}, data)
    report(f"predictor over {asked.bus}", found, asked.json)


if __name__ == "__main__":
    main()
