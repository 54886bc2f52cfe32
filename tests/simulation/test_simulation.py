"""The whole system under schedules of faults is the system without any; the code broken on purpose is caught."""

import gc
from collections import Counter

import pytest

from headrace.infra.service import tidy_memory
from tests.simulation.faults import CRASHES, SERVICES, is_life
from tests.simulation.history import HAPPENS
from tests.simulation.log import logs_of
from tests.simulation.mutants import MUTANTS
from tests.simulation.oracle import judged
from tests.simulation.plant import Plant
from tests.simulation.schedules import partitions_of, report, run

ROUND = 2 * len(CRASHES)  # each crash point of each service comes once with one and once with three partitions
SCHEDULES = 3 * ROUND

LOST = "lost: [("
# of each mutant: a seed, and the harm that it does there
KILLED = {
    "commit_before_flush": (13, LOST),
    "no_drop_by_sequence": (22, "not the fold of"),
    "one_number_for_a_source_wherever_it_is_read": (1, LOST),
    "drop_by_id_alone": (1, LOST),
    "sequence_is_the_offset_without_an_index": (0, LOST),
    "catch_up_speaks_aloud": (1, "tells 0 again"),
    "group_offset_runs_ahead_of_the_state": (0, LOST),
    "source_without_the_topics_id": (9, LOST),
    "predictor_writes_nothing_when_a_model_raises": (6, LOST),
    "append_time_of_derived_topics_is_the_clock": (1, LOST),
    "a_definition_is_taken_up_at_restart": (3, "too many: [("),
    "a_failed_learn_is_tried_again_on_what_it_left": (3, "not the fold of"),
    "rebuilt_from_a_horizon": (1, "should have told"),
    "goes_on_at_the_groups_offset_without_its_state": (1, LOST),
    "sequences_are_forgotten_at_restart": (0, "should not have told"),
    "evidence_is_taken_as_labels_come": (52, "should have told ('model-validations'"),
    "a_stale_verdict_is_applied": (2257, "should not have told ('model-updates'"),
    "arms_move_one_after_the_other": (34, "stand apart"),
    "a_refresh_verdict_is_applied_to_whatever_serves": (52, "the test of"),
    "the_next_anchor_is_the_newest_revision": (88, "tested was"),
    "the_fork_learns_what_made_the_revisions_worse": (16, "begins at"),
    "the_fork_learns_the_range": (7, "is not the fold"),
    "a_range_is_barred_for_the_champion_alone": (142, "and is challenger"),
}
SEARCHED = 500
# where a search begins, if not at 0: few lives have a verdict that crosses a move of the aliases
SEARCHED_FROM = {"a_stale_verdict_is_applied": 2_000}


@pytest.fixture(scope="module", autouse=True)
def _little_garbage():
    """What the session imported so far is not looked at after each schedule: a quarter of the time."""
    before = gc.get_threshold()
    tidy_memory()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


@pytest.mark.parametrize("first", range(0, SCHEDULES, ROUND))
def test_after_any_schedule_of_faults_logs_and_models_are_those_of_an_undisturbed_run(first):
    struck, repeats = Counter(), 0
    for seed in range(first, first + ROUND):
        if is_life(seed):
            continue
        outcome = run(seed, partitions_of(seed))
        assert not outcome.wrong, report(seed, partitions_of(seed), outcome.wrong)
        struck += outcome.struck
        repeats += outcome.repeats
    never = [(service, point) for service, point in CRASHES if not struck[service, f"kill {point}"]]
    assert len(never) < len(CRASHES) / 20  # where nothing waited at the moment; make simulate wants all of them
    assert struck["validator", "refusal"] > 0  # of a topic that was made anew
    assert repeats > 3 * ROUND  # else it would prove little that none counts twice


def test_in_lives_of_models_promotions_and_rollbacks_are_those_that_verdicts_and_people_caused_whatever_befalls():
    happened, repeats = Counter(), 0
    for seed in filter(is_life, range(SCHEDULES)):
        outcome = run(seed, partitions_of(seed))
        assert not outcome.wrong, report(seed, partitions_of(seed), outcome.wrong)
        happened.update(what for where, what in outcome.struck if where == "life")
        repeats += outcome.repeats
    assert happened.keys() >= HAPPENS
    assert repeats > 0


@pytest.mark.parametrize("seed", [3, 7])
def test_a_seed_says_all_that_happens(seed):
    first, again = run(seed, 3), run(seed, 3)
    assert (first.struck, first.digest) == (again.struck, again.digest)


def test_without_faults_nothing_is_told_twice():
    for seed in (0, 1, 7, 16):
        outcome = run(seed, partitions_of(seed), keep=())
        assert (outcome.wrong, outcome.repeats) == ([], 0)


def test_a_run_learns_where_one_process_decides_which_runs_live_and_another_has_the_labelled_examples(in_memory):
    plant = Plant(in_memory, 458, 1, ())
    first = plant.live[SERVICES.index("trainer")]
    plant.fates.start("trainer", "b")
    plant.bus.end_session("headrace-trainer-control", first.instance + "-trainer-control")
    second = plant.live[-1]
    second.tick()
    plant.run()
    assert [bool(part.counts()) for part in second.parts] == [False, True]
    assert judged(plant, logs_of(plant.bus)) == []


def harm_of(name, seed):
    """What is wrong with a schedule where this rule is taken away."""
    return run(seed, partitions_of(seed), mutant=MUTANTS[name]).wrong


@pytest.mark.parametrize("name", MUTANTS)
def test_code_without_one_rule_of_delivery_is_caught(name):
    seed, harm = KILLED[name]  # where a change of the code moves what a seed does, the search finds another
    assert any(harm in what for what in harm_of(name, seed))


def test_a_failing_schedule_is_told_with_the_faults_that_it_takes_and_the_line_that_replays_it():
    seed, _ = KILLED["commit_before_flush"]
    told = report(seed, partitions_of(seed), [], mutant=MUTANTS["commit_before_flush"]).splitlines()
    (fault,) = [line for line in told if "Fault(" in line]
    assert "kind='kill'" in fault
    assert "point='flush'" in fault
    number = fault.partition("number=")[2].partition(",")[0]
    assert told[-1] == f"replay: python -m tests.simulation --seed {seed} -p {partitions_of(seed)} --keep {number}"


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_a_search_finds_what_is_broken(name):
    first = SEARCHED_FROM.get(name, 0)
    assert any(harm_of(name, seed) for seed in range(first, first + SEARCHED))
