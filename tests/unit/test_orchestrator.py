"""Given these decisions, then those trainings and refusals."""

from datetime import UTC, datetime, timedelta
from math import pi

import pytest

from headrace.schemas.contract import ContractSpec, FeatureSpec, LabelSpec
from headrace.schemas.control import (
    AutomationPaused,
    ChallengerSuperseded,
    DriftDetected,
    LabelsCounted,
    ModelUpdated,
    ModelValidated,
    PauseAsked,
    PipelineReleased,
    PipelineRetired,
    ReleaseDefinition,
    RequestRefused,
    ResumeAsked,
    RunEnded,
    RunStarted,
    TrainingAsked,
    TrainingFailed,
    TrainingRequested,
)
from headrace.schemas.policies import Policies, Triggers
from headrace.schemas.record import Record
from headrace.schemas.stream import Tick
from headrace.services.orchestrator.core import State, step

CONTRACT = ContractSpec(name="Rain", features=(FeatureSpec(name="x", type="float"),), label=LabelSpec(type="bool"))


def fold(*events, state=None):
    """What the orchestrator answers to a history."""
    state = State() if state is None else state
    answers = []
    for offset, event in enumerate(events):
        answers += [emit.event for emit in step(state, Record(event, offset, "control-log", "", 0, offset), None)]
    return answers


def released(release=1, recipe="r1", pipeline="rain", first_model_at=200, **triggers):
    definition = ReleaseDefinition(
        contract=CONTRACT,
        policies=Policies(triggers=Triggers(first_model_at=first_model_at, **triggers), seed=7),
        contract_digest="c",
        policies_digest="p",
        recipe_digest=recipe,
        source_digest="s",
        source_uri="u",
    )
    return PipelineReleased(
        pipeline=pipeline, release=release, definition=definition, partitions=1, request=f"q{release}", by="ann"
    )


def started(run, request, seed=7, start=0):
    return RunStarted(pipeline="rain", run=run, request=request, release=1, seed=seed, start_offset=start)


def champion(version=1, run="a"):
    return ModelUpdated(
        pipeline="rain",
        alias="champion",
        version=version,
        run=run,
        release=1,
        snapshot_offset=200,
        uri="u",
        follows=True,
        epoch=version,
        reason="",
    )


def asked(request="r", **changes):
    return TrainingAsked(pipeline="rain", request=request, by="ann", **changes)


def drift(**changes):
    told = {
        "pipeline": "rain",
        "kind": "performance",
        "level": "drift",
        "since": 12_122,
        "detector": "ADWIN",
        "run": "a",
        "evidence": {"reference_loss": 0.22, "recent_loss": 0.41, "rows_since": 184},
    }
    return DriftDetected(**told | changes)


def failed(run, stage="online"):
    return ModelValidated(
        pipeline="rain",
        run=run,
        request="",
        stage=stage,
        verdict="fail",
        checks=(),
        n_labels=300,
        offset=9,
        against="a",
    )


FIRST = TrainingRequested(
    pipeline="rain",
    request="first-model-1",
    trigger="first_model",
    cause="release 1",
    release=1,
    seed=7,
    start=0,
    end_at_labels=200,
)
SERVES = (released(), started("a", "first-model-1"), champion())


def test_a_first_release_asks_for_the_first_model_from_the_start_of_the_log():
    assert fold(released()) == [FIRST]


def test_the_same_release_read_again_asks_for_nothing():
    assert fold(released(), released()) == [FIRST]


def test_an_older_release_told_late_changes_nothing():
    *_, requested = fold(released(2, recipe="r2"), released(1), asked(seed=3))
    assert (requested.release, requested.trigger) == (2, "person")


def test_each_pipeline_gets_its_own_first_model():
    requests = fold(released(), released(pipeline="wind", first_model_at=0))
    assert [(r.pipeline, r.end_at_labels) for r in requests] == [("rain", 200), ("wind", 0)]


def test_a_release_with_another_recipe_before_any_champion_takes_the_slot():
    *_, superseded, requested = fold(released(), started("a", "first-model-1"), released(2, recipe="r2"))
    assert (superseded.run, superseded.by_request) == ("a", "recipe-2")
    assert isinstance(superseded, ChallengerSuperseded)
    assert (requested.trigger, requested.release, requested.start) == ("recipe", 2, 0)


