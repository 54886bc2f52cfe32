"""Given these decisions, then those releases, versions, aliases and refusals."""

import pytest

from headrace.schemas.contract import ContractSpec, FeatureSpec, LabelSpec
from headrace.schemas.control import (
    Check,
    ModelUpdated,
    ModelValidated,
    PipelineReleased,
    PipelineRetired,
    PromotionAsked,
    ReleaseAsked,
    ReleaseDefinition,
    RequestRefused,
    RetireAsked,
    RollbackAsked,
    RunEnded,
    RunStarted,
)
from headrace.schemas.policies import Policies
from headrace.schemas.record import Record
from headrace.schemas.signing import is_signed
from headrace.services.registry.core import State, World, models, step

KEY = b"test"
X = FeatureSpec(name="x", type="float", ge=0, le=1)


def fold(*events, state=None):
    """What the registry emits on a history."""
    state = State() if state is None else state
    emits = []
    for offset, event in enumerate(events):
        emits += step(state, Record(event, offset * 1_000, "control-log", "", 0, offset), World(KEY))
    return emits


def definition(features=(X,), recipe="r1", source_uri="u", **policies):
    return ReleaseDefinition(
        contract=ContractSpec(name="Rain", features=features, label=LabelSpec(type="bool")),
        policies=Policies(**policies),
        contract_digest=str(features),
        policies_digest=str(policies),
        recipe_digest=recipe,
        source_digest="s",
        source_uri=source_uri,
    )


def ask(request="q1", pipeline="rain", partitions=1, topic_id="1f3a9c2e", **changes):
    return ReleaseAsked(
        pipeline=pipeline,
        request=request,
        by="ann",
        partitions=partitions,
        definition=definition(**changes),
        topic_id=topic_id,
    )


def validated(stage, run="a", offset=200, verdict="pass", epoch=0, checks=(), **snapshot):
    return ModelValidated(
        pipeline="rain",
        run=run,
        request="first-model-1",
        stage=stage,
        verdict=verdict,
        checks=checks,
        n_labels=200,
        offset=offset,
        epoch=epoch,
        **snapshot,
    )


def started(run="a"):
    return RunStarted(pipeline="rain", run=run, request="first-model-1", release=1, seed=0, start_offset=0)


RETIRE = RetireAsked(pipeline="rain", request="bye", by="ann", reason="moved")
BETTER = Check(name="accuracy", verdict="pass", value=0.757, limit=0.6, n=100)
OFFLINE = validated("offline", checks=(BETTER,))
INFRA = validated("infra", snapshot_uri="ab/cd", snapshot_offset=212)


# --- releases ---------------------------------------------------------------------------------------------


def test_a_release_is_told_to_pipelines_and_signed_into_every_partition():
    told, *marks = fold(ask(partitions=3))
    assert (told.topic, told.partition, told.event.release, told.event.request) == ("pipelines", 0, 1, "q1")
    assert [(m.topic, m.pipeline, m.partition) for m in marks] == [("<p>.data-arrived", "rain", i) for i in range(3)]
    assert all(m.event == told.event and is_signed(KEY, m.event) for m in marks)


def test_a_first_release_asked_by_hand_whose_topics_nobody_saw_is_refused_and_the_same_name_released_later():
    refused, *told = fold(ask(topic_id=None), ask("q2"), ask("q3", recipe="r2", topic_id=None))
    assert (refused.topic, refused.event.request, refused.event.kind) == ("decisions", "q1", "ReleaseAsked")
    assert "nobody saw whether its topics are there" in refused.event.reason
    assert refused.event.next.startswith("headrace release pipelines/rain.py")
    assert [e.event.release for e in told if e.topic == "pipelines"] == [1, 2]


def test_a_changed_definition_is_the_next_release():
    emits = fold(ask(), ask("q2", recipe="r2"), ask("q3", recipe="r1"))
    assert [e.event.release for e in emits if e.topic == "pipelines"] == [1, 2, 3]


