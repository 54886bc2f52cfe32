"""The trainer's folds: a run learns each labelled example once; control decides which runs live; revisions thin out."""

import itertools
from datetime import UTC, datetime

import pytest

from headrace import model_bytes
from headrace.schemas.contract import ContractSpec, FeatureSpec, LabelSpec
from headrace.schemas.control import (
    AliasRemoved,
    ChallengerSuperseded,
    LineageRecorded,
    ModelUpdated,
    ModelValidated,
    PipelineReleased,
    PipelineRetired,
    ReleaseDefinition,
    RequestRefused,
    RevisionPinned,
    RunEnded,
    RunStarted,
    TrainingCompleted,
    TrainingFailed,
    TrainingRequested,
)
from headrace.schemas.policies import Policies
from headrace.schemas.record import Record
from headrace.schemas.stream import ExampleLabelled, LabelCorrected, PredictionMade, Tick
from headrace.services.trainer import control, core
from headrace.services.trainer.progress import Progress
from headrace.services.trainer.snapshots import without
from headrace.services.trainer.thinning import DAY_MS, HOUR_MS, Revision, superfluous

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Counting:
    """A model that answers how many labels it learned, and remembers what it was given."""

    def __init__(self, broken=()):
        self.broken, self.seen = broken, []

    def predict_proba_one(self, x):
        return {True: len(self.seen) / 1000}

    def learn_one(self, x, y):
        if x.get("x") in self.broken:
            raise ZeroDivisionError("poison")
        self.seen.append((x, y))


def world(end_at=None, recipe=lambda seed: Counting(), excluded=(), columns=None, releases=(1,), label="bool"):
    started = RunStarted(
        pipeline="rain",
        run="a",
        request="q",
        release=1,
        seed=3,
        start_offset=0,
        end_at_labels=end_at,
        excluded=excluded,
    )
    return core.World(started, recipe, LabelSpec(type=label), True, columns or {"x": True}, frozenset(releases))


def labelled(number=1, label=True, release=1, features=None):
    made = PredictionMade(
        id=str(number),
        time=NOON,
        features=features or {"x": float(number)},
        predictions={},
        served=None,
        release=release,
        epoch=0,
        origin=(0, number),
    )
    return ExampleLabelled(
        prediction=made,
        label=label,
        predicted_at_ms=0,
        labelled_at_ms=0,
        partition=0,
        number=number,
        pending_from=0,
        known_to=0,
    )


def at(event, offset=0):
    return Record(event, 1_000 + offset, "<p>.labelled-examples", "rain", 0, offset)


def learn(run, events, state=None):
    """The state after the events, and what the run told, as (offset, event)."""
    state = state or core.begin(run)
    told = []
    for offset, event in enumerate(events):
        told += [(offset, emit.event) for emit in core.step(state, at(event, offset), run)]
    return state, told


# --- a run -------------------------------------------------------------------------------------------------


def test_each_example_is_predicted_before_it_is_learned():
    state, _ = learn(world(), [labelled(n, label=False) for n in range(3)])
    assert state.model.seen == [({"x": float(n)}, False) for n in range(3)]
    assert state.progress.square == pytest.approx((0 + 0.001**2 + 0.002**2) / 3)
    assert (state.n_learned, state.progress.n) == (3, 3)


def test_what_is_no_labelled_example_changes_nothing():
    state, told = learn(
        world(end_at=1),
        [
            Tick(schedule="minute", due=NOON),
            LabelCorrected(id="1", first=True, corrected=False, labelled_at_ms=0),
            PipelineRetired(pipeline="rain", request="q", by="ann"),
        ],
    )
    assert (state.n_learned, told) == (0, [])


def test_the_gates_are_told_at_the_end_of_the_range_and_at_each_doubling():
    _, told = learn(world(end_at=3), [Tick(schedule="minute", due=NOON), *(labelled(n) for n in range(25))])
    assert [(offset, e.n_labels, e.start_offset, e.end_offset) for offset, e in told] == [
        (3, 3, 0, 4),
        (6, 6, 0, 7),
        (12, 12, 0, 13),
        (24, 24, 0, 25),
    ]
    assert {(e.pipeline, e.run, e.request, e.release) for _, e in told} == {("rain", "a", "q", 1)}


