"""The anchor's moves, by the registry; which examples it answers, by the predictor; who looks for the next one."""

from datetime import UTC, datetime

import pytest
from orchestrated import HOUR_MS, Told
from registered import INFRA, OFFLINE, RETIRE, ask, fold, started, validated

from headrace.schemas.control import Check, ModelUpdated, ModelValidated, RollbackAsked
from headrace.schemas.policies import Rollout
from headrace.schemas.record import Record
from headrace.schemas.stream import ExampleArrived
from headrace.services.evaluator import judge, offline
from headrace.services.predictor.core import Arm, State, World, step

FIRST = (ask(rollout=Rollout(steps=(), anchor=0.1)), started(), OFFLINE, INFRA)


def refresh(verdict, against="a@212", run="a", uri=None, offset=900, n=411):
    return ModelValidated(
        pipeline="rain", run=run, request="", stage="refresh", verdict=verdict, n_labels=n, offset=1_500, epoch=1,
        checks=(Check(name="evidence", verdict="fail", value=130, limit=100),), against=against,
        snapshot_uri=uri, snapshot_offset=offset,
    )  # fmt: skip


def moves(emits):
    """Every move of an alias: its name, where it went, whether it follows its run, the epoch."""
    return [
        (e.event.alias, getattr(e.event, "snapshot_offset", None), getattr(e.event, "follows", None), e.event.epoch)
        for e in emits
        if e.topic == "model-updates"
    ]


def test_the_first_anchor_is_what_became_champion():
    assert moves(fold(*FIRST)) == [("champion", 212, True, 1), ("anchor", 212, False, 1)]


def test_a_release_without_one_has_none():
    assert moves(fold(ask(), *FIRST[1:])) == [("champion", 212, True, 1)]


def test_where_the_refresh_test_passed_the_anchor_moves_once_the_snapshot_is_found():
    assert moves(fold(*FIRST, refresh("pass")))[2:] == []
    emits = fold(*FIRST, refresh("pass"), refresh("pass", uri="new"))
    assert moves(emits)[2:] == [("anchor", 900, False, 2)]
    assert emits[-1].event.uri == "new"


def test_where_it_failed_the_anchor_serves_frozen_and_is_none_any_more():
    emits = fold(*FIRST, refresh("fail"))
    assert moves(emits)[2:] == [("champion", 212, False, 2), ("anchor", None, None, 2)]
    champion = next(e.event for e in reversed(emits) if isinstance(e.event, ModelUpdated))
    assert champion.uri == "ab/cd"
    assert "worse over 411 labels: evidence 130 against 100" in champion.reason


@pytest.mark.parametrize(
    "stale",
    [
        refresh("fail", against="a@100"),
        refresh("fail", run="b"),
        refresh("error", uri="x"),
        refresh("pass", against="a@100", uri="x"),
    ],
)
def test_a_verdict_about_other_revisions_moves_nothing_nor_does_one_that_broke(stale):
    assert len(moves(fold(*FIRST, stale))) == 2


def test_after_a_rollback_to_a_frozen_version_there_is_no_anchor():
    back = RollbackAsked(
        pipeline="rain", request="r", by="ann", uri="ab/cd", snapshot_offset=212, bad_ranges=((300, 400),), version=1
    )
    assert moves(fold(*FIRST, back))[-2:] == [("champion", 212, False, 2), ("anchor", None, None, 2)]
    assert moves(fold(*FIRST, RETIRE, refresh("fail"))) == moves(fold(*FIRST))


# --- the predictor ----------------------------------------------------------------------------------------


def asked(sample):
    """Which of 2,000 examples the anchor answered."""
    arms = {alias: Arm(1, "a", 7, {}, frozenset({0}), lambda features: 0.7) for alias in ("champion", "anchor")}
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    made = [
        step(
            State(), Record(ExampleArrived(id=str(n), time=noon, features={}), 0, "t", "rain", 0, n, source="/x/0"),
            World(arms, 1, None, sample),
        )[0].event
        for n in range(2_000)
    ]  # fmt: skip
    assert {one.served for one in made} == {"champion"}
    return {one.id for one in made if "anchor" in one.predictions}