def test_a_release_that_changes_policies_only_trains_nothing():
    assert fold(released(), started("a", "first-model-1"), released(2, first_model_at=500)) == [FIRST]


def test_a_release_with_another_recipe_beside_a_champion_learns_the_whole_log_as_a_challenger():
    *_, requested = fold(*SERVES, LabelsCounted(pipeline="rain", n=800, offset=810), released(2, recipe="r2"))
    assert (requested.request, requested.trigger, requested.release) == ("recipe-2", "recipe", 2)
    assert (requested.start, requested.end_at_labels) == (0, 800)


def test_a_person_may_train_with_another_seed_before_a_champion_exists():
    *_, superseded, requested = fold(released(), started("a", "first-model-1"), asked("r9", seed=3, reason="luck"))
    assert superseded.run == "a"
    assert requested == FIRST.model_copy(
        update={"request": "r9", "trigger": "person", "cause": "asked by ann: luck", "seed": 3}
    )


@pytest.mark.parametrize("same", [{}, {"seed": 7}, {"start": 0}, {"seed": 7, "start": 0}])
def test_the_recipe_seed_and_start_of_the_live_run_are_refused(same):
    *_, refused = fold(released(), started("a", "first-model-1"), asked(**same))
    assert isinstance(refused, RequestRefused)
    assert "run a already learns with this recipe, seed 7 and start 0" in refused.reason
    assert refused.numbers == {"run": "a", "seed": 7, "start": 0}


def test_the_same_seed_from_another_start_is_another_model():
    *_, requested = fold(released(), started("a", "first-model-1"), asked(start=50))
    assert (requested.seed, requested.start) == (7, 50)


def test_a_request_read_twice_is_answered_once():
    assert len(fold(released(), asked("r1", seed=3), asked("r1", seed=3))) == 2


def test_after_a_run_ended_the_same_training_may_be_asked_again():
    ended = RunEnded(pipeline="rain", run="a", reason="stopped")
    *_, requested = fold(released(), started("a", "first-model-1"), ended, asked())
    assert isinstance(requested, TrainingRequested)


def test_after_a_run_could_not_start_the_same_training_may_be_asked_again():
    failed = TrainingFailed(pipeline="rain", request="first-model-1", run=None, reason="recipe raises")
    *_, requested = fold(released(), failed, asked())
    assert isinstance(requested, TrainingRequested)


def test_a_poisonous_record_does_not_free_the_slot():
    skipped = TrainingFailed(pipeline="rain", request="first-model-1", run="a", reason="learn raised", offset=9)
    *_, refused = fold(released(), started("a", "first-model-1"), skipped, asked())
    assert isinstance(refused, RequestRefused)


def test_what_the_champion_learns_already_is_refused_also_where_a_person_asks():
    *_, refused = fold(*SERVES, asked())
    assert "run a already learns with this recipe, seed 7 and start 0" in refused.reason
    assert refused.next == "headrace status rain"


def test_an_unknown_pipeline_is_answered_with_the_command_that_releases_one():
    (refused,) = fold(asked())
    assert "no pipeline is named 'rain'" in refused.reason
    assert refused.next.startswith("headrace release")


def test_a_retired_pipeline_trains_no_more():
    *_, refused = fold(released(), PipelineRetired(pipeline="rain", request="q", by="ann"), asked())
    assert "was retired" in refused.reason


@pytest.mark.parametrize(
    ("change", "says"), [({"start": -1}, "not at -1"), ({"recipe": "big"}, "has no recipe 'big'; it has own")]
)
def test_a_training_that_cannot_be_is_refused(change, says):
    *_, refused = fold(released(), asked(**change))
    assert says in refused.reason


# --- beside a champion --------------------------------------------------------------------------------------


