"""Over genuine Kafka: services are killed while a challenger is judged, takes over, is watched and is taken back.

In each round the rule that labels follow turns round and a person asks for a training. The challenger wins by its
evidence; in every second round the guard lets the old model go, in the others a person takes the new one back. In the
end a person goes back to version 1, whose run ended long ago: it serves frozen until its fork has caught up.
"""

import json
import os
import random
import time
from collections import Counter
from datetime import timedelta

import pytest
import side

from headrace.infra import supervisor
from headrace.reproduce.log import find
from headrace.reproduce.model import reproduce
from headrace.schemas.codec import TYPE_OF, encode, headers_of
from headrace.schemas.control import (
    AliasRemoved,
    ModelUpdated,
    ModelValidated,
    RollbackAsked,
    RunEnded,
    RunStarted,
    SnapshotTaken,
    TrainingAsked,
)
from headrace.schemas.stream import ExampleArrived, ExampleLabelled, LabelArrived
from headrace.schemas.topics import TOPICS
from tests.simulation.history import crowded, out_of_order, served, unfounded

KILLS = int(os.environ.get("PROMOTION_KILLS", "60"))
SEED = int(os.environ.get("CHAOS_SEED", "5"))
VICTIMS = (
    "validator", "predictor", "joiner", "trainer", "evaluator", "sequencer", "orchestrator", "registry",
)  # fmt: skip
SETTLED, ROWS_A_SECOND, LIMIT_S = 1_200, 150, 60.0
EVERY_S = (0.2, 1.2)  # from one kill to the next, at least and at most
SOURCE = side.source("""
    gates=Gates(alpha=0.3, guard_labels=400, max_labels=2_000),
    rollout=Rollout(refresh_s=0.2, steps=(0.5,), step_s=0.5, step_requests=20),
    triggers=Triggers(first_model_at=100, on_performance_drift=False),
""")


