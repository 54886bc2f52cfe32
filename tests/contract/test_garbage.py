"""Whatever is written into any topic: a dead letter, or a record like another; no fold stops, none learns of it."""

import importlib
import json
import random

import garbage
import pytest
from draws import draws
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from headrace.infra.bus import TopicSpec
from headrace.infra.memory_bus import MemoryBus
from headrace.infra.runtime import FoldRunner, Worker
from headrace.schemas.policies import Policies
from headrace.schemas.topics import full_name, parse_name
from headrace.services import FOLDS

PIPELINES = ("rain", "snow")  # of the history
IDS = [f"{fold.id}:{fold.input}" for fold in FOLDS]
every_fold = pytest.mark.parametrize("fold", FOLDS, ids=IDS)
some = settings(
    max_examples=draws(25),
    phases=(Phase.generate,),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def history(system, fold):
    return system.bus.read((full_name(fold.input, "rain"), 0), 0, 1_000_000)


class Loop:
    """The real loop of one fold on an in-process log, over what is appended."""

    def __init__(self, fold, system):
        self.fold, self.bus = fold, MemoryBus(clock=lambda: 1_000)
        core = importlib.import_module(fold.module)
        self.input = full_name(fold.input, "rain")
        names = (fold.input, *fold.outputs, "pipelines")
        for topic in {full_name(name, pipeline) for name in names for pipeline in PIPELINES}:
            for dlq in ("", "-dlq"):
                self.bus.create_topics([TopicSpec(topic + dlq, 1, {})])
        for m in system.bus.read(("pipelines", 0), 0, 100) if fold.input.startswith("<p>") else ():
            self.bus.append("pipelines", 0, m.key(), m.value(), m.headers(), m.timestamp()[1])
        self.runner = FoldRunner(
            fold.id,
            [fold.input],
            self.bus,
            lambda place, producer: Worker(
                fold, core, place, bus=self.bus, producer=producer, namespace="", open_store=lambda *_: None,
                world=core.example_world(),
            ),
            commit_s=0,
            follow_s=0,
        )  # fmt: skip

    def give(self, key, value, headers, at_ms):
        self.bus.append(self.input, 0, key, value, headers, at_ms)

    def run(self):
        """Fold all that was given; returns what it told, but for rejects and dead letters."""
        given = self.bus.offsets((self.input, 0))[1]
        while self.runner.tick(0.0) or self.runner.handled < given:
            pass
        self.runner.close()
        told = {}
        for topic in self.fold.outputs:
            if parse_name(full_name(topic, "rain"))[0] in ("<p>.data-rejected", "validation-results"):
                continue
            found = self.bus.read((full_name(topic, "rain"), 0), 0, 1_000_000)
            told[topic] = [(m.key(), m.value(), m.headers(), m.timestamp()[1]) for m in found]
        told.pop(self.fold.input, None)
        return told

    def dead_letters(self):
        return self.bus.read((self.input + "-dlq", 0), 0, 1_000_000)


def far_ahead(headers):
    """The envelope of a service's record, numbered as one that it tells much later."""
    return [(name, b"9" * 18 if name == "ce_sequence" else value) for name, value in headers]


@every_fold
@some
@given(poison=st.lists(st.tuples(st.integers(0, 59), garbage.unreadable, st.booleans(), garbage.times_ms), max_size=8))
def test_what_cannot_be_read_is_a_dead_letter_and_changes_nothing_also_in_a_services_name(fold, system, poison):
    poisoned, neutral = Loop(fold, system), Loop(fold, system)
    messages = history(system, fold)[:60]
    for number, m in enumerate(messages):
        for _, (key, value, headers), in_its_name, at_ms in (one for one in poison if one[0] == number):
            poisoned.give(key, value, far_ahead(m.headers()) if in_its_name else headers, at_ms)
            neutral.give(None, b"", [], m.timestamp()[1])
        for loop in (poisoned, neutral):
            loop.give(m.key(), m.value(), m.headers(), m.timestamp()[1])
    assert poisoned.run() == neutral.run()
    if fold.input != "<p>.data-arrived":  # there the validator rejects, with a reason
        assert len(poisoned.dead_letters()) == sum(at < len(messages) for at, *_ in poison)


@every_fold
@settings(parent=some, max_examples=draws(60))
@given(seed=st.integers(0, 2**32))  # drawn one by one by hypothesis they took three quarters of the time
def test_a_true_record_with_one_thing_changed_stops_no_fold(fold, system, seed):
    if fold.id == "trainer-core":
        pytest.skip(
            "what a run cannot learn is told and skipped by the trainer's own worker (tests/unit/test_lockstep.py)"
        )
    messages = history(system, fold)[:60]
    real = [(m.key(), m.value(), m.headers()) for m in messages]
    chance = random.Random(seed)
    bent = [(chance.randrange(60), garbage.bent(chance, real)) for _ in range(chance.randint(1, 8))]
    loop = Loop(fold, system)
    for number, m in enumerate(messages):
        loop.give(m.key(), m.value(), m.headers(), m.timestamp()[1])
        for _, record in (one for one in bent if one[0] == number):
            if fold.service != "registry" or not asks_for_topics_that_are_not_there(*record[1:]):
                loop.give(*record, m.timestamp()[1])
    loop.run()


def asks_for_topics_that_are_not_there(value, headers):
    """The sequencer has looked whether a release's topics are there; the registry believes it."""
    if dict(headers).get("ce_type") != b"headrace.ReleaseAsked.v1":
        return False
    try:
        told = json.loads(value)
    except ValueError:
        return False
    return isinstance(told, dict) and not (told.get("pipeline") in PIPELINES and told.get("partitions", 1) == 1)


@pytest.mark.parametrize("one", [{"fea/ure": "x"}, {}, {"feature": "x", "self": 1}, {"feature": "x", "edge": [1]}])
def test_a_slice_that_is_none_is_refused_like_any_other_field(one):
    with pytest.raises(ValidationError):
        Policies.model_validate({"slices": [one]})
