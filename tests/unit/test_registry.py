"""Given these decisions, then those releases, versions, aliases and refusals."""

import pytest
from registered import BETTER, INFRA, KEY, OFFLINE, RETIRE, X, ask, fold, started, validated

from headrace.schemas.contract import FeatureSpec
from headrace.schemas.control import (
    AliasRemoved,
    AutomationPaused,
    AutomationResumed,
    ChallengerExpired,
    ChallengerSuperseded,
    Check,
    ModelUpdated,
    PinAsked,
    PipelineReleased,
    PipelineRetired,
    PromotionAsked,
    RequestRefused,
    RollbackAsked,
    RunEnded,
    RunStarted,
    TrainingRequested,
)
from headrace.schemas.policies import Gates, Rollout
from headrace.schemas.signing import is_signed
from headrace.services.registry.core import State, models

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
        [OFFLINE, ChallengerSuperseded(pipeline="rain", run="a", by_request="r2", reason="release 2"), INFRA],
        [OFFLINE, started("b"), INFRA],
    ],
    ids=[
        "infra only",
        "offline only",
        "infra fails",
        "offline fails",
        "other offsets",
        "unknown run",
        "ended run",
        "superseded run",
        "another run took its place",
    ],
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
            "not the challenger (there is no challenger)",
        ),
        ([OFFLINE, INFRA], RollbackAsked(pipeline="rain", request="p", by="ann"), "no previous model stands by"),
        (
            [OFFLINE, INFRA],
            RollbackAsked(pipeline="rain", request="p", by="ann", bad_from_ms=1),
            "names no offsets of labelled examples",
        ),
    ],
)
def test_a_promotion_or_rollback_that_cannot_be_is_refused_with_the_reason(before, request_, says):
    (*_, emit), _ = history(*before, request_)
    assert (emit.topic, emit.event.request, emit.event.kind) == ("decisions", "p", type(request_).__name__)
    assert says in emit.event.reason
    assert emit.event.next.startswith("headrace ")


# --- challengers ------------------------------------------------------------------------------------------


def asked_for(run, alpha=0.05, trigger="performance"):
    """A training that was requested, and its run."""
    requested = TrainingRequested(
        pipeline="rain", request=f"for-{run}", trigger=trigger, cause="", release=1, seed=0, start=9, alpha=alpha
    )
    begun = RunStarted(pipeline="rain", run=run, request=f"for-{run}", release=1, seed=0, start_offset=9)
    return requested, begun


def gates_of(run, against="a", epoch=1, offset=400):
    """The offline and infra passes of a run that was compared with a champion."""
    told = {"run": run, "offset": offset, "epoch": epoch, "against": against}
    return validated("offline", **told), validated("infra", snapshot_uri=f"uri-{run}", snapshot_offset=offset, **told)


def online(run="b", against="a", verdict="pass", e=25.0, epoch=2):
    check = Check(name="evidence", verdict="pass", value=e, limit=20.0, n=231, detail="42 wins, 19 losses")
    return validated("online", run=run, verdict=verdict, epoch=epoch, against=against, checks=(check,))


def step_of(share, verdict="pass", epoch=3, **more):
    """A verdict on a canary step: E that it is worse, far below its limit."""
    return online(verdict=verdict, e=0.2, epoch=epoch, **more).model_copy(update={"share": share})


def guard(verdict, run="b", against="a", epoch=3):
    return validated("guard", run=run, verdict=verdict, epoch=epoch, against=against)


SHADOW = (OFFLINE, INFRA, *asked_for("b"), *gates_of("b"))


def moves(emits):
    """What happened to the aliases, in order."""
    return [
        (e.event.alias, e.event.run, e.event.version if isinstance(e.event, ModelUpdated) else None, e.event.epoch)
        for e in emits
        if isinstance(e.event, ModelUpdated | AliasRemoved)
    ]


def test_a_second_run_that_passed_its_gates_is_the_next_version_and_a_challenger():
    emits, _ = history(*SHADOW)
    assert moves(emits) == [("champion", "a", 1, 1), ("challenger", "b", 2, 2)]


