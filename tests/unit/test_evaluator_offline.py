"""Given these decisions, then those open jobs."""

import pytest
from definitions import definition_of

from headrace.schemas.codec import ORIGIN
from headrace.schemas.contract import ContractSpec, FeatureSpec, LabelSpec
from headrace.schemas.control import (
    AliasRemoved,
    ModelUpdated,
    ModelValidated,
    PipelineReleased,
    PipelineRetired,
    RunEnded,
    RunStarted,
    TrainingCompleted,
    TrainingFailed,
)
from headrace.schemas.policies import Gates, Policies
from headrace.schemas.record import Record
from headrace.services.evaluator.offline import State, step

HEADERS = [("", b"")] * 5 + [
    ("ce_correlationid", b"story"),
    ("ce_causationid", b""),
    (ORIGIN, b"training-completed/id/0/4"),
]


def fold(*events):
    """The state and the emitted events of a history; the n-th record has sequence 10·n."""
    state, emits = State(), []
    for n, event in enumerate(events):
        record = Record(event, n, "control-log", "", 0, n, sequence=10 * n, headers=HEADERS)
        emits += [emit.event for emit in step(state, record, None)]
    return state, emits


def released(first="on"):
    definition = definition_of(
        contract=ContractSpec(name="R", features=(FeatureSpec(name="x", type="float"),), label=LabelSpec(type="bool")),
        policies=Policies(gates=Gates(first=first)),
    )
    return PipelineReleased(pipeline="rain", release=1, definition=definition, partitions=1, request="q", by="ann")


STARTED = RunStarted(
    pipeline="rain", run="a", request="first-model-1", release=1, seed=7, start_offset=3, excluded=((5, 8),)
)


def completed(n=200, run="a", skipped=()):
    return TrainingCompleted(
        pipeline="rain", run=run, request="first-model-1", release=1, n_labels=n, start_offset=3, end_offset=3 + n,
        skipped=skipped,
    )  # fmt: skip


def judged(stage, verdict="pass", n=200, run="a", **snapshot):
    return ModelValidated(
        pipeline="rain",
        run=run,
        request="first-model-1",
        stage=stage,
        verdict=verdict,
        checks=(),
        n_labels=n,
        offset=3 + n,
        **snapshot,
    )


def test_a_completed_training_opens_the_offline_job_with_all_it_needs():
    state, _ = fold(released(), STARTED, completed())
    (job,) = state.open_jobs()
    assert (job.stage, job.run, job.release, job.seed, job.excluded) == ("offline", "a", 1, 7, ((5, 8),))
    assert (job.n_labels, job.start_offset, job.end_offset) == (200, 3, 203)
    assert (job.source, job.sequence, job.known_ms) == ("/evaluator/rain/a/offline", 20, 2)
    assert (job.correlation, job.causation) == ("story", "training-completed/id/0/4")


def test_an_offline_pass_opens_the_infra_job_under_the_same_sequence():
    state, _ = fold(released(), STARTED, completed(), judged("offline"))
    (job,) = state.open_jobs()
    assert (job.stage, job.source, job.sequence) == ("infra", "/evaluator/rain/a/infra", 20)
    assert job.snapshot_uri is None


def test_a_frozen_snapshot_travels_from_the_offline_verdict_to_the_infra_job():
    state, _ = fold(released(), STARTED, completed(), judged("offline", snapshot_uri="x", snapshot_offset=103))
    (job,) = state.open_jobs()
    assert (job.snapshot_uri, job.snapshot_offset) == ("x", 103)


@pytest.mark.parametrize("verdict", ["fail", "inconclusive", "error"])
def test_any_other_offline_verdict_closes_the_job(verdict):
    state, _ = fold(released(), STARTED, completed(), judged("offline", verdict))
    assert state.open_jobs() == []


@pytest.mark.parametrize("verdict", ["pass", "fail", "error"])
def test_any_infra_verdict_closes_the_job(verdict):
    state, _ = fold(released(), STARTED, completed(), judged("offline"), judged("infra", verdict))
    assert state.open_jobs() == []


def test_at_twice_the_labels_the_run_is_judged_again():
    state, _ = fold(released(), STARTED, completed(), judged("offline", "fail"), completed(400))
    (job,) = state.open_jobs()
    assert (job.n_labels, job.sequence) == (400, 40)


def test_a_late_verdict_of_the_shorter_range_does_not_close_the_longer_job():
    state, _ = fold(released(), STARTED, completed(), completed(400), judged("offline", "fail", 200))
    (job,) = state.open_jobs()
    assert job.n_labels == 400


def test_a_pass_counts_though_the_run_has_learned_on():
    state, _ = fold(STARTED, completed(200), completed(400), completed(800), judged("offline", "pass", 200))
    (job,) = state.open_jobs()
    assert (job.stage, job.n_labels) == ("infra", 200)


def test_after_a_fail_the_newest_completion_is_judged_and_none_between():
    state, _ = fold(STARTED, completed(200), completed(400), completed(800), judged("offline", "fail", 200))
    (job,) = state.open_jobs()
    assert (job.stage, job.n_labels, job.sequence) == ("offline", 800, 30)
    state, _ = fold(
        STARTED, completed(200), completed(400), judged("offline", "pass", 200), judged("infra", "fail", 200)
    )
    (job,) = state.open_jobs()
    assert (job.stage, job.n_labels) == ("offline", 400)


