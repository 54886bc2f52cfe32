"""The trainer's shell on the in-process log: snapshots between records, crashes, poison, and what it goes on from."""

import pickle
import shutil
from datetime import UTC, datetime

import pytest
from river import linear_model, preprocessing

from headrace import model_bytes
from headrace.infra.continuity import BeyondLog, HistoryGone
from headrace.infra.store import StateForeign
from headrace.infra.worker import StepFailed
from headrace.schemas.control import (
    ModelUpdated,
    RunEnded,
    RunStarted,
    TrainingFailed,
    TrainingRequested,
)
from headrace.schemas.stream import Tick
from headrace.services.trainer import saved

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
EVERY_LABEL = "rollout=Rollout(refresh_s=0)"


@pytest.fixture
def plant(tmp_path, trainer_plant):
    return trainer_plant(tmp_path)


# --- learning and telling ----------------------------------------------------------------------------------


def test_nothing_is_learned_before_a_run_lives_and_then_everything_from_its_start(plant):
    plant.learned(5)
    assert (plant.counts()["runs"], plant.snapshots()) == (0, [])
    plant.ask()
    assert plant.counts()["learned"] == 5
    plant.learned(4)
    assert plant.counts()["learned"] == 9
    assert plant.digest() == plant.plain()


def test_repeats_and_in_band_events_are_not_learned(plant):
    plant.ask()
    plant.label(4)
    for number in (2, 3, 0):
        plant.repeat(number)
    plant.say("<p>.labelled-examples", Tick(schedule="minute", due=NOON), "/joiner/rain/x/0", 50)
    plant.settle()
    assert (plant.counts()["learned"], plant.counts()["repeats"]) == (4, 3)
    assert plant.digest() == plant.plain()


def test_a_snapshot_is_taken_when_it_is_due_and_only_after_something_was_learned(plant):
    plant.ask()
    plant.learned(3)
    assert [taken.offset for taken in plant.snapshots()] == [1]
    plant.learned(2)
    assert len(plant.snapshots()) == 1
    plant.now += 1.0
    plant.settle()
    assert [taken.offset for taken in plant.snapshots()] == [1, 5]
    plant.now += 60.0
    plant.settle()
    assert len(plant.snapshots()) == 2


def test_refresh_0_is_a_snapshot_at_every_label(tmp_path, trainer_plant):
    plant = trainer_plant(tmp_path, EVERY_LABEL)
    plant.ask()
    plant.learned(6)
    assert [taken.offset for taken in plant.snapshots()] == [1, 2, 3, 4, 5, 6]
    assert [shot.n_learned for taken in plant.snapshots() for shot in taken.runs.values()] == [1, 2, 3, 4, 5, 6]


def test_a_snapshot_says_what_it_is(plant):
    plant.ask(end_at=4)
    plant.learned(4)
    model, manifest = plant.newest()
    (record,) = [r for r in plant.records("<p>.snapshots") if r.event.offset == 4]
    (shot,) = record.event.runs.values()
    assert model_bytes.digest(model) == plant.plain() == manifest.structural_digest
    assert (manifest.learned, manifest.n_learned, manifest.offset, manifest.seed) == (((0, 4),), 4, 4, 0)
    assert manifest.sequences == {"/joiner/rain/x/0": 3}
    assert (shot.fit, shot.n_learned, shot.metrics) == (True, 4, manifest.metrics)
    assert {check.name for check in shot.checks} >= {"loads", "answers", "predict_ms"}
    assert record.source == f"/trainer/rain/{plant.bus.topic_id('rain.labelled-examples')[:8]}/0"
    assert record.sequence // 65_536 == 4
    assert record.known_ms == 1_000_003