def test_a_fall_in_performance_trains_from_its_change_point_with_all_of_alpha():
    *_, requested = fold(*SERVES, drift())
    assert requested.model_dump(exclude={"cause"}) == {
        "pipeline": "rain",
        "request": "performance-a-12122",
        "trigger": "performance",
        "release": 1,
        "seed": 7,
        "start": 12_122,
        "end_at_labels": 184,
        "parent": None,
        "excluded": (),
        "alpha": 0.05,
        "recipe": None,
        "alerts": (),
    }
    assert requested.cause == "loss 0.220 -> 0.410, ADWIN, since offset 12,122"


@pytest.mark.parametrize(
    "changes",
    [{"level": "warning"}, {"kind": "labels"}, {"kind": "prediction"}, {"kind": "input"}, {"run": "of-before"}],
)
def test_other_alerts_train_nothing(changes):
    assert fold(*SERVES, drift(**changes)) == [FIRST]


def test_inputs_that_drifted_train_where_the_policy_says_so():
    told = drift(kind="input", level="warning", since=900, features=("dew_point",))  # the monitor knows no other level
    counted = LabelsCounted(pipeline="rain", n=12_800, offset=12_900)
    *_, requested = fold(released(on_input_drift=True), *SERVES[1:], counted, told)
    assert (requested.trigger, requested.start, "dew_point" in requested.cause) == ("input", 10_900, True)


def test_the_newest_window_is_as_the_evaluator_told_it_and_not_so_many_offsets():
    told = drift(kind="input", level="warning", since=900, features=("dew_point",))
    counted = LabelsCounted(pipeline="rain", n=12_800, offset=90_000, newest=(61_000, 2_050))
    *_, requested = fold(released(on_input_drift=True), *SERVES[1:], counted, told)
    assert (requested.start, requested.end_at_labels) == (61_000, 2_050)
    *_, requested = fold(released(every_labels=100), *SERVES[1:], counted)
    assert (requested.trigger, requested.start, requested.end_at_labels) == ("new_data", 61_000, 2_050)


def test_before_the_first_champion_an_alert_trains_nothing():
    assert fold(released(), started("a", "first-model-1"), drift()) == [FIRST]


def test_an_alert_read_twice_is_one_training():
    *_, requested, refused = fold(*SERVES, drift(), drift())
    assert isinstance(requested, TrainingRequested)
    assert isinstance(refused, RequestRefused)
    assert "same model bit for bit" in refused.reason


def test_a_later_change_point_takes_the_slot_of_a_challenger():
    challenger = started("b", "performance-a-12122", start=12_122)
    *_, superseded, requested = fold(*SERVES, drift(), challenger, drift(since=13_000))
    assert (superseded.run, superseded.by_request, requested.start) == ("b", "performance-a-13000", 13_000)
    place = {"trigger": "performance", "start": 13_000}
    gave_way = {"gave_way_trigger": "performance", "gave_way_start": 12_122, "held_s": 0.002}
    assert superseded.numbers == place | gave_way


def test_a_challenger_in_its_canary_keeps_its_slot_until_it_wins_or_loses():
    challenger = started("b", "performance-a-12122", start=12_122)
    canary = champion(version=2, run="b").model_copy(update={"alias": "challenger", "share": 0.1})
    state = State()
    fold(*SERVES, drift(), challenger, canary, state=state)
    assert fold(drift(since=13_000), state=state) == []
    (requested,) = fold(RunEnded(pipeline="rain", run="b", reason="its canary failed"), state=state)
    assert requested.start == 13_000


def test_a_challenger_that_went_back_to_shadow_gives_way_again():
    challenger = started("b", "performance-a-12122", start=12_122)
    canary = champion(version=2, run="b").model_copy(update={"alias": "challenger", "share": 0.1})
    shadow = canary.model_copy(update={"share": None})
    *_, superseded, _ = fold(*SERVES, drift(), challenger, canary, shadow, drift(since=13_000))
    assert superseded.run == "b"


def test_an_earlier_change_point_waits_for_the_slot_and_takes_it_when_the_challenger_has_ended():
    challenger = started("b", "performance-a-12122", start=12_122)
    state = State()
    assert isinstance(fold(*SERVES, drift(), challenger, state=state)[-1], TrainingRequested)
    assert fold(drift(since=11_000), state=state) == []
    (requested,) = fold(RunEnded(pipeline="rain", run="b", reason="it lost"), state=state)
    assert requested.start == 11_000


