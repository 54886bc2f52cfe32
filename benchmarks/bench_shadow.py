"""What a challenger in shadow costs those who are served: its fold, publish → prediction visible, and a backlog.

`python benchmarks/bench_shadow.py [--rate 200] [--seconds 10] [--backlog 10000] [--rounds 3] [--json]`. One predictor
with its real loop in a process of its own; the champion is a linear model, the challenger the same model that computes
for so long before it answers. "Nothing shed" is the predictor without its budget. The fold alone, without Kafka, is
given as the least CPU a record of so many rounds.
"""

from __future__ import annotations

import tempfile
import time
import uuid
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from common import COLUMNS, Child, Line, Row, arguments, broker, made_up, make_model, note, quantile, tell
from stack import KEY, LINEAR, NOON, SOURCE

from headrace import model_bytes
from headrace.infra import create_topics, pipeline_files
from headrace.infra.artifacts import Artifacts, Manifest
from headrace.infra.bus import Bus
from headrace.infra.kafka_bus import KafkaBus
from headrace.infra.service import Wiring, loop, tidy_memory
from headrace.infra.settings import Settings
from headrace.infra.store import Store
from headrace.schemas.codec import TYPE_OF, decode, encode, headers_of
from headrace.schemas.contract import LabelSpec
from headrace.schemas.control import ModelUpdated, PipelineReleased
from headrace.schemas.record import Record
from headrace.schemas.stream import SHED, ExampleArrived
from headrace.schemas.topics import full_name
from headrace.services.predictor import core
from headrace.services.predictor.arms import Arms
from headrace.services.predictor.budget import Budget
from headrace.verbs import verbs

WAYS: dict[str, tuple[float | None, bool]] = {
    "no shadow": (None, True),
    "a fast shadow": (0.0, True),
    "a shadow of 1 ms": (0.001, True),
    "a shadow of 40 ms": (0.04, True),
    "a shadow of 40 ms, nothing shed": (0.04, False),
}
LIMIT_S = 300.0
NOW_MS = int(time.time() * 1000)  # older records would be past their topic's retention
WARM_UP_S = 1


class Seen(NamedTuple):
    """Milliseconds from publish to visible by row, the share of rows whose shadow was shed, rows a second."""

    delays: list[float]
    shed: float
    rate: float


class Plant:
    """A namespace of its own with a released pipeline, and the wiring of one predictor."""

    def __init__(self, bus: Bus, home: Path) -> None:
        self.bus, self.namespace = bus, f"b{uuid.uuid4().hex[:8]}-"
        settings = Settings(home=home, namespace=self.namespace, instance="bench", artifact_key=KEY)
        self.artifacts, file = Artifacts(settings.artifact_url, KEY.encode()), home / "bench.py"
        columns = "\n".join(f"    {column}: float" for column in COLUMNS)
        file.write_text(SOURCE.format(name="bench", columns=columns, refresh_s=1.0, recipe=LINEAR))
        pipeline = pipeline_files.load_file(file)
        create_topics.create(bus, self.namespace)
        create_topics.create_pipeline(bus, "bench", 1, pipeline.policies(), self.namespace)
        _, uri = self.artifacts.put_source(file.read_bytes())
        definition = pipeline_files.definition(pipeline, file.read_bytes(), uri)
        self.released = PipelineReleased(
            pipeline="bench", release=1, definition=definition, partitions=1, request="r", by="bench"
        )
        self.wiring = Wiring(
            settings, bus, self.artifacts, KEY.encode(),
            lambda fold, place: Store.open(home / "state" / fold / f"{place[0]}-{place[1]}", KEY.encode()),
            timing={"commit_s": settings.commit_s, "commit_records": settings.commit_records},
        )  # fmt: skip
        self.say("pipelines", self.released)

    def say(self, topic: str, *events: Any, source: str = "/bench/-/0") -> None:
        """Publish events to one topic, as a service writes them; returns when all are acknowledged."""
        producer, name = self.bus.producer("bench"), full_name(topic, "bench", self.namespace)
        for number, event in enumerate(events):
            headers = headers_of(TYPE_OF[type(event)], source, number << 16)
            producer.produce(name, 0, b"bench", encode(event), headers, NOW_MS)
        producer.flush()