def test_the_same_definition_changes_nothing_and_says_so():
    *_, emit = fold(ask(), ask("q2", source_uri="stored again"))
    assert emit.topic == "decisions"
    assert (emit.event.request, emit.event.kind, emit.event.numbers) == ("q2", "unchanged", {"release": 1})
    assert "release 1 of rain already is this definition" in emit.event.reason


def test_a_request_read_twice_is_answered_once():
    assert len(fold(ask(), ask(), ask("q2"), ask("q2"))) == 3


@pytest.mark.parametrize(
    ("second", "says"),
    [
        (ask("q2", features=(X, FeatureSpec(name="y", type="float"))), "not compatible with release 1"),
        (ask("q2", recipe="r2", partitions=2), "have 1 partitions since their first release, not 2"),
    ],
)
def test_what_cannot_be_taken_up_in_a_running_stream_is_refused(second, says):
    *_, emit = fold(ask(), second)
    assert isinstance(emit.event, RequestRefused)
    assert says in emit.event.reason
    assert "new pipeline name" in emit.event.reason


def test_a_compatible_contract_is_released():
    *_, mark = fold(ask(), ask("q2", features=(X, FeatureSpec(name="y", type="float", optional=True))))
    assert mark.event.release == 2


@pytest.mark.parametrize("name", ["Rain", "1rain", "", "rain.fall", "r" * 42])
def test_a_name_that_is_no_name_is_refused(name):
    (emit,) = fold(ask(pipeline=name))
    assert "no name for a pipeline" in emit.event.reason


@pytest.mark.parametrize("partitions", [0, 1_000])
def test_more_partitions_than_one_step_can_mark_are_refused(partitions):
    (emit,) = fold(ask(partitions=partitions))
    assert isinstance(emit.event, RequestRefused)


def test_a_retired_pipeline_is_told_in_band_and_its_name_never_used_again():
    emits = fold(ask(partitions=2), RETIRE, ask("q3", recipe="r3"))
    retired = [e for e in emits if isinstance(e.event, PipelineRetired)]
    assert [(e.topic, e.partition) for e in retired] == [
        ("pipelines", 0),
        ("<p>.data-arrived", 0),
        ("<p>.data-arrived", 1),
    ]
    assert all(is_signed(KEY, e.event) for e in retired)
    assert "never used again" in emits[-1].event.reason


def test_retiring_what_is_not_there_or_gone_already_is_refused():
    (unknown,) = fold(RETIRE)
    assert "no pipeline is named 'rain'" in unknown.event.reason
    *_, again = fold(ask(), RETIRE, RETIRE.model_copy(update={"request": "bye2"}))
    assert (again.event.kind, again.event.reason) == ("unchanged", "rain was retired already")


# --- versions and aliases ---------------------------------------------------------------------------------


def history(*events, **changes):
    """A released pipeline with a run, then these events: the emits after the release, and the state."""
    state = State()
    fold(ask(**changes), started(), state=state)
    return fold(*events, state=state), state


def test_the_first_run_that_passed_both_gates_is_version_1_and_champion():
    (emit,), state = history(OFFLINE, INFRA)
    assert (emit.topic, emit.key, emit.partition) == ("model-updates", b"rain", 0)
    assert emit.event == ModelUpdated(
        pipeline="rain",
        alias="champion",
        version=1,
        run="a",
        release=1,
        snapshot_offset=212,
        uri="ab/cd",
        follows=True,
        epoch=1,
        reason="first model after 200 labels: accuracy 0.757 against 0.6",
    )
    versions, aliases = models(state, "rain")
    assert [(v.version, v.run, v.uri) for v in versions] == [(1, "a", "ab/cd")]
    assert aliases == {"champion": emit.event}
    assert state.pipelines["rain"].history == [emit.event]


def test_a_frozen_pipeline_serves_exactly_the_bytes_that_passed():
    (emit,), _ = history(OFFLINE, INFRA, learning="frozen")
    assert emit.event.follows is False