class Story:
    """A stream of rows whose rule turns round, what people ask, and who is killed meanwhile."""

    def __init__(self, stack, until):
        self._stack, self._until, self._chance = stack, until, random.Random(SEED)
        self.rows, self.is_turned, self.killed, self.asked = 0, False, Counter(), 0
        self._next_row = self._next_kill = None

    def burst(self, count):
        for _ in range(count):
            x, y = self._chance.gauss(0, 1), self._chance.random()
            at, id_ = side.BEGIN + timedelta(seconds=self.rows), str(self.rows)
            self._stack.publish("side", ExampleArrived(id=id_, time=at, features={"x": x, "y": y}))
            self._stack.publish("side", LabelArrived(id=id_, time=at, label=(x > 0) != self.is_turned))
            self.rows += 1
        self._stack.poll()

    def joined(self):
        return [r for r in self._stack.records("<p>.labelled-examples", "side") if isinstance(r.event, ExampleLabelled)]

    def events(self, *kinds, topic="control-log"):
        return [r.event for r in self._stack.records(topic) if isinstance(r.event, kinds)]

    def aliases(self):
        named = {}
        for event in self.events(ModelUpdated, AliasRemoved):
            if isinstance(event, ModelUpdated):
                named[event.alias] = event
            else:
                named.pop(event.alias, None)
        return named

    def ask(self, kind, **fields):
        self.asked += 1
        asked = kind(pipeline="side", request=f"{kind.__name__}-{self.asked}", by="test", **fields)
        producer = self._stack.bus.producer("test-operator")
        headers = headers_of(TYPE_OF[kind], "/test", 0)
        producer.produce(self._stack.topic("operator-requests"), 0, b"side", encode(asked), headers, 0)
        producer.flush()

    def settled(self):
        """Every row published is joined; repeats make the topic longer than that long before."""
        self._stack.flush()
        self._until(
            lambda: self._stack.bus.offsets(self.place())[1] >= self.rows and len(self.joined()) >= self.rows,
            limit_s=LIMIT_S,
            says="joined rows",
        )

    def place(self):
        return self._stack.topic("<p>.labelled-examples", "side"), 0

    def through(self, condition, says):
        """Rows go on and services are killed until the condition holds."""
        self._next_row, self._next_kill = time.monotonic(), time.monotonic() + self._chance.uniform(*EVERY_S) / 2

        def look():
            now = time.monotonic()
            if now >= self._next_row:
                self.burst(ROWS_A_SECOND // 10)
                self._next_row += 0.1
            if now >= self._next_kill:
                self._next_kill = now + self._chance.uniform(*EVERY_S)
                name = self._chance.choice(VICTIMS)
                self.killed[name] += self._stack.kill(name)
            return condition()

        try:
            return self._until(look, limit_s=LIMIT_S, says=says)
        except AssertionError as error:
            last = [line for line in map(str, self.events(object)) if not line.startswith("Tick")][-12:]
            raise AssertionError("\n".join([str(error), *(line[:500] for line in last)])) from error

    def a_round(self, number):
        """From a rule that turns round to the guard's verdict, or to a person who takes the new model back."""
        self.burst(SETTLED)
        self.settled()
        before = self.aliases()["champion"]
        start = self._stack.bus.offsets(self.place())[1]
        self.is_turned = not self.is_turned
        self.burst(150)
        self.settled()
        self.ask(TrainingAsked, start=start, seed=number)
        champion = self.through(lambda: self._another(before), f"round {number}: a promotion")
        if number % 2:
            self.through(lambda: "previous" not in self.aliases(), f"round {number}: the guard's verdict")
            return
        self.ask(RollbackAsked)
        self.through(lambda: self._another(champion), f"round {number}: the model before it")
        self.through(lambda: champion.run in self._ended(), f"round {number}: the end of the run taken back")
        self.is_turned = not self.is_turned

    def back_to_the_first(self):
        """Version 1 serves frozen, then its fork."""
        first = self.events(ModelUpdated)[0]
        taken = [r.event for r in self._stack.records("<p>.snapshots", "side") if isinstance(r.event, SnapshotTaken)]
        newest = [event for event in taken if first.run in event.runs][-1]
        before = self.aliases()["champion"]
        self.ask(RollbackAsked, version=1, uri=newest.runs[first.run].uri, snapshot_offset=newest.offset)
        frozen = self.through(lambda: self._another(before), "version 1 again")
        assert (frozen.version, frozen.follows) == (1, False)
        fork = self.through(lambda: self._another(frozen), "its fork")
        assert fork.follows

    def _another(self, champion):
        now = self.aliases().get("champion")
        return now if now is not None and now.epoch > champion.epoch else None

    def _ended(self):
        return {event.run for event in self.events(RunEnded)}


def history_is_whole(story, stack, until):
    """One promotion for each round, one fork, everything in order, everything reproduces. Returns dropped repeats."""
    story.settled()
    until(lambda: len(story.joined()) == story.rows, limit_s=LIMIT_S, says="every row joined once")
    assert [r.event.prediction.id for r in story.joined()] == [str(number) for number in range(story.rows)]
    told = story.events(object)
    moves = [event for event in told if isinstance(event, ModelUpdated | AliasRemoved)]
    assert moves == story.events(ModelUpdated, AliasRemoved, topic="model-updates")
    taken = [r.event for r in stack.records("<p>.snapshots", "side") if isinstance(r.event, SnapshotTaken)]
    assert out_of_order(moves) + unfounded(told) + crowded(told, taken) == []
    for version in sorted({event.version for event in moves if isinstance(event, ModelUpdated)}):
        found = find(f"side@{version}", stack.bus, stack.namespace)
        done = reproduce(found, stack.bus, stack.artifacts, stack.namespace)
        assert (done.outcome, done.evidence) == ("equal", "structural digest"), version
    names = [(name, "side" if name.startswith("<p>.") else "") for name in TOPICS if "dlq" not in name]
    names = [(name, p) for name, p in names if stack.topic(name, p) in stack.bus.topics()]
    return sum(stack.raw_count(*name) - len(stack.records(*name)) for name in names if name[0] not in WRITTEN_BY_USERS)


WRITTEN_BY_USERS = ("<p>.data-arrived", "operator-requests", "ticks")


def live(stack, until, kills, rounds):
    """Rounds until so many were killed, at least these; then what the log tells."""
    began = time.monotonic()
    story = Story(stack, until)
    stack.release(SOURCE, "side")
    story.burst(300)
    until(lambda: story.aliases().get("champion"), limit_s=LIMIT_S, says="the first model")
    number = 0
    while number < rounds or story.killed.total() < kills:
        number += 1
        story.a_round(number)
    story.back_to_the_first()
    repeats = history_is_whole(story, stack, until)
    told = story.events(object)
    how = Counter(kind for kind, _ in served(told))
    back = number // 2
    assert how == {"first": 1, "promotion": number, "return to a version": 1, "fork serves": 1} | (
        {"rollback by a person": back} if back else {}
    )
    forks = [event for event in told if isinstance(event, RunStarted) and event.parent is not None]
    assert len(forks) == 1
    shares = Counter(event.share for event in told if isinstance(event, ModelUpdated) and event.share is not None)
    assert shares == {0.5: number}, "each went through its canary, once"
    steps = [event for event in told if isinstance(event, ModelValidated) and event.share is not None]
    assert all("latency" in {check.name for check in event.checks} for event in steps)
    verdicts = Counter((e.stage, e.verdict) for e in told if isinstance(e, ModelValidated))
    restarts = sum(int(state.get("restarts", 0)) for state in supervisor.states(stack.home).values())
    said = {
        "rounds": number, "rows": story.rows, "kills": story.killed.total(), "restarts": restarts,
        "by_service": dict(story.killed), "repeats_dropped": repeats, "served": dict(how),
        "verdicts": {" ".join(key): n for key, n in verdicts.items()}, "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip
    print("\n" + json.dumps(said, indent=2))
    return said


@pytest.fixture
def chain(some_services):
    with some_services(*VICTIMS, "scheduler") as stack:
        yield stack


@pytest.mark.kafka
def test_whoever_is_killed_in_a_promotion_and_a_rollback_each_happens_once(chain, until):
    assert live(chain, until, kills=0, rounds=2)["kills"] > 0


@pytest.mark.kafka
@pytest.mark.slow
def test_sixty_kills_in_promotions_and_rollbacks_change_no_history_and_no_model(chain, until):
    said = live(chain, until, kills=KILLS, rounds=2)
    assert said["repeats_dropped"] > 0, "a run without repeats proves nothing"