def test_a_run_without_an_end_tells_nothing_and_one_that_may_serve_at_once_tells_at_each_doubling():
    assert learn(world(end_at=None), [labelled(n) for n in range(9)])[1] == []
    assert [e.n_labels for _, e in learn(world(end_at=0), [labelled(n) for n in range(9)])[1]] == [1, 2, 4, 8]


def test_excluded_ranges_and_skipped_offsets_are_not_learned():
    state = core.begin(world())
    state.skipped = [7]
    state, _ = learn(world(excluded=((2, 4), (5, 6))), [labelled(n) for n in range(9)], state)
    assert [x["x"] for x, _ in state.model.seen] == [0.0, 1.0, 4.0, 6.0, 8.0]
    assert state.n_learned == 5


def test_the_end_of_a_range_names_what_was_skipped_before_it():
    state = core.begin(world(end_at=3))
    state.skipped = [1, 4, 7]
    _, told = learn(world(end_at=3), [labelled(n) for n in range(9)], state)
    assert [(e.end_offset, e.skipped) for _, e in told] == [(4, (1,)), (9, (1, 4, 7))]


def test_a_run_learns_only_the_columns_of_its_signature():
    run = world(columns={"x": True, "y": False})
    state, _ = learn(run, [labelled(1, release=2, features={"new": 1.0, "y": 2.0, "x": 3.0})])
    assert [list(x.items()) for x, _ in state.model.seen] == [[("y", 2.0), ("x", 3.0)]]


def test_an_example_without_a_required_column_is_counted_and_not_learned():
    state, _ = learn(world(columns={"z": True}), [labelled(1, release=2)])
    assert (state.model.seen, state.n_learned, state.unusable) == ([], 0, 1)


def test_a_predict_that_raises_is_no_reason_not_to_learn():
    class Mute(Counting):
        def predict_proba_one(self, x):
            raise RuntimeError("no answer")

    state, _ = learn(world(recipe=lambda seed: Mute()), [labelled(n) for n in range(4)])
    assert (state.n_learned, state.progress.n) == (4, 0)
    assert state.progress.metrics() == {}


def test_a_learn_that_raises_rises():
    with pytest.raises(ZeroDivisionError):
        learn(world(recipe=lambda seed: Counting(broken={2.0})), [labelled(n) for n in range(4)])


def test_the_recipe_gets_the_seed_of_the_run():
    seeds = []
    core.step(core.State(), at(labelled()), world(recipe=lambda seed: seeds.append(seed) or Counting()))
    assert seeds == [3]


def test_a_state_saved_between_two_records_goes_on_as_if_it_had_not_been():
    run = core.example_world()
    events = [labelled(n, label=n % 3 == 0, features={"x": float(n % 7), "z": n / 9}) for n in range(60)]
    whole, told = learn(run, events)
    state, parts = core.begin(run), []
    for offset, event in enumerate(events):
        state = model_bytes.loads(model_bytes.dumps(state))
        parts += [(offset, emit.event) for emit in core.step(state, at(event, offset), run)]
    assert parts == told != []
    assert model_bytes.digest(state.model) == model_bytes.digest(whole.model)
    assert (state.progress, state.n_learned) == (whole.progress, whole.n_learned)


def test_only_the_newest_inputs_are_kept():
    state, _ = learn(world(), [labelled(n) for n in range(core.RECENT + 50)])
    assert [len(state.recent), state.recent[0]["x"]] == [core.RECENT, 50.0]


def test_the_lean_decoder_reads_what_the_joiner_writes():
    from headrace.schemas.codec import encode

    lean = core.DECODERS["ExampleLabelled"](encode(labelled(4, label="wet")))
    assert (lean.prediction.features, lean.prediction.release, lean.label) == ({"x": 4.0}, 1, "wet")