def test_one_training_waits_and_the_more_urgent_has_the_place():
    state = State()
    fold(*SERVES, drift(), started("b", "performance-a-12122", start=12_122), state=state)
    assert fold(drift(since=11_000), state=state) == []
    (displaced,) = fold(drift(since=11_500), state=state)
    assert (displaced.request, displaced.kind) == ("performance-a-11000", "TrainingRequested")
    assert (displaced.numbers["start"], displaced.numbers["gave_way_start"]) == (11_500, 11_000)
    assert "performance (loss 0.220 -> 0.410, ADWIN" in displaced.reason


def test_so_many_new_labels_train_on_the_newest_window():
    counts = (LabelsCounted(pipeline="rain", n=n, offset=n + 10) for n in (4_000, 5_000))
    *_, requested = fold(released(every_labels=5_000), *SERVES[1:], *counts)
    assert (requested.request, requested.trigger) == ("new-data-5000", "new_data")
    assert (requested.start, requested.end_at_labels) == (3_010, 2_000)


def test_a_schedule_trains_once_for_all_times_that_were_missed():
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    minutes = (0, 1, 59, 60, 61, 60 * 5 + 3, 60 * 5 + 4)  # every full hour; nobody was there from one to five o'clock
    history = [(released(schedule="0 * * * *"), begin), *((event, begin) for event in SERVES[1:])]
    history.append((LabelsCounted(pipeline="rain", n=9_000, offset=9_000), begin))
    history += [
        (Tick(schedule="minute", due=begin + timedelta(minutes=m)), begin + timedelta(minutes=m)) for m in minutes
    ]
    state, told = State(), []
    for offset, (event, at) in enumerate(history):
        record = Record(event, int(at.timestamp() * 1000), "control-log", "", 0, offset)
        told += [emit.event for emit in step(state, record, None)]
        if isinstance(told[-1], TrainingRequested) and told[-1].trigger == "schedule" and state.pipelines["rain"].slot:
            state.pipelines["rain"].slot = None  # it ended
    assert [event.request for event in told if isinstance(event, TrainingRequested)][1:] == [
        "schedule-2026-01-01T01:00",
        "schedule-2026-01-01T05:00",
    ]


def test_a_schedule_that_a_release_changes_is_taken_up_with_it():
    state, told = State(), []
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    history = [(released(schedule="0 * * * *"), 0), *((event, 0) for event in SERVES[1:])]
    history += [(LabelsCounted(pipeline="rain", n=9_000, offset=9_000), 0)]
    history += [(1, 1), (released(2, schedule="30 * * * *"), 10), (20, 20), (30, 30), (31, 31)]
    for offset, (event, minute) in enumerate(history):
        at = begin + timedelta(minutes=minute)
        event = Tick(schedule="minute", due=at) if isinstance(event, int) else event
        record = Record(event, int(at.timestamp() * 1000), "control-log", "", 0, offset)
        told += [emit.event.request for emit in step(state, record, None)]
    assert told[-1] == "schedule-2026-01-01T00:30"
    assert told.count("schedule-2026-01-01T00:30") == 1


def test_alpha_is_spent_until_performance_falls_again():
    state = State()
    alphas = [fold(*SERVES, asked("r1", seed=1), state=state)[-1].alpha]
    for number in (2, 3):
        alphas.append(fold(asked(f"r{number}", seed=number), state=state)[-1].alpha)
    fold(RunEnded(pipeline="rain", run="z", reason=""), state=state)
    alphas.append(fold(drift(), state=state)[-1].alpha)
    assert alphas == pytest.approx([0.05 * 6 / pi**2, 0.05 * 6 / pi**2 / 4, 0.05 * 6 / pi**2 / 9, 0.05])