def test_a_gate_that_compared_with_another_champion_is_refused():
    *_, last = history(OFFLINE, INFRA, *asked_for("b"), *gates_of("b", against="z"))[0]
    assert "it was compared with z, and version 1 serves (run a)" in last.event.reason


def test_a_challenger_that_wins_takes_over_and_the_champion_stands_by_as_previous():
    emits, state = history(*SHADOW, online())
    assert moves(emits)[2:] == [("previous", "a", 1, 3), ("champion", "b", 2, 3), ("challenger", "b", None, 3)]
    assert emits[3].event.previous_version == 1
    assert emits[3].event.reason == "online gate passed over 200 labels: evidence 25 against 20"
    assert set(state.pipelines["rain"].aliases) == {"champion", "previous"}


@pytest.mark.parametrize(
    "late",
    [
        online(run="z"),
        online(against="z"),
        online(epoch=1),
        validated("online", run="a", verdict="pass"),
        guard("fail"),
        guard("pass"),
    ],
)
def test_a_verdict_about_who_is_not_in_the_race_moves_nothing(late):
    assert moves(history(*SHADOW, late)[0]) == moves(history(*SHADOW)[0])


def test_a_challenger_with_less_alpha_needs_more_evidence():
    before = (OFFLINE, INFRA, *asked_for("b", alpha=0.01), *gates_of("b"))
    assert len(moves(history(*before, online(e=99.0))[0])) == 2
    assert len(moves(history(*before, online(e=99.0), online(e=100.0))[0])) == 5


@pytest.mark.parametrize(("trigger", "is_enough"), [("schedule", False), ("new_data", False), ("performance", True)])
def test_a_challenger_that_a_clock_asked_for_must_be_worth_the_move(trigger, is_enough):
    def gains(gain):
        told = online(e=1e9)
        return told.model_copy(update={"checks": (*told.checks, Check(name="gain", verdict="pass", value=gain))})

    before = (OFFLINE, INFRA, *asked_for("b", trigger=trigger), *gates_of("b"))
    assert (len(moves(history(*before, gains(0.009))[0])) == 5) is is_enough
    assert len(moves(history(*before, gains(0.01))[0])) == 5


@pytest.mark.parametrize("verdict", ["fail", "inconclusive", "error"])
def test_a_challenger_that_does_not_win_loses_its_alias_with_the_numbers(verdict):
    emits, state = history(*SHADOW, online(verdict=verdict, e=0.1))
    assert moves(emits)[2:] == [("challenger", "b", None, 3)]
    assert "evidence 0.1 against 20" in emits[-1].event.reason
    assert moves(fold(online(e=30.0), state=state)) == []


@pytest.mark.parametrize(
    "end",
    [
        RunEnded(pipeline="rain", run="b", reason="poisoned"),
        ChallengerExpired(pipeline="rain", run="b", reason="no verdict within 14 days"),
        ChallengerSuperseded(pipeline="rain", run="b", by_request="x", reason="a later change point"),
    ],
)
def test_a_challenger_whose_run_ends_is_none(end):
    emits, _ = history(*SHADOW, end)
    assert moves(emits)[2:] == [("challenger", "b", None, 3)]
    assert emits[-1].event.reason == end.reason


def test_a_guard_that_fails_brings_the_previous_model_back():
    emits, state = history(*SHADOW, online(), guard("fail"))
    assert moves(emits)[5:] == [("champion", "a", 1, 4), ("previous", "a", None, 4)]
    assert emits[5].event.previous_version == 2
    assert "the guard found version 2 worse" in emits[5].event.reason
    assert set(state.pipelines["rain"].aliases) == {"champion"}


@pytest.mark.parametrize("verdict", ["pass", "inconclusive"])
def test_a_guard_that_finds_nothing_lets_the_previous_model_go(verdict):
    emits, state = history(*SHADOW, online(), guard(verdict), guard("fail"))
    assert moves(emits)[5:] == [("previous", "a", None, 4)]
    assert set(state.pipelines["rain"].aliases) == {"champion"}


