"""The validator's step beside the pure River loop: CPU per record, interleaved in one run, median of the rounds.

`python benchmarks/bench_validator.py [--json]`. A ratio above 1 means that validating a record costs less than
scaling, predicting and learning it. Ids are random UUIDs; "durable" keeps them in LMDB, a commit per 5,000 records.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import tempfile
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from time import process_time
from typing import Any

from river import linear_model, preprocessing

from headrace.infra.store import Store
from headrace.schemas.codec import TYPE_OF, encode, headers_of
from headrace.schemas.contract import ContractSpec, FeatureSpec, LabelSpec
from headrace.schemas.control import PipelineReleased, ReleaseDefinition
from headrace.schemas.policies import Policies
from headrace.schemas.record import Record
from headrace.schemas.signing import sign
from headrace.schemas.stream import ExampleArrived, Features, LabelArrived, StreamEvent
from headrace.services.validator import core

ROUNDS, ROWS, COMMIT = 5, 20_000, 5_000
COLUMNS = tuple(f"column_{n}" for n in range(8))
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
KNOWN_MS = int(NOON.timestamp() * 1000)
WORLD = core.World(b"bench")


def record(event: StreamEvent | PipelineReleased, offset: int) -> Record:
    headers = [
        (name, value.encode() if isinstance(value, str) else value)
        for name, value in headers_of(TYPE_OF[type(event)], "/users", offset)
    ]
    return Record(None, KNOWN_MS, "<p>.data-arrived", "bench", 0, offset, None, encode(event), headers=headers)


def released(state: core.State) -> core.State:
    """The state after a release of eight bounded floats."""
    features = tuple(FeatureSpec(name=name, type="float", ge=-20, le=20) for name in COLUMNS)
    contract = ContractSpec(name="Bench", features=features, label=LabelSpec(type="bool"))
    none = "0" * 64
    definition = ReleaseDefinition(
        contract=contract, policies=Policies(), contract_digest=none, policies_digest=none, recipe_digest=none,
        source_digest=none, source_uri="none",
    )  # fmt: skip
    marker = PipelineReleased(pipeline="bench", release=1, definition=definition, partitions=1, request="r", by="bench")
    core.step(state, record(sign(WORLD.key, marker), 0), WORLD)
    return state


def events(rng: random.Random, make: Callable[[str, Features], StreamEvent]) -> list[Record]:
    return [
        record(
            make(str(uuid.UUID(int=rng.getrandbits(128))), {name: round(rng.gauss(0, 1), 4) for name in COLUMNS}),
            offset + 1,
        )
        for offset in range(ROWS)
    ]


def validate(records: list[Record]) -> float:
    """CPU µs a record of step alone, ids in a dict."""
    state, step = released(core.State()), core.step
    begin = process_time()
    for one in records:
        step(state, one, WORLD)
    return (process_time() - begin) / len(records) * 1e6


def validate_durably(records: list[Record]) -> float:
    """The same with ids in the store, the state committed now and then."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Path(folder) / "state", WORLD.key)
        tables: dict[str, Any] = {name: store.table(name, kind) for name, kind in core.TABLES.items()}
        state, step = released(core.State(**tables)), core.step
        begin = process_time()
        for n, one in enumerate(records, 1):
            step(state, one, WORLD)
            if n % COMMIT == 0:
                fields = {name: getattr(state, name) for name in state.__dataclass_fields__ if name not in tables}
                store.commit(one.offset + 1, {}, fields, {})
        spent = process_time() - begin
        store.close()
    return spent / len(records) * 1e6


def river(rows: list[tuple[dict[str, float], bool]]) -> float:
    """CPU µs a row of the pure loop."""
    model = preprocessing.StandardScaler() | linear_model.LogisticRegression()
    begin = process_time()
    for x, y in rows:
        model.predict_proba_one(x)
        model.learn_one(x, y)
    return (process_time() - begin) / len(rows) * 1e6


def run() -> dict[str, dict[str, float]]:
    """Median µs and ratio of every kind of record."""
    rng = random.Random(0)
    examples = events(rng, lambda i, x: ExampleArrived(id=i, time=NOON, features=x))
    inline = events(rng, lambda i, x: ExampleArrived(id=i, time=NOON, features=x, label=True))
    labels = events(rng, lambda i, x: LabelArrived(id=i, time=NOON, label=True))
    rows = [({name: rng.gauss(0, 1) for name in COLUMNS}, rng.random() < 0.5) for _ in range(ROWS)]
    measured: dict[str, Callable[[], float]] = {
        "river": lambda: river(rows),
        "example": lambda: validate(examples),
        "example, durable": lambda: validate_durably(examples),
        "label": lambda: validate(labels),
        "example with inline label": lambda: validate(inline),
    }
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)  # as the services run
    costs: dict[str, list[float]] = {name: [] for name in measured}
    for _ in range(ROUNDS):
        for name, measure in measured.items():
            costs[name].append(measure())
    return {
        name: {
            "us": round(statistics.median(cost), 2),
            "ratio": round(statistics.median(r / c for r, c in zip(costs["river"], cost, strict=True)), 2),
        }
        for name, cost in costs.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    found = run()
    if parser.parse_args().json:
        print(json.dumps(found))
        return
    print(f"validator: CPU µs a record, median of {ROUNDS} rounds of {ROWS:,}; ratio to pure River")
    for name, numbers in found.items():
        print(f"  {name:<28} {numbers['us']:>7.2f} µs {numbers['ratio']:>7.2f}")


if __name__ == "__main__":
    main()