@pytest.mark.parametrize(
    ("rows", "scores"),
    [
        ([(0.75, True), (0.75, False)], {"accuracy": 0.5, "logloss": 0.8369882167858358, "brier": 0.3125}),
        ([(1.0, False)], {"accuracy": 0.0, "logloss": 34.53957599234088, "brier": 1.0}),
        ([({"a": 1.0}, "b")], {"accuracy": 0.0, "logloss": 34.538776394910684, "brier": 1.0}),
        ([({"a": 0.25, "b": 0.75}, "b")], {"accuracy": 1.0, "logloss": 0.2876820724517809, "brier": 0.0625}),
        ([("a", "a"), ("a", "b")], {"accuracy": 0.5}),
        ([(True, True), (True, False)], {"accuracy": 0.5}),
        ([(1.0, 3.0), (2.0, 2.0)], {"mae": 1.0, "rmse": 2**0.5}),
    ],
)
def test_scores_of_a_few_rows_worked_out_by_hand(rows, scores):
    progress = Progress()
    for value, label in rows:
        progress.score(value, label)
    assert progress.metrics() == pytest.approx(scores)


# --- which runs live ---------------------------------------------------------------------------------------


def released(release=1):
    none = "0" * 64
    definition = ReleaseDefinition(
        contract=ContractSpec(name="W", features=(FeatureSpec(name="x", type="float"),), label=LabelSpec(type="bool")),
        policies=Policies(),
        contract_digest=none,
        policies_digest=none,
        recipe_digest=none,
        source_digest=none,
        source_uri="none",
    )
    return PipelineReleased(
        pipeline="rain", release=release, definition=definition, partitions=1, request="r", by="ann"
    )


def requested(request="first-model-1", release=1, **more):
    return TrainingRequested(
        pipeline="rain",
        request=request,
        trigger="first_model",
        cause="release 1",
        release=release,
        seed=0,
        start=0,
        end_at_labels=200,
        **more,
    )


def champion(run, version=1, follows=True, alias="champion"):
    return ModelUpdated(
        pipeline="rain",
        alias=alias,
        version=version,
        run=run,
        release=1,
        snapshot_offset=200,
        uri=f"{run}@200",
        follows=follows,
        epoch=version,
        reason="",
    )


def decide(events):
    """Fold events in the order of `control-log`; what the fold writes to `training-runs` is read back at once."""
    state, queue, told = control.State(), list(events), []
    offsets = itertools.count()
    while queue:
        event = queue.pop(0)
        offset = next(offsets)
        record = Record(event, 1_000 * offset, "control-log", "", 0, offset)
        written = control.step(state, record, None)
        told += [emit.event for emit in written]
        queue = [emit.event for emit in written if emit.topic == "training-runs"] + queue
    return state, told


def live(state):
    return list(state.pipelines["rain"].live)


def runs_told(told):
    return [event for event in told if not isinstance(event, LineageRecorded)]


A, B = control.run_id(requested()), control.run_id(requested("again"))


def test_a_request_starts_a_run_that_lives_once_its_start_is_read_back():
    state, told = decide([released(), requested()])
    assert live(state) == [A]
    assert runs_told(told) == [
        RunStarted(
            pipeline="rain", run=A, request="first-model-1", release=1, seed=0, start_offset=0, end_at_labels=200
        )
    ]
    only_asked = control.State()
    control.step(only_asked, Record(released(), 0, "control-log", "", 0, 0), None)
    control.step(only_asked, Record(requested(), 0, "control-log", "", 0, 1), None)
    assert only_asked.pipelines["rain"].live == {}


def test_a_run_is_named_by_its_request_alone():
    assert control.run_id(requested()) == A != B
    assert control.run_id(requested().model_copy(update={"seed": 9, "cause": "other"})) == A


