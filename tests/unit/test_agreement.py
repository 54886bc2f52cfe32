"""Alerts that start a training together: any, all, or so many within a time; histories, and laws of the rule."""

from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from orchestrated import Told, drift, recipes

import headrace
from headrace.contract import Contract, InvalidDefinition
from headrace.pipeline import Pipeline
from headrace.schemas.control import TrainingRequested
from headrace.schemas.policies import Alerts, Triggers
from headrace.services.orchestrator.agreement import agreeing
from headrace.services.orchestrator.training import Signal

RUN = "run-first-model-1"
HOUR_S = 3_600
KINDS = ("performance", "input", "prediction", "labels")
ALERT = drift(RUN)


@pytest.fixture
def serves():
    """A champion, 13,000 labels, and a rule that alone starts trainings."""

    def made(*of, need="all", within_s=6 * HOUR_S, challengers=()):
        rule = Alerts(*of, need=need, within_s=within_s)
        told = Told(challengers, on_performance_drift=False, alerts=rule)
        told.win(1)
        told.count(13_000)
        return told

    return made


def alert(kind, run=RUN, **changes):
    return drift(run, kind=kind, level="drift" if kind == "performance" else "warning", **changes)


# --- histories ---------------------------------------------------------------------------------------------


def test_all_of_them_must_have_been_told_and_the_training_begins_where_the_loss_rose(serves):
    told = serves("performance", "input")
    assert told(alert("input")) == []
    told.wait(5)
    (asked,) = told(alert("performance"))
    assert (asked.trigger, asked.start, asked.end_at_labels, asked.alpha) == ("performance", 12_122, 184, 0.05)
    assert asked.cause == "2 of 2 alerts within 21600 s: input, performance"
    assert asked.request == f"alerts-{RUN}-{told.offset - 1}"


def test_a_frozen_pipeline_waits_for_as_many_labels_as_a_first_model():
    told = Told((), "frozen", on_performance_drift=False, alerts=Alerts("performance", need="any"))
    told.win(1, follows=False)
    (asked,) = told(alert("performance"))
    assert (asked.start, asked.end_at_labels) == (12_122, 200)


def test_without_the_loss_among_them_the_newest_window_is_learned(serves):
    told = serves("input", "prediction", "labels", need=2)
    told(alert("labels"))
    (asked,) = told(alert("prediction"))
    assert (asked.trigger, asked.start, asked.end_at_labels) == ("input", 11_000, 2_000)
    assert asked.alerts == (told.offset - 2, told.offset - 1)


def test_any_of_them_is_enough(serves):
    for kind in ("labels", "prediction"):
        assert len(recipes(serves("labels", "prediction", need="any")(alert(kind)))) == 1


def test_what_lies_too_far_back_does_not_count(serves):
    told = serves("input", "prediction")
    told(alert("input"))
    told.wait(7)
    assert told(alert("prediction")) == []
    assert len(recipes(told(alert("input")))) == 1


def test_an_alert_that_repeats_itself_is_one(serves):
    told = serves("input", "prediction", "labels", need=2)
    assert told(*[alert("input")] * 5) == []


def test_a_column_is_a_signal_of_its_own(serves):
    told = serves("input.pressure", "input.wind", "input.rain", need=2)
    assert told(alert("input", features=("pressure", "snow"))) == []
    assert len(recipes(told(alert("input", features=("rain",))))) == 1
    told = serves("input.pressure", "input.wind")
    assert len(recipes(told(alert("input", features=("wind", "pressure"))))) == 1


def test_what_has_started_a_training_starts_no_second_one(serves):
    told = serves("input", "prediction")
    told(alert("input"), alert("prediction"))
    told.lose()
    assert told(alert("prediction")) == []
    assert len(recipes(told(alert("input")))) == 1


def test_a_loss_that_came_back_is_no_signal_any_more(serves):
    told = serves("performance", "input")
    told(alert("performance", degraded=True), drift(RUN, degraded=False, level="warning", detector="over: back"))
    assert recipes(told(alert("input"))) == []


def test_another_champion_begins_anew_and_alerts_of_the_one_before_do_not_count(serves):
    told = serves("input", "prediction", challengers=("forest",))
    told(alert("input"))
    told.win(2)
    assert told(alert("prediction", run="run-recipe-1-forest")) == []
    assert told(alert("input")) == []
    assert recipes(told(alert("input", run="run-recipe-1-forest"))) == [("input", "forest")]


def test_without_the_rule_alerts_of_other_kinds_train_nothing():
    told = Told(())
    told.win(1)
    assert told(alert("input"), alert("prediction"), alert("labels")) == []


# --- laws --------------------------------------------------------------------------------------------------

times = st.dictionaries(st.sampled_from(KINDS), st.integers(0, 12), min_size=1)


def signals(known):
    return {name: Signal(ALERT, at * 1_000, offset) for offset, (name, at) in enumerate(known.items())}


