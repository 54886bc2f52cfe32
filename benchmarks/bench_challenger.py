"""From an alert to a challenger's offline verdict, on all services, and what its catch-up costs the champion.

`python benchmarks/bench_challenger.py [--rows 10000] [--rate 100] [--rounds 5] [--json]`. An alert about performance is
written as the monitor would, its change point so many rows back, while rows come at the rate: orchestrator, sequencer,
trainer and evaluator do the rest. Each moment is when an event is visible in `control-log`, or a snapshot in its topic.
The floor is the plain River loop over as many rows in the same round. Freshness: the longest time without a snapshot
of the champion, from the start of the challenger's run to its join, beside the longest one before the alert.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from common import Line, Row, arguments, broker, made_up, note, quantile, tell
from river import linear_model, naive_bayes, preprocessing, tree
from stack import LINEAR, Encoded, Stack, encoded, publish, stack, wait

from headrace.infra.kafka_bus import KafkaBus
from headrace.schemas.codec import TYPE_OF, decode, encode, header, headers_of
from headrace.schemas.control import (
    DriftDetected,
    ModelUpdated,
    ModelValidated,
    RunStarted,
    SnapshotTaken,
    TrainingCompleted,
    TrainingRequested,
)

RECIPES: dict[str, tuple[str, Callable[[], Any]]] = {
    "linear": (LINEAR, lambda: preprocessing.StandardScaler() | linear_model.LogisticRegression()),
    "bayes": ("naive_bayes.GaussianNB()", naive_bayes.GaussianNB),
    "tree": ("tree.HoeffdingTreeClassifier()", tree.HoeffdingTreeClassifier),
}
LABELS = {"linear": "scaler, logistic regression", "bayes": "Gaussian naive Bayes", "tree": "Hoeffding tree"}
CALM_S = 6.0  # before each alert: the champion's snapshots without a catch-up
SPARE = 200  # rows before the range, so that there is a champion
STAGES = ("asked", "started", "caught up", "offline verdict", "in lockstep", "infra verdict")


class Scene:
    """One pipeline under a stream of rows; everything that is told of it, with the moment at which it was visible."""

    def __init__(self, made: Stack, name: str, rate: int) -> None:
        self._made, self._name, self._rate = made, name, rate
        self.told: list[tuple[float, Any]] = []
        self._bus = KafkaBus(made.settings.bootstrap_servers, linger_ms=0)
        self._producer, self._reader = self._bus.producer("bench-publisher"), self._bus.reader()
        topics = made.topic("control-log"), made.topic("<p>.snapshots", name)
        self._reader.assign({(topic, 0): 0 for topic in topics})
        self._batch, self._rows, self._queue = 0, 0, list[Encoded]()
        self._began = time.monotonic()

    def close(self) -> None:
        self._reader.close()
        self._producer.close()
        self._bus.close()

    def until(self, condition: Callable[[], Any], what: str, limit_s: float = 120.0) -> Any:
        """Rows go on and what is told is read until the condition holds."""
        deadline = time.monotonic() + limit_s
        while not (found := condition()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self._name}: {what} did not come within {limit_s:g} s")
            self._publish_due()
            for message in self._reader.poll(100, 0.002):
                kind = header(message.headers() or [], "ce_type", 0)
                self.told.append((time.monotonic(), decode(kind, message.value())))
        return found

    def _publish_due(self) -> None:
        if time.monotonic() - self._began > 1 + self._rows / self._rate:
            self._began = time.monotonic() - self._rows / self._rate  # it stood still: nothing is caught up
        while time.monotonic() > self._began + self._rows / self._rate:
            if not self._queue:
                self._batch += 1
                self._queue = encoded(made_up(1_000, self._batch), 0, f"{self._name}{self._batch}")[::-1]
            kind, key, body, headers = self._queue.pop()
            self._producer.produce(self._made.topic("<p>.data-arrived", self._name), None, key, body, headers, 0)
            self._rows += kind == "label"
        self._producer.poll()

    def last(self, kind: type, **fields: Any) -> tuple[float, Any] | None:
        """The newest event of a kind with these fields, and when it was visible."""
        for at, event in reversed(self.told):
            if isinstance(event, kind) and all(getattr(event, name) == value for name, value in fields.items()):
                return at, event
        return None

    def alert(self, number: int, rows: int) -> float:
        """The champion is worse since so many rows; returns when that was said."""
        found = self.last(ModelUpdated, pipeline=self._name, alias="champion")
        assert found is not None
        place = self._made.topic("<p>.labelled-examples", self._name), 0
        event = DriftDetected(
            pipeline=self._name, kind="performance", level="drift", since=self._bus.offsets(place)[1] - rows,
            detector="bench", evidence={"rows_since": rows}, run=found[1].run,
        )  # fmt: skip
        headers = headers_of(TYPE_OF[DriftDetected], f"/bench/{self._name}", number)
        topic, now_ms = self._made.topic("drift-alerts"), int(time.time() * 1000)
        said = time.monotonic()
        self._producer.produce(topic, 0, self._name.encode(), encode(event), headers, now_ms)
        self._producer.poll()
        return said

    def champion_gaps(self, run: str, first: float, last: float) -> list[float]:
        """Seconds between the champion's snapshots that are visible in a time, and from its edges."""
        seen = [at for at, event in self.told if isinstance(event, SnapshotTaken) and run in event.runs]
        return [b - a for a, b in pairwise(seen) if b > first and a < last]