def test_a_request_told_twice_starts_one_run():
    _, told = decide([released(), requested(), requested()])
    assert [type(event) for event in runs_told(told)] == [RunStarted]


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ([requested()], "there is no release 1 of rain"),
        ([released(), requested(release=2)], "there is no release 2 of rain"),
        ([released(), PipelineRetired(pipeline="rain", request="x", by="ann"), requested()], "rain was retired"),
    ],
)
def test_a_request_that_cannot_start_fails_with_its_reason(events, reason):
    state, told = decide(events)
    assert runs_told(told) == [TrainingFailed(pipeline="rain", request="first-model-1", run=None, reason=reason)]
    assert live(state) == []


def test_a_newer_run_takes_the_place_of_one_that_never_got_a_version():
    state, told = decide([released(), requested(), requested("again")])
    assert live(state) == [B]
    assert RunEnded(pipeline="rain", run=A, reason=f"run {B} took its place") in told


def test_a_run_that_serves_goes_on_beside_a_newer_one():
    state, told = decide([released(), requested(), champion(A), requested("again")])
    assert live(state) == [A, B]
    assert not [event for event in told if isinstance(event, RunEnded)]


def test_a_run_ends_where_its_last_alias_goes_to_another_run():
    state, _ = decide([released(), requested(), champion(A), requested("again"), champion(B, version=2)])
    assert live(state) == [B]
    kept, _ = decide(
        [
            released(),
            requested(),
            champion(A),
            requested("again"),
            champion(A, alias="previous"),
            champion(B, version=2),
        ]
    )
    assert live(kept) == [A, B]


def removed(run, alias="challenger", reason="the online gate failed"):
    return AliasRemoved(pipeline="rain", alias=alias, run=run, epoch=9, reason=reason)


def test_a_run_ends_where_its_last_alias_is_removed():
    challenges = [released(), requested(), champion(A), requested("again"), champion(B, 2, alias="challenger")]
    state, told = decide([*challenges, removed(B)])
    assert live(state) == [A]
    assert runs_told(told)[-1] == RunEnded(pipeline="rain", run=B, reason="the online gate failed")


def test_a_run_that_waits_for_its_gates_does_not_end_with_an_alias_that_it_never_had():
    state, _ = decide([released(), requested(), champion(A), requested("again"), removed(B), removed(B, "previous")])
    assert live(state) == [A, B]


def test_what_an_alias_ever_named_is_remembered():
    state, _ = decide([released(), requested(), champion(A), requested("again"), champion(B, version=2)])
    assert state.pipelines["rain"].versions == {f"{A}@200": 1, f"{B}@200": 2}


def test_an_anchor_is_kept_as_long_as_it_is_one_and_neither_ends_a_run_nor_keeps_it():
    first, second = (
        champion(A, alias="anchor", follows=False).model_copy(update={"uri": uri}) for uri in ("old", "new")
    )
    state, _ = decide([released(), requested(), champion(A), first, second])
    assert live(state) == [A]
    assert "new" in state.pipelines["rain"].kept()
    assert "old" not in state.pipelines["rain"].kept()
    state, _ = decide([released(), requested(), champion(A), second, requested("again"), champion(B, version=2)])
    assert live(state) == [B]


def test_a_pinned_snapshot_is_kept_until_it_is_pinned_no_longer():
    def pinned(uri, pinned=True):
        return RevisionPinned(
            pipeline="rain", run=A, snapshot_offset=212, uri=uri, request="p", by="ann", pinned=pinned
        )

    state, _ = decide([released(), requested(), champion(A), pinned("x"), pinned("y"), pinned("x", pinned=False)])
    assert state.pipelines["rain"].kept() >= {f"{A}@200", "y"}
    assert "x" not in state.pipelines["rain"].kept()


def test_a_run_with_a_parent_is_asked_for_like_any_other():
    state, _ = decide([released(), requested(parent="model/b")])
    assert state.pipelines["rain"].live[A].started.parent == "model/b"


