"""A pipeline that is degraded, or whose schema is skewed: what is told, what is tried again, what must wait."""

from math import pi

import pytest
from orchestrated import Told, asked, drift, recipes

from headrace.schemas.control import (
    ChallengerSuperseded,
    PipelineDegraded,
    RequestRefused,
    SchemaSkewed,
    WindowValidated,
)
from headrace.schemas.control import TrainingRequested as Asked

FIRST = "run-first-model-1"


def told_of(answers, kind=PipelineDegraded):
    return [one for one in answers if isinstance(one, kind)]


def rose(since=12_122, **changes):
    return drift(FIRST, since, **{"degraded": True, "version": 1} | changes)


def came_back(run=FIRST):
    return drift(run, level="warning", detector="over: the loss came back", degraded=False)


def window(verdict="skewed", partition=0, rejected=400):
    return WindowValidated(
        pipeline="rain", partition=partition, start_offset=0, end_offset=1_000, start_ms=0, end_ms=60_000, release=1,
        validated=600, labels=0, rejected=rejected, duplicates=0, extra_columns={}, features={}, verdict=verdict,
        reasons={"type_mismatch": 390, "out_of_range": 10} if verdict == "skewed" else {},
    )  # fmt: skip


@pytest.fixture
def serves():
    """A champion, 13,000 labels, no challengers, a cool-down of an hour."""

    def made(**triggers):
        told = Told((), **{"cooldown_s": 3_600, **triggers})
        told.win(1)
        told.count(13_000)
        return told

    return made


# --- degraded ----------------------------------------------------------------------------------------------


def test_a_champion_whose_loss_rose_is_degraded_with_the_numbers_before_the_training_is_asked(serves):
    degraded, requested = serves()(rose())
    assert isinstance(degraded, PipelineDegraded)
    assert isinstance(requested, Asked)
    assert degraded.reason == f"version 1 (run {FIRST}): loss 0.220 -> 0.410, ADWIN, since offset 12,122"
    assert degraded.numbers == {
        "run": FIRST, "version": 1, "since": 12_122, "days": 0, "reference_loss": 0.22, "recent_loss": 0.41,
        "rows_since": 184,
    }  # fmt: skip
    assert not degraded.over


def test_a_champion_that_misses_success_is_degraded_by_what_was_asked_for_until_it_meets_it_again(serves):
    told = serves()
    numbers = {"metric": "accuracy", "value": 0.571, "asked": "at least 0.6", "rows": 1_000, "rows_since": 2_000}
    degraded, requested = told(rose(11_000, detector="Success missed twice in a row", evidence=numbers))
    says = "accuracy 0.5710 over 1,000 rows, asked for at least 0.6, Success missed twice in a row, since offset 11,000"
    assert degraded.reason == f"version 1 (run {FIRST}): {says}"
    assert {"metric", "value", "asked"} <= degraded.numbers.keys()
    assert (requested.trigger, requested.start, requested.end_at_labels, requested.cause) == (
        "performance", 11_000, 2_000, says,
    )  # fmt: skip
    (over,) = told(drift(FIRST, level="warning", detector="over: Success is met again", degraded=False))
    assert (over.over, over.reason) == (True, "Success is met again")


@pytest.mark.parametrize(
    "other", [rose(kind="input"), rose(degraded=None), drift("of-before", degraded=True), came_back()]
)
def test_what_says_nothing_of_the_champion_s_loss_degrades_nothing(serves, other):
    assert told_of(serves()(other)) == []


def test_it_is_told_once_a_day_while_it_lasts_and_when_it_is_over(serves):
    told = serves(on_performance_drift=False)
    told(rose())
    days = [one.numbers["days"] for _ in range(49) for one in told_of(told.wait(1))]
    assert days == [1, 2]
    (over,) = told(came_back())
    assert (over.over, over.reason, over.numbers["days"]) == (True, "the loss came back", 2.042)
    assert told_of(told.wait(48)) == []
    assert told(came_back()) == []


def test_the_newest_numbers_are_told_the_next_day(serves):
    told = serves(on_performance_drift=False)
    told(rose())
    worse = {"reference_loss": 0.22, "recent_loss": 0.6}
    assert told(rose(level="warning", evidence=worse)) == []
    (again,) = told.wait(24)
    assert again.numbers["recent_loss"] == 0.6


def test_another_champion_is_not_degraded_and_that_is_told(serves):
    told = serves()
    told(rose())
    (over,) = told_of(told.win(2))
    assert (over.over, over.reason) == (True, "version 2 serves in its place")
    assert recipes(told.wait(100)) == []


def test_a_training_is_tried_again_after_twice_the_pause_each_time_until_the_loss_came_back(serves):
    told = serves()
    told(rose())
    told.lose("inconclusive")
    tries = []
    for hour in range(1, 24):
        answers = told.wait(1)
        tries += [hour for _ in recipes(answers)]
        if recipes(answers):
            assert answers[-1].start == 12_122
            told.lose("inconclusive")
    assert tries == [1, 3, 7, 15]
    (over,) = told(came_back())
    assert over.numbers["tries"] == 4
    assert recipes(told.wait(100)) == []