def rule_of(need, within_s):
    return Alerts(*KINDS, need=need, within_s=within_s)


@given(times, st.integers(1, 4), st.integers(1, 6))
def test_what_agrees_is_enough_lies_within_the_time_and_was_told(known, need, within_s):
    found = agreeing(signals(known), rule_of(need, within_s))
    if found:
        assert len(found) >= need
        assert max(known[name] for name in found) - min(known[name] for name in found) <= within_s
        assert found.items() <= signals(known).items()


@given(times, st.integers(1, 4), st.integers(1, 6))
def test_it_is_met_wherever_so_many_lie_within_the_time_and_nowhere_else(known, need, within_s):
    at = sorted(known.values())
    is_met = any(at[i + need - 1] - at[i] <= within_s for i in range(len(at) - need + 1))
    assert bool(agreeing(signals(known), rule_of(need, within_s))) == is_met


@given(times, st.integers(1, 3), st.integers(1, 6))
def test_who_asks_for_fewer_or_gives_more_time_is_met_too(known, need, within_s):
    if agreeing(signals(known), rule_of(need + 1, within_s)):
        assert agreeing(signals(known), rule_of(need, within_s))
        assert agreeing(signals(known), rule_of(need + 1, within_s + 1))


@given(times, st.integers(1, 6))
def test_any_is_one_of_them_and_all_is_as_many_as_there_are(known, within_s):
    told = signals(known)
    assert agreeing(told, rule_of("any", within_s)) == agreeing(told, rule_of(1, within_s))
    assert agreeing(told, rule_of("all", within_s)) == agreeing(told, rule_of(4, within_s))
    assert agreeing(told, rule_of("any", within_s))


@given(times, st.integers(1, 4), st.integers(1, 6))
def test_the_order_in_which_they_came_does_not_count(known, need, within_s):
    told = signals(known)
    wanted = bool(agreeing(told, rule_of(need, within_s)))
    for order in permutations(told.items()):
        assert bool(agreeing(dict(order), rule_of(need, within_s))) == wanted


@given(times, st.integers(1, 4), st.integers(1, 6), st.integers(0, 10**6))
def test_only_what_lies_between_them_counts_not_when_it_was(known, need, within_s, later):
    told = signals(known)
    moved = {name: replace(one, known_ms=one.known_ms + later) for name, one in told.items()}
    assert agreeing(told, rule_of(need, within_s)).keys() == agreeing(moved, rule_of(need, within_s)).keys()


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 3)), max_size=12), st.integers(1, 4))
def test_every_training_names_alerts_that_no_other_one_named_and_enough_of_them(history, need):
    told = Told((), on_performance_drift=False, alerts=Alerts(*KINDS, need=need, within_s=HOUR_S))
    told.win(1)
    told.count(13_000)
    named = []
    for kind, hours in history:
        told.wait(hours)
        for asked in told(alert(kind)):
            assert isinstance(asked, TrainingRequested)
            assert len(asked.alerts) >= need
            named += asked.alerts
            told.lose()
    assert len(named) == len(set(named))


# --- the policy --------------------------------------------------------------------------------------------


def pipeline(**triggers):
    class Rain(Contract):
        """Rain."""

        pressure: float

    return Pipeline(
        name="rain", contract=Rain, label=bool, recipe=lambda seed: None,
        triggers=Triggers(**{"on_performance_drift": False, **triggers}),
    )  # fmt: skip


def test_a_rule_is_written_in_the_pipeline_and_stands_in_the_release():
    rule = headrace.Alerts("performance", "input.pressure", need=2, within_s=60)
    policies = pipeline(alerts=rule).policies()
    assert type(policies).model_validate_json(policies.model_dump_json()).triggers.alerts == rule
    assert rule.enough == 2
    assert Triggers().alerts is None


@pytest.mark.parametrize(
    ("triggers", "says"),
    [
        ({"alerts": Alerts()}, "not none"),
        ({"alerts": Alerts("weather")}, "not weather"),
        ({"alerts": Alerts("input.snow")}, "not input.snow"),
        ({"alerts": Alerts("input", "input")}, "different ones of"),
        ({"alerts": Alerts("input", need=2)}, "can never be"),
        ({"alerts": Alerts("input", need=0)}, "always is"),
        ({"alerts": Alerts("labels", "input"), "on_input_drift": True}, "input trains alone already"),
        ({"alerts": Alerts("labels", "input.pressure"), "on_input_drift": True}, "input trains alone already"),
        (
            {"alerts": Alerts("performance"), "on_performance_drift": True},
            "performance trains alone already; with on_per",
        ),
    ],
)
def test_a_rule_that_cannot_be_or_contradicts_another_setting_is_refused(triggers, says):
    with pytest.raises(InvalidDefinition, match=rf"triggers\.alerts: .*{says}"):
        pipeline(**triggers)