def test_after_a_failed_challenger_an_alert_waits_for_the_end_of_the_cool_down():
    state = State()
    fold(*SERVES, drift(), started("b", "performance-a-12122", start=12_122), failed("b"), state=state)
    assert fold(RunEnded(pipeline="rain", run="b", reason="it failed"), drift(since=13_000), state=state) == []
    minute = Tick(schedule="minute", due=datetime(1970, 1, 1, tzinfo=UTC))
    early, late = (Record(minute, ms, "control-log", "", 0, 99) for ms in (3_600_000, 3_600_010))
    assert step(state, early, None) == []
    assert [emit.event.start for emit in step(state, late, None)] == [13_000]


def test_three_challengers_that_fail_in_a_row_pause_promotion_until_a_person_says_go():
    state, told = State(), []
    fold(*SERVES, state=state)
    for number in range(4):
        told += fold(
            asked(f"r{number}", seed=number + 1), started(f"c{number}", f"r{number}", seed=number + 1),
            failed(f"c{number}"), RunEnded(pipeline="rain", run=f"c{number}", reason=""), state=state,
        )  # fmt: skip
    (paused,) = [event for event in told if isinstance(event, AutomationPaused)]
    assert paused.numbers == {"failures": 3}
    (resumed,) = fold(ResumeAsked(pipeline="rain", request="go", by="ann"), state=state)
    assert (resumed.by, resumed.request) == ("ann", "go")


def test_a_champion_that_stands_its_guard_ends_the_row_of_failures():
    stood = ModelValidated(
        pipeline="rain", run="c", request="", stage="guard", verdict="pass", checks=(), n_labels=2_000, offset=9,
        against="a",
    )  # fmt: skip
    state = State()
    fold(*SERVES, asked("r1", seed=1), started("b", "r1", seed=1), failed("b"), state=state)
    assert state.pipelines["rain"].failures == 1
    fold(stood, state=state)
    assert state.pipelines["rain"].failures == 0


def test_a_challenger_without_a_verdict_expires_by_age_once():
    state = State()
    fold(*SERVES, drift(), started("b", "performance-a-12122", start=12_122), state=state)
    days = [Tick(schedule="minute", due=datetime(2026, 1, day, tzinfo=UTC)) for day in (1, 2)]
    told = [
        emit.event
        for day, tick in zip((13, 15), days, strict=True)
        for _ in range(2)
        for emit in step(state, Record(tick, day * 86_400_000, "control-log", "", 0, 99), None)
    ]
    assert [(event.run, event.reason) for event in told] == [("b", "no verdict within 14 days")]


def test_a_person_pauses_and_resumes_and_is_answered():
    state = State()
    fold(*SERVES, state=state)
    ask = {"pipeline": "rain", "by": "ann"}
    answers = fold(
        PauseAsked(request="p1", reason="exchange", **ask), PauseAsked(request="p2", **ask),
        ResumeAsked(request="g1", **ask), ResumeAsked(request="g2", **ask), state=state,
    )  # fmt: skip
    assert [(type(a).__name__, a.request) for a in answers] == [
        ("AutomationPaused", "p1"),
        ("RequestRefused", "p2"),
        ("AutomationResumed", "g1"),
        ("RequestRefused", "g2"),
    ]


def test_a_promoted_challenger_frees_the_slot():
    state = State()
    fold(*SERVES, drift(), started("b", "performance-a-12122", start=12_122), champion(2, "b"), state=state)
    assert state.pipelines["rain"].slot is None
    assert [event.start for event in fold(drift(run="b", since=14_000), state=state)] == [14_000]


def test_a_version_that_serves_frozen_again_gets_a_run_that_begins_with_it_ahead_of_all_others():
    back = champion(1, "a").model_copy(update={"follows": False, "snapshot_offset": 900, "uri": "newest", "epoch": 6})
    challenger = started("b", "performance-a-12122", start=12_122)
    *_, superseded, requested = fold(*SERVES, drift(), challenger, back)
    assert superseded.run == "b"
    assert (requested.trigger, requested.start, requested.parent) == ("rollback", 900, "newest")


def test_strangers_and_ticks_pass_without_effect():
    state = State()
    fold(released(), state=state)
    minute = Tick(schedule="minute", due=datetime(2026, 1, 1, tzinfo=UTC))
    assert fold(drift(pipeline="other"), minute, started("z", "unknown"), state=state) == []
    assert state.pipelines["rain"].slot.run is None