class World:
    """The predictor's world with a challenger that takes so long, and with or without the budget."""

    def __init__(self, arms: Arms, takes_s: float | None, has_budget: bool) -> None:
        self._arms, self._takes_s, self._has_budget = arms, takes_s, has_budget
        self._known: core.World | None = None
        self._made = core.World()

    def __call__(self, pipeline: str) -> core.World:
        known = self._arms.world(pipeline)
        if known is not self._known:
            self._known, self._made = known, self._slowed(known)
        return self._made

    def _slowed(self, world: core.World) -> core.World:
        arm = world.arms.get("challenger")
        if arm is None or not self._takes_s:
            return world
        takes_s, quick = self._takes_s, arm.answer

        def answer(features: Any) -> Any:
            until = time.thread_time() + takes_s
            while time.thread_time() < until:
                pass
            return quick(features)

        arms = {**world.arms, "challenger": replace(arm, answer=answer)}
        return replace(world, arms=arms, budget=world.budget if self._has_budget else None)


def learned() -> Any:
    model = make_model()
    for x, y in made_up(1_000):
        model.learn_one(x, y)
    return model


def serve(address: str, takes_s: float | None, has_budget: bool, pipe: Any) -> None:
    """A predictor with a champion and perhaps a challenger: says its namespace, starts and ends as it is told."""
    with tempfile.TemporaryDirectory() as folder:
        plant = Plant(KafkaBus(address), Path(folder))
        uri = plant.artifacts.put(model_bytes.dumps(learned()), Manifest(kind="model", pipeline="bench", run="r"))
        updates = [
            ModelUpdated(
                pipeline="bench", alias=alias, version=number, run=f"r{number}", release=1, snapshot_offset=1_000,
                uri=uri, follows=False, epoch=number, reason="bench",
            )
            for number, alias in enumerate(("champion", "challenger") if takes_s is not None else ("champion",), 1)
        ]  # fmt: skip
        plant.say("model-updates", *updates)
        plant.say("<p>.data-validated", plant.released, source="/validator/bench/0/0")
        pipe.send((True, plant.namespace))
        pipe.recv()
        arms, stop = Arms(plant.wiring), SimpleNamespace(asked=False)
        runner = plant.wiring.fold("predictor", core, World(arms, takes_s, has_budget))

        def beat() -> None:
            stop.asked = pipe.poll()

        tidy_memory()
        loop((runner, arms), stop, beat)  # type: ignore[arg-type]
        runner.close()
        arms.close()


def measured(address: str, way: str, data: list[Row], rate: float | None) -> Seen:
    """One predictor, from its start to its end."""
    child = Child(serve, address, *WAYS[way])
    try:
        return through(KafkaBus(address, linger_ms=0), child, data, rate)
    finally:
        child.tell("stop")
        child.process.join(20)


def through(bus: Bus, child: Child, data: list[Row], rate: float | None) -> Seen:
    """Publish at a rate, or all before the predictor starts, and read what it predicts."""
    namespace = child.result()
    topic, answers = (full_name(name, "bench", namespace) for name in ("<p>.data-validated", "<p>.predictions"))
    producer, reader = bus.producer("bench-publisher"), bus.reader()
    sent: dict[bytes, float] = {}
    seen: list[tuple[float, Any]] = []

    def publish(number: int) -> None:
        key = b"%08d" % number
        event = ExampleArrived(id=key.decode(), time=NOON + timedelta(seconds=number), features=data[number][0])
        headers = headers_of(TYPE_OF[ExampleArrived], "/validator/bench/0/0", (number + 1) << 16)
        body = encode(event)
        sent[key] = time.perf_counter()
        producer.produce(topic, 0, key, body, headers, NOW_MS)
        producer.push()

    if rate is None:
        for number in range(len(data)):
            publish(number)
        producer.flush()
    reader.assign({(answers, 0): 0})
    child.tell("start")
    while not reader.poll(1, 0.05):
        pass  # the release is through: the predictor reads
    begin, published = time.perf_counter(), len(sent)
    while len(seen) < len(data) and time.perf_counter() < begin + LIMIT_S:
        while rate is not None and published < len(data) and time.perf_counter() >= begin + published / rate:
            publish(published)
            published += 1
        due = 0.05 if rate is None or published == len(data) else begin + published / rate - time.perf_counter()
        found = reader.poll(100, min(max(due, 0.0), 0.05))
        seen += [(time.perf_counter(), message) for message in found]
    producer.close()
    reader.close()
    bus.close()
    if len(seen) < len(data):
        raise RuntimeError(f"{len(seen)} of {len(data)} predictions in {LIMIT_S:.0f} s")
    made = [decode("headrace.PredictionMade.v1", message.value()).predictions for _, message in seen]
    shadow = [arms["challenger"] for arms in made if "challenger" in arms]
    first = begin + WARM_UP_S if rate is not None else 0.0  # a new producer knows its broker only after a while
    return Seen(
        [(at - sent[key]) * 1000 for at, message in seen if sent[key := message.key()] >= first],
        sum(arm.error == SHED for arm in shadow) / max(len(shadow), 1),
        len(seen) / (seen[-1][0] - begin),
    )


