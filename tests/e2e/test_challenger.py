"""Over genuine Kafka: a challenger catches up in a process beside a champion that goes on, whatever is killed.

The trainer, the sequencer and the registry are processes; the test plays the joiner, the orchestrator and the gates.
"""

import time
from datetime import UTC, datetime

import psutil
import pytest
from river import linear_model, preprocessing

from headrace import model_bytes
from headrace.reproduce.log import find
from headrace.reproduce.model import reproduce
from headrace.schemas.codec import TYPE_OF, encode, headers_of
from headrace.schemas.control import ModelUpdated, RunStarted, SnapshotTaken, TrainingCompleted, TrainingRequested
from headrace.schemas.stream import ExampleLabelled, PredictionMade

BEHIND, START, ROWS_A_SECOND = 30_000, 1_234, 300
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SOURCE = b'''
from headrace import Contract, Pipeline
from river import linear_model, preprocessing


class Weather(Contract):
    """Two numbers."""

    x: float
    y: float


def recipe(seed: int):
    return preprocessing.StandardScaler() | linear_model.LogisticRegression()


pipeline = Pipeline(name="rain", contract=Weather, label=bool, recipe=recipe)
'''


def row(number):
    features = {"x": number * 7 % 101 / 10, "y": number * 13 % 37 / 5}
    return features, features["x"] + features["y"] > 8


class Joiner:
    """What the joiner writes, at a pace."""

    def __init__(self, stack):
        self._stack, self._producer = stack, stack.bus.producer("test-joiner")
        self._topic = stack.topic("<p>.labelled-examples", "rain")
        self.rows, self._began = 0, None

    def write(self, count):
        for number in range(self.rows, self.rows + count):
            features, label = row(number)
            made = PredictionMade(
                id=str(number), time=NOON, features=features, predictions={}, served=None, release=1, epoch=0,
                origin=(0, number),
            )  # fmt: skip
            event = ExampleLabelled(
                prediction=made, label=label, predicted_at_ms=0, labelled_at_ms=0, partition=0, number=number,
                pending_from=0, known_to=0,
            )  # fmt: skip
            headers = headers_of(TYPE_OF[ExampleLabelled], "/joiner/rain/x/0", number)
            self._producer.produce(self._topic, 0, b"rain", encode(event), headers, 1_000_000 + number)
        self.rows += count
        self._producer.flush()

    def go_on(self):
        """As many rows as are due since the first call; takes a breath where none is."""
        now = time.monotonic()
        if self._began is None:
            self._began = now - self.rows / ROWS_A_SECOND
        due = int((now - self._began) * ROWS_A_SECOND) - self.rows
        if due > 0:
            self.write(due)
        else:
            time.sleep(0.005)  # the pace of the stream, not a wait for anything


def say(stack, topic, event):
    """What another service writes."""
    producer = stack.bus.producer("test")
    number = stack.raw_count(topic)
    headers = headers_of(TYPE_OF[type(event)], "/test", number)
    producer.produce(stack.topic(topic), 0, b"rain", encode(event), headers, 1_000_000 + number)
    producer.flush()


def ask(stack, request, start):
    say(
        stack,
        "training-requests",
        TrainingRequested(
            pipeline="rain", request=request, trigger="person", cause="", release=1, seed=0, start=start,
            end_at_labels=500,
        ),
    )  # fmt: skip


def run_of(stack, request):
    started = (r.event for r in stack.records("training-runs") if isinstance(r.event, RunStarted))
    return next((event.run for event in started if event.request == request), None)


def river(first, end):
    model = preprocessing.StandardScaler() | linear_model.LogisticRegression()
    for number in range(first, end):
        features, label = row(number)
        model.predict_proba_one(features)
        model.learn_one(features, label)
    return model_bytes.digest(model)


def catching_up(stack):
    """The processes of the trainer's catch-ups."""
    try:
        return psutil.Process(stack.pid("trainer")).children()
    except (psutil.NoSuchProcess, ValueError):
        return []


@pytest.mark.kafka
def test_a_challenger_far_behind_joins_at_one_offset_whatever_is_killed(some_services, until):
    with some_services("trainer", "sequencer", "registry") as stack:
        stack.release(SOURCE, "rain")
        joiner = Joiner(stack)
        joiner.write(BEHIND)
        ask(stack, "first", 0)
        champion = until(lambda: run_of(stack, "first"), says="the champion's run")

        def snapshots():
            return [r.event for r in stack.records("<p>.snapshots", "rain") if isinstance(r.event, SnapshotTaken)]

        until(lambda: any(taken.offset >= BEHIND for taken in snapshots()), says="the champion near the head")
        moved = ModelUpdated(
            pipeline="rain", alias="champion", version=1, run=champion, release=1, snapshot_offset=0, uri="none",
            follows=True, epoch=1, reason="",
        )  # fmt: skip
        say(stack, "model-updates", moved)
        until(lambda: moved in [r.event for r in stack.records("control-log")], says="the decision in control-log")

        def while_it_goes_on(condition, says):
            return until(lambda: joiner.go_on() or condition(), limit_s=30, says=says)

        ask(stack, "second", START)
        (orphan,) = while_it_goes_on(lambda: catching_up(stack), "a process that catches up")
        assert stack.kill("trainer")  # in the catch-up
        (other,) = while_it_goes_on(lambda: catching_up(stack), "another one after the restart")
        other.kill()
        challenger = run_of(stack, "second")
        while_it_goes_on(lambda: any(challenger in taken.runs for taken in snapshots()), "the join")
        assert stack.kill("trainer")  # at the join

        joined = next(taken for taken in snapshots() if challenger in taken.runs)
        assert set(joined.runs) == {champion, challenger}
        while_it_goes_on(
            lambda: (
                snapshots()[-1].offset > joined.offset + ROWS_A_SECOND
                and set(snapshots()[-1].runs) == {champion, challenger}
            ),
            "both go on in lockstep",
        )
        assert stack.kill("trainer")  # after it
        assert not orphan.is_running()
        end = joiner.rows
        last = until(lambda: next((taken for taken in snapshots() if taken.offset >= end), None), limit_s=30)
        for run, start in ((champion, 0), (challenger, START)):
            model = model_bytes.loads(stack.artifacts.get(last.runs[run].uri)[0])
            assert model_bytes.digest(model) == river(start, end)
            assert last.runs[run].n_learned == end - start
            done = reproduce(
                find(f"rain@{run}", stack.bus, stack.namespace), stack.bus, stack.artifacts, stack.namespace
            )
            assert (done.outcome, done.evidence) == ("equal", "structural digest")
        told = [r.event for r in stack.records("training-completed") if isinstance(r.event, TrainingCompleted)]
        assert [e.n_labels for e in told if e.run == challenger] == [500 * 2**k for k in range(6)]  # 500 to 16,000