def test_while_promotion_is_paused_a_winner_waits_for_a_person_or_the_end_of_the_pause():
    paused = AutomationPaused(pipeline="rain", reason="three failed")
    emits, state = history(*SHADOW, paused, online())
    assert "automatic promotion is paused" in emits[-1].event.reason
    assert emits[-1].event.next == "headrace promote rain 2"
    assert len(moves(fold(AutomationResumed(pipeline="rain", by="ann"), state=state))) == 3


def test_where_a_policy_wants_approval_a_person_promotes_what_has_won():
    emits, state = history(*SHADOW, online(), gates=Gates(approval=True))
    assert "asks for a person's approval" in emits[-1].event.reason
    approved = fold(PromotionAsked(pipeline="rain", request="p", by="ann", version=2, reason="fine"), state=state)
    assert moves(approved)[1] == ("champion", "b", 2, 3)
    assert (approved[1].event.request, approved[1].event.forced_by) == ("p", None)
    assert approved[1].event.reason.startswith("approved by ann: fine; online gate passed over 200 labels")


def test_before_its_online_gate_a_challenger_is_promoted_by_force_only_and_recorded_so():
    emits, state = history(*SHADOW, PromotionAsked(pipeline="rain", request="p", by="ann", version=2))
    assert "has not passed its online gate yet; --force" in emits[-1].event.reason
    forced = PromotionAsked(pipeline="rain", request="f", by="ann", version=2, forced=True)
    assert [e.event.forced_by for e in fold(forced, state=state) if isinstance(e.event, ModelUpdated)] == [None, "ann"]


def test_a_person_rolls_back_to_the_model_that_stands_by():
    emits, _ = history(*SHADOW, online(), RollbackAsked(pipeline="rain", request="r", by="ann", reason="odd"))
    assert moves(emits)[5:] == [("champion", "a", 1, 4), ("previous", "a", None, 4)]
    assert (emits[5].event.request, emits[5].event.reason) == ("r", "asked by ann: odd")


def test_a_version_whose_run_ended_serves_frozen_as_its_newest_snapshot():
    back = RollbackAsked(pipeline="rain", request="r", by="ann", version=1, uri="newest", snapshot_offset=900)
    emits, state = history(*SHADOW, online(), guard("pass"), back)
    (updated,) = [e.event for e in emits[-1:]]
    assert (updated.alias, updated.version, updated.uri, updated.snapshot_offset) == ("champion", 1, "newest", 900)
    assert updated.follows is False
    assert moves(fold(*asked_for("c", trigger="rollback"), *gates_of("c", epoch=5), state=state)) == [
        ("champion", "c", 3, 6)
    ]


# --- canary -----------------------------------------------------------------------------------------------

CANARY = {"rollout": Rollout(steps=(0.1, 0.5))}
PAUSE = AutomationPaused(pipeline="rain", reason="three failed")
RESUME = AutomationResumed(pipeline="rain", by="ann")
PROMOTE = PromotionAsked(pipeline="rain", request="p", by="ann", version=2)
FORCE = PromotionAsked(pipeline="rain", request="f", by="ann", version=2, forced=True)


def shares(emits):
    """The challenger's share at each move of its alias, and "" where it lost it."""
    return [
        e.event.share if isinstance(e.event, ModelUpdated) else ""
        for e in emits
        if isinstance(e.event, ModelUpdated | AliasRemoved) and e.event.alias == "challenger"
    ]


def test_a_challenger_that_wins_serves_a_tenth_then_half_then_all():
    emits, state = history(*SHADOW, online(), step_of(0.1), step_of(0.5, epoch=4), **CANARY)
    assert moves(emits)[1:] == [
        ("challenger", "b", 2, 2),
        ("challenger", "b", 2, 3),
        ("challenger", "b", 2, 4),
        ("previous", "a", 1, 5),
        ("champion", "b", 2, 5),
        ("challenger", "b", None, 5),
    ]
    assert shares(emits) == [None, 0.1, 0.5, ""]
    first, second, champion = (emits[index].event for index in (2, 3, 5))
    assert first.reason == "online gate passed over 200 labels: evidence 25 against 20"
    assert second.reason == "canary step of 10% passed over 200 labels: evidence 0.2 against 20"
    assert champion.reason.startswith("canary step of 50% passed")
    assert champion.share is None
    assert set(state.pipelines["rain"].aliases) == {"champion", "previous"}