def test_completions_are_told_by_the_run_and_each_has_a_snapshot_at_its_end(plant):
    plant.ask(end_at=3)
    plant.learned(13)
    (run,) = [e for e in plant.heard("training-runs") if isinstance(e, RunStarted)]
    completed = plant.records("training-completed")
    assert [record.event.n_labels for record in completed] == [3, 6, 12]
    assert {record.source for record in completed} == {f"/trainer/rain/{run.run}"}
    assert {3, 6, 12} <= {taken.offset for taken in plant.snapshots()}
    assert [r.sequence // 65_536 for r in completed] == [2, 5, 11]


def test_a_pipeline_that_serves_from_the_first_row_is_told_before_any_label(tmp_path, trainer_plant):
    plant = trainer_plant(tmp_path, "triggers=Triggers(first_model_at=0)")
    plant.ask(end_at=0)
    (completed,), (taken,) = plant.heard("training-completed"), plant.snapshots()
    assert (completed.n_labels, completed.end_offset, taken.offset) == (0, 0, 0)
    assert plant.newest()[1].n_learned == 0
    plant.learned(4)
    assert [event.n_labels for event in plant.heard("training-completed")] == [0, 1, 2, 4]


def test_quick_checks_that_fail_make_a_snapshot_unfit_unless_they_are_off(tmp_path, trainer_plant):
    for folder, more, fit in (("on", "", False), ("off", ', gates=Gates(quick="off")', True)):
        (tmp_path / folder).mkdir()
        plant = trainer_plant(tmp_path / folder, EVERY_LABEL + more)
        plant.ask()
        for _ in range(20):
            plant.learned()
        plant.learned(x=1e308)  # the scaler's variance overflows: no finite answer any more
        plant.learned(x=-1e308)
        (shot,) = plant.snapshots()[-1].runs.values()
        assert shot.fit is fit
        assert plant.counts()["unfit_in_a_row"] == (0 if fit else plant.counts()["unfit_in_a_row"] or None)


# --- ends --------------------------------------------------------------------------------------------------


def test_a_newer_run_begins_anew_and_ends_in_the_same_model(plant):
    plant.ask()
    plant.learned(6)
    plant.ask("again")
    plant.learned(3)
    told = plant.heard("training-runs")
    assert [type(event) for event in told] == [RunStarted, RunStarted, RunEnded]
    assert plant.counts()["learned"] == 9
    assert plant.digest() == plant.plain()
    assert list(plant.snapshots()[-1].runs) == [told[1].run]


def test_a_second_snapshot_at_an_offset_that_another_run_had_is_not_lost(plant):
    plant.ask(end_at=4)
    plant.learned(4)
    plant.ask("again", end_at=4)
    runs = [next(iter(taken.runs)) for taken in plant.snapshots() if taken.offset == 4]
    assert len(set(runs)) == 2


def test_also_where_the_state_between_the_two_is_lost(plant):
    plant.ask(end_at=4)
    plant.learned(4)
    plant.crash()
    shutil.rmtree(plant.home / "state")
    (started,) = [event for event in plant.heard("training-runs") if isinstance(event, RunStarted)]
    plant.say("control-log", RunEnded(pipeline="rain", run=started.run, reason="superseded"))
    plant.start()
    plant.ask("again", end_at=4)
    runs = [next(iter(taken.runs)) for taken in plant.snapshots() if taken.offset == 4]
    assert len(set(runs)) == 2


def test_a_recipe_that_raises_ends_its_run_with_the_reason(tmp_path, trainer_plant):
    plant = trainer_plant(tmp_path)
    broken = plant.released.definition.model_copy(update={"source_digest": "0" * 64})
    plant.say("pipelines", plant.released.model_copy(update={"release": 2, "definition": broken}))
    plant.say("control-log", plant.released.model_copy(update={"release": 2}))
    plant.say(
        "control-log",
        TrainingRequested(
            pipeline="rain", request="q2", trigger="person", cause="", release=2, seed=0, start=0, end_at_labels=5
        ),
    )
    plant.learned(3)
    started, failed, ended = plant.heard("training-runs")
    assert isinstance(failed, TrainingFailed)
    assert failed.reason.startswith("it could not begin: PipelineFileError")
    assert (ended.run, ended.reason) == (started.run, failed.reason)
    assert plant.counts()["runs"] == 0


# --- crashes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("refresh", ["", EVERY_LABEL], ids=["each second", "each label"])
@pytest.mark.parametrize("after", range(1, 14, 3))
def test_after_a_crash_the_run_ends_in_the_same_model_and_nothing_is_told_twice(
    tmp_path, refresh, after, trainer_plant
):
    plant = trainer_plant(tmp_path, refresh)
    plant.ask(end_at=2)
    for n in range(1, 16):
        plant.now += 0.4
        plant.learned()
        if n % 4 == 0:
            plant.repeat(n - 2)
        if n == after or n == after + 1:
            plant.label(2)
            plant.control.tick()
            plant.lockstep._follow()
            runner = plant.lockstep._runner
            runner._next_commit = float("inf")  # learned and told, but never committed
            plant.lockstep.tick()
            plant.crash()
            plant.start()
    plant.settle()
    told = [e.n_labels for e in plant.heard("training-completed")]
    assert told == [2, 4, 8, 16]
    assert len(plant.rows) == 19
    assert plant.digest() == plant.plain()


def test_a_younger_run_that_stands_further_back_goes_on_from_its_own_place(plant):
    plant.ask()
    plant.learned(6)
    plant.lockstep._runner._batch = 1
    plant.lockstep.tick()
    plant.say(
        "control-log",
        TrainingRequested(pipeline="rain", request="again", trigger="person", cause="", release=1, seed=0, start=0),
    )
    while plant.counts().get("learned") != 3 or plant.counts()["offset"] != 3:
        plant.now += 1.0
        plant.control.tick()
        for event in plant.heard("training-runs")[plant.sequenced :]:
            plant.say("control-log", event)
            plant.sequenced += 1
        plant.lockstep.tick()
    plant.crash()
    plant.start()
    plant.lockstep._runner._batch = 1
    while not plant.counts_or_none() or not plant.counts()["runs"]:
        plant.control.tick()
        plant.lockstep.tick()
    assert plant.counts()["learned"] == 3
    plant.settle()
    assert plant.counts()["learned"] == 6
    assert plant.digest() == plant.plain()


def test_a_quiet_pipeline_leaves_the_group_at_the_end_and_goes_on_from_there(plant):
    plant.ask()
    plant.now += 10
    plant.learned(5)
    plant.now += 10
    plant.settle()
    for minute in range(3):
        plant.say(
            "<p>.labelled-examples", Tick(schedule="minute", due=NOON, pipeline="rain"), "/joiner/rain/y/0", minute
        )
    plant.settle()
    (runs,) = plant.lockstep._workers()
    end = plant.bus.offsets(("rain.labelled-examples", 0))[1]
    assert runs.offset == end == 8
    plant.crash()
    plant.start()
    plant.settle()
    (runs,) = plant.lockstep._workers()
    assert runs.next_offset == end
    plant.learned(3)
    plant.now += 10
    plant.settle()
    assert model_bytes.digest(plant.newest()[0]) == plant.plain()


def test_where_the_decisions_are_lost_the_runs_wait_until_they_are_read_again(plant):
    plant.ask()
    plant.ask("again")
    plant.learned(6)
    plant.lockstep.close()
    plant.control.close()
    for path in (plant.home / "state" / "trainer-control").rglob("*.mdb"):
        path.unlink()
    plant.start()
    plant.control._batch = 1
    plant.settle()
    assert plant.counts()["learned"] == 6
    assert plant.lockstep._runner.handled == 0  # it went on from its own place


def test_what_was_fetched_before_the_place_was_moved_is_not_learned(plant):
    plant.ask()
    plant.learned(4)
    (worker,) = plant.lockstep._workers()
    log = plant.bus.read(("rain.labelled-examples", 0), 0, 10)
    plant.label(3)
    worker.handle(plant.bus.read(("rain.labelled-examples", 0), 6, 1)[0])
    worker.handle(log[1])
    assert plant.counts()["learned"] == 4
    plant.lockstep._runner.seek(worker.place, 6)  # the consumer stands wrong, too
    plant.settle()
    assert plant.counts()["learned"] == 7
    assert plant.digest() == plant.plain()


def test_after_a_clean_stop_nothing_is_learned_again(plant):
    plant.ask()
    plant.learned(7)
    plant.lockstep.close()
    plant.control.close()
    plant.start()
    plant.settle()
    assert plant.counts()["learned"] == 7
    assert plant.counts()["offset"] == 7
    assert plant.lockstep._runner.handled == 0
    plant.learned(2)
    assert plant.digest() == plant.plain()


def test_what_was_learned_again_is_told_under_the_same_sequence(plant):
    plant.ask(end_at=4)
    plant.learned()
    plant.lockstep._runner._next_commit = float("inf")
    plant.label(6)
    plant.lockstep.tick()
    before = plant.heard("training-completed")
    plant.crash()
    plant.start()
    plant.settle()
    raw = [m.headers()[4][1] for m in plant.bus.read(("training-completed", 0), 0, 99)]
    assert len(raw) == 2
    assert raw[0] == raw[1]
    assert plant.heard("training-completed") == before


def test_without_local_state_the_run_is_folded_again_from_the_log(plant):
    plant.ask()
    plant.learned(6)
    plant.crash()
    for path in sorted((plant.home / "state").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    plant.start()
    plant.learned(3)
    assert plant.counts()["learned"] == 9
    assert plant.digest() == plant.plain()


def test_without_the_artifact_it_goes_on_from_the_run_is_folded_again(plant):
    plant.ask()
    plant.learned(6)
    plant.lockstep.close()
    plant.control.close()
    (shot,) = plant.snapshots()[-1].runs.values()
    plant.artifacts.delete(shot.uri)
    plant.start()
    plant.learned(3)
    assert plant.counts()["learned"] == 9
    assert plant.digest() == plant.plain()


def test_another_key_is_refused_before_anything_is_loaded(plant):
    plant.ask()
    plant.learned(3)
    plant.lockstep.close()
    plant.control.close()
    plant.start(b"another")
    with pytest.raises(StateForeign):
        plant.settle()


def test_a_topic_created_anew_is_refused(plant):
    plant.ask()
    plant.learned(3)
    plant.lockstep.close()
    plant.control.close()
    spec = plant.bus.topic_config("rain.labelled-examples")
    plant.bus.delete_topic("rain.labelled-examples")
    from headrace.infra.bus import TopicSpec

    plant.bus.create_topics([TopicSpec("rain.labelled-examples", 1, spec)])
    plant.start()
    with pytest.raises(StateForeign, match="created anew"):
        plant.settle()


def test_a_state_of_runs_that_lacks_what_this_version_keeps_is_refused(plant, monkeypatch):
    plant.ask()
    plant.learned(3)
    plant.lockstep.close()
    plant.control.close()
    monkeypatch.setattr(saved, "FIELDS", (*saved.FIELDS, "more"))
    plant.start()
    with pytest.raises(StateForeign, match=r"lacks 'more'.*headrace reset trainer"):
        plant.settle()


# --- poison ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("refresh", ["", EVERY_LABEL], ids=["each second", "each label"])
def test_what_cannot_be_learned_twice_is_recorded_and_skipped_and_changes_nothing(tmp_path, refresh, trainer_plant):
    plant = trainer_plant(tmp_path, refresh, poison="ValueError")
    plant.ask()
    plant.learned(5)
    plant.repeat(3)
    plant.repeat(4)
    plant.learned(x=99.0)
    plant.learned(3)
    plant.learned(x=-99.0)
    plant.learned(2)
    failed = [e for e in plant.heard("training-runs") if isinstance(e, TrainingFailed)]
    assert [(e.offset, e.reason) for e in failed] == [(7, "ValueError: cannot"), (11, "ValueError: cannot")]
    good = [row for row in plant.rows if abs(row[0]["x"]) < 3]
    assert (plant.counts()["learned"], plant.counts()["skipped"]) == (len(good), 2)
    assert plant.digest() == plant.plain(good)
    assert plant.newest()[1].skipped == (7, 11)


def test_poison_met_again_after_a_crash_is_recorded_once(tmp_path, trainer_plant):
    plant = trainer_plant(tmp_path, poison="ValueError")
    plant.ask()
    plant.learned(3)
    plant.lockstep._runner._next_commit = float("inf")
    plant.now += 0.1
    plant.label(x=99.0)
    plant.label(2)
    plant.lockstep.tick()
    plant.crash()
    plant.start()
    plant.settle()
    assert len([e for e in plant.heard("training-runs") if isinstance(e, TrainingFailed)]) == 1
    assert plant.digest() == plant.plain([row for row in plant.rows if row[0]["x"] < 3])


@pytest.mark.parametrize("trouble", ["MemoryError", "OSError"])
def test_trouble_of_the_machine_ends_the_process_and_skips_nothing(tmp_path, trouble, trainer_plant):
    plant = trainer_plant(tmp_path, poison=trouble)
    plant.ask()
    plant.learned(3)
    plant.label(x=99.0)
    with pytest.raises(StepFailed, match=f"offset 3: {trouble}"):
        plant.settle()
    assert not [e for e in plant.heard("training-runs") if isinstance(e, TrainingFailed)]


# --- thinning ----------------------------------------------------------------------------------------------


def test_old_revisions_go_and_what_an_alias_names_stays(tmp_path, trainer_plant):
    plant = trainer_plant(tmp_path, EVERY_LABEL)
    plant.ask()
    plant.learned(5)
    (shot,) = plant.snapshots()[2].runs.values()
    (run,) = plant.snapshots()[2].runs
    plant.say(
        "control-log",
        ModelUpdated(
            pipeline="rain",
            alias="champion",
            version=1,
            run=run,
            release=1,
            snapshot_offset=3,
            uri=shot.uri,
            follows=True,
            epoch=1,
            reason="",
        ),
    )
    plant.learned(20)
    plant.now += 40 * 86_400
    plant.learned(12)
    plant.now += 2 * 3_600
    plant.settle()
    kept = [taken.offset for taken in plant.snapshots() if plant.artifacts.exists(next(iter(taken.runs.values())).uri)]
    assert kept == [3, 26, *range(28, 38)]  # 26 stands for its hour
    assert plant.counts()["revisions"] == 12


def test_the_store_holds_no_more_than_pickles_of_plain_data(plant):
    plant.ask()
    plant.learned(3)
    run = next(iter(plant.lockstep._workers()[0].runs.values()))
    assert run.base is not None
    assert b"LogisticRegression" not in run.base.rest
    state, _ = pickle.loads(run.base.rest)
    assert (state.model, state.n_learned) == (None, 1)


def test_a_plain_recipe_through_the_shell_is_rivers(plant):
    model = preprocessing.StandardScaler() | linear_model.LogisticRegression()
    for x, y in plant.rows:
        model.learn_one(x, y)
    plant.ask()
    plant.learned(30)
    assert plant.digest() == plant.plain()


def test_a_run_whose_next_examples_are_deleted_is_refused_and_skips_none(plant):
    plant.ask()
    plant.learned(20)
    plant.lockstep.close()
    plant.control.close()
    place = ("rain.labelled-examples", 0)
    plant.label(5)
    plant.bus.delete_records(place, 23)
    plant.start()
    with pytest.raises(HistoryGone, match=r"offset 20 of rain.labelled-examples partition 0.*begins at 23.*release"):
        plant.settle()


def test_a_run_that_learned_what_the_log_lost_is_refused(plant):
    plant.ask()
    plant.learned(20)
    plant.lockstep.close()
    plant.control.close()
    plant.bus.cut_back(("rain.labelled-examples", 0), 15)
    plant.start()
    with pytest.raises(BeyondLog, match=r"offset 20 of rain.labelled-examples partition 0.*ends at 15"):
        plant.settle()