def test_a_promoted_challenger_and_the_model_before_it_go_on_learning():
    moves = [champion(A, alias="previous"), champion(B, version=2), removed(B, reason="promoted")]
    history = [released(), requested(), champion(A), requested("again"), champion(B, 2, alias="challenger"), *moves]
    state, told = decide(history)
    assert live(state) == [A, B]
    assert not [event for event in told if isinstance(event, RunEnded)]
    state, told = decide([*history, removed(A, "previous", "the guard passed")])
    assert live(state) == [B]
    assert runs_told(told)[-1] == RunEnded(pipeline="rain", run=A, reason="the guard passed")


def test_the_alias_that_a_run_lost_no_longer_keeps_it():
    history = [released(), requested(), champion(A), requested("again"), champion(B, 2, alias="challenger")]
    state, _ = decide([*history, champion(A, alias="previous"), champion(B, 2), removed(B), champion(A, version=3)])
    assert live(state) == [A]


def test_a_superseded_challenger_ends_and_a_champion_does_not():
    def superseded(run):
        return ChallengerSuperseded(pipeline="rain", run=run, by_request="again", reason="a later change point")

    state, told = decide([released(), requested(), superseded(A)])
    assert live(state) == []
    assert runs_told(told)[-1] == RunEnded(pipeline="rain", run=A, reason="a later change point")
    state, _ = decide([released(), requested(), champion(A), superseded(A)])
    assert live(state) == [A]


def test_a_challenger_that_is_superseded_while_a_person_promotes_it_goes_on_until_the_registry_takes_its_alias_away():
    superseded = ChallengerSuperseded(pipeline="rain", run=B, by_request="third", reason="asked by ann")
    history = [released(), requested(), champion(A), requested("again"), champion(B, 2, alias="challenger"), superseded]
    state, _ = decide([*history, champion(A, alias="previous"), champion(B, 2), removed(B)])
    assert live(state) == [A, B]
    state, _ = decide([*history, removed(B)])
    assert live(state) == [A]


def gate(stage, run, offset=200, verdict="pass", against=None):
    return ModelValidated(
        pipeline="rain", run=run, request="first", stage=stage, verdict=verdict, checks=(), n_labels=200,
        offset=offset, against=against,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("verdict", "against", "runs"),
    [("fail", A, [A]), ("error", A, [A]), ("inconclusive", A, [A, B]), ("fail", None, [A, B])],
)
def test_a_challenger_that_fails_before_it_has_a_version_ends_and_one_of_which_too_little_is_known_goes_on(
    verdict, against, runs
):
    challenge = [released(), requested(), champion(A), requested("again")]
    state, _ = decide([*challenge, gate("offline", B, verdict=verdict, against=against)])
    assert live(state) == runs


def test_a_run_that_passed_its_gates_before_it_was_superseded_lives_until_the_registry_has_spoken():
    superseded = ChallengerSuperseded(pipeline="rain", run=A, by_request="again", reason="release 2")
    history = [released(), requested(), gate("offline", A), gate("infra", A), superseded]
    state, _ = decide(history)
    assert live(state) == [A]
    state, _ = decide([*history, requested("again"), champion(A)])
    assert live(state) == [A, B]
    refused = RequestRefused(pipeline="rain", request="first", kind="ModelValidated", reason="", numbers={"run": A})
    state, told = decide([*history, refused])
    assert live(state) == []
    assert runs_told(told)[-1].reason == "release 2"
    retired = PipelineRetired(pipeline="rain", request="q", by="ann")
    state, _ = decide([*history, retired])
    assert live(state) == []


@pytest.mark.parametrize("gates", [[("infra", 200)], [("offline", 200)], [("offline", 400), ("infra", 200)]])
def test_a_run_that_did_not_pass_both_gates_of_one_range_ends_when_it_is_superseded(gates):
    superseded = ChallengerSuperseded(pipeline="rain", run=A, by_request="again", reason="release 2")
    state, _ = decide([released(), requested(), *(gate(stage, A, offset) for stage, offset in gates), superseded])
    assert live(state) == []


def test_a_run_that_serves_frozen_learns_no_more():
    state, told = decide([released(), requested(), champion(A, follows=False)])
    assert live(state) == []
    assert runs_told(told)[-1].reason == "version 1 serves frozen, as snapshot 200"


