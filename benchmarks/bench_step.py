"""What the pure cores of validator and joiner cost without their loop: CPU a record beside the pure River loop.

`python benchmarks/bench_step.py [--rows 20000] [--late 5000] [--rounds 5] [--json]`. "durable" keeps ids and waiting
predictions in LMDB, a commit per 5,000 records; labels come `--late` rows after their predictions, or three.
"""

from __future__ import annotations

import gc
import random
import tempfile
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

from common import COLUMNS, Clock, Cost, Row, arguments, beside, interleaved, made_up, river, tell

from headrace.infra.store import Store
from headrace.schemas.codec import TYPE_OF, encode, headers_of
from headrace.schemas.contract import ContractSpec, FeatureSpec, LabelSpec
from headrace.schemas.control import PipelineReleased, ReleaseDefinition
from headrace.schemas.policies import Policies
from headrace.schemas.record import SEQUENCES_PER_OFFSET, Record
from headrace.schemas.signing import sign
from headrace.schemas.stream import ArmPrediction, Baselines, ExampleArrived, LabelArrived, PredictionMade, StreamEvent
from headrace.services.joiner import core as joiner
from headrace.services.validator import core as validator

COMMIT, SOON = 5_000, 3
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
KNOWN_MS = int(NOON.timestamp() * 1000)
WORLD = validator.World(b"bench")


# --- what is folded ---------------------------------------------------------------------------------------


def ids(rows: int) -> list[str]:
    rng = random.Random(1)
    return [str(uuid.UUID(int=rng.getrandbits(128))) for _ in range(rows)]


def arrived(event: StreamEvent | PipelineReleased, offset: int) -> Record:
    """As users write it, which the validator decodes itself."""
    headers = [
        (name, value.encode() if isinstance(value, str) else value)
        for name, value in headers_of(TYPE_OF[type(event)], "/users", offset)
    ]
    return Record(None, KNOWN_MS, "<p>.data-arrived", "bench", 0, offset, None, encode(event), headers=headers)


def predicted(event: PredictionMade | LabelArrived, offset: int) -> Record:
    """As the predictor writes it, decoded into the joiner's lean twin."""
    body, key = encode(event), event.id.encode()
    twin, sequence = joiner.DECODERS[type(event).__name__](body), offset * SEQUENCES_PER_OFFSET
    source = "/predictor/bench/0a1b2c3d/0"
    return Record(twin, KNOWN_MS, "<p>.predictions", "bench", 0, offset, key, body, source, sequence)


def predictions(data: Sequence[Row], late: int) -> list[Record]:
    """A prediction and a label for each row, the label so many rows later."""
    arms = {"champion": ArmPrediction(version=1, run="a", learned_to=1_000, value=0.5)}
    baselines = Baselines(majority=True, mean=0.5, last=True)
    log: list[PredictionMade | LabelArrived] = []
    names = ids(len(data))
    for n in range(len(data) + late):
        if n < len(data):
            log.append(PredictionMade(
                id=names[n], time=NOON, features=dict(data[n][0]), predictions=arms, served="champion", release=1,
                epoch=1, origin=(0, n), baselines=baselines,
            ))  # fmt: skip
        if n >= late:
            log.append(LabelArrived(id=names[n - late], time=NOON, label=data[n - late][1]))
    return [predicted(event, offset) for offset, event in enumerate(log)]


def released() -> PipelineReleased:
    """A release of eight bounded numbers."""
    features = tuple(FeatureSpec(name=name, type="float", ge=-20, le=20) for name in COLUMNS)
    contract, none = ContractSpec(name="Bench", features=features, label=LabelSpec(type="bool")), "0" * 64
    definition = ReleaseDefinition(
        contract=contract, policies=Policies(), contract_digest=none, policies_digest=none, recipe_digest=none,
        source_digest=none, source_uri="none",
    )  # fmt: skip
    marker = PipelineReleased(pipeline="bench", release=1, definition=definition, partitions=1, request="r", by="bench")
    return sign(WORLD.key, marker)


# --- the two cores ----------------------------------------------------------------------------------------


def fold(core: ModuleType, log: Sequence[Record], world: Any, rows: int, first: Record | None) -> Cost:
    """The step alone, its tables in dicts."""
    return _folded(core, log, world, rows, first, core.State(), lambda record, state: None)


def fold_durably(core: ModuleType, log: Sequence[Record], world: Any, rows: int, first: Record | None) -> Cost:
    """The same with its tables in the store, everything committed now and then."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Path(folder) / "state", WORLD.key)
        tables: dict[str, Any] = {name: store.table(name, kind) for name, kind in core.TABLES.items()}

        def commit(record: Record, state: Any) -> None:
            fields = {name: getattr(state, name) for name in state.__dataclass_fields__ if name not in tables}
            store.commit(record.offset + 1, {}, fields, {})

        cost = _folded(core, log, world, rows, first, core.State(**tables), commit)
        store.close()
    return cost


def _folded(
    core: ModuleType, log: Sequence[Record], world: Any, rows: int, first: Record | None, state: Any,
    commit: Callable[[Record, Any], None],
) -> Cost:  # fmt: skip
    step = core.step
    if first is not None:
        step(state, first, world)
    clock = Clock()
    for n, record in enumerate(log, 1):
        step(state, record, world)
        if n % COMMIT == 0:
            commit(record, state)
    return clock.cost(rows)


def main() -> None:
    asked = arguments(__doc__ or "", rows=20_000, late=5_000)
    rows, late = asked.rows, asked.late
    data, names = made_up(rows), ids(rows)
    marker = arrived(released(), 0)
    columns = list(zip(names, data, strict=True))
    arriving: dict[str, list[StreamEvent]] = {
        "an example": [ExampleArrived(id=i, time=NOON, features=x) for i, (x, _) in columns],
        "a label": [LabelArrived(id=i, time=NOON, label=y) for i, (_, y) in columns],
        "an example with its label": [ExampleArrived(id=i, time=NOON, features=x, label=y) for i, (x, y) in columns],
    }
    ways: dict[str, Callable[[], Cost]] = {"river": lambda: river(data)}

    def add(name: str, core: ModuleType, log: list[Record], world: Any, first: Record | None) -> None:
        ways[name] = lambda: fold(core, log, world, rows, first)
        ways[f"{name}, durable"] = lambda: fold_durably(core, log, world, rows, first)

    for what, events in arriving.items():
        add(f"validator, {what}", validator, [arrived(event, n + 1) for n, event in enumerate(events)], WORLD, marker)
    for behind in (SOON, late):
        add(f"joiner, a pair, labels {behind:,} late", joiner, predictions(data, behind), None, None)
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)  # as the services run
    costs = interleaved(ways, asked.rounds)
    base = costs.pop("river")
    lines = [beside(name, base, cost) for name, cost in costs.items()]
    tell("The cores of validator and joiner, without their loop", lines, asked.json)


if __name__ == "__main__":
    main()