def test_what_waits_for_judgement_ends_with_its_run():
    ended = RunEnded(pipeline="rain", run="a", reason="done")
    state, _ = fold(STARTED, completed(200), completed(400), ended, judged("offline", "fail", 200))
    assert state.open_jobs() == []


def test_the_first_verdict_wins():
    state, _ = fold(released(), STARTED, completed(), judged("offline", "fail"), judged("offline", "pass"))
    assert state.open_jobs() == []


@pytest.mark.parametrize(
    "end", [RunEnded(pipeline="rain", run="a", reason=""), PipelineRetired(pipeline="rain", request="q", by="ann")]
)
def test_the_jobs_of_a_run_end_with_it(end):
    state, _ = fold(released(), STARTED, completed(), end)
    assert state.open_jobs() == []
    assert state.pipelines["rain"].runs == {}


def test_a_run_that_serves_is_not_judged_again():
    champion = ModelUpdated(
        pipeline="rain",
        alias="champion",
        version=1,
        run="a",
        release=1,
        snapshot_offset=203,
        uri="u",
        follows=True,
        epoch=1,
        reason="",
    )
    state, _ = fold(released(), STARTED, champion, completed(400))
    assert state.open_jobs() == []


def test_a_run_that_nobody_started_is_not_judged():
    state, _ = fold(released(), completed(run="stranger"))
    assert state.open_jobs() == []


def test_what_the_run_skipped_the_replay_leaves_out():
    skipped = TrainingFailed(pipeline="rain", request="first-model-1", run="a", reason="learn raised", offset=42)
    state, _ = fold(released(), STARTED, skipped, completed())
    (job,) = state.open_jobs()
    assert job.excluded == ((5, 8), (42, 43))


def test_what_the_run_skipped_is_left_out_also_where_that_is_told_after_its_end():
    """The two stand in topics of their own, and the sequencer may read the end first."""
    late = TrainingFailed(pipeline="rain", request="first-model-1", run="a", reason="learn raised", offset=42)
    state, _ = fold(released(), STARTED, completed(skipped=(42,)), late)
    (job,) = state.open_jobs()
    assert job.excluded == ((5, 8), (42, 43))


def test_with_the_first_gate_off_a_forced_verdict_is_written_and_infra_follows():
    state, (forced,) = fold(released("off"), STARTED, completed())
    assert state.open_jobs() == []
    assert (forced.stage, forced.verdict, forced.checks[0].detail) == ("offline", "pass", "forced: gates.first=off")
    state, _ = fold(released("off"), STARTED, completed(), forced)
    (job,) = state.open_jobs()
    assert (job.stage, job.sequence) == ("infra", 20)


# --- beside a champion ------------------------------------------------------------------------------------

BEGUN = RunStarted(pipeline="rain", run="b", request="q", release=1, seed=7, start_offset=300, parent="model/x")


def alias(name, run, epoch, uri="u", follows=True):
    return ModelUpdated(
        pipeline="rain", alias=name, version=epoch, run=run, release=1, snapshot_offset=9, uri=uri, follows=follows,
        epoch=epoch, reason="",
    )  # fmt: skip


def test_a_challenger_is_judged_against_the_champion_of_that_moment_from_its_parent_on():
    state, _ = fold(released(), STARTED, alias("champion", "a", 1), BEGUN, completed(run="b"))
    (job,) = state.open_jobs()
    assert (job.run, job.against, job.parent, job.epoch) == ("b", "a", "model/x", 1)


@pytest.mark.parametrize(
    ("serves", "is_rescue"),
    [
        ([("model/x", False)], True),
        ([("model/x", True)], False),  # newer revisions serve by now
        ([("model/w", False)], False),  # a person began with another version than the one that serves
        ([("model/x", False), ("model/y", True)], False),
    ],
)
def test_only_a_fork_of_the_snapshot_that_serves_frozen_takes_its_place(serves, is_rescue):
    moves = [alias("champion", "a", n, uri, follows) for n, (uri, follows) in enumerate(serves, 1)]
    state, _ = fold(released(), STARTED, *moves, BEGUN, completed(run="b"))
    assert [job.is_rescue for job in state.open_jobs()] == [is_rescue]


def test_where_the_first_gate_is_off_a_challenger_is_judged_all_the_same():
    state, emits = fold(released("off"), STARTED, alias("champion", "a", 1), BEGUN, completed(run="b"))
    assert [job.run for job in state.open_jobs()] == ["b"]
    assert emits == []


@pytest.mark.parametrize("name", ["champion", "challenger", "previous"])
def test_a_run_that_has_a_version_is_not_judged_again(name):
    moved = alias(name, "b", 2)
    state, _ = fold(released(), STARTED, alias("champion", "a", 1), BEGUN, moved, completed(400, run="b"))
    assert state.open_jobs() == []


def test_an_alias_that_is_removed_is_another_epoch():
    gone = AliasRemoved(pipeline="rain", alias="challenger", run="z", epoch=5, reason="it lost")
    state, _ = fold(released(), STARTED, alias("champion", "a", 1), gone, BEGUN, completed(run="b"))
    assert [job.epoch for job in state.open_jobs()] == [5]
