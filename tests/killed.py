"""A stream of rows to a stack on genuine Kafka whose services are killed meanwhile, and what its log must tell then."""

import os
import random
import time
from collections import Counter
from datetime import timedelta

import side

from headrace.infra import processes
from headrace.reproduce.log import find
from headrace.reproduce.model import reproduce
from headrace.schemas.codec import TYPE_OF, encode, headers_of
from headrace.schemas.control import AliasRemoved, ModelUpdated, ModelValidated, RunEnded, SnapshotTaken
from headrace.schemas.record import SEQUENCES_PER_OFFSET
from headrace.schemas.stream import ExampleArrived, ExampleLabelled, LabelArrived, PredictionMade
from headrace.schemas.topics import TOPICS
from tests.simulation.history import crowded, out_of_order, served, unfounded
from tests.simulation.ways_back import wrong_ways

SEED = int(os.environ.get("CHAOS_SEED", "5"))
VICTIMS = (
    "validator", "predictor", "joiner", "trainer", "evaluator", "sequencer", "orchestrator", "registry",
)  # fmt: skip
ROWS_A_SECOND, LIMIT_S = 150, 60.0
EVERY_S = (0.2, 1.2)  # from one kill to the next, at least and at most
WRITTEN_BY_USERS = ("<p>.data-arrived", "operator-requests", "ticks")


class Story:
    """A stream of rows whose rule may turn round, what people ask, and who is killed meanwhile."""

    victims = VICTIMS

    def __init__(self, stack, until):
        self._stack, self._until, self._chance = stack, until, random.Random(SEED)
        self.rows, self.is_turned, self.killed, self.asked = 0, False, Counter(), 0
        self._next_row = self._next_kill = None

    def live(self, source, kills, rounds):
        """A first model of this source, then rounds until so many were killed, at least these. Returns how many."""
        self._stack.release(source, "side")
        self.burst(300)
        self._until(lambda: self.aliases().get("champion"), limit_s=LIMIT_S, says="the first model")
        number = 0
        while number < rounds or self.killed.total() < kills:
            number += 1
            self.a_round(number)
        return number

    def burst(self, count, y=None):
        """So many rows with their labels; `y` is drawn where none is given."""
        for _ in range(count):
            x, drawn = self._chance.gauss(0, 1), self._chance.random()
            at, id_ = side.BEGIN + timedelta(seconds=self.rows), str(self.rows)
            features = {"x": x, "y": drawn if y is None else y}
            self._stack.publish("side", ExampleArrived(id=id_, time=at, features=features))
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

    def through(self, condition, says, *, rows=True):
        """Rows go on, if they are to, and services are killed until the condition holds."""
        self._next_row, self._next_kill = time.monotonic(), time.monotonic() + self._chance.uniform(*EVERY_S) / 2

        def look():
            now = time.monotonic()
            if rows and now >= self._next_row:
                self.burst(ROWS_A_SECOND // 10)
                self._next_row += 0.1
            if now >= self._next_kill:
                self._next_kill = now + self._chance.uniform(*EVERY_S)
                self.kill(self._chance.choice(self.victims))
            return condition()

        try:
            return self._until(look, limit_s=LIMIT_S, says=says)
        except AssertionError as error:
            last = [line for line in map(str, self.events(object)) if not line.startswith("Tick")][-12:]
            raise AssertionError("\n".join([str(error), *(line[:500] for line in last)])) from error

    def kill(self, *names):
        """These services, at once; one that is starting may not be there."""
        for name in names:
            self.killed[name] += self._stack.kill(name)

    def another(self, champion):
        """The champion after this one, None where there is none yet."""
        now = self.aliases().get("champion")
        return now if now is not None and now.epoch > champion.epoch else None

    def ended(self):
        """The runs that ended."""
        return {event.run for event in self.events(RunEnded)}


def history_is_whole(story, stack, until):
    """Every row joined once, every decision in order, every version reproduces. Returns dropped repeats."""
    story.settled()
    until(lambda: len(story.joined()) == story.rows, limit_s=LIMIT_S, says="every row joined once")
    assert [r.event.prediction.id for r in story.joined()] == [str(number) for number in range(story.rows)]
    told = story.events(object)
    moves = [event for event in told if isinstance(event, ModelUpdated | AliasRemoved)]
    assert moves == story.events(ModelUpdated, AliasRemoved, topic="model-updates")
    taken = [r.event for r in stack.records("<p>.snapshots", "side") if isinstance(r.event, SnapshotTaken)]
    assert out_of_order(moves) + unfounded(told) + crowded(told, taken) == []
    assert wrong_ways(*places(stack), taken, made(stack)) == []
    for version in sorted({event.version for event in moves if isinstance(event, ModelUpdated)}):
        found = find(f"side@{version}", stack.bus, stack.namespace)
        done = reproduce(found, stack.bus, stack.artifacts, stack.namespace)
        assert (done.outcome, done.evidence) == ("equal", "structural digest"), version
    names = [(name, "side" if name.startswith("<p>.") else "") for name in TOPICS if "dlq" not in name]
    names = [(name, p) for name, p in names if stack.topic(name, p) in stack.bus.topics()]
    return sum(stack.raw_count(*name) - len(stack.records(*name)) for name in names if name[0] not in WRITTEN_BY_USERS)


def places(stack):
    """The decisions with their offsets, and the moves of aliases with those of their causes."""
    control = [(record.offset, record.event) for record in stack.records("control-log")]
    moves = [(r.sequence // SEQUENCES_PER_OFFSET, r.event) for r in stack.records("model-updates")]
    return control, moves


def made(stack):
    """Every prediction."""
    return [r.event for r in stack.records("<p>.predictions", "side") if isinstance(r.event, PredictionMade)]


def account(story, stack, began, repeats):
    """What a test did and saw, in numbers."""
    told = story.events(object)
    verdicts = Counter((e.stage, e.verdict) for e in told if isinstance(e, ModelValidated))
    restarts = sum(int(state.get("restarts", 0)) for state in processes.states(stack.home).values())
    return {
        "rows": story.rows, "kills": story.killed.total(), "restarts": restarts,
        "by_service": dict(story.killed), "repeats_dropped": repeats,
        "served": dict(Counter(kind for kind, _ in served(told))),
        "verdicts": {" ".join(key): n for key, n in verdicts.items()}, "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip
