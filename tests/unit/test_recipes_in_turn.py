"""A pipeline with challengers: which recipe a training goes by, and when each has its turn."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from orchestrated import Told, asked, drift, recipes

from headrace.schemas.control import AutomationPaused, RangeBarred, RequestRefused, TrainingFailed, TrainingRequested


def test_the_first_model_is_the_own_recipe_s_and_each_challenger_is_tried_once_on_the_whole_log_when_it_serves():
    told = Told()
    told.count(900)
    assert recipes(told.answers) == [("first_model", None)]
    (forest,) = told.win(1)
    assert (forest.request, forest.trigger, forest.recipe) == ("recipe-1-forest", "recipe", "forest")
    assert (forest.start, forest.end_at_labels) == (0, 900)
    assert forest.cause == "release 1 brought the recipe forest"
    assert recipes(told.lose()) == [("recipe", "slow")]
    assert recipes(told.lose()) == []
    assert recipes(told.wait(5)) == []


def test_a_challenger_waits_for_the_cool_down_after_one_that_failed():
    told = Told(cooldown_s=7_200)
    told.win(1)
    assert recipes(told.lose()) == []
    assert recipes(told.wait(1)) == []
    assert recipes(told.wait(1)) == [("recipe", "slow")]


def test_a_challenger_that_could_not_start_is_not_tried_again_and_again():
    told = Told(("forest",))
    (forest,) = told.win(1)
    told.state.pipelines["rain"].slot.run = None
    told(TrainingFailed(pipeline="rain", request=forest.request, run=None, reason="no such recipe"))
    assert recipes(told.wait(5)) == []


def test_new_labels_give_every_recipe_its_turn_the_one_that_waited_longest_first():
    told = Told(every_labels=1_000)
    told.win(1)
    told.lose()
    told.lose()
    turns = []
    for thousand in range(3, 9):
        turns += recipes(told.count(thousand * 1_000))
        told.lose()
    assert turns == [("new_data", name) for name in (None, "forest", "slow") * 2]


def test_a_turn_goes_to_what_was_not_tried_yet_before_all_others():
    told = Told(every_labels=1_000)
    told.win(1)
    told.count(3_000)  # waits for the challenger at work, which is tried first
    assert recipes(told.lose()) == [("new_data", "slow")]


def test_a_schedule_gives_every_recipe_its_turn_too():
    told = Told(("forest",), schedule="0 * * * *")
    told.win(1)
    told.lose()
    told.count(9_000)
    turns = []
    for _ in range(4):
        turns += recipes(told.wait(1))
        told.lose()
    assert turns == [("schedule", name) for name in (None, "forest") * 2]


def test_the_turn_of_a_recipe_that_a_live_run_learns_already_goes_to_the_next():
    told = Told(every_labels=1_000)
    told.win(1)
    told.lose()
    told.lose()
    assert recipes(told.count(1_000)) == [("new_data", "forest")]  # the champion is the own recipe from the log's start


@pytest.mark.parametrize("kind", ["performance", "input"])
def test_an_alert_asks_for_the_recipe_of_what_serves(kind):
    told = Told(("forest",), on_input_drift=True)
    told.win(1)
    told.win(2)
    told.count(9_000)
    assert recipes(told(drift("run-recipe-1-forest", kind=kind))) == [(kind, "forest")]


def test_where_the_release_has_the_champion_s_recipe_no_more_an_alert_asks_for_its_own():
    told = Told(("forest",))
    told.win(1)
    told.win(2)
    told(told.released(2, {}))
    assert recipes(told(drift("run-recipe-1-forest"))) == [("performance", None)]


def test_a_release_tries_what_it_brought_or_changed_and_nothing_else():
    told = Told()
    told.win(1)
    told.lose()
    told.lose()
    told(told.released(2, {"slow": "d", "forest": "other", "new": "d"}))
    assert recipes(told.wait(1)) == [("recipe", "forest")]
    assert recipes(told.lose()) == [("recipe", "new")]
    assert recipes(told.lose()) == []


def test_a_challenger_that_waits_is_refused_where_its_recipe_is_gone_before_its_turn():
    told = Told(("forest",), every_labels=1_000)
    told.win(1)
    told.lose()
    told(asked("own", seed=5))
    told.state.pipelines["rain"].tried = ["forest", None]
    assert told.count(1_000) == []  # forest waits for the slot
    told(told.released(2, {}))
    (refused,) = told.lose()
    assert isinstance(refused, RequestRefused)
    assert refused.reason == "release 2 of rain has no recipe 'forest'; it has own"


def test_a_person_names_a_recipe_and_a_twin_is_one_of_the_same_recipe():
    told = Told(("forest",))
    told.win(1)
    told.lose()
    assert recipes(told(asked("forest", "q1"))) == [("person", "forest")]
    (refused,) = told(asked("forest", "q2"))
    assert "already learns with the recipe forest, seed 0 and start 0" in refused.reason
    (refused,) = told(asked("own", "q3"))
    assert "already learns with this recipe" in refused.reason
    (refused,) = told(asked("big", "q4"))
    assert refused.reason == "release 1 of rain has no recipe 'big'; it has own, forest"


def test_a_run_that_follows_a_frozen_version_goes_by_the_recipe_that_made_it():
    told = Told(("forest",))
    told.win(1)
    told.win(2)
    told.win(3, "run-first-model-1")
    (again,) = told.win(4, "run-recipe-1-forest", follows=False)
    assert (again.trigger, again.recipe, again.parent) == ("rollback", "forest", "model/4")


def test_after_a_barred_range_the_fork_goes_by_its_parent_s_recipe_and_a_run_from_the_start_by_the_champion_s():
    barred = RangeBarred(pipeline="rain", start_offset=50, end_offset=60, request="q", again_from=40, release=1)
    told = Told(("forest",))
    told.win(1)
    told.win(2)
    answers = told(asked("own", seed=3), barred.model_copy(update={"parent": "model/1", "recipe": None}))
    *_, fork = [one for one in answers if isinstance(one, TrainingRequested)]
    assert (fork.recipe, fork.parent, fork.start) == (None, "model/1", 40)
    (anew,) = recipes(told(barred.model_copy(update={"request": "q2", "again_from": 0})))
    assert anew == ("rollback", "forest")


def test_challengers_that_lose_do_not_pause_promotion_and_trainings_of_the_champion_s_recipe_do():
    told = Told(("a", "b", "c", "d"))
    told.win(1)
    for _ in range(4):
        told.lose()
    assert not any(isinstance(one, AutomationPaused) for one in told.answers)
    for seed in range(1, 4):
        told(asked("own", f"q{seed}", seed=seed))
        told.lose()
    assert [one.numbers for one in told.answers if isinstance(one, AutomationPaused)] == [{"failures": 3}]


@given(st.integers(1, 5), st.integers(1, 30))
def test_no_recipe_waits_while_another_has_two_turns(challengers, rounds):
    told = Told([f"c{n}" for n in range(challengers)], every_labels=1_000)
    told.win(1)
    for _ in range(challengers):
        told.lose()
    turns = []
    for thousand in range(3, rounds + 3):
        turns += [recipe for _, recipe in recipes(told.count(thousand * 1_000))]
        told.lose()
    counts = [turns.count(name) for name in {None, *(f"c{n}" for n in range(challengers))}]
    assert len(turns) == rounds
    assert max(counts) - min(counts) <= 1