def test_retirement_ends_every_run_once():
    retired = PipelineRetired(pipeline="rain", request="x", by="ann")
    state, told = decide([released(), requested(), champion(A), requested("again"), retired, retired])
    assert live(state) == []
    ended = [event for event in told if isinstance(event, RunEnded)]
    assert [event.run for event in ended] == [A, B]


def test_a_run_that_is_about_to_end_is_ended_once():
    state, told = control.State(), []
    retired = PipelineRetired(pipeline="rain", request="x", by="ann")
    started = RunStarted(pipeline="rain", run=A, request="q", release=1, seed=0, start_offset=0)
    for offset, event in enumerate([released(), started, retired, retired]):
        told += control.step(state, Record(event, 0, "control-log", "", 0, offset), None)
    assert [type(emit.event) for emit in told] == [LineageRecorded, RunEnded]


def test_a_run_whose_start_is_read_after_the_retirement_ends():
    state = control.State()
    retired = PipelineRetired(pipeline="rain", request="x", by="ann")
    started = RunStarted(pipeline="rain", run=A, request="q", release=1, seed=0, start_offset=0)
    for offset, event in enumerate([released(), requested(), retired]):
        control.step(state, Record(event, 0, "control-log", "", 0, offset), None)
    (ended,) = control.step(state, Record(started, 0, "control-log", "", 0, 3), None)
    assert ended.event == RunEnded(pipeline="rain", run=A, reason="the pipeline was retired")


def failure(run, offset):
    return TrainingFailed(pipeline="rain", request="q", run=run, reason="ZeroDivisionError", offset=offset)


def test_a_run_that_can_learn_nothing_ends_and_one_that_serves_goes_on():
    poison = [failure(A, offset) for offset in range(control.SKIPPED_AT_MOST)]
    state, _ = decide([released(), requested(), *poison[:-1]])
    assert live(state) == [A]
    state, _ = decide([released(), requested(), *poison])
    assert live(state) == []
    state, _ = decide([released(), requested(), champion(A), *poison, *poison])
    assert live(state) == [A]


def test_a_run_that_could_not_begin_ends():
    state, _ = decide([released(), requested(), failure(A, None)])
    assert live(state) == []


def test_lineage_names_the_start_and_the_end_of_a_run(valid_lineage):
    _, told = decide([released(), requested(), requested("again")])
    events = [valid_lineage(event.run_event) for event in told if isinstance(event, LineageRecorded)]
    assert [(e["eventType"], e["run"]["facets"]["headrace"]["run"]) for e in events] == [
        ("START", A),
        ("START", B),
        ("COMPLETE", A),
    ]
    assert events[0]["run"]["runId"] == events[2]["run"]["runId"] != events[1]["run"]["runId"]
    assert events[0]["eventTime"] == "1970-01-01T00:00:02.000+00:00"
    assert {e["job"]["name"] for e in events} == {"rain.trainer"}


@pytest.mark.parametrize(
    "poison", [[failure(A, None)], [failure(A, offset) for offset in range(control.SKIPPED_AT_MOST)]]
)
def test_lineage_says_that_a_run_failed(valid_lineage, poison):
    _, told = decide([released(), requested(), *poison])
    last = valid_lineage([event for event in told if isinstance(event, LineageRecorded)][-1].run_event)
    assert last["eventType"] == "FAIL"
    assert poison[-1].reason in last["run"]["facets"]["headrace"]["reason"]


def test_pipelines_do_not_meet():
    other = requested().model_copy(update={"pipeline": "snow"})
    state, told = decide([released(), requested(), released().model_copy(update={"pipeline": "snow"}), other])
    assert (len(state.pipelines["rain"].live), len(state.pipelines["snow"].live)) == (1, 1)
    assert not [event for event in told if isinstance(event, RunEnded)]