def test_a_challenger_at_work_is_not_disturbed_by_the_next_try(serves):
    told = serves()
    told(rose())
    assert told_of(told.wait(5), Asked) == []
    assert told_of(told.wait(5), ChallengerSuperseded) == []
    told.lose("inconclusive")
    (again,) = told_of(told.wait(1), Asked)
    assert again.request == f"performance-{FIRST}-12122-again-1"
    assert again.cause == "degraded for 0.458 days, try 1: loss 0.220 -> 0.410, ADWIN, since offset 12,122"


def test_after_a_failed_try_the_cool_down_counts_too(serves):
    told = serves(cooldown_s=10 * 3_600)
    told(rose())
    told.now_ms += 8 * 3_600_000
    told.lose()
    assert recipes(told.wait(9)) == []
    assert recipes(told.wait(1)) == [("performance", None)]


def test_tries_spend_what_is_left_of_alpha_and_a_new_rise_has_all_of_it_again(serves):
    told = serves()
    alphas = [told(rose())[-1].alpha]
    for _ in range(2):
        told.lose("inconclusive")
        alphas.append(told.wait(8)[-1].alpha)
    told.lose("inconclusive")
    alphas.append(told(rose(12_900))[-1].alpha)
    assert alphas == pytest.approx([0.05, 0.05 * 6 / pi**2, 0.05 * 6 / pi**2 / 4, 0.05])


def test_each_try_is_another_recipe_s_turn():
    told = Told(("forest",), cooldown_s=3_600)
    told.win(1)
    told.lose("inconclusive")
    told(rose())
    turns = []
    for _ in range(4):
        told.lose("inconclusive")
        turns += recipes(told.wait(24))
    assert turns == [("performance", name) for name in ("forest", None) * 2]


def test_where_alerts_train_nothing_nothing_is_tried_again(serves):
    told = serves(on_performance_drift=False)
    told(rose())
    assert recipes(told.wait(50)) == []


# --- skewed ------------------------------------------------------------------------------------------------


def test_too_many_rejects_are_told_with_their_reasons_and_when_it_is_over(serves):
    told = serves()
    (skewed,) = told(window())
    assert isinstance(skewed, SchemaSkewed)
    assert skewed.reason == (
        "400 of 1,000 records of partition 0 were rejected (type_mismatch 390, out_of_range 10); nothing is trained by "
        "itself until that is over"
    )
    assert (skewed.numbers["rejected"], skewed.numbers["reasons"]) == (400, {"type_mismatch": 390, "out_of_range": 10})
    told.wait(12)
    (over,) = told(window("ok", rejected=3))
    assert (over.over, over.numbers["days"]) == (True, 0.5)
    assert over.reason == "3 of 603 records of partition 0 were rejected"
    assert told(window("ok")) == []


@pytest.mark.parametrize(
    "cause", [lambda told: told(rose()), lambda told: told.count(15_000), lambda told: told(drift(FIRST, kind="input"))]
)
def test_what_no_person_asked_for_waits_until_the_schema_is_right_again(serves, cause):
    told = serves(every_labels=5_000, on_input_drift=True)
    told(window())
    assert recipes(cause(told)) == []
    assert recipes(told.wait(5)) == []
    assert len(recipes(told(window("ok")))) == 1


def test_it_waits_for_the_last_partition(serves):
    told = serves(every_labels=5_000)
    told(window(), window(partition=3))
    told.count(15_000)
    (over, *more) = told(window("ok"))
    assert (over.reason, more) == ("400 of 1,000 records of partition 0 were rejected; skewed still: partition 3", [])
    assert recipes(told(window("ok", partition=3))) == [("new_data", None)]


def test_a_person_and_a_release_train_all_the_same(serves):
    told = serves()
    told(window())
    assert recipes(told(asked("own", seed=3))) == [("person", None)]
    told.lose()
    assert recipes(told(told.released(2, {}, recipe="other"))) == [("recipe", None)]


def test_a_challenger_that_was_not_tried_waits_too():
    told = Told(("forest",))
    told(window())
    assert recipes(told.win(1)) == []
    assert recipes(told(window("ok"))) == [("recipe", "forest")]


def test_a_degraded_champion_is_not_tried_again_while_the_schema_is_skewed(serves):
    told = serves()
    told(rose())
    told.lose("inconclusive")
    told(window())
    assert recipes(told.wait(10)) == []
    told(window("ok"))
    assert recipes(told.wait(1)) == [("performance", None)]


def test_of_two_that_wait_for_the_schema_the_more_urgent_stays(serves):
    told = serves(every_labels=5_000)
    told(window())
    told.count(15_000)
    (_, displaced) = told(rose())
    assert isinstance(displaced, RequestRefused)
    assert displaced.request == "new-data-15000"
    assert recipes(told(window("ok"))) == [("performance", None)]
