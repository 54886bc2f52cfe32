"""An arm that serves nobody and has used up its time is shed: not asked, and the prediction says so."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from headrace.canary import place_of
from headrace.schemas.codec import encode
from headrace.schemas.record import Record
from headrace.schemas.stream import SHED, ExampleArrived, LabelArrived
from headrace.services.predictor import core
from headrace.services.predictor.core import Arm, State, World

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class NothingLeft:
    """A budget that is used up; notes who was asked all the same, and whether it serves."""

    def __init__(self):
        self.asked = []

    def begin(self):
        self.asked.clear()

    def allows(self, run):
        return False

    def charge(self, run, *, serves):
        self.asked.append((run, serves))


def refuse(features):
    raise AssertionError("it was asked")


def raising(features):
    raise ValueError("broken")


def world(*, share=None, sample=0.0, budget=None, champion=lambda features: 0.25, **shadow):
    """A champion, and arms by alias, each of a run with the name of its alias."""
    arms = {"champion": Arm(1, "champion", 3, {}, frozenset({0}), champion)}
    arms |= {alias: Arm(2, alias, 3, {}, frozenset({0}), answer) for alias, answer in shadow.items()}
    return World(arms, 4, share, sample, None, budget or NothingLeft())


def record(event, number=1):
    return Record(event, 1_000, "<p>.data-validated", "rain", 0, number, b"k", encode(event), "/v/rain/0a1b/0", number)


def predict(world, number=1, state=None, **more):
    event = ExampleArrived(id=f"d{number}", time=NOON, features={"x": 1.0}, **more)
    (emit,) = core.step(state or State(), record(event, number), world)
    return emit.event


def test_a_shed_arm_is_not_asked_and_stands_in_the_prediction_with_its_error():
    made = predict(world(challenger=refuse, previous=refuse))
    assert (made.served, made.predictions["champion"].value) == ("champion", 0.25)
    for alias in ("challenger", "previous"):
        arm = made.predictions[alias]
        assert (arm.version, arm.run, arm.learned_to, arm.value, arm.error) == (2, alias, 3, None, SHED)


def test_the_champion_is_asked_whatever_was_used_up_and_its_time_is_told_to_the_budget():
    budget = NothingLeft()
    assert predict(world(budget=budget)).served == "champion"
    assert budget.asked == [("champion", True)]
    assert predict(world(budget=budget, champion=raising)).served is None
    assert budget.asked == [("champion", True)]


def test_in_a_canary_the_challenger_answers_each_unit_and_other_arms_are_shed():
    budget = NothingLeft()
    shared = world(share=0.5, budget=budget, challenger=lambda features: 0.75, previous=refuse)
    made = [predict(replace(shared, clock_us=lambda: 0), number) for number in range(100)]
    assert {event.served for event in made} == {"champion", "challenger"}
    assert {event.predictions["challenger"].value for event in made} == {0.75}
    assert {event.predictions["previous"].error for event in made} == {SHED}
    assert budget.asked == [("champion", True), ("challenger", True)]


def test_an_anchor_is_shed_where_it_would_have_been_asked_and_is_absent_elsewhere():
    made = [predict(world(sample=0.3, anchor=refuse), number) for number in range(200)]
    sampled = [event for event in made if place_of("anchor", event.id) < 0.3]
    assert {event.predictions["anchor"].error for event in sampled} == {SHED}
    assert sum("anchor" in event.predictions for event in made) == len(sampled) > 30


def test_history_is_neither_answered_nor_shed():
    assert predict(world(challenger=refuse), history=True).predictions == {}


def test_without_a_budget_every_arm_answers():
    made = predict(replace(world(challenger=lambda features: 0.75), budget=None))
    assert [arm.value for arm in made.predictions.values()] == [0.25, 0.75]


@pytest.mark.parametrize("label", [True, 2.5, "wet"])
def test_what_was_shed_leaves_nothing_in_the_state(label):
    """After a crash the same record may be answered by other arms; the first prediction in the log counts."""
    states = []
    for used in (world(challenger=refuse), replace(world(challenger=lambda features: 0.75), budget=None)):
        state = State()
        for number in range(10):
            predict(used, number, state)
            core.step(state, record(LabelArrived(id=f"d{number}", time=NOON, label=label), number), used)
        states.append(state)
    assert states[0] == states[1]