def test_completions_and_other_decisions_pass():
    done = TrainingCompleted(
        pipeline="rain", run=A, request="q", release=1, n_labels=200, start_offset=0, end_offset=200
    )
    state, told = decide([released(), requested(), done, Tick(schedule="minute", due=NOON)])
    assert live(state) == [A]
    assert len(runs_told(told)) == 1


# --- revisions ---------------------------------------------------------------------------------------------


def thinned(revisions, now_ms, kept=()):
    left = dict(revisions)
    for uri in superfluous(left, now_ms, kept):
        del left[uri]
    return left


def each(step_ms, until_ms, run="a"):
    return {f"{run}{t}": Revision(run, t, t) for t in range(0, until_ms, step_ms)}


def test_nothing_goes_before_a_newer_one_has_stood_for_an_hour():
    revisions = each(60_000, HOUR_MS)
    assert superfluous(revisions, HOUR_MS - 60_000, ()) == []
    assert superfluous(revisions, HOUR_MS + 60_000 - 1, ()) == []
    assert superfluous(revisions, HOUR_MS + 120_000, ()) == ["a60000"]  # a0 stands for its hour


def test_the_last_of_each_run_stays_until_a_newer_one_of_its_own_has_stood():
    ended, on = {f"a{n}": Revision("a", n, n) for n in range(3)}, each(HOUR_MS, 40 * DAY_MS, "b")
    left = thinned(ended | on, 80 * DAY_MS)
    assert [uri for uri in left if uri.startswith("a")] == ["a2"]
    alone = {f"{run}{n}": Revision(run, n, n) for n in range(30) for run in "ab"}
    assert len(thinned(alone, 40 * DAY_MS)) == 20


def test_the_last_ten_stay_however_old():
    revisions = each(60_000, 30 * 60_000)
    left = thinned(revisions, 400 * DAY_MS)
    assert list(left) == list(revisions)[-10:]


def test_the_last_ten_of_each_run_in_lockstep_stay():
    revisions = {}
    for t in range(30):
        revisions |= {f"a{t}": Revision("a", t, t), f"b{t}": Revision("b", t, t)}
    assert len(thinned(revisions, 400 * DAY_MS)) == 20
    hourly = thinned(revisions, 3 * HOUR_MS)
    assert {(r.run, r.offset) for r in hourly.values()} == {(run, t) for run in "ab" for t in (0, *range(20, 30))}


def test_one_an_hour_stays_for_a_day_and_one_a_day_for_a_month():
    revisions, now = {}, 40 * DAY_MS
    for t in range(0, now, 10 * 60_000):  # thinned as it goes, every ten minutes
        revisions[f"a{t}"] = Revision("a", t, t)
        revisions = thinned(revisions, t)
    ages = [now - revision.taken_ms for revision in revisions.values()]
    hourly = [age for age in ages if 2 * HOUR_MS < age < DAY_MS]
    daily = [age for age in ages if age >= DAY_MS]
    assert len(hourly) in (21, 22)
    assert len(daily) in (29, 30)
    assert max(ages) <= 31 * DAY_MS
    assert len(revisions) < 80


def test_what_a_gate_judged_or_an_alias_names_stays_for_ever():
    revisions = each(60_000, 60 * 60_000)
    revisions["pinned"] = Revision("a", 5, 5, pinned=True)
    revisions = dict(sorted(revisions.items(), key=lambda item: item[1].taken_ms))
    left = thinned(revisions, 400 * DAY_MS, kept=("a120000",))
    assert {"pinned", "a120000"} <= left.keys()
    assert len(left) == 12


@pytest.mark.parametrize(
    ("excluded", "ranges"),
    [
        ((), ((2, 10),)),
        (((4, 6),), ((2, 4), (6, 10))),
        (((0, 3), (9, 20)), ((3, 9),)),
        (((8, 9), (4, 6), (5, 7)), ((2, 4), (7, 8), (9, 10))),
        (((0, 50),), ()),
        (((20, 30),), ((2, 10),)),
    ],
)
def test_the_ranges_learned_are_those_not_excluded(excluded, ranges):
    assert without(2, 10, excluded) == ranges