def folded(data: list[Row], rounds: int) -> list[Line]:
    """CPU of the fold alone, in the least of the rounds: one arm, and two with and without a budget."""
    answer, _ = verbs(learned(), LabelSpec(type="bool"), True)
    events = [ExampleArrived(id=str(number), time=NOON, features=x) for number, (x, _) in enumerate(data)]
    records = [Record(e, 0, "", "bench", 0, n, b"", b"", "/v/b/0/0", n << 16) for n, e in enumerate(events)]
    one = {"champion": core.Arm(1, "a", 0, {}, frozenset({0}), answer)}
    two = one | {"challenger": core.Arm(2, "b", 0, {}, frozenset({0}), answer)}
    budget = Budget(0.1, 0.05, time.perf_counter, time.thread_time)
    worlds = {
        "one arm": core.World(one),
        "two arms, no budget": core.World(two),
        "two arms": core.World(two, budget=budget),
    }
    costs: dict[str, list[float]] = {name: [] for name in worlds}
    for _ in range(5 * rounds):
        for name, world in worlds.items():
            state, began = core.State(), time.thread_time()
            for record in records:
                core.step(state, record, world)
            costs[name].append((time.thread_time() - began) / len(records) * 1e6)
    alone = min(costs["one arm"])
    detail = "least of {}; {:.2f} × one arm"
    return [
        Line(
            f"the fold, {name}",
            round(min(found), 2),
            "µs CPU a record",
            "",
            detail.format(len(found), min(found) / alone),
        )
        for name, found in costs.items()
    ]


def main() -> None:
    asked = arguments(__doc__, rate=200, seconds=10, backlog=10_000)
    address, data = broker(), made_up(max(asked.rate * (asked.seconds + WARM_UP_S), asked.backlog))
    paced: dict[str, list[Seen]] = {name: [] for name in WAYS}
    backlog: dict[str, list[Seen]] = {name: [] for name, (_, has_budget) in WAYS.items() if has_budget}
    tidy_memory()
    for number in range(asked.rounds):
        for name, (_, has_budget) in WAYS.items():
            note(f"round {number + 1} of {asked.rounds}: {name}")
            seconds = asked.seconds if has_budget else min(asked.seconds, 2)  # it takes eight times as long
            paced[name].append(measured(address, name, data[: asked.rate * (seconds + WARM_UP_S)], asked.rate))
            if has_budget:
                backlog[name].append(measured(address, name, data[: asked.backlog], None))
    lines = folded(data[:2_000], asked.rounds)
    lines += [told(name, found) for name, found in paced.items()]
    lines += [at_once(name, found, backlog["no shadow"]) for name, found in backlog.items()]
    tell(f"A challenger in shadow: {asked.rate} rows/s, then {asked.backlog:,} at once", lines, asked.json)


def told(name: str, found: list[Seen]) -> Line:
    delays = [delay for one in found for delay in one.delays]
    shed = sum(one.shed for one in found) / len(found)
    detail = (
        f"p50; p90 {quantile(delays, 0.9):.1f}, p99 {quantile(delays, 0.99):.1f}, most {max(delays):,.0f} ms; "
        f"{len(delays):,} rows, {shed:.1%} shed"
    )
    return Line(f"publish → prediction, {name}", round(quantile(delays, 0.5), 2), "ms", "", detail)


def at_once(name: str, found: list[Seen], alone: list[Seen]) -> Line:
    rate = quantile([one.rate for one in found], 0.5)
    shed = sum(one.shed for one in found) / len(found)
    detail = f"{rate / quantile([one.rate for one in alone], 0.5):.2f} × without; {shed:.1%} shed"
    return Line(f"backlog, {name}", round(rate), "rows/s", "", detail)


if __name__ == "__main__":
    main()