@pytest.mark.parametrize("verdict", ["fail", "error", "inconclusive"])
def test_a_step_that_does_not_pass_takes_the_challenger_away(verdict):
    emits, state = history(*SHADOW, online(), step_of(0.1, verdict), **CANARY)
    assert shares(emits) == [None, 0.1, ""]
    assert "canary step of 10% over 200 labels" in emits[-1].event.reason
    assert set(state.pipelines["rain"].aliases) == {"champion"}
    assert moves(fold(step_of(0.1), state=state)) == []


@pytest.mark.parametrize(
    "stale",
    [
        step_of(0.5),
        step_of(0.1, epoch=2),
        step_of(0.1, run="z"),
        step_of(0.1, against="z"),
        online(epoch=3),
        online(verdict="fail", epoch=3),
    ],
    ids=["another step", "before the step began", "another run", "another champion", "shadow", "a loss in shadow"],
)
def test_a_verdict_about_another_step_moves_nothing(stale):
    emits, _ = history(*SHADOW, online(), stale, **CANARY)
    assert shares(emits) == [None, 0.1]
    assert len(emits) == 3


def test_a_step_read_twice_moves_once_and_one_before_the_canary_not_at_all():
    assert shares(history(*SHADOW, online(), step_of(0.1), step_of(0.1), **CANARY)[0]) == [None, 0.1, 0.5]
    assert shares(history(*SHADOW, step_of(0.1, epoch=2), **CANARY)[0]) == [None]


def test_that_it_is_worse_holds_at_every_step_though_found_at_an_earlier_one():
    emits, _ = history(*SHADOW, online(), step_of(0.1), step_of(0.1, "fail"), **CANARY)
    assert shares(emits) == [None, 0.1, 0.5, ""]


def test_while_promotion_is_paused_a_step_waits_and_goes_on_at_the_end_of_the_pause():
    emits, state = history(*SHADOW, online(), PAUSE, step_of(0.1), **CANARY)
    assert shares(emits) == [None, 0.1]
    assert (emits[-1].event.kind, emits[-1].event.next) == ("ModelValidated", "headrace promote rain 2")
    assert shares(fold(RESUME, state=state)) == [0.5]


def test_in_a_pause_a_step_that_fails_still_ends_the_canary():
    emits, state = history(*SHADOW, online(), PAUSE, step_of(0.1), step_of(0.1, "fail"), **CANARY)
    assert shares(emits) == [None, 0.1, ""]
    assert fold(RESUME, state=state) == []


def test_a_person_lets_a_waiting_challenger_take_its_next_step_and_skips_the_steps_by_force_only():
    emits, state = history(*SHADOW, PAUSE, online(), PROMOTE, **CANARY)
    assert shares(emits) == [None, 0.1]
    assert (emits[-1].event.request, emits[-1].event.forced_by) == ("p", None)
    again = PROMOTE.model_copy(update={"request": "again"})
    (refused,) = fold(again, state=state)
    assert "serves 10% in its canary and has not passed that step yet; --force" in refused.event.reason
    forced = fold(FORCE, state=state)
    assert moves(forced)[1] == ("champion", "b", 2, 4)
    assert (forced[1].event.forced_by, forced[1].event.reason) == ("ann", "forced by ann")


def test_by_force_a_challenger_that_won_in_shadow_skips_its_canary_and_that_is_recorded():
    emits, _ = history(*SHADOW, PAUSE, online(), FORCE, **CANARY)
    (champion,) = [e.event for e in emits[2:] if isinstance(e.event, ModelUpdated) and e.event.alias == "champion"]
    assert champion.forced_by == "ann"


