"""In a canary the challenger serves its share of the units, the same ones each time, wherever it has an answer."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from scipy import stats

from headrace.canary import place_of, unit_of
from headrace.schemas.codec import encode
from headrace.schemas.record import Record
from headrace.schemas.stream import ExampleArrived
from headrace.services.predictor import core
from headrace.services.predictor.core import Arm, State, World

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
UNITS = 20_000


def world(share, run="b", answer=lambda features: 0.75, champion=lambda features: 0.25):
    def arm(version, name, answer):
        return Arm(version, name, 3, {}, frozenset({0, 1}), answer)

    return World({"champion": arm(1, "a", champion), "challenger": arm(2, run, answer)}, 4, share)


def raising(features):
    raise ValueError("broken")


def predict(number, world, entity=None, history=False):
    event = ExampleArrived(id=f"d{number}", time=NOON, features={"x": 1.0}, entity=entity, history=history)
    record = Record(
        event, 1_000, "<p>.data-validated", "rain", 0, number, b"k", encode(event), "/v/rain/0a1b/0", number
    )
    (emit,) = core.step(State(), record, world)
    return emit.event


def served_by_challenger(world, n=UNITS):
    return {number for number in range(n) if predict(number, world).served == "challenger"}


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_the_challenger_serves_its_share_of_the_examples(share):
    n = len(served_by_challenger(world(share)))
    assert stats.binomtest(n, UNITS, share).pvalue > 0.001


def test_who_is_served_by_the_challenger_at_one_share_is_at_every_larger_one():
    tenth, half = (served_by_challenger(world(share), 3_000) for share in (0.1, 0.5))
    assert tenth < half


def test_the_next_rollout_draws_anew():
    first, second = (served_by_challenger(world(0.5, run)) for run in ("b", "c"))
    both = len(first & second)
    assert stats.binomtest(both, UNITS, 0.25).pvalue > 0.001


def test_every_request_of_an_entity_is_answered_by_one_arm():
    arms = {
        entity: {predict(number, world(0.5), entity=entity).served for number in range(50)} for entity in "abcdefghij"
    }
    assert all(len(found) == 1 for found in arms.values())
    assert set.union(*arms.values()) == {"champion", "challenger"}


def test_both_arms_are_asked_and_the_prediction_says_the_share_and_who_was_served():
    made = [predict(number, world(0.5)) for number in range(20)]
    assert {event.share for event in made} == {0.5}
    assert all([arm.value for arm in event.predictions.values()] == [0.25, 0.75] for event in made)
    assert {event.served for event in made} == {"champion", "challenger"}


def test_a_challenger_that_raises_costs_nobody_an_answer_and_its_error_stands_in_the_prediction():
    made = [predict(number, world(0.5, answer=raising)) for number in range(100)]
    assert {event.served for event in made} == {"champion"}
    assert {event.predictions["challenger"].error for event in made} == {"ValueError: broken"}


def test_a_champion_that_raises_leaves_the_challenger_its_own_units_only():
    made = [predict(number, world(0.5, champion=raising)) for number in range(100)]
    assert {event.served for event in made} == {None, "challenger"}
    assert all((event.served is None) == (place_of("b", event.id) >= 0.5) for event in made)


def test_in_shadow_and_for_history_nothing_is_served_by_the_challenger():
    made = predict(1, world(None))
    assert (made.served, made.share) == ("champion", None)
    assert b"share" not in encode(made)
    old = predict(1, world(0.5), history=True)
    assert (old.served, old.share, old.predictions) == (None, None, {})


def test_a_unit_is_the_entity_where_there_is_one():
    assert (unit_of("d1", None), unit_of("d1", "station 7")) == ("d1", "station 7")


def test_places_of_a_rollout_are_uniform():
    assert stats.kstest([place_of("r1", f"station {n}") for n in range(UNITS)], "uniform").pvalue > 0.001


def test_answers_are_timed_where_there_is_a_clock_also_those_that_fail():
    ticks = iter((0, 120, 200, 900))
    timed = replace(world(0.5, answer=raising), clock_us=lambda: next(ticks))
    made = predict(1, timed).predictions
    assert (made["champion"].took_us, made["challenger"].took_us) == (120, 700)
    assert made["challenger"].error == "ValueError: broken"
    assert predict(1, world(0.5)).predictions["champion"].took_us is None
