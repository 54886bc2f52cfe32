"""Given these decisions, then those trainings and refusals."""

from datetime import UTC, datetime

import pytest

from headrace.schemas.contract import ContractSpec, FeatureSpec, LabelSpec
from headrace.schemas.control import (
    ChallengerSuperseded,
    DriftDetected,
    ModelUpdated,
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


def released(release=1, recipe="r1", pipeline="rain", first_model_at=200):
    definition = ReleaseDefinition(
        contract=CONTRACT,
        policies=Policies(triggers=Triggers(first_model_at=first_model_at), seed=7),
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


def test_a_release_with_another_recipe_beside_a_champion_is_answered_with_what_works_instead():
    *_, refused = fold(released(), started("a", "first-model-1"), champion(), released(2, recipe="r2"))
    assert isinstance(refused, RequestRefused)
    assert (refused.request, refused.kind) == ("recipe-2", "TrainingRequested")
    assert "challengers are not part of this version yet" in refused.reason
    assert "new pipeline name" in refused.reason


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


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (asked(), "version 1 serves and goes on learning"),
        (PauseAsked(pipeline="rain", request="r", by="ann"), "nothing promotes a model by itself yet"),
        (ResumeAsked(pipeline="rain", request="r", by="ann"), "nothing promotes a model by itself yet"),
    ],
)
def test_what_a_later_version_serves_is_refused_with_the_reason(request_, says):
    *_, refused = fold(released(), started("a", "first-model-1"), champion(), request_)
    assert (refused.request, refused.kind) == ("r", type(request_).__name__)
    assert says in refused.reason
    assert refused.next == "headrace status rain"


def test_an_unknown_pipeline_is_answered_with_the_command_that_releases_one():
    (refused,) = fold(asked())
    assert "no pipeline is named 'rain'" in refused.reason
    assert refused.next.startswith("headrace release")


def test_a_retired_pipeline_trains_no_more():
    *_, refused = fold(released(), PipelineRetired(pipeline="rain", request="q", by="ann"), asked())
    assert "was retired" in refused.reason


@pytest.mark.parametrize(("change", "says"), [({"start": -1}, "not at -1"), ({"recipe": "big"}, "none named 'big'")])
def test_a_training_that_cannot_be_is_refused(change, says):
    *_, refused = fold(released(), asked(**change))
    assert says in refused.reason


def test_alerts_ticks_and_strangers_pass_without_effect():
    drift = DriftDetected(
        pipeline="rain", kind="performance", level="drift", since=1, detector="ADWIN", evidence={"x": 1.0}
    )
    state = State()
    fold(released(), state=state)
    assert (
        fold(
            drift,
            drift.model_copy(update={"pipeline": "other"}),
            Tick(schedule="minute", due=datetime(2026, 1, 1, tzinfo=UTC)),
            started("z", "unknown"),
            state=state,
        )
        == []
    )
    assert state.pipelines["rain"].slot.run is None