def test_the_anchor_answers_its_share_of_the_examples_the_same_ones_each_time():
    tenth, half = asked(0.1), asked(0.5)
    assert 150 < len(tenth) < 250
    assert tenth < half
    assert tenth == asked(0.1)
    assert asked(0.0) == set()
    assert len(asked(1.0)) == 2_000


# --- the evaluator's jobs -----------------------------------------------------------------------------------


def jobs(*events):
    state = offline.State()
    for number, event in enumerate(events):
        offline.step(state, Record(event, number, "control-log", "rain", 0, number, sequence=number), None)
    return state.open_jobs()


def test_a_passed_test_opens_a_job_that_looks_for_the_snapshot_and_what_it_says_closes_it():
    (job,) = jobs(started(), refresh("pass"))
    assert (job.stage, job.run, job.snapshot_offset, job.snapshot_uri, job.against) == (
        "refresh", "a", 900, None, "a@212",
    )  # fmt: skip
    assert jobs(started(), refresh("pass"), refresh("pass", uri="new")) == []
    assert jobs(started(), refresh("pass"), refresh("error")) == []
    assert jobs(started(), refresh("fail")) == []
    assert jobs(refresh("pass")) == []


@pytest.mark.parametrize(("found", "told"), [("pass", "pass"), ("fail", "error"), ("error", "error")])
def test_a_snapshot_that_cannot_serve_is_no_anchor_and_says_nothing_about_the_champion(found, told):
    (job,) = jobs(started(), refresh("pass"))
    verdict = judge.verdict(job, [Check(name="size MB", verdict=found)], ("new", 800))
    assert (verdict.stage, verdict.verdict, verdict.against) == ("refresh", told, "a@212")
    assert (verdict.snapshot_uri, verdict.snapshot_offset, verdict.offset) == ("new", 800, 1_500)


def test_a_job_of_the_anchor_holds_up_no_gate_of_its_run():
    done = validated("offline", verdict="fail")
    assert [job.stage for job in jobs(started(), refresh("pass"), done)] == ["refresh"]


# --- the orchestrator ---------------------------------------------------------------------------------------


def went_back(told, offset=1_500):
    """The refresh test of the champion fails, and the registry lets the anchor serve."""
    return [*told(failed(told, offset)), *told.win(1, told.state.pipelines["rain"].champion.run, follows=False)]


def failed(told, offset=1_500, stands=200):
    """The verdict that the champion's revisions are worse than its anchor, which stands there."""
    run = told.state.pipelines["rain"].champion.run
    return refresh("fail", f"{run}@{stands}", run).model_copy(update={"offset": offset})


def served(**triggers):
    told = Told((), **triggers)
    told.win(1)
    return told


def test_the_fork_learns_from_the_verdict_on_and_not_what_made_the_revisions_worse():
    (asked,) = went_back(served())
    assert (asked.trigger, asked.parent, asked.start) == ("rollback", "model/1", 1_500)


def test_a_person_who_goes_back_later_gets_a_run_that_learns_on_from_there():
    told = served()
    went_back(told)
    told.win(2)
    (asked,) = told.win(1, "run-first-model-1", follows=False)
    assert asked.start == 200


def test_a_verdict_that_the_registry_did_not_follow_is_no_return_and_moves_no_fork_of_a_persons():
    told = served(cooldown_s=3_600)
    told(failed(told, stands=100))
    run = told.state.pipelines["rain"].champion.run
    (asked,) = told.win(1, run, follows=False)
    assert asked.start == 200
    told.win(2)
    assert [type(one).__name__ for one in went_back(told)] == ["TrainingRequested"]


@pytest.mark.parametrize(("hours", "kinds"), [(0.5, ["AutomationPaused"]), (2, ["TrainingRequested"])])
def test_a_second_return_within_the_cooldown_stops_and_asks_a_person(hours, kinds):
    told = served(cooldown_s=3_600)
    went_back(told)
    told.win(2)
    told.now_ms += int(hours * HOUR_MS)
    again = went_back(told, 9_000)
    assert [type(one).__name__ for one in again] == kinds
    if hours < 1:
        assert again[0].numbers == {"since_s": 1_800, "cooldown_s": 3_600}