def test_a_forced_first_gate_is_recorded_as_forced():
    forced = validated("offline", checks=(Check(name="forced", verdict="pass", detail="forced: gates.first=off"),))
    (emit,), _ = history(forced, INFRA)
    assert emit.event.forced_by == "gates.first=off in release 1"
    assert "forced" in emit.event.reason


@pytest.mark.parametrize(
    "verdicts",
    [
        [INFRA],
        [OFFLINE],
        [OFFLINE, INFRA.model_copy(update={"verdict": "fail"})],
        [OFFLINE.model_copy(update={"verdict": "fail"}), INFRA],
        [OFFLINE, INFRA.model_copy(update={"offset": 400})],
        [OFFLINE.model_copy(update={"run": "stranger"}), INFRA.model_copy(update={"run": "stranger"})],
        [OFFLINE, RunEnded(pipeline="rain", run="a", reason="superseded"), INFRA],
    ],
    ids=["infra only", "offline only", "infra fails", "offline fails", "other offsets", "unknown run", "ended run"],
)
def test_no_version_without_both_gates_of_one_range_of_a_live_run(verdicts):
    emits, state = history(*verdicts)
    assert emits == []
    assert models(state, "rain") == ([], {})


def test_a_fail_then_a_pass_at_twice_the_labels_serves():
    (emit,), _ = history(
        validated("offline", verdict="fail"),
        validated("offline", offset=400, checks=(BETTER,)),
        validated("infra", offset=400, snapshot_uri="x", snapshot_offset=400),
    )
    assert emit.event.snapshot_offset == 400


def test_verdicts_that_cannot_serve_are_refused_with_the_reason():
    second = (
        started("b"),
        validated("offline", run="b"),
        validated("infra", run="b", epoch=1, snapshot_uri="x", snapshot_offset=1),
    )
    (_, emit), _ = history(OFFLINE, INFRA, *second)
    assert "version 1 serves" in emit.event.reason
    (stale,), _ = history(OFFLINE, INFRA.model_copy(update={"epoch": 4}))
    assert "alias epoch 4, the aliases are at 0" in stale.event.reason
    (empty,), _ = history(OFFLINE, validated("infra"))
    assert "names no snapshot" in empty.event.reason


def test_a_verdict_read_twice_makes_one_version():
    emits, _ = history(OFFLINE, INFRA, OFFLINE, INFRA)
    assert len(emits) == 1


@pytest.mark.parametrize(
    ("before", "request_", "says"),
    [
        ([], PromotionAsked(pipeline="rain", request="p", by="ann", version=1), "has no version yet"),
        (
            [OFFLINE, INFRA],
            PromotionAsked(pipeline="rain", request="p", by="ann", version=1),
            "is the champion already",
        ),
        (
            [OFFLINE, INFRA],
            PromotionAsked(pipeline="rain", request="p", by="ann", version=2),
            "not part of this version yet",
        ),
        ([OFFLINE, INFRA], RollbackAsked(pipeline="rain", request="p", by="ann"), "not part of this version yet"),
    ],
)
def test_promotion_and_rollback_are_refused_honestly(before, request_, says):
    (*_, emit), _ = history(*before, request_)
    assert (emit.topic, emit.event.request, emit.event.kind) == ("decisions", "p", type(request_).__name__)
    assert says in emit.event.reason
    assert emit.event.next == "headrace models rain"


def test_an_unknown_pipeline_has_no_models():
    assert models(State(), "rain") == ([], {})
    (emit,) = fold(RollbackAsked(pipeline="rain", request="p", by="ann"))
    assert "no pipeline is named" in emit.event.reason


def test_its_own_words_read_back_change_nothing():
    state = State()
    (told, *_) = fold(ask(), started(), state=state)
    (updated,) = fold(OFFLINE, INFRA, state=state)
    assert isinstance(told.event, PipelineReleased)
    assert fold(told.event, updated.event, state=state) == []