def a_round(scene: Scene, name: str, number: int, rows: int) -> dict[str, float]:
    """One alert and what followed, seconds since it."""
    calm = time.monotonic()
    scene.until(lambda: time.monotonic() > calm + CALM_S, "a calm time")
    champion = scene.last(ModelUpdated, pipeline=name, alias="champion")
    assert champion is not None
    said = scene.alert(number, rows)
    asked = scene.until(lambda: since(scene.last(TrainingRequested, pipeline=name), said), "the request")
    started = scene.until(lambda: scene.last(RunStarted, pipeline=name, request=asked[1].request), "the run")
    run = started[1].run
    caught = scene.until(lambda: scene.last(TrainingCompleted, pipeline=name, run=run), "the end of its range")
    offline = scene.until(lambda: scene.last(ModelValidated, pipeline=name, run=run, stage="offline"), "the verdict")
    joined = scene.until(lambda: first_with(scene, run), "the join")
    if offline[1].verdict == "pass":
        of_infra = {"pipeline": name, "run": run, "stage": "infra"}
        infra = scene.until(lambda: scene.last(ModelValidated, **of_infra), "the infra verdict")[0]
    else:
        infra = float("nan")
    scene.until(lambda: time.monotonic() > joined + 2, "the snapshot after the join")
    moments = (asked[0], started[0], caught[0], offline[0], joined, infra)
    return {
        **{stage: at - said for stage, at in zip(STAGES, moments, strict=True)},
        "gate": offline[1].seconds or float("nan"),
        "calm gap": max(scene.champion_gaps(champion[1].run, calm + 1, said)),
        "catch-up gap": max(scene.champion_gaps(champion[1].run, started[0], joined)),
    }


def since(found: tuple[float, Any] | None, said: float) -> tuple[float, Any] | None:
    return found if found is not None and found[0] > said else None


def first_with(scene: Scene, run: str) -> float | None:
    """When the first snapshot that holds a run was visible."""
    return next((at for at, event in scene.told if isinstance(event, SnapshotTaken) and run in event.runs), None)


def plain_s(make: Callable[[], Any], data: Sequence[Row]) -> float:
    """Seconds of the plain River loop: predict and learn each row."""
    model, began = make(), time.perf_counter()
    for x, y in data:
        model.predict_proba_one(x)
        model.learn_one(x, y)
    return time.perf_counter() - began


def main() -> None:
    asked = arguments(__doc__, rows=10_000, rate=100)
    address = broker()
    found: dict[str, list[dict[str, float]]] = {name: [] for name in RECIPES}
    data = made_up(asked.rows + SPARE)
    with stack() as made:
        scenes = {name: begun(made, address, name, data, asked.rate) for name in RECIPES}
        for number in range(asked.rounds):
            for name, scene in scenes.items():
                plain = plain_s(RECIPES[name][1], data[: asked.rows])
                found[name].append({"plain": plain, **a_round(scene, name, number, asked.rows)})
                note(f"round {number + 1} of {asked.rounds}: {name} " + words(found[name][-1]))
        for scene in scenes.values():
            scene.close()
    lines = [line for name, rounds in found.items() for line in report(name, rounds)]
    tell(f"A challenger {asked.rows:,} rows behind, {asked.rate} rows/s", lines, asked.json)


def begun(made: Stack, address: str, name: str, data: Sequence[Row], rate: int) -> Scene:
    """A pipeline with a champion that learned all rows."""
    made.release(name, recipe=RECIPES[name][0])
    publish(address, made.topic("<p>.data-arrived", name), encoded(data, 0, name))
    wait(lambda: made.end("<p>.labelled-examples", name) >= len(data), f"the last join of {name}")
    scene = Scene(made, name, rate)
    scene.until(lambda: scene.last(ModelUpdated, pipeline=name, alias="champion"), "the first champion")
    scene.until(lambda: (taken := scene.last(SnapshotTaken)) and taken[1].offset >= len(data), "its newest snapshot")
    return scene


def words(one: dict[str, float]) -> str:
    return ", ".join(f"{what} {seconds:.2f}" for what, seconds in one.items())


def report(name: str, rounds: Sequence[dict[str, float]]) -> list[Line]:
    def of(what: str) -> list[float]:
        return [one[what] for one in rounds]

    def middle(what: str) -> float:
        return quantile(of(what), 0.5)

    total = of("offline verdict")
    ratios = [one["offline verdict"] / one["plain"] for one in rounds]
    parts = ", ".join(f"{stage} {middle(stage):.2f}" for stage in (*STAGES, "gate"))
    return [
        Line(f"{LABELS[name]}: alert → verdict", round(quantile(total, 0.5), 2), "s", "< 3" if name == "linear" else "",
             f"rounds {', '.join(f'{s:.2f}' for s in total)}; medians: {parts}"),
        Line("… beside plain River", round(quantile(ratios, 0.5), 2), "× its loop", "",
             f"plain {middle('plain'):.2f} s"),
        Line("… longest time without a champion's snapshot", round(max(of("catch-up gap")), 2), "s", "",
             f"medians: calm {middle('calm gap'):.2f}, in the catch-up {middle('catch-up gap'):.2f}; most calm "
             f"{max(of('calm gap')):.2f}"),
    ]  # fmt: skip


if __name__ == "__main__":
    main()