def test_approval_is_asked_before_the_challenger_serves_anybody_and_not_again():
    emits, state = history(*SHADOW, online(), PAUSE, RESUME, gates=Gates(approval=True), **CANARY)
    assert shares(emits) == [None]
    assert shares(fold(PROMOTE, step_of(0.1), step_of(0.5, epoch=4), state=state)) == [0.1, 0.5, ""]


def test_after_a_rollback_a_challenger_in_its_canary_serves_nobody_and_has_to_win_anew():
    third = (*asked_for("c"), *gates_of("c", against="b", epoch=5))
    before = (*SHADOW, online(), step_of(0.1), step_of(0.5, epoch=4), *third, online("c", "b", epoch=6))
    back = RollbackAsked(pipeline="rain", request="r", by="ann")
    emits, state = history(*before, back, **CANARY)
    assert moves(emits)[-4:] == [
        ("challenger", "c", 3, 7),
        ("champion", "a", 1, 8),
        ("previous", "a", None, 8),
        ("challenger", "c", 3, 8),
    ]
    assert shares(emits)[-2:] == [0.1, None]
    late = step_of(0.1, run="c", against="b", epoch=7)
    assert shares(fold(late, online("c", "a", epoch=8), state=state)) == [0.1]


def test_what_waited_for_the_end_of_a_pause_is_no_win_over_the_champion_that_a_rollback_brought():
    third = (*asked_for("c"), *gates_of("c", against="b", epoch=3))
    back = RollbackAsked(pipeline="rain", request="r", by="ann")
    _, state = history(*SHADOW, online(), *third, PAUSE, online("c", "b", epoch=4), back)
    assert fold(RESUME, state=state) == []


@pytest.mark.parametrize(("steps", "then"), [((), [None, 0.1, ""]), ((0.05, 0.2), [None, 0.1, 0.2])])
def test_steps_that_a_release_changes_hold_from_the_next_one_on(steps, then):
    changed = ask("q2", rollout=Rollout(steps=steps))
    emits, _ = history(*SHADOW, online(), changed, step_of(0.1), **CANARY)
    assert shares(emits) == then


def test_versions_are_numbered_on_and_aliases_are_where_they_were_last_put():
    second = (*asked_for("c"), *gates_of("c", against="b", epoch=4))
    emits, state = history(*SHADOW, online(), guard("pass"), *second, online("c", "b", epoch=5))
    assert [v.version for v in models(state, "rain")[0]] == [1, 2, 3]
    assert {alias: update.version for alias, update in models(state, "rain")[1].items()} == {
        "champion": 3,
        "previous": 2,
    }
    assert [e.event.epoch for e in emits if hasattr(e.event, "epoch")] == sorted(
        e.event.epoch for e in emits if hasattr(e.event, "epoch")
    )


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


# --- pins -------------------------------------------------------------------------------------------------


def pin(request, run="a", uri="model/a", pinned=True):
    return PinAsked(
        pipeline="rain", request=request, by="ann", run=run, snapshot_offset=212, uri=uri, reason="audit", pinned=pinned
    )


def test_a_snapshot_is_pinned_once_and_let_go_once():
    served = [ask(), started(), OFFLINE, INFRA]
    asked = [pin("p1"), pin("p1"), pin("p2"), pin("p3", pinned=False), pin("p4", pinned=False), pin("p5")]
    emits = fold(*served, *asked)[-5:]
    assert {emit.topic for emit in emits} == {"decisions"}
    assert [(emit.event.request, getattr(emit.event, "pinned", None)) for emit in emits] == [
        ("p1", True), ("p2", None), ("p3", False), ("p4", None), ("p5", True),
    ]  # fmt: skip
    assert emits[0].event.model_dump() == pin("p1").model_dump()
    assert "pinned already" in emits[1].event.reason
    assert "is not pinned" in emits[3].event.reason


@pytest.mark.parametrize("before", [[], [ask()], [ask(), RETIRE]])
def test_what_no_version_stands_for_is_not_pinned(before):
    (refused,) = [emit.event for emit in fold(*before, pin("p")) if getattr(emit.event, "request", "") == "p"]
    assert isinstance(refused, RequestRefused)
    assert refused.next
